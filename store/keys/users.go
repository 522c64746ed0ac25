package keys

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
)

// PutUser tells the Manager of a user: it adds the user, or replaces what is known
// of one (D42). The whole of u counts: an empty Tier takes the tier away, and a zero
// SuspendedAt lifts a suspension, so what knows less than the host, such as a
// sign-in, uses [Manager.SignIn]. Two fields are exceptions.
// Permitted is used only for a user that is not known yet: afterwards the grant is
// the owners', who set it with [Manager.SetPermitted], and a push of everything
// else must not take it back (S32). Version is not used: the last call wins, since
// the host is the source of what it pushes.
//
// Surrounding blanks of Email are cut. Keys hang on u.ID, which never changes; a
// changed Email must be sent from then on, and the old one is refused (D16).
// Requests here follow from the return of PutUser on. A call that changes nothing
// writes nothing, so it may be made at every sign-in.
//
// In the trail its actor is an operator without an ID: the host itself.
//
// The error is a joined [FieldError] for each bad field, or a failure of the store.
func (m *Manager) PutUser(ctx context.Context, u *store.User) error {
	a := m.begin(audit.UserPut, Actor{Role: Operator}, u.Org, u.ID, "")
	err := m.putUser(ctx, a, u)
	if err != nil || a.writing {
		a.end(ctx, err)
	}
	return err
}

func (m *Manager) putUser(ctx context.Context, a *act, u *store.User) error {
	v, err := usable(u)
	if err != nil {
		return err
	}
	return m.changeUser(ctx, a, "put user", v.Org, v.ID, func(known *store.User) (store.User, error) {
		if known != nil {
			v.Permitted, v.Version = known.Permitted, known.Version
		} else {
			v.Version, v.Permitted = 0, u.Permitted
		}
		return v, nil
	})
}

// usable returns u as it can be stored, or what is wrong with it.
func usable(u *store.User) (store.User, error) {
	v := *u
	v.Email = strings.TrimSpace(v.Email)
	v.SuspendedAt = instant(v.SuspendedAt)
	var ps problems
	ps.check("Org", checkText(v.Org))
	ps.check("ID", checkText(v.ID))
	ps.check("Email", checkOptionalText(v.Email))
	ps.check("Tier", checkOptionalText(v.Tier))
	if v.SuspendedAt.IsZero() != u.SuspendedAt.IsZero() || v.SuspendedAt.Year() < 1 || v.SuspendedAt.Year() > 9999 {
		ps.add("SuspendedAt", "must be zero or a time of the years 1 to 9999")
	}
	return v, ps.err()
}

// SignIn brings what is known of a user up to date when the user signs in, and
// returns it; a user who is not known yet is added. The function is given what is
// known, to change Email, Tier, Owner or SuspendedAt, or refuses the sign-in by an
// error, which SignIn returns, wrapped. It may be called several times, on what is
// known at that moment, so that nothing that others write meanwhile is lost, a
// suspension above all: it must do nothing but change u. The grant is not its to
// change (S32).
//
// A sign-in that changes nothing writes nothing. In the trail the user is the actor
// of one that does; one that the function refuses is not there, since it changed
// nothing and is the Authenticator's to report.
//
// The errors are that of the function; a joined [FieldError] for each bad field; or
// a failure of the store.
func (m *Manager) SignIn(ctx context.Context, org, user string, edit func(u *store.User) error) (*store.User, error) {
	known, err := m.user(ctx, org, user)
	if err == nil {
		// What is read for most sign-ins suffices: no cache has to forget anything.
		v, err := edited(known, org, user, edit)
		if err != nil {
			return nil, fmt.Errorf("keys: sign in: %w", err)
		}
		if v == *known {
			return known, nil
		}
	} else if !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("keys: sign in: %w", err)
	}
	a := m.begin(audit.UserPut, Actor{ID: user}, org, user, "")
	var refused error
	err = m.changeUser(ctx, a, "sign in", org, user, func(known *store.User) (v store.User, _ error) {
		v, refused = edited(known, org, user, edit)
		return v, refused
	})
	if a.writing || err != nil && refused == nil {
		a.end(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	return m.User(ctx, org, user)
}

// edited returns what edit makes of a user, or of a new one if known is nil.
func edited(known *store.User, org, user string, edit func(u *store.User) error) (store.User, error) {
	v := store.User{Org: org, ID: user}
	if known != nil {
		v = *known
	}
	before := v
	if err := edit(&v); err != nil {
		return v, err
	}
	v.Org, v.ID, v.Permitted, v.Version = before.Org, before.ID, before.Permitted, before.Version
	return usable(&v)
}

// SetPermitted grants a user the right to have and use keys while the organization
// restricts that, or withdraws it (S31, S33). The grant is remembered while there
// is no restriction (S32). Requests here follow from the return of SetPermitted on.
//
// Only owners grant (S30): [ErrForbidden] for other actors. [store.ErrNotFound] if
// there is no such user.
func (m *Manager) SetPermitted(ctx context.Context, actor Actor, org, user string, permitted bool) error {
	a := m.begin(audit.UserPermission, actor, org, user, "")
	err := m.setPermitted(ctx, a, actor, org, user, permitted)
	a.end(ctx, err)
	return err
}

func (m *Manager) setPermitted(ctx context.Context, a *act, actor Actor, org, user string, permitted bool) error {
	if !actor.Role.manages() {
		return ErrForbidden
	}
	return m.changeUser(ctx, a, "set permitted", org, user, func(known *store.User) (store.User, error) {
		if known == nil {
			return store.User{}, store.ErrNotFound
		}
		v := *known
		v.Permitted = permitted
		return v, nil
	})
}

// changeUser writes what edit makes of a user, nil if there is none, unless that
// is the same. It starts over if somebody else changed the user meanwhile.
func (m *Manager) changeUser(ctx context.Context, a *act, what, org, user string, edit func(known *store.User) (store.User, error)) error {
	defer m.forgetUser(org, user) // also of what another process wrote
	for range maxConflicts {
		known, err := m.user(ctx, org, user)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("keys: %s: %w", what, err)
		}
		v, err := edit(known)
		if err != nil {
			return fmt.Errorf("keys: %s: %w", what, err)
		}
		if known != nil && v == *known {
			return nil
		}
		if err := a.intend(ctx, userChanges(known, &v)); err != nil {
			return err
		}
		err = m.store.PutUser(ctx, &v)
		if err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("keys: %s: %w", what, err)
		}
	}
	return fmt.Errorf("keys: %s: %w", what, store.ErrConflict)
}

// User returns a user: [store.ErrNotFound] if there is none.
func (m *Manager) User(ctx context.Context, org, id string) (*store.User, error) {
	u, err := m.user(ctx, org, id)
	if err != nil {
		return nil, fmt.Errorf("keys: user: %w", err)
	}
	return u, nil
}

// Users returns the users of an organization that q asks for, ordered by ID; q.Org
// is required. A page shorter than q.Limit is the last.
func (m *Manager) Users(ctx context.Context, q store.UserQuery) ([]*store.User, error) {
	var ps problems
	ps.check("Org", checkText(q.Org))
	ps.check("ID", checkOptionalText(q.ID))
	ps.check("After", checkOptionalText(q.After))
	ps.check("Limit", checkLimit(q.Limit))
	if err := ps.err(); err != nil {
		return nil, err
	}
	us, err := m.store.Users(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("keys: users: %w", err)
	}
	return us, nil
}

// user reads a user from the store. An empty ID in a UserQuery would select
// everybody.
func (m *Manager) user(ctx context.Context, org, id string) (*store.User, error) {
	if checkText(org) != "" || checkText(id) != "" {
		return nil, store.ErrNotFound
	}
	us, err := m.store.Users(ctx, store.UserQuery{Org: org, ID: id, Limit: 1})
	switch {
	case err != nil:
		return nil, err
	case len(us) == 0:
		return nil, store.ErrNotFound
	}
	return us[0], nil
}
