package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/token"
)

// MaxGrace is the longest grace period of a rotation: 30 days. A key that is to
// work beside another for longer is a second key, and is to be seen and counted as
// one.
const MaxGrace = 30 * 24 * time.Hour

// RotateParams are the parameters of [Manager.Rotate].
type RotateParams struct {
	Actor Actor
	Ref   Ref

	// Grace is how long the old token works beside the new one, from 0 to
	// [MaxGrace].
	// Defaults to 0: it stops at once.
	Grace time.Duration
}

// Rotate gives a key a new token (D39): it makes a new key with the name, scopes,
// limit, end and family of the old one, and ends the old one after the grace
// period, in one step. It returns the new key, and its token this once.
//
// The organization's period counts from the rotation, the key's own end stays.
// Both tokens spend the quota of the family, so the overlap does not double it.
// The old key does not count toward the cap any more: a rotation without a grace is
// never refused for it. With one, as many keys of a user as the cap may be in their
// grace, so that at most twice as many tokens work; whoever needs another one
// revokes one of those, or rotates without a grace. Nor is the user's tier looked
// at, which is a matter of creation (D26). A key that is being rotated away can be
// revoked before its time, and cannot be rotated again.
//
// The errors are: a [FieldError] for a bad Grace; [store.ErrNotFound] if there is
// no such key or it is revoked; and [ErrNotActive] if it does not work now: it is
// expired, disabled, rotated already, or its user is suspended or without a needed
// grant (D35); and a [LimitError] for too many keys in their grace. These are
// counted before the step that replaces the key, and not in it: rotations of
// different keys at the same time can exceed that bound, by no more than the keys
// that the user has. Of concurrent rotations of one key exactly one succeeds. After any
// other error the rotation may have taken place with a token that nobody knows;
// with a grace period there is time to notice.
func (m *Manager) Rotate(ctx context.Context, p RotateParams) (token.Token, *store.Key, error) {
	a := m.begin(audit.KeyRotate, p.Actor, p.Ref.Org, p.Ref.User, p.Ref.ID)
	t, k, err := m.rotate(ctx, a, p)
	a.end(ctx, err)
	return t, k, err
}

func (m *Manager) rotate(ctx context.Context, a *act, p RotateParams) (token.Token, *store.Key, error) {
	if p.Grace < 0 || p.Grace > MaxGrace {
		days := strconv.Itoa(int(MaxGrace / (24 * time.Hour)))
		return token.Token{}, nil, &FieldError{Field: "Grace", Problem: "must be from 0 to " + days + " days"}
	}
	for range maxConflicts {
		t, k, err := m.rotateOnce(ctx, a, p)
		if err == nil {
			return t, k, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return token.Token{}, nil, fmt.Errorf("keys: rotate key: %w", err)
		}
	}
	return token.Token{}, nil, fmt.Errorf("keys: rotate key: %w", store.ErrConflict)
}

func (m *Manager) rotateOnce(ctx context.Context, a *act, p RotateParams) (token.Token, *store.Key, error) {
	now := m.now()
	old, err := m.key(ctx, p.Ref, now)
	if err != nil {
		return token.Token{}, nil, err
	}
	a.found(old)
	if !old.RevokedAt.IsZero() {
		return token.Token{}, nil, fmt.Errorf("%w: rotated already", ErrNotActive)
	}
	u, s, err := m.circumstances(ctx, old)
	if err != nil {
		return token.Token{}, nil, err
	}
	if st := StatusOf(store.NewRecord(old, u), s, now); st.State != Active {
		return token.Token{}, nil, fmt.Errorf("%w: %s", ErrNotActive, st.Reasons[0])
	}

	if p.Grace > 0 && m.maxPerUser >= 0 {
		n, err := m.inGrace(ctx, old.Org, old.User, now)
		if err != nil {
			return token.Token{}, nil, err
		}
		if n >= m.maxPerUser {
			return token.Token{}, nil, &LimitError{Limit: m.maxPerUser, Grace: true}
		}
	}

	k := *old
	k.Family = cmp.Or(old.Family, old.ID)
	k.Scopes = slices.Clone(old.Scopes)
	k.CreatedAt = now
	k.Version = 1
	old.RevokedAt, old.Revoked = instant(now.Add(p.Grace)), p.Grace == 0
	// No cap: one key comes and one goes, also for a user who has more than a cap
	// that was lowered.
	t, err := m.insert(ctx, a, &k, old, -1)
	if err != nil {
		return token.Token{}, nil, err
	}
	return t, &k, nil
}

// inGrace counts the replaced keys of a user that still work.
func (m *Manager) inGrace(ctx context.Context, org, user string, now time.Time) (n int, err error) {
	for page, err := range m.pages(ctx, store.Query{Org: org, User: user, Revoked: true, Limit: maxPage}) {
		if err != nil {
			return 0, err
		}
		for _, k := range page {
			if !k.Revoked && k.RevokedAt.After(now) {
				n++
			}
		}
	}
	return n, nil
}
