package keys

import (
	"context"
	"fmt"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
)

// An Allowance is what a user may make keys with.
type Allowance struct {
	User     *store.User
	Settings *policy.Settings // those in force
	Places   Places

	// MaxDailyLimit is the largest daily limit that the Actor may set (D7): -1 is any,
	// and "unlimited" too for who manages the organization.
	MaxDailyLimit int64

	// Refusal is the error that [Manager.Create] would return now whatever the
	// parameters: ErrSuspended, ErrNotPermitted, ErrTier or a *LimitError. It is nil
	// if a key can be made.
	Refusal error
}

// Allowance tells what a user may make keys with, and whether at all, for people to
// be told before they try. It reserves nothing, and binds nobody: Create decides
// anew. [store.ErrNotFound] if there is no such user.
func (m *Manager) Allowance(ctx context.Context, actor Actor, org, user string) (Allowance, error) {
	k := &store.Key{Org: org, User: user}
	u, s, err := m.circumstances(ctx, k)
	if err != nil {
		return Allowance{}, fmt.Errorf("keys: allowance: %w", err)
	}
	p, err := m.Places(ctx, org, user)
	if err != nil {
		return Allowance{}, err
	}
	a := Allowance{User: u, Settings: s, Places: p, MaxDailyLimit: m.maxDailyLimit}
	if actor.Role.manages() {
		a.MaxDailyLimit = -1
	}
	a.Refusal = m.mayCreate(store.NewRecord(k, u), s, m.now(), actor)
	if a.Refusal == nil && p.Limit >= 0 && len(p.KeyIDs) >= p.Limit {
		a.Refusal = &LimitError{Limit: p.Limit}
	}
	return a, nil
}
