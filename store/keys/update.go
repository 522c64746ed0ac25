package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
)

// UpdateParams are the parameters of [Manager.Update]. What is nil stays as it is.
// The rules for the fields are those of [CreateParams].
type UpdateParams struct {
	Actor Actor
	Ref   Ref

	// Version is that of the key as the caller knows it. If the key was changed
	// since, Update changes nothing and returns [store.ErrConflict].
	// Defaults to 0: whatever version the key has.
	Version int64

	Name       *string
	Scopes     *[]string
	DailyLimit *int64

	// NotAfter is the new end of the key; a zero Time takes the end away. An end
	// that has passed is final (D23): the key cannot be brought back by a later one.
	NotAfter *time.Time

	// Disabled is what [Manager.Disable] and [Manager.Enable] set, for callers who
	// change it together with something else.
	Disabled *bool
}

// Update changes a key and returns it as it is then. All fields are changed, or
// none.
//
// The errors are: [ErrForbidden] for a Disabled that no owner sets; a joined
// [FieldError] for each bad parameter; [store.ErrNotFound] if there is no such key
// or it is revoked; [store.ErrConflict]; and [ErrNotActive] for a new NotAfter of a
// key whose own end has passed.
func (m *Manager) Update(ctx context.Context, p UpdateParams) (*store.Key, error) {
	a := m.begin(audit.KeyUpdate, p.Actor, p.Ref.Org, p.Ref.User, p.Ref.ID)
	k, err := m.update(ctx, a, p)
	a.end(ctx, err)
	return k, err
}

func (m *Manager) update(ctx context.Context, a *act, p UpdateParams) (*store.Key, error) {
	if p.Disabled != nil && !p.Actor.Role.manages() {
		return nil, ErrForbidden
	}
	now := m.now()
	var ps problems
	var name string
	if p.Name != nil {
		name = strings.TrimSpace(*p.Name)
		ps.check("Name", checkName(name))
	}
	if p.Scopes != nil {
		ps.check("Scopes", checkScopes(*p.Scopes))
	}
	if p.DailyLimit != nil {
		ps.check("DailyLimit", m.checkDailyLimit(*p.DailyLimit, p.Actor))
	}
	var notAfter time.Time
	if p.NotAfter != nil {
		notAfter = instant(*p.NotAfter)
		ps.check("NotAfter", checkNotAfter(*p.NotAfter, now))
	}
	if err := ps.err(); err != nil {
		return nil, err
	}

	return m.change(ctx, a, "update key", p.Ref, func(k *store.Key, now time.Time) (bool, error) {
		if p.Version != 0 && p.Version != k.Version {
			return false, store.ErrConflict
		}
		if p.Name != nil {
			k.Name = name
		}
		if p.Scopes != nil {
			if err := m.mayGive(ctx, k, *p.Scopes, p.Actor); err != nil {
				return false, err
			}
			k.Scopes = slices.Clone(*p.Scopes)
		}
		if p.DailyLimit != nil {
			k.DailyLimit = *p.DailyLimit
		}
		if p.NotAfter != nil {
			if !k.NotAfter.IsZero() && !now.Before(k.NotAfter) {
				return false, ErrNotActive
			}
			k.NotAfter = notAfter
		}
		if p.Disabled != nil {
			setDisabled(k, *p.Disabled, now)
		}
		return true, nil
	})
}

// mayGive refuses scopes that k does not have and its user may not give.
func (m *Manager) mayGive(ctx context.Context, k *store.Key, scopes []string, a Actor) error {
	if m.mayGiveScope == nil {
		return nil // and the user need not be read
	}
	u, err := m.user(ctx, k.Org, k.User)
	if err != nil {
		return fmt.Errorf("user: %w", err)
	}
	var ps problems
	ps.check("Scopes", m.checkGiven(u, scopes, k.Scopes, a))
	return ps.err()
}

// Disable makes a key stop working until it is enabled, and returns it as it is
// then. It keeps its place under the cap (D10). Requests here are refused from the
// return of Disable on; it tries again by itself if the key is being changed by
// somebody else. Disabling a disabled key changes nothing.
//
// Only owners disable keys, since their status says so (D12): [ErrForbidden] for
// other actors. [store.ErrNotFound] if there is no such key or it is revoked.
func (m *Manager) Disable(ctx context.Context, actor Actor, ref Ref) (*store.Key, error) {
	a := m.begin(audit.KeyDisable, actor, ref.Org, ref.User, ref.ID)
	k, err := m.disable(ctx, a, actor, ref)
	a.end(ctx, err)
	return k, err
}

func (m *Manager) disable(ctx context.Context, a *act, actor Actor, ref Ref) (*store.Key, error) {
	if !actor.Role.manages() {
		return nil, ErrForbidden
	}
	return m.change(ctx, a, "disable key", ref, func(k *store.Key, now time.Time) (bool, error) {
		return setDisabled(k, true, now), nil
	})
}

// setDisabled disables k as of now, or enables it, and reports whether that changes
// it.
func setDisabled(k *store.Key, disabled bool, now time.Time) bool {
	if disabled != k.DisabledAt.IsZero() {
		return false
	}
	k.DisabledAt = time.Time{}
	if disabled {
		k.DisabledAt = now
	}
	return true
}

// Enable undoes [Manager.Disable], with the same errors.
func (m *Manager) Enable(ctx context.Context, actor Actor, ref Ref) (*store.Key, error) {
	a := m.begin(audit.KeyEnable, actor, ref.Org, ref.User, ref.ID)
	k, err := m.enable(ctx, a, actor, ref)
	a.end(ctx, err)
	return k, err
}

func (m *Manager) enable(ctx context.Context, a *act, actor Actor, ref Ref) (*store.Key, error) {
	if !actor.Role.manages() {
		return nil, ErrForbidden
	}
	return m.change(ctx, a, "enable key", ref, func(k *store.Key, now time.Time) (bool, error) {
		return setDisabled(k, false, now), nil
	})
}

// Revoke ends a key for good and at once, a key in the grace period of its
// rotation too (S19). Requests here are refused from the return of Revoke on, also
// ones whose lookup was under way; other processes follow within
// [store.CacheOptions.TTL]. No clock matters: what is revoked stays so where one is
// behind or is set back. Revoke tries again by itself if the key is being changed by somebody else.
//
// [store.ErrNotFound] if there is no such key or it is revoked already (D28). After
// any other error it is not known whether the key is revoked: call Revoke again,
// and take ErrNotFound for success.
func (m *Manager) Revoke(ctx context.Context, actor Actor, ref Ref) error {
	a := m.begin(audit.KeyRevoke, actor, ref.Org, ref.User, ref.ID)
	_, err := m.change(ctx, a, "revoke key", ref, func(k *store.Key, now time.Time) (bool, error) {
		k.RevokedAt, k.Revoked = now, true
		return true, nil
	})
	a.end(ctx, err)
	return err
}

// change reads a key that is not revoked, lets edit change it, and writes it if
// edit reports a change. It starts over if somebody else changed the key meanwhile.
// It returns the key as it is then.
func (m *Manager) change(ctx context.Context, a *act, what string, ref Ref, edit func(k *store.Key, now time.Time) (bool, error)) (*store.Key, error) {
	for range maxConflicts {
		now := m.now()
		k, err := m.key(ctx, ref, now)
		if err != nil {
			return nil, fmt.Errorf("keys: %s: %w", what, err)
		}
		a.found(k)
		before := *k
		changed, err := edit(k, now)
		if err != nil {
			return nil, fmt.Errorf("keys: %s: %w", what, err)
		}
		if !changed {
			m.forget(k) // perhaps another process made it so
			return k, nil
		}
		if err := a.intend(ctx, keyChanges(&before, k)); err != nil {
			return nil, err
		}
		err = m.updateKey(ctx, k)
		if err == nil {
			k.Version++
			return k, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return nil, fmt.Errorf("keys: %s: %w", what, err)
		}
	}
	return nil, fmt.Errorf("keys: %s: %w", what, store.ErrConflict)
}

func (m *Manager) updateKey(ctx context.Context, k *store.Key) error {
	defer m.forget(k)
	return m.store.UpdateKey(ctx, k)
}
