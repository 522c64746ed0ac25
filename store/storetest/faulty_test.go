package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/store/storetest"
	"github.com/keystile/keystile/token"
)

// A faulty is a memstore with a fault: a function that is set takes the place
// of a method, or is applied to what the store is given or returns.
type faulty struct {
	*memstore.Store
	down atomic.Bool // the memory cannot be reached

	// Applied to copies.
	keyIn, keyOut   func(k *store.Key)
	userIn, userOut func(u *store.User)

	lookup         func(ctx context.Context, d token.Digest) (*store.Record, error)
	settings       func(ctx context.Context, org string) (*policy.Settings, error)
	insertKey      func(ctx context.Context, k, replaces *store.Key, max int) error
	keys           func(ctx context.Context, q store.Query) ([]*store.Key, error)
	updateKey      func(ctx context.Context, k *store.Key) error
	purgeKeys      func(ctx context.Context, before time.Time) (int, error)
	users          func(ctx context.Context, q store.UserQuery) ([]*store.User, error)
	putUser        func(ctx context.Context, u *store.User) error
	updateSettings func(ctx context.Context, set *policy.Settings) error
	recordUses     func(ctx context.Context, batch []store.Use) error
	uses           func(ctx context.Context, org string, ids []string) ([]store.UseSummary, error)
	changes        func(ctx context.Context, after int64) ([]store.Change, int64, error)
}

var (
	_ store.Store = (*faulty)(nil)
	_ store.Uses  = (*faulty)(nil)
	_ store.Feed  = (*faulty)(nil)
)

// harness returns a Harness of f that has everything.
func (f *faulty) harness() storetest.Harness {
	return storetest.Harness{
		Store: f, Uses: f, Feed: f,
		ForgetChanges: f.forgetChanges,
		Break:         func() error { f.down.Store(true); return nil },
		Retaining:     retaining,
	}
}

// retaining is what a sound store does.
func retaining(r store.UseRetention, now func() time.Time) (storetest.Harness, error) {
	s, err := memstore.NewWithOptions(&memstore.Options{UseRetention: r, Now: now})
	if err != nil {
		return storetest.Harness{}, err
	}
	return (&faulty{Store: s}).harness(), nil
}

// forgetChanges makes more changes than a memstore keeps.
func (f *faulty) forgetChanges(ctx context.Context) error {
	for n := range int64(20_001) {
		if err := f.Store.PutUser(ctx, &store.User{Org: "forget", ID: "changes", Version: n}); err != nil {
			return err
		}
	}
	return nil
}

var errDown = errors.New("the medium cannot be reached")

// A downContext makes a memstore fail: what a context says is all that can go
// wrong with it.
type downContext struct{ context.Context }

func (downContext) Err() error { return errDown }

func (f *faulty) ctx(ctx context.Context) context.Context {
	if f.down.Load() {
		return downContext{ctx}
	}
	return ctx
}

func (f *faulty) Lookup(ctx context.Context, d token.Digest) (*store.Record, error) {
	call := f.Store.Lookup
	if f.lookup != nil {
		call = f.lookup
	}
	r, err := call(f.ctx(ctx), d)
	if err != nil || f.keyOut == nil && f.userOut == nil {
		return r, err
	}
	k, u := cloneKey(r.Key), *r.User
	if f.keyOut != nil {
		f.keyOut(k)
	}
	if f.userOut != nil {
		f.userOut(&u)
	}
	return store.NewRecord(k, &u), nil
}

func (f *faulty) Settings(ctx context.Context, org string) (*policy.Settings, error) {
	call := f.Store.Settings
	if f.settings != nil {
		call = f.settings
	}
	return call(f.ctx(ctx), org)
}

func (f *faulty) InsertKey(ctx context.Context, k, replaces *store.Key, max int) error {
	if f.keyIn != nil {
		k = cloneKey(k)
		f.keyIn(k)
		if replaces != nil {
			replaces = cloneKey(replaces)
			f.keyIn(replaces)
		}
	}
	call := f.Store.InsertKey
	if f.insertKey != nil {
		call = f.insertKey
	}
	return call(f.ctx(ctx), k, replaces, max)
}

func (f *faulty) Keys(ctx context.Context, q store.Query) ([]*store.Key, error) {
	call := f.Store.Keys
	if f.keys != nil {
		call = f.keys
	}
	ks, err := call(f.ctx(ctx), q)
	if f.keyOut != nil {
		for _, k := range ks {
			f.keyOut(k)
		}
	}
	return ks, err
}

func (f *faulty) UpdateKey(ctx context.Context, k *store.Key) error {
	if f.keyIn != nil {
		k = cloneKey(k)
		f.keyIn(k)
	}
	call := f.Store.UpdateKey
	if f.updateKey != nil {
		call = f.updateKey
	}
	return call(f.ctx(ctx), k)
}

func (f *faulty) PurgeKeys(ctx context.Context, before time.Time) (int, error) {
	call := f.Store.PurgeKeys
	if f.purgeKeys != nil {
		call = f.purgeKeys
	}
	return call(f.ctx(ctx), before)
}

func (f *faulty) Users(ctx context.Context, q store.UserQuery) ([]*store.User, error) {
	call := f.Store.Users
	if f.users != nil {
		call = f.users
	}
	us, err := call(f.ctx(ctx), q)
	if f.userOut != nil {
		for _, u := range us {
			f.userOut(u)
		}
	}
	return us, err
}

func (f *faulty) PutUser(ctx context.Context, u *store.User) error {
	if f.userIn != nil {
		c := *u
		u = &c
		f.userIn(u)
	}
	call := f.Store.PutUser
	if f.putUser != nil {
		call = f.putUser
	}
	return call(f.ctx(ctx), u)
}

func (f *faulty) UpdateSettings(ctx context.Context, set *policy.Settings) error {
	call := f.Store.UpdateSettings
	if f.updateSettings != nil {
		call = f.updateSettings
	}
	return call(f.ctx(ctx), set)
}

func (f *faulty) RecordUses(ctx context.Context, batch []store.Use) error {
	call := f.Store.RecordUses
	if f.recordUses != nil {
		call = f.recordUses
	}
	return call(f.ctx(ctx), batch)
}

func (f *faulty) Uses(ctx context.Context, org string, ids []string) ([]store.UseSummary, error) {
	call := f.Store.Uses
	if f.uses != nil {
		call = f.uses
	}
	return call(f.ctx(ctx), org, ids)
}

func (f *faulty) Changes(ctx context.Context, after int64) ([]store.Change, int64, error) {
	call := f.Store.Changes
	if f.changes != nil {
		call = f.changes
	}
	return call(f.ctx(ctx), after)
}

func cloneKey(k *store.Key) *store.Key {
	c := *k
	c.Scopes = slices.Clone(k.Scopes)
	return &c
}

// key returns the row of a key, revoked or not, or an error.
func (f *faulty) key(ctx context.Context, id string) (*store.Key, error) {
	ks, err := f.Store.Keys(ctx, store.Query{ID: id, Revoked: true})
	if err != nil {
		return nil, err
	}
	if len(ks) != 1 {
		return nil, fmt.Errorf("faulty: %w", store.ErrNotFound)
	}
	return ks[0], nil
}
