package simulate_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// A broken is a service with a part that is not as it should be; the zero one is as
// it should be.
type broken struct {
	wrapBackend func(backend) backend
	wrapLimiter func(*ratelimit.Daily) ratelimit.Limiter
	makePolicy  func(ratelimit.Counter, *clock) policy.Policy
}

func (b broken) backend(l *wire) backend {
	if b.wrapBackend == nil {
		return l
	}
	return b.wrapBackend(l)
}

func (b broken) limiter(d *ratelimit.Daily) ratelimit.Limiter {
	if b.wrapLimiter == nil {
		return d
	}
	return b.wrapLimiter(d)
}

func (b broken) policy(c ratelimit.Counter, k *clock) policy.Policy {
	if b.makePolicy == nil {
		return nil
	}
	return b.makePolicy(c, k)
}

// without returns a service whose Guards lack one of the rules.
func without(rules ...policy.Policy) broken {
	return broken{makePolicy: func(ratelimit.Counter, *clock) policy.Policy { return policy.All(rules...) }}
}

// A storm finds what is wrong with a service: every kind of fault that it is there
// for is found by one of a few seeds.
func TestStormFindsWhatIsBroken(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		found string // a part of what is said
		broken
	}{
		{"a Guard without expiry", "node", without(policy.Enabled(), policy.PermittedUsers(), policy.AllowedIPs())},
		{"a Guard without addresses", "node", without(policy.Enabled(), policy.PermittedUsers(), policy.Expiry())},
		{"a Guard without grants", "node", without(policy.Enabled(), policy.Expiry(), policy.AllowedIPs())},
		{"a Guard without owners", "node", without(policy.PermittedUsers(), policy.Expiry(), policy.AllowedIPs())},
		{"a Guard with the rules in another order", "node", without(policy.Expiry(), policy.AllowedIPs(), policy.Enabled(), policy.PermittedUsers())},
		{"a Guard that counts what it refuses", "are counted", broken{makePolicy: countRefused}},
		{"a feed that tells of nothing", "node", broken{wrapBackend: func(b backend) backend { return silentFeed{b} }}},
		{"a feed that skips a change", "node", broken{wrapBackend: func(b backend) backend { return &skippingFeed{backend: b} }}},
		{"a cache that forgets no key", "node", broken{wrapBackend: func(b backend) backend { return &stuckKeys{backend: b} }}},
		{"a cache that forgets no settings", "node", broken{wrapBackend: func(b backend) backend { return &stuckSettings{backend: b} }}},
		{"a write that is lost", "lost", broken{wrapBackend: func(b backend) backend { return &lossyStore{backend: b} }}},
		{"a store without a cap", "has 6 keys", broken{wrapBackend: func(b backend) backend { return capless{b} }}},
		{"a counter that loses an addition", "were admitted", broken{wrapBackend: func(b backend) backend { return &lossyCounter{backend: b} }}},
		{"a lender that lends more than it counts", "were admitted", broken{wrapBackend: func(b backend) backend { return generous{b} }}},
		{"a lender that keeps what comes back", "counted", broken{wrapBackend: func(b backend) backend { return greedy{b} }}},
		{"a limiter that admits when the counter fails", "were admitted", broken{wrapLimiter: func(d *ratelimit.Daily) ratelimit.Limiter { return failOpen{d} }}},
		{"a limiter that spends twice", "were admitted", broken{wrapLimiter: func(d *ratelimit.Daily) ratelimit.Limiter { return double{d} }}},
		{"a limiter that spends to look", "were admitted", broken{wrapLimiter: func(d *ratelimit.Daily) ratelimit.Limiter { return spendingPeek{d} }}},
		{"a limiter that keeps the first limit", "csk_live_", broken{wrapLimiter: func(d *ratelimit.Daily) ratelimit.Limiter { return &firstLimit{Daily: d} }}},
		{"uses that are written twice", "times", broken{wrapBackend: func(b backend) backend { return doubleUses{b} }}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 60; seed++ {
				if _, failure := run(t, stormy(seed), test.broken, nil); failure != "" {
					t.Log(failure)
					require.Contains(t, failure, test.found)
					return
				}
			}
			require.Fail(t, "nothing was found")
		})
	}
}

// countRefused is a policy with a side effect, which no policy may have.
func countRefused(c ratelimit.Counter, k *clock) policy.Policy {
	return policy.Func(func(r policy.Request) policy.Decision {
		d := policy.Default().Evaluate(r)
		if !d.Allow {
			_, _, _ = c.Add(context.Background(), r.Principal.Quota, k.Now().UTC().Truncate(24*time.Hour).Add(24*time.Hour), 1, defaultLimit)
		}
		return d
	})
}

// silentFeed renews everything.
type silentFeed struct{ backend }

func (f silentFeed) Changes(ctx context.Context, after int64) ([]store.Change, int64, error) {
	_, last, err := f.backend.Changes(ctx, after)
	if after >= 0 && err == nil {
		return nil, after, nil
	}
	return nil, last, err
}

// skippingFeed loses one change of each page.
type skippingFeed struct{ backend }

func (f *skippingFeed) Changes(ctx context.Context, after int64) ([]store.Change, int64, error) {
	changes, last, err := f.backend.Changes(ctx, after)
	if len(changes) > 1 {
		changes = changes[1:]
	}
	return changes, last, err
}

type stuckKeys struct {
	backend
	records sync.Map
}

func (s *stuckKeys) Lookup(ctx context.Context, d token.Digest) (*store.Record, error) {
	if r, ok := s.records.Load(d); ok {
		return r.(*store.Record), nil
	}
	r, err := s.backend.Lookup(ctx, d)
	if err == nil {
		s.records.Store(d, r)
	}
	return r, err
}

type stuckSettings struct {
	backend
	settings sync.Map
}

func (s *stuckSettings) Settings(ctx context.Context, org string) (*policy.Settings, error) {
	if v, ok := s.settings.Load(org); ok {
		return v.(*policy.Settings), nil
	}
	v, err := s.backend.Settings(ctx, org)
	if err == nil {
		s.settings.Store(org, v)
	}
	return v, err
}

type lossyStore struct {
	backend
	writes atomic.Int64
}

func (s *lossyStore) UpdateKey(ctx context.Context, k *store.Key) error {
	if s.writes.Add(1)%4 == 0 {
		return nil
	}
	return s.backend.UpdateKey(ctx, k)
}

type capless struct{ backend }

func (s capless) InsertKey(ctx context.Context, k, replaces *store.Key, _ int) error {
	return s.backend.InsertKey(ctx, k, replaces, -1)
}

type lossyCounter struct {
	backend
	adds atomic.Int64
}

func (c *lossyCounter) Add(ctx context.Context, key string, end time.Time, n, most int64) (int64, bool, error) {
	if n > 0 && c.adds.Add(1)%7 == 0 {
		count, _, err := c.backend.Add(ctx, key, end, 0, most)
		return count, err == nil && count < most, err
	}
	return c.backend.Add(ctx, key, end, n, most)
}

type generous struct{ backend }

func (g generous) Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	l, err := g.backend.Lend(ctx, account, key, end, spent, want, limit, now)
	if err == nil && want > 0 {
		l.Lent++
	}
	return l, err
}

type greedy struct{ backend }

func (g greedy) Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	if want <= 0 {
		return ratelimit.Loan{Lent: spent}, nil
	}
	return g.backend.Lend(ctx, account, key, end, spent, want, limit, now)
}

type failOpen struct{ *ratelimit.Daily }

func (l failOpen) Take(ctx context.Context, key string, limit int64) (ratelimit.Result, error) {
	r, err := l.Daily.Take(ctx, key, limit)
	if err != nil {
		return ratelimit.Result{OK: true}, nil
	}
	return r, nil
}

type double struct{ *ratelimit.Daily }

func (l double) Take(ctx context.Context, key string, limit int64) (ratelimit.Result, error) {
	if r, err := l.Daily.Take(ctx, key, limit); err != nil || !r.OK {
		return r, err
	}
	return l.Daily.Take(ctx, key, limit)
}

type spendingPeek struct{ *ratelimit.Daily }

func (l spendingPeek) Peek(ctx context.Context, key string, limit int64) (ratelimit.Result, error) {
	return l.Daily.Take(ctx, key, limit)
}

type firstLimit struct {
	*ratelimit.Daily
	limits sync.Map
}

func (l *firstLimit) Take(ctx context.Context, key string, limit int64) (ratelimit.Result, error) {
	first, _ := l.limits.LoadOrStore(key, limit)
	return l.Daily.Take(ctx, key, first.(int64))
}

type doubleUses struct{ backend }

func (u doubleUses) RecordUses(ctx context.Context, uses []store.Use) error {
	if err := u.backend.RecordUses(ctx, uses); err != nil {
		return err
	}
	return u.backend.RecordUses(ctx, uses)
}
