package simulate_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/memstore"
)

// A row names what a write changes.
type row struct {
	kind rowKind
	org  string
	id   string // of a key or user
}

type rowKind string

const (
	aKey      rowKind = "key"
	aUser     rowKind = "user"
	aSettings rowKind = "settings"
)

func (r row) String() string { return fmt.Sprint(r.kind, " ", r.org, " ", r.id) }

// A ledger knows every state that a row of the store ever had, and since when.
type ledger struct {
	store *memstore.Store

	mu       sync.Mutex // held by every write, so that the order here is that of the store
	keys     map[string]*history[store.Key]
	users    map[row]*history[store.User]
	settings map[string]*history[policy.Settings]
}

func newLedger() *ledger {
	return &ledger{
		store:    memstore.New(),
		keys:     make(map[string]*history[store.Key]),
		users:    make(map[row]*history[store.User]),
		settings: make(map[string]*history[policy.Settings]),
	}
}

// A history is the states of a row in their order. At first there was no row.
type history[T any] struct{ states []state[T] }

type state[T any] struct {
	since time.Time
	value *T // nil: there is no such row
}

// write does a write to the store, and notes what it has made of rows.
func (l *ledger) write(ctx context.Context, do func() error, rows ...row) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	for _, r := range rows {
		if err := l.note(context.WithoutCancel(ctx), r); err != nil {
			return err
		}
	}
	return nil
}

// note notes how a row is now.
func (l *ledger) note(ctx context.Context, r row) error {
	switch r.kind {
	case aKey:
		keys, err := l.store.Keys(ctx, store.Query{Org: r.org, ID: r.id, Revoked: true})
		if err != nil {
			return err
		}
		add(l.keys, r.id, first(keys))
	case aUser:
		users, err := l.store.Users(ctx, store.UserQuery{Org: r.org, ID: r.id})
		if err != nil {
			return err
		}
		add(l.users, r, first(users))
	case aSettings:
		s, err := l.store.Settings(ctx, r.org)
		if err != nil {
			return err
		}
		add(l.settings, r.org, s)
	}
	return nil
}

func first[T any](all []*T) *T {
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

func add[K comparable, T any](to map[K]*history[T], id K, value *T) {
	h := to[id]
	if h == nil {
		h = &history[T]{states: []state[T]{{}}}
		to[id] = h
	}
	h.states = append(h.states, state[T]{time.Now(), value})
}

// candidates returns the states of a row that somebody can go by who must know
// some changes of it, until an instant. The caller holds the lock of the ledger.
func candidates[T any](h *history[T], mustKnow func(changed time.Time) bool, until time.Time) []*T {
	if h == nil {
		return []*T{nil}
	}
	var found []*T
	for i, s := range h.states {
		outdated := i+1 < len(h.states) && mustKnow(h.states[i+1].since)
		if !outdated && !s.since.After(until) {
			found = append(found, s.value)
		}
	}
	return found
}

// held reports whether a row was once in such a state between two instants.
func held[T any](l *ledger, h func() *history[T], from, to time.Time, is func(*T) bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	never := func(changed time.Time) bool { return changed.Before(from) }
	for _, v := range candidates(h(), never, to) {
		if v != nil && is(v) {
			return true
		}
	}
	return false
}

// unrevoked returns how many keys a user has that are not revoked.
func (l *ledger) unrevoked(org, user string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, h := range l.keys {
		k := h.states[len(h.states)-1].value
		if k != nil && k.Org == org && k.User == user && k.RevokedAt.IsZero() {
			n++
		}
	}
	return n
}
