package simulate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// A backend is all that a node needs of the store.
type backend interface {
	store.Store
	store.Feed
	store.Uses
	ratelimit.Lender
}

// A wire is the way from a node to the store, on which things get lost.
type wire struct {
	w    *world
	node *node

	dead atomic.Bool // the node has crashed
	cut  atomic.Bool // nothing gets through for a while

	mu    sync.Mutex
	calls map[string]int64
	loans map[loan]lent
}

// A loan is what a node borrows under a limit. Units that it got of it are its own
// for a while, whatever others do meanwhile.
type loan struct {
	quota quota
	limit int64
}

// A lent says when a node got units last, and how many were served before.
type lent struct {
	at     time.Time
	served int64
}

// note notes that the node got units.
func (l *wire) note(of loan) {
	served := l.w.quotas.read(of.quota).served
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loans[of] = lent{time.Now(), served}
}

// holds reports whether the node may have units of a loan that it got when there
// was still room for them.
func (l *wire) holds(of loan) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	got, ok := l.loans[of]
	return ok && got.served < of.limit && time.Since(got.at) < ratelimit.LoanTime
}

var errDead = errors.New("the node is dead")

var _ backend = (*wire)(nil)

// call makes a call: do is its effect, which can come after call has returned with
// an error.
func (l *wire) call(ctx context.Context, name string, do func(ctx context.Context) error) error {
	if err := l.open(); err != nil {
		return err
	}
	l.mu.Lock()
	l.calls[name]++
	n := l.calls[name]
	l.mu.Unlock()
	var f fault
	if !l.w.calm.Load() {
		f = l.w.plan.fault(l.node.id, name, n)
	}
	if l.cut.Load() {
		f.kind = lost
	}
	if f.kind != none {
		l.w.tracef("node %d: %s %d: %v", l.node.id, name, n, f.kind)
	}
	effect := context.WithoutCancel(ctx)
	switch f.kind {
	case lost:
		return errFault
	case hanging:
		return l.hang(ctx)
	case late:
		err := l.hang(ctx)
		if l.open() == nil {
			l.w.later.Go(func() {
				pause(f.delay)
				_ = do(effect)
			})
		}
		return err
	case slowThere:
		if err := l.wait(ctx, f.delay); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("wire: %w", ctx.Err())
	}
	err := do(effect)
	switch f.kind {
	case unanswered:
		return errFault
	case slowBack:
		if err := l.wait(ctx, f.delay); err != nil {
			return err
		}
	}
	if dead := l.open(); dead != nil {
		return dead
	}
	return err
}

func (l *wire) open() error {
	if l.dead.Load() {
		return errDead
	}
	return nil
}

// hang waits until the caller gives up.
func (l *wire) hang(ctx context.Context) error {
	if err := l.wait(ctx, longest); err != nil {
		return err
	}
	return errFault
}

func (l *wire) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return l.open()
	case <-ctx.Done():
		return fmt.Errorf("wire: %w", ctx.Err())
	}
}

// ask is call for what has an answer.
func ask[T any](ctx context.Context, l *wire, name string, do func(ctx context.Context) (T, error)) (T, error) {
	var answer, nothing T
	if err := l.call(ctx, name, func(ctx context.Context) (err error) {
		answer, err = do(ctx)
		return err
	}); err != nil {
		return nothing, err
	}
	return answer, nil
}

// write is call for a write of rows.
func (l *wire) write(ctx context.Context, name string, do func(ctx context.Context) error, rows ...row) error {
	return l.call(ctx, name, func(ctx context.Context) error {
		return l.w.ledger.write(ctx, func() error { return do(ctx) }, rows...)
	})
}

func (l *wire) Lookup(ctx context.Context, d token.Digest) (*store.Record, error) {
	return ask(ctx, l, "lookup", func(ctx context.Context) (*store.Record, error) { return l.w.ledger.store.Lookup(ctx, d) })
}

func (l *wire) Settings(ctx context.Context, org string) (*policy.Settings, error) {
	return ask(ctx, l, "settings", func(ctx context.Context) (*policy.Settings, error) { return l.w.ledger.store.Settings(ctx, org) })
}

func (l *wire) Keys(ctx context.Context, q store.Query) ([]*store.Key, error) {
	return ask(ctx, l, "keys", func(ctx context.Context) ([]*store.Key, error) { return l.w.ledger.store.Keys(ctx, q) })
}

func (l *wire) Users(ctx context.Context, q store.UserQuery) ([]*store.User, error) {
	return ask(ctx, l, "users", func(ctx context.Context) ([]*store.User, error) { return l.w.ledger.store.Users(ctx, q) })
}

func (l *wire) InsertKey(ctx context.Context, k, replaces *store.Key, most int) error {
	rows := []row{{aKey, k.Org, k.ID}}
	if replaces != nil {
		rows = append(rows, row{aKey, replaces.Org, replaces.ID})
	}
	err := l.write(ctx, "insert key", func(ctx context.Context) error { return l.w.ledger.store.InsertKey(ctx, k, replaces, most) }, rows...)
	if n := l.w.ledger.unrevoked(k.Org, k.User); n > mostKeys {
		l.w.violation("%s has %d keys", k.User, n)
	}
	return err
}

func (l *wire) UpdateKey(ctx context.Context, k *store.Key) error {
	return l.write(ctx, "update key", func(ctx context.Context) error { return l.w.ledger.store.UpdateKey(ctx, k) }, row{aKey, k.Org, k.ID})
}

func (l *wire) PutUser(ctx context.Context, u *store.User) error {
	return l.write(ctx, "put user", func(ctx context.Context) error { return l.w.ledger.store.PutUser(ctx, u) }, row{aUser, u.Org, u.ID})
}

func (l *wire) UpdateSettings(ctx context.Context, s *policy.Settings) error {
	return l.write(ctx, "update settings", func(ctx context.Context) error { return l.w.ledger.store.UpdateSettings(ctx, s) },
		row{aSettings, s.Org, ""})
}

func (l *wire) PurgeKeys(ctx context.Context, before time.Time) (int, error) {
	return ask(ctx, l, "purge keys", func(ctx context.Context) (int, error) { return l.w.ledger.store.PurgeKeys(ctx, before) })
}

func (l *wire) RecordUses(ctx context.Context, uses []store.Use) error {
	uses = slices.Clone(uses) // the Guard's again when this returns, which may be before the effect
	return l.call(ctx, "record uses", func(ctx context.Context) error { return l.w.ledger.store.RecordUses(ctx, uses) })
}

func (l *wire) Uses(ctx context.Context, org string, ids []string) ([]store.UseSummary, error) {
	return ask(ctx, l, "uses", func(ctx context.Context) ([]store.UseSummary, error) { return l.w.ledger.store.Uses(ctx, org, ids) })
}

// A page is an answer of Changes.
type page struct {
	changes []store.Change
	last    int64
}

// Changes implements store.Feed. The node knows what happened before a poll that
// it got an answer to.
func (l *wire) Changes(ctx context.Context, after int64) ([]store.Change, int64, error) {
	began := time.Now()
	p, err := ask(ctx, l, "changes", func(ctx context.Context) (p page, err error) {
		p.changes, p.last, err = l.w.ledger.store.Changes(ctx, after)
		return p, err
	})
	if err == nil && ctx.Err() != nil {
		err = fmt.Errorf("wire: %w", ctx.Err())
	}
	if err != nil {
		return nil, 0, err
	}
	l.node.known.polled(began, after < 0)
	return p.changes, p.last, nil
}

// A sum is an answer of Add.
type sum struct {
	count int64
	ok    bool
}

func (l *wire) Add(ctx context.Context, key string, end time.Time, n, most int64) (int64, bool, error) {
	s, err := ask(ctx, l, "add", func(ctx context.Context) (s sum, err error) {
		s.count, s.ok, err = l.w.counts.Add(ctx, key, end, n, most)
		l.w.counted(key, end, s.count)
		return s, err
	})
	return s.count, s.ok, err
}

func (l *wire) Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	got, err := ask(ctx, l, "lend", func(ctx context.Context) (ratelimit.Loan, error) {
		a, err := l.w.counts.Lend(ctx, account, key, end, spent, want, limit, now)
		l.w.counted(key, end, a.Count)
		return a, err
	})
	switch {
	case err == nil && got.Lent > spent:
		l.note(loan{quota{key, end.UTC().Round(0)}, limit})
	case ctx.Err() != nil:
		// It may arrive when its account is forgotten, and lend to nobody.
		l.w.forfeit(key, end)
	}
	return got, err
}
