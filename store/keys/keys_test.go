package keys_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/token"
)

const (
	org = "acme"
	day = 24 * time.Hour
)

var (
	start    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	owner    = keys.Actor{ID: "olga", Role: keys.Owner}
	operator = keys.Actor{ID: "host", Role: keys.Operator}
	plain    = keys.Actor{ID: "ada"}

	errDown = errors.New("connection refused")
)

// A clock is the injected clock of a test.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

func (c *clock) Add(d time.Duration) { c.Set(c.Now().Add(d)) }

// A bundle is a Manager over a memory store with the users ada, bob (both plain)
// and olga (an owner), all of tier Pro.
type bundle struct {
	*keys.Manager
	t     *testing.T
	mem   *memstore.Store // what is really stored
	hook  *hooked         // what the Manager sees of it
	clock *clock
}

func setup(t *testing.T, opts *keys.Options) *bundle {
	t.Helper()
	b := &bundle{t: t, mem: memstore.New(), clock: &clock{t: start}}
	b.hook = &hooked{Store: b.mem, uses: b.mem}
	var o keys.Options
	if opts != nil {
		o = *opts
	}
	o.Now = b.clock.Now
	o.Uses = b.hook
	var err error
	b.Manager, err = keys.New(b.hook, &o)
	require.NoError(t, err)
	b.put(store.User{ID: "ada"})
	b.put(store.User{ID: "bob"})
	b.put(store.User{ID: "olga", Owner: true})
	return b
}

// used notes that a key was used once, at a time from an address.
func (b *bundle) used(k *store.Key, from string, at time.Time) {
	b.t.Helper()
	require.NoError(b.t, b.mem.RecordUses(b.t.Context(), []store.Use{{
		KeyID: k.ID, Addr: addr(from), UserAgent: "curl/8", First: at, Last: at, Count: 1,
	}}))
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// list parses a list of addresses.
func list(tb testing.TB, text string) policy.IPList {
	tb.Helper()
	l, err := policy.ParseIPList(text)
	require.NoError(tb, err)
	return l
}

// put pushes a user with what a test does not care about filled in.
func (b *bundle) put(u store.User) {
	b.t.Helper()
	if u.Org == "" {
		u.Org = org
	}
	if u.Email == "" {
		u.Email = u.ID + "@acme.example"
	}
	if u.Tier == "" {
		u.Tier = "Pro"
	}
	require.NoError(b.t, b.PutUser(b.t.Context(), &u))
}

// create makes a key of ada's.
func (b *bundle) create() (string, *store.Key) {
	b.t.Helper()
	return b.createFor("ada")
}

func (b *bundle) createFor(user string) (string, *store.Key) {
	b.t.Helper()
	t, k, err := b.Create(b.t.Context(), params(user))
	require.NoError(b.t, err)
	return t.Reveal(), k
}

func params(user string) keys.CreateParams {
	return keys.CreateParams{Org: org, User: user, Name: "export"}
}

func ref(k *store.Key) keys.Ref { return keys.Ref{Org: k.Org, User: k.User, ID: k.ID} }

// set changes the settings as an owner does.
func (b *bundle) set(change func(s *policy.Settings)) {
	b.t.Helper()
	s, err := b.Settings(b.t.Context(), org)
	require.NoError(b.t, err)
	c := *s
	change(&c)
	_, err = b.UpdateSettings(b.t.Context(), owner, &c)
	require.NoError(b.t, err)
}

func (b *bundle) permit(user string, permitted bool) {
	b.t.Helper()
	require.NoError(b.t, b.SetPermitted(b.t.Context(), owner, org, user, permitted))
}

// admitted is the answer to a request with a token.
const admitted policy.Reason = ""

// use returns the answer to a request with the token, by the order of S72.
func (b *bundle) use(secret string) policy.Reason {
	b.t.Helper()
	r, err := b.tryUse(b.t.Context(), secret)
	require.NoError(b.t, err)
	return r
}

func (b *bundle) tryUse(ctx context.Context, secret string) (policy.Reason, error) {
	now := b.clock.Now()
	v, err := b.Verifier().Verify(ctx, secret, now)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, token.ErrMalformed) {
		return policy.InvalidToken, nil
	}
	if err != nil {
		return policy.StoreUnavailable, err
	}
	return decide(v.Record, v.Settings, now), nil
}

func decide(r *store.Record, s *policy.Settings, now time.Time) policy.Reason {
	k, u := r.Key, r.User
	if !k.RevokedAt.IsZero() && !now.Before(k.RevokedAt) || !u.SuspendedAt.IsZero() {
		return policy.InvalidToken
	}
	return policy.Default().Evaluate(policy.Request{
		Principal: r.Principal, Settings: s, Time: now, Addr: netip.MustParseAddr("192.0.2.1"),
	}).Reason
}

// status returns the status of a key as the lists show it.
func (b *bundle) status(k *store.Key) keys.Status {
	b.t.Helper()
	k = b.stored(k.ID)
	u, err := b.User(b.t.Context(), k.Org, k.User)
	require.NoError(b.t, err)
	s, err := b.Settings(b.t.Context(), k.Org)
	require.NoError(b.t, err)
	return keys.StatusOf(store.NewRecord(k, u), s, b.clock.Now())
}

// stored reads a key from under the Manager, revoked or not.
func (b *bundle) stored(id string) *store.Key {
	b.t.Helper()
	ks, err := b.mem.Keys(b.t.Context(), store.Query{ID: id, Revoked: true})
	require.NoError(b.t, err)
	require.Len(b.t, ks, 1)
	return ks[0]
}

// count returns how many keys are stored; revoked ones too if all is set.
func (b *bundle) count(user string, all bool) int {
	b.t.Helper()
	ks, err := b.mem.Keys(b.t.Context(), store.Query{Org: org, User: user, Revoked: all, Limit: 1000})
	require.NoError(b.t, err)
	return len(ks)
}

// A hooked is a Store whose calls a test can watch, fail or prepare. It panics when
// it is given a time in a form that is not the stored one.
type hooked struct {
	store.Store
	uses   store.Uses
	mu     sync.Mutex
	before func(op string) error // an error is returned instead of the call
	after  func(op string) error // an error is returned although the call was made
}

// on sets the hooks; either may be nil.
func (h *hooked) on(before, after func(op string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before, h.after = before, after
}

func (h *hooked) call(op string, f func() error) error {
	h.mu.Lock()
	before, after := h.before, h.after
	h.mu.Unlock()
	if before != nil {
		if err := before(op); err != nil {
			return err
		}
	}
	err := f()
	if after != nil {
		if hookErr := after(op); hookErr != nil {
			return hookErr
		}
	}
	return err
}

func (h *hooked) Lookup(ctx context.Context, d token.Digest) (r *store.Record, err error) {
	err = h.call("Lookup", func() (err error) { r, err = h.Store.Lookup(ctx, d); return err })
	return r, err
}

func (h *hooked) Settings(ctx context.Context, org string) (s *policy.Settings, err error) {
	err = h.call("Settings", func() (err error) { s, err = h.Store.Settings(ctx, org); return err })
	return s, err
}

func (h *hooked) InsertKey(ctx context.Context, k, replaces *store.Key, max int) error {
	mustBeKept(k.CreatedAt, k.NotAfter, k.DisabledAt, k.RevokedAt)
	if replaces != nil {
		mustBeKept(replaces.RevokedAt)
	}
	return h.call("InsertKey", func() error { return h.Store.InsertKey(ctx, k, replaces, max) })
}

func (h *hooked) Keys(ctx context.Context, q store.Query) (ks []*store.Key, err error) {
	err = h.call("Keys", func() (err error) { ks, err = h.Store.Keys(ctx, q); return err })
	return ks, err
}

func (h *hooked) UpdateKey(ctx context.Context, k *store.Key) error {
	mustBeKept(k.NotAfter, k.DisabledAt, k.RevokedAt)
	return h.call("UpdateKey", func() error { return h.Store.UpdateKey(ctx, k) })
}

func (h *hooked) PurgeKeys(ctx context.Context, t time.Time) (n int, err error) {
	mustBeKept(t)
	err = h.call("PurgeKeys", func() (err error) { n, err = h.Store.PurgeKeys(ctx, t); return err })
	return n, err
}

func (h *hooked) Users(ctx context.Context, q store.UserQuery) (us []*store.User, err error) {
	err = h.call("Users", func() (err error) { us, err = h.Store.Users(ctx, q); return err })
	return us, err
}

func (h *hooked) PutUser(ctx context.Context, u *store.User) error {
	mustBeKept(u.SuspendedAt)
	return h.call("PutUser", func() error { return h.Store.PutUser(ctx, u) })
}

func (h *hooked) UpdateSettings(ctx context.Context, s *policy.Settings) error {
	return h.call("UpdateSettings", func() error { return h.Store.UpdateSettings(ctx, s) })
}

func (h *hooked) RecordUses(ctx context.Context, uses []store.Use) error {
	return h.call("RecordUses", func() error { return h.uses.RecordUses(ctx, uses) })
}

func (h *hooked) Uses(ctx context.Context, org string, ids []string) (sums []store.UseSummary, err error) {
	err = h.call("Uses", func() (err error) { sums, err = h.uses.Uses(ctx, org, ids); return err })
	return sums, err
}

// mustBeKept panics unless every store keeps the times as they are.
func mustBeKept(times ...time.Time) {
	for _, t := range times {
		if t.Location() != time.UTC || t.Nanosecond()%1000 != 0 || t != t.Round(0) {
			panic("not in the stored form: " + t.String())
		}
	}
}

// fields returns the names of the fields that err complains about, in its order,
// and nil if err is anything but that.
func fields(err error) []string {
	var names []string
	for _, e := range flatten(err) {
		fe, ok := errors.AsType[*keys.FieldError](e)
		if !ok {
			return nil
		}
		names = append(names, fe.Field)
	}
	return names
}

func flatten(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range j.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// trips returns a function that returns how many trips to the store the Manager has
// made, by method, since the call before.
func (b *bundle) trips() func() map[string]int {
	var mu sync.Mutex
	n := make(map[string]int)
	b.hook.on(func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		n[op]++
		return nil
	}, nil)
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		have := n
		n = make(map[string]int)
		return have
	}
}
