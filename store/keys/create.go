package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/token"
)

// CreateParams are the parameters of [Manager.Create].
type CreateParams struct {
	Actor Actor

	Org, User string // whose key it will be; the user must exist

	// Name is what people know the key by: 1 to 100 printable characters of any
	// script, not counting surrounding blanks, which are cut (D30). Names may
	// repeat.
	Name string

	// Scopes are what [policy.Scope] asks for: at most 50, each of at most 100
	// printable ASCII characters other than blank, quote and backslash (RFC 6749
	// section 3.3), without repetition, and each one that [Options.MayGiveScope] lets
	// the user's keys have. Without that option anybody may choose any: a scope is no
	// proof then that somebody else granted it.
	// Defaults to none.
	Scopes []string

	// DailyLimit is how many requests the key has a day, at most 999 999 999 999 999,
	// the largest number that the RateLimit fields can have; -1 is unlimited. A plain
	// user may set it up to [Options.MaxDailyLimit] and never to -1 (D7).
	// Defaults to the limit of the service.
	DailyLimit int64

	// NotAfter is the key's own end, which must lie ahead, or, if an [Operator] sets
	// it, after CreatedAt. The key is expired from then on, also if the
	// organization's period is longer (D23).
	// Defaults to none.
	NotAfter time.Time

	// CreatedAt is what the organization's period counts from; only an [Operator]
	// may set it, such as for a key that stands for an older one. It must not lie
	// ahead.
	// Defaults to now.
	CreatedAt time.Time
}

// Create makes a key, and returns its token. This is the only time that the token
// is seen: it is not stored, and nothing can bring it back (S16).
//
// The errors are: a joined [FieldError] for each bad parameter; [store.ErrNotFound]
// if there is no such user; [ErrSuspended]; [ErrNotPermitted] while the
// organization restricts keys and the user has no grant, owners included (S25,
// S29); [ErrTier]; and a [LimitError] if the user has as many keys as allowed,
// which the store counts and inserts in one step, so that concurrent calls never
// exceed the cap (S13). An [Operator] is bound by neither restriction nor tiers.
// After any other error a key may have been made whose token nobody knows: it
// counts toward the cap, is listed, and can be revoked.
func (m *Manager) Create(ctx context.Context, p CreateParams) (token.Token, *store.Key, error) {
	a := m.begin(audit.KeyCreate, p.Actor, p.Org, p.User, "")
	t, k, err := m.create(ctx, a, p)
	a.end(ctx, err)
	return t, k, err
}

func (m *Manager) create(ctx context.Context, a *act, p CreateParams) (token.Token, *store.Key, error) {
	now := m.now()
	k := &store.Key{
		Org:        p.Org,
		User:       p.User,
		Name:       strings.TrimSpace(p.Name),
		Scopes:     slices.Clone(p.Scopes),
		DailyLimit: p.DailyLimit,
		CreatedAt:  now,
		NotAfter:   instant(p.NotAfter),
		Version:    1,
	}
	var ps problems
	ps.check("Org", checkText(k.Org))
	ps.check("User", checkText(k.User))
	ps.check("Name", checkName(k.Name))
	ps.check("Scopes", checkScopes(k.Scopes))
	ps.check("DailyLimit", m.checkDailyLimit(k.DailyLimit, p.Actor))
	if !p.CreatedAt.IsZero() {
		k.CreatedAt = instant(p.CreatedAt)
		ps.check("CreatedAt", checkCreatedAt(k.CreatedAt, now, p.Actor))
	}
	begin := now
	if p.Actor.Role == Operator {
		begin = k.CreatedAt
	}
	ps.check("NotAfter", checkNotAfter(p.NotAfter, begin))
	if err := ps.err(); err != nil {
		return token.Token{}, nil, err
	}

	// What is read here can change before the key is inserted: a restriction, a
	// withdrawn grant or a suspension of the same instant can miss this creation.
	// That is the whole of the race: the use of the key is decided anew at each
	// request, so such a key is made but refused.
	u, s, err := m.circumstances(ctx, k)
	if err != nil {
		return token.Token{}, nil, fmt.Errorf("keys: create key: %w", err)
	}
	if err := m.mayCreate(store.NewRecord(k, u), s, now, p.Actor); err != nil {
		return token.Token{}, nil, err
	}
	ps.check("Scopes", m.checkGiven(u, p.Scopes, nil, p.Actor))
	if err := ps.err(); err != nil {
		return token.Token{}, nil, err
	}
	t, err := m.insert(ctx, a, k, nil, m.maxPerUser)
	switch {
	case errors.Is(err, store.ErrLimit):
		return token.Token{}, nil, &LimitError{Limit: m.maxPerUser}
	case err != nil:
		return token.Token{}, nil, fmt.Errorf("keys: create key: %w", err)
	}
	return t, k, nil
}

func checkCreatedAt(t, now time.Time, a Actor) string {
	switch {
	case a.Role != Operator:
		return "only an operator may set it"
	case t.After(now):
		return "must not lie in the future"
	case t.Year() < 1:
		return "must not lie before the year 1"
	}
	return ""
}

// circumstances reads what, beside the key, decides whether it works.
func (m *Manager) circumstances(ctx context.Context, k *store.Key) (*store.User, *policy.Settings, error) {
	u, err := m.user(ctx, k.Org, k.User)
	if err != nil {
		return nil, nil, fmt.Errorf("user: %w", err)
	}
	s, err := m.store.Settings(ctx, k.Org)
	if err != nil {
		return nil, nil, fmt.Errorf("settings: %w", err)
	}
	return u, s, nil
}

// mayCreate decides whether a key may be made for the user of r. It asks the
// policies that decide about the key's use, so that the two cannot differ.
func (m *Manager) mayCreate(r *store.Record, s *policy.Settings, now time.Time, a Actor) error {
	if !r.User.SuspendedAt.IsZero() {
		return ErrSuspended // operators too: the key would be of no use
	}
	if a.Role == Operator {
		return nil
	}
	req := policy.Request{Principal: r.Principal, Settings: s, Time: now}
	if !policy.PermittedUsers().Evaluate(req).Allow {
		return ErrNotPermitted
	}
	if m.tiers != nil && !m.tiers.Evaluate(req).Allow {
		return ErrTier
	}
	return nil
}

// insert gives k a new token and inserts it, in the place of another key if
// replaces is not nil. An ID that is taken makes it try another token (D27).
func (m *Manager) insert(ctx context.Context, a *act, k, replaces *store.Key, limit int) (token.Token, error) {
	var err error
	for range maxTokens {
		t := m.format.Generate()
		k.ID = t.ID()
		if replaces == nil {
			k.Family = k.ID
		}
		if k.Digest, err = m.format.Digest(t.Reveal()); err != nil {
			return token.Token{}, err
		}
		if err := a.intend(ctx, a.insertion(k, replaces)); err != nil {
			return token.Token{}, err
		}
		err = m.insertOnce(ctx, k, replaces, limit)
		if err == nil {
			return t, nil
		}
		if !errors.Is(err, store.ErrExists) {
			return token.Token{}, err
		}
	}
	return token.Token{}, fmt.Errorf("no unused ID in %d tries: %w", maxTokens, err)
}

// insertion returns what an insertion changes: for a rotation, of the old key.
func (a *act) insertion(k, replaces *store.Key) (cs changes) {
	if replaces == nil {
		a.event.KeyID = k.ID
		return keyChanges(new(store.Key), k)
	}
	cs.time("revoked_at", time.Time{}, replaces.RevokedAt)
	cs.text("replaced_by", "", k.ID)
	return cs
}

func (m *Manager) insertOnce(ctx context.Context, k, replaces *store.Key, limit int) error {
	defer m.forget(k)
	if replaces != nil {
		defer m.forget(replaces)
	}
	return m.store.InsertKey(ctx, k, replaces, limit)
}
