package storetest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/store/storetest"
	"github.com/keystile/keystile/token"
)

// A fault is something that a store may do wrong.
type fault struct {
	name    string
	failsIn string // the cases that must find it, with ", " between them
	inject  func(f *faulty, h *storetest.Harness)
}

var faults = slices.Concat(lookupFaults, insertFaults, rotateFaults, writeFaults, listFaults, rowFaults, failureFaults, feedFaults, useFaults, retentionFaults)

var lookupFaults = []fault{
	{"looks at half of a digest", "lookup of an unknown digest", func(f *faulty, _ *storetest.Harness) {
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			ks, err := f.Store.Keys(ctx, store.Query{Revoked: true})
			if err != nil {
				return nil, err
			}
			for _, k := range ks {
				if bytes.Equal(k.Digest[:16], d[:16]) {
					d = k.Digest
				}
			}
			return f.Store.Lookup(ctx, d)
		}
	}},
	{"finds the key that was used last", "lookup finds by digest", func(f *faulty, _ *storetest.Harness) {
		var last *store.Record
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			r, err := f.Store.Lookup(ctx, d)
			if last == nil {
				last = r
			}
			return last, err
		}
	}},
	{"finds nothing without an error", "lookup of an unknown digest", func(f *faulty, _ *storetest.Harness) {
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			r, err := f.Store.Lookup(ctx, d)
			if errors.Is(err, store.ErrNotFound) {
				return nil, nil
			}
			return r, err
		}
	}},
	{"finds an empty record beside the error", "lookup of an unknown digest", func(f *faulty, _ *storetest.Harness) {
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			r, err := f.Store.Lookup(ctx, d)
			if err != nil {
				return &store.Record{}, err
			}
			return r, nil
		}
	}},
	{"records without a principal", "lookup finds by digest", func(f *faulty, _ *storetest.Harness) {
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			r, err := f.Store.Lookup(ctx, d)
			if err != nil {
				return nil, err
			}
			return &store.Record{Key: r.Key, User: r.User}, nil
		}
	}},
	{"builds its own principal", "lookup returns the whole record", func(f *faulty, _ *storetest.Harness) {
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			r, err := f.Store.Lookup(ctx, d)
			if err != nil {
				return nil, err
			}
			p := *r.Principal
			p.Quota = r.Key.ID
			return &store.Record{Key: r.Key, User: r.User, Principal: &p}, nil
		}
	}},
	{"forgets a user's grant", "lookup returns the whole record, users are kept", func(f *faulty, _ *storetest.Harness) {
		f.userOut = func(u *store.User) { u.Permitted = false }
	}},
	{"hides revoked keys", "lookup hides nothing, rotation", hide(func(r *store.Record) bool { return !r.Key.RevokedAt.IsZero() })},
	{"hides disabled keys", "lookup hides nothing, update", hide(func(r *store.Record) bool { return !r.Key.DisabledAt.IsZero() })},
	{"hides expired keys", "lookup hides nothing", hide(func(r *store.Record) bool {
		return !r.Key.NotAfter.IsZero() && r.Key.NotAfter.Before(time.Now())
	})},
	{"hides keys of the future", "lookup hides nothing", hide(func(r *store.Record) bool {
		return r.Key.CreatedAt.After(time.Now().AddDate(100, 0, 0))
	})},
	{"hides keys of suspended users", "lookup hides nothing", hide(func(r *store.Record) bool { return !r.User.SuspendedAt.IsZero() })},
	{"joins the user once, at insertion", "lookup shows changes of the user, handles share the medium", func(f *faulty, _ *storetest.Harness) {
		var users sync.Map
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			r, err := f.Store.Lookup(ctx, d)
			if err != nil {
				return nil, err
			}
			u, _ := users.LoadOrStore(d, r.User)
			return store.NewRecord(r.Key, u.(*store.User)), nil
		}
	}},
	{"joins the user without the organization", "lookup shows changes of the user", func(f *faulty, _ *storetest.Harness) {
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			r, err := f.Store.Lookup(ctx, d)
			if err != nil {
				return nil, err
			}
			us, err := f.Store.Users(ctx, store.UserQuery{Org: "acme", ID: r.User.ID})
			if err != nil || len(us) == 0 {
				return r, err
			}
			return store.NewRecord(r.Key, us[0]), nil
		}
	}},
	{"writes into records", "records do not change", func(f *faulty, _ *storetest.Harness) {
		records := make(map[token.Digest]*store.Record)
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			r, err := f.Store.Lookup(ctx, d)
			if err != nil {
				return nil, err
			}
			if have := records[d]; have != nil {
				*have.Key, *have.User = *r.Key, *r.User
			} else {
				u := *r.User
				records[d] = store.NewRecord(cloneKey(r.Key), &u)
			}
			return records[d], nil
		}
	}},
	{"shows the digest of a key in its place", "lookup finds by digest", func(f *faulty, _ *storetest.Harness) {
		f.keyOut = func(k *store.Key) { k.Digest = token.Digest{1} }
	}},
}

// hide makes a store that does not find some of its keys.
func hide(hidden func(r *store.Record) bool) func(f *faulty, _ *storetest.Harness) {
	return func(f *faulty, _ *storetest.Harness) {
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			r, err := f.Store.Lookup(ctx, d)
			if err == nil && hidden(r) {
				return nil, store.ErrNotFound
			}
			return r, err
		}
	}
}

// capBy makes a store that checks the cap by itself: count says how many keys
// the user of k has.
func capBy(f *faulty, count func(ctx context.Context, k, replaces *store.Key) (int, error)) {
	f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
		if _, err := f.Store.Users(ctx, store.UserQuery{Org: k.Org, ID: k.User}); err != nil {
			return err
		}
		n, err := count(ctx, k, replaces)
		if err != nil {
			return err
		}
		if max >= 0 && n >= max {
			return store.ErrLimit
		}
		return f.Store.InsertKey(ctx, k, replaces, -1)
	}
}

// counting returns how many keys a query selects that count.
func counting(ctx context.Context, f *faulty, q store.Query, counts func(k *store.Key) bool) (int, error) {
	q.Limit = 1000
	ks, err := f.Store.Keys(ctx, q)
	n := 0
	for _, k := range ks {
		if counts(k) {
			n++
		}
	}
	return n, err
}

var insertFaults = []fault{
	{"keeps the version that it is given", "insert keeps the key", func(f *faulty, _ *storetest.Harness) {
		versions := make(map[string]int64)
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			versions[k.ID] = k.Version
			return f.Store.InsertKey(ctx, k, replaces, max)
		}
		f.keyOut = func(k *store.Key) { k.Version = versions[k.ID] }
	}},
	{"makes the user", "insert needs the user", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if err := f.Store.PutUser(ctx, &store.User{Org: k.Org, ID: k.User}); err != nil && !errors.Is(err, store.ErrExists) {
				return err
			}
			return f.Store.InsertKey(ctx, k, replaces, max)
		}
	}},
	{"takes a missing user for a conflict", "insert needs the user", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			return swap(f.Store.InsertKey(ctx, k, replaces, max), store.ErrNotFound, store.ErrConflict)
		}
	}},
	{"does nothing where something is taken", "ID taken, digest taken, same key under parallel creations", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			return swap(f.Store.InsertKey(ctx, k, replaces, max), store.ErrExists, nil)
		}
	}},
	{"lets go of a revoked key's ID", "ID taken", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			err := f.Store.InsertKey(ctx, k, replaces, max)
			if holder, _ := f.key(ctx, k.ID); errors.Is(err, store.ErrExists) && holder != nil && !holder.RevokedAt.IsZero() {
				_, _ = f.Store.PurgeKeys(ctx, holder.RevokedAt.Add(time.Hour))
				return f.Store.InsertKey(ctx, k, replaces, max)
			}
			return err
		}
	}},
	{"revokes the old key though the new one collides", "ID taken, digest taken", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = revokeFirst(f)
	}},
	{"admits one key too many", "cap, cap under parallel creations, cap under parallel creations of many users, rotation above the cap", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if max >= 0 {
				max++
			}
			return f.Store.InsertKey(ctx, k, replaces, max)
		}
	}},
	{"admits one key too few", "cap, rotation at the cap", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if max > 0 {
				max--
			}
			return f.Store.InsertKey(ctx, k, replaces, max)
		}
	}},
	{"takes a max of 0 for no cap", "cap", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if max == 0 {
				max = -1
			}
			return f.Store.InsertKey(ctx, k, replaces, max)
		}
	}},
	{"takes only -1 for no cap", "cap", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if max < -1 {
				return store.ErrLimit
			}
			return f.Store.InsertKey(ctx, k, replaces, max)
		}
	}},
	{"checks the cap before the step that inserts", "cap under parallel creations, cap under parallel creations of many users", func(f *faulty, _ *storetest.Harness) {
		meet := meeting(4*5 + 1) // so many that of the four users of a case one meets the cap
		capBy(f, func(ctx context.Context, k, _ *store.Key) (int, error) {
			n, err := counting(ctx, f, store.Query{Org: k.Org, User: k.User}, func(*store.Key) bool { return true })
			meet()
			return n, err
		})
	}},
	{"counts revoked keys", "cap does not count revoked keys", func(f *faulty, _ *storetest.Harness) {
		capBy(f, func(ctx context.Context, k, _ *store.Key) (int, error) {
			return counting(ctx, f, store.Query{Org: k.Org, User: k.User, Revoked: true}, func(*store.Key) bool { return true })
		})
	}},
	{"counts keys whose end lies ahead", "cap does not count revoked keys", func(f *faulty, _ *storetest.Harness) {
		capBy(f, func(ctx context.Context, k, _ *store.Key) (int, error) {
			return counting(ctx, f, store.Query{Org: k.Org, User: k.User, Revoked: true}, func(k *store.Key) bool {
				return k.RevokedAt.IsZero() || k.RevokedAt.After(time.Now())
			})
		})
	}},
	{"does not count disabled keys", "cap counts what can come back", func(f *faulty, _ *storetest.Harness) {
		capBy(f, func(ctx context.Context, k, _ *store.Key) (int, error) {
			return counting(ctx, f, store.Query{Org: k.Org, User: k.User}, func(k *store.Key) bool { return k.DisabledAt.IsZero() })
		})
	}},
	{"does not count expired keys", "cap counts what can come back", func(f *faulty, _ *storetest.Harness) {
		capBy(f, func(ctx context.Context, k, _ *store.Key) (int, error) {
			return counting(ctx, f, store.Query{Org: k.Org, User: k.User}, func(k *store.Key) bool { return k.NotAfter.IsZero() })
		})
	}},
	{"counts keys of namesakes elsewhere", "cap is per user", func(f *faulty, _ *storetest.Harness) {
		capBy(f, func(ctx context.Context, k, _ *store.Key) (int, error) {
			return counting(ctx, f, store.Query{User: k.User}, func(*store.Key) bool { return true })
		})
	}},
	{"counts keys of the organization", "cap is per user, cap under parallel creations of many users", func(f *faulty, _ *storetest.Harness) {
		capBy(f, func(ctx context.Context, k, _ *store.Key) (int, error) {
			return counting(ctx, f, store.Query{Org: k.Org}, func(*store.Key) bool { return true })
		})
	}},
	{"keeps the scopes that it is given", "arguments are copied", func(f *faulty, _ *storetest.Harness) {
		scopes := make(map[string][]string)
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			scopes[k.ID] = k.Scopes
			return f.Store.InsertKey(ctx, k, replaces, max)
		}
		f.keyOut = func(k *store.Key) { k.Scopes = scopes[k.ID] }
	}},
	{"keeps the user that it is given", "arguments are copied", func(f *faulty, _ *storetest.Harness) {
		given := make(map[string]*store.User)
		f.putUser = func(ctx context.Context, u *store.User) error {
			given[u.ID] = u
			return f.Store.PutUser(ctx, u)
		}
		f.userOut = func(u *store.User) { u.Tier, u.Owner = given[u.ID].Tier, given[u.ID].Owner }
	}},
	{"raises the version of its argument", "arguments are copied", func(f *faulty, _ *storetest.Harness) {
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			defer func() { k.Version++ }()
			return f.Store.UpdateKey(ctx, k)
		}
	}},
	{"cuts off the times of its argument", "arguments are copied", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			err := f.Store.InsertKey(ctx, k, replaces, max)
			k.RevokedAt = k.RevokedAt.Truncate(time.Second)
			return err
		}
	}},
	{"returns the scopes that it keeps", "results are copies", func(f *faulty, _ *storetest.Harness) {
		scopes := make(map[string][]string)
		f.keyOut = func(k *store.Key) {
			if scopes[k.ID] == nil {
				scopes[k.ID] = k.Scopes
			}
			k.Scopes = scopes[k.ID]
		}
	}},
	{"returns the users that it keeps", "results are copies", func(f *faulty, _ *storetest.Harness) {
		var kept []*store.User
		f.users = func(ctx context.Context, q store.UserQuery) ([]*store.User, error) {
			if kept == nil {
				kept, _ = f.Store.Users(ctx, q)
			}
			return kept, nil
		}
	}},
	{"returns the settings that it keeps", "results are copies", func(f *faulty, _ *storetest.Harness) {
		kept := make(map[string]*policy.Settings)
		f.settings = func(ctx context.Context, org string) (*policy.Settings, error) {
			now, err := f.Store.Settings(ctx, org)
			if err == nil && (kept[org] == nil || kept[org].Version < now.Version) {
				kept[org] = now
			}
			return kept[org], err
		}
	}},
}

// revokeFirst returns an InsertKey that revokes the old key of a rotation in a
// step of its own.
func revokeFirst(f *faulty) func(ctx context.Context, k, replaces *store.Key, max int) error {
	return func(ctx context.Context, k, replaces *store.Key, max int) error {
		if replaces == nil {
			return f.Store.InsertKey(ctx, k, nil, max)
		}
		old, err := f.key(ctx, replaces.ID)
		if err != nil {
			return err
		}
		if old.Version != replaces.Version || old.Digest != replaces.Digest || !old.RevokedAt.IsZero() || replaces.RevokedAt.IsZero() {
			return store.ErrConflict
		}
		old.RevokedAt = replaces.RevokedAt
		if err := f.Store.UpdateKey(ctx, old); err != nil {
			return err
		}
		return f.Store.InsertKey(ctx, k, nil, max)
	}
}

// insertFirst returns an InsertKey that revokes the old key of a rotation after
// it inserted the new one; check says what it looks at before.
func insertFirst(f *faulty, check func(old, replaces *store.Key) error) func(ctx context.Context, k, replaces *store.Key, max int) error {
	return func(ctx context.Context, k, replaces *store.Key, max int) error {
		if replaces == nil {
			return f.Store.InsertKey(ctx, k, nil, max)
		}
		old, err := f.key(ctx, replaces.ID)
		if err != nil {
			return err
		}
		if err := check(old, replaces); err != nil {
			return err
		}
		if max >= 0 {
			max++
		}
		if err := f.Store.InsertKey(ctx, k, nil, max); err != nil {
			return err
		}
		old.RevokedAt = replaces.RevokedAt
		return f.Store.UpdateKey(ctx, old)
	}
}

func checkAll(old, replaces *store.Key) error {
	if old.Version != replaces.Version || old.Digest != replaces.Digest || !old.RevokedAt.IsZero() {
		return store.ErrConflict
	}
	return nil
}

var rotateFaults = []fault{
	{"revokes the old key in a step before", "rotation above the cap", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = revokeFirst(f)
	}},
	{"revokes the old key in a step after", "parallel rotations", func(f *faulty, _ *storetest.Harness) {
		meet := meeting(2)
		f.insertKey = insertFirst(f, func(old, replaces *store.Key) error {
			meet()
			return checkAll(old, replaces)
		})
	}},
	{"does not look at the version of the old key", "rotation of what changed", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = insertFirst(f, func(old, replaces *store.Key) error {
			replaces.Version = old.Version
			return checkAll(old, replaces)
		})
	}},
	{"rotates a revoked key", "rotation of a revoked key", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = insertFirst(f, func(old, replaces *store.Key) error {
			old.RevokedAt = time.Time{}
			return checkAll(old, replaces)
		})
	}},
	{"does not look at the digest of the old key", "rotation of another key", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = insertFirst(f, func(old, replaces *store.Key) error {
			replaces.Digest = old.Digest
			return checkAll(old, replaces)
		})
	}},
	{"takes an unknown old key for a changed one", "rotation of another key", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			return swap(f.Store.InsertKey(ctx, k, replaces, max), store.ErrNotFound, store.ErrConflict)
		}
	}},
	{"does not look at the user of the old key", "rotation of another user's key", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = insertFirst(f, checkAll)
	}},
	{"rotates without an end", "rotation without an end", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = insertFirst(f, checkAll)
	}},
	{"writes all of the old key", "rotation", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if replaces == nil {
				return f.Store.InsertKey(ctx, k, nil, max)
			}
			if err := f.Store.UpdateKey(ctx, replaces); err != nil {
				return err
			}
			return f.Store.InsertKey(ctx, k, nil, max)
		}
	}},
	{"leaves the version of the old key", "rotation, rotation of a revoked key", func(f *faulty, _ *storetest.Harness) {
		f.keyOut = func(k *store.Key) {
			if !k.RevokedAt.IsZero() && k.Version > 1 {
				k.Version--
			}
		}
	}},
	{"revokes at once", "rotation", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if replaces != nil {
				replaces = cloneKey(replaces)
				replaces.RevokedAt = replaces.RevokedAt.Truncate(time.Minute)
			}
			return f.Store.InsertKey(ctx, k, replaces, max)
		}
	}},
	{"counts the key that is rotated away", "rotation at the cap", func(f *faulty, _ *storetest.Harness) {
		capBy(f, func(ctx context.Context, k, _ *store.Key) (int, error) {
			return counting(ctx, f, store.Query{Org: k.Org, User: k.User}, func(*store.Key) bool { return true })
		})
	}},
	{"does not check the cap of a rotation", "rotation above the cap", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if replaces != nil {
				max = -1
			}
			return f.Store.InsertKey(ctx, k, replaces, max)
		}
	}},
	{"does not look at versions while it rotates", "parallel rotation and update, parallel rotations", func(f *faulty, _ *storetest.Harness) {
		var mu sync.Mutex
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			mu.Lock()
			defer mu.Unlock()
			return f.Store.UpdateKey(ctx, k)
		}
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			mu.Lock()
			defer mu.Unlock()
			if replaces != nil {
				old, err := f.key(ctx, replaces.ID)
				if err != nil {
					return err
				}
				old.RevokedAt = time.Time{}
				if err := f.Store.UpdateKey(ctx, old); err != nil {
					return err
				}
				replaces = cloneKey(replaces)
				replaces.Version = old.Version + 1
			}
			return f.Store.InsertKey(ctx, k, replaces, max)
		}
	}},
}

var writeFaults = []fault{
	{"does not write the limit", "update, no update is lost", func(f *faulty, _ *storetest.Harness) {
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			if old, err := f.key(ctx, k.ID); err == nil {
				k = cloneKey(k)
				k.DailyLimit = old.DailyLimit
			}
			return f.Store.UpdateKey(ctx, k)
		}
	}},
	{"does not write that a key is revoked for good", "update", func(f *faulty, _ *storetest.Harness) {
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			k = cloneKey(k)
			k.Revoked = false
			return f.Store.UpdateKey(ctx, k)
		}
	}},
	{"rotates for good, or not at all", "rotation", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if replaces != nil {
				replaces = cloneKey(replaces)
				replaces.Revoked = false
			}
			return f.Store.InsertKey(ctx, k, replaces, max)
		}
	}},
	{"writes no zero", "update", func(f *faulty, _ *storetest.Harness) {
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			if old, err := f.key(ctx, k.ID); err == nil && k.NotAfter.IsZero() {
				k = cloneKey(k)
				k.NotAfter = old.NotAfter
			}
			return f.Store.UpdateKey(ctx, k)
		}
	}},
	{"takes no change for no write", "update", func(f *faulty, _ *storetest.Harness) {
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			if old, err := f.key(ctx, k.ID); err == nil && old.Name == k.Name && slices.Equal(old.Scopes, k.Scopes) && old.DailyLimit == k.DailyLimit &&
				old.NotAfter.Equal(k.NotAfter) && old.DisabledAt.Equal(k.DisabledAt) && old.RevokedAt.Equal(k.RevokedAt) && old.Revoked == k.Revoked {
				return nil
			}
			return f.Store.UpdateKey(ctx, k)
		}
	}},
	{"writes the family and the creation time", "update keeps the rest", func(f *faulty, _ *storetest.Harness) {
		given := make(map[string]store.Key)
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			given[k.ID] = *k
			return f.Store.UpdateKey(ctx, k)
		}
		f.keyOut = func(k *store.Key) {
			if g, ok := given[k.ID]; ok {
				k.Family, k.CreatedAt = g.Family, g.CreatedAt
			}
		}
	}},
	{"asks for the rest too", "update keeps the rest", func(f *faulty, _ *storetest.Harness) {
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			if old, err := f.key(ctx, k.ID); err == nil && old.Org != k.Org {
				return store.ErrNotFound
			}
			return f.Store.UpdateKey(ctx, k)
		}
	}},
	{"does not look at versions", "update of what changed, parallel updates", func(f *faulty, _ *storetest.Harness) {
		f.updateKey = func(ctx context.Context, k *store.Key) error { return ignoreVersion(ctx, f, k) }
	}},
	{"does not look at versions of who meets", "no update is lost", func(f *faulty, _ *storetest.Harness) {
		meet := meeting(2)
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			meet()
			return ignoreVersion(ctx, f, k)
		}
	}},
	{"looks at the version in a step before", "parallel updates", func(f *faulty, _ *storetest.Harness) {
		meet := meeting(4)
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			old, err := f.key(ctx, k.ID)
			if err != nil {
				return err
			}
			if old.Version != k.Version {
				return store.ErrConflict
			}
			meet()
			return ignoreVersion(ctx, f, k)
		}
	}},
	{"finds IDs in either case", "update of an unknown key", func(f *faulty, _ *storetest.Harness) {
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			k = cloneKey(k)
			k.ID = strings.ToLower(k.ID)
			return f.Store.UpdateKey(ctx, k)
		}
	}},
	{"takes an unknown key for a changed one", "update of an unknown key", func(f *faulty, _ *storetest.Harness) {
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			return swap(f.Store.UpdateKey(ctx, k), store.ErrNotFound, store.ErrConflict)
		}
	}},
	{"writes a user in two steps", "reads see whole writes", func(f *faulty, _ *storetest.Harness) {
		var reads atomic.Int64
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			defer reads.Add(1)
			return f.Store.Lookup(ctx, d)
		}
		f.putUser = func(ctx context.Context, u *store.User) error {
			if u.Version == 0 {
				return f.Store.PutUser(ctx, u)
			}
			half := *u
			half.Tier = "half"
			if err := f.Store.PutUser(ctx, &half); err != nil {
				return err
			}
			// Somebody reads all the time, but not before and after.
			for i, seen := 0, reads.Load(); i < 10_000 && reads.Load() < seen+2; i++ {
				runtime.Gosched()
			}
			half = *u
			half.Version++
			return f.Store.PutUser(ctx, &half)
		}
		f.userOut = func(u *store.User) { u.Version = 1 + u.Version/2 }
	}},
	{"reads key and principal apart", "reads see whole writes", func(f *faulty, _ *storetest.Harness) {
		var writes atomic.Int64
		f.putUser = func(ctx context.Context, u *store.User) error {
			defer writes.Add(1)
			return f.Store.PutUser(ctx, u)
		}
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			a, err := f.Store.Lookup(ctx, d)
			if err != nil {
				return nil, err
			}
			for written := writes.Load(); writes.Load() == written; {
				runtime.Gosched() // the case has somebody who writes all the time
			}
			b, err := f.Store.Lookup(ctx, d)
			if err != nil {
				return nil, err
			}
			return &store.Record{Key: a.Key, User: a.User, Principal: b.Principal}, nil
		}
	}},

	{"purges what ends at that time", "purge", func(f *faulty, _ *storetest.Harness) {
		f.purgeKeys = func(ctx context.Context, before time.Time) (int, error) {
			if !before.IsZero() {
				before = before.Add(time.Microsecond)
			}
			return f.Store.PurgeKeys(ctx, before)
		}
	}},
	{"purges less than it should", "purge", func(f *faulty, _ *storetest.Harness) {
		f.purgeKeys = func(ctx context.Context, before time.Time) (int, error) {
			return f.Store.PurgeKeys(ctx, before.Truncate(time.Second).Add(-time.Second))
		}
	}},
	{"purges expired keys", "purge", func(f *faulty, _ *storetest.Harness) {
		f.purgeKeys = func(ctx context.Context, before time.Time) (int, error) {
			ks, err := f.Store.Keys(ctx, store.Query{})
			if err != nil {
				return 0, err
			}
			for _, k := range ks {
				if !k.NotAfter.IsZero() && k.NotAfter.Before(before) {
					k.RevokedAt = k.NotAfter
					_ = f.Store.UpdateKey(ctx, k)
				}
			}
			return f.Store.PurgeKeys(ctx, before)
		}
	}},
	{"takes the epoch for never", "purge, times are kept, keys in order", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = eachTime(func(t time.Time) time.Time {
			if t.Unix() == 0 {
				return time.Time{}
			}
			return t
		})
	}},
	{"purges without saying how many", "purge, purge of many keys", func(f *faulty, _ *storetest.Harness) {
		f.purgeKeys = func(ctx context.Context, before time.Time) (int, error) {
			_, err := f.Store.PurgeKeys(ctx, before)
			return 0, err
		}
	}},
	{"purges a page", "purge of many keys", func(f *faulty, _ *storetest.Harness) {
		f.purgeKeys = func(ctx context.Context, before time.Time) (int, error) {
			n, err := f.Store.PurgeKeys(ctx, before)
			return min(n, 1000), err
		}
	}},
	{"keeps the ID of a purged key for ever", "purged keys make room", func(f *faulty, _ *storetest.Harness) {
		used := make(map[string]bool)
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if used[k.ID] {
				return store.ErrExists
			}
			used[k.ID] = true
			return f.Store.InsertKey(ctx, k, replaces, max)
		}
	}},

	{"creates a user twice", "user exists, parallel users", func(f *faulty, _ *storetest.Harness) {
		f.putUser = func(ctx context.Context, u *store.User) error {
			return swap(f.Store.PutUser(ctx, u), store.ErrExists, nil)
		}
	}},
	{"takes a user that exists for a changed one", "user exists", func(f *faulty, _ *storetest.Harness) {
		f.putUser = func(ctx context.Context, u *store.User) error {
			return swap(f.Store.PutUser(ctx, u), store.ErrExists, store.ErrConflict)
		}
	}},
	{"does not look at the version of a user", "user changed, parallel users", func(f *faulty, _ *storetest.Harness) {
		f.putUser = func(ctx context.Context, u *store.User) error {
			c := *u
			for c.Version != 0 {
				us, err := f.Store.Users(ctx, store.UserQuery{Org: u.Org, ID: u.ID})
				if err != nil {
					return err
				}
				if len(us) == 0 {
					return store.ErrNotFound
				}
				c.Version = us[0].Version
				if err := f.Store.PutUser(ctx, &c); !errors.Is(err, store.ErrConflict) {
					return err
				}
			}
			return f.Store.PutUser(ctx, &c)
		}
	}},
	{"makes the user that it should replace", "user changed", func(f *faulty, _ *storetest.Harness) {
		f.putUser = func(ctx context.Context, u *store.User) error {
			err := f.Store.PutUser(ctx, u)
			if errors.Is(err, store.ErrNotFound) {
				c := *u
				c.Version = 0
				return f.Store.PutUser(ctx, &c)
			}
			return err
		}
	}},
	{"takes IDs in either case for one", "users of organizations, cap is per user", func(f *faulty, _ *storetest.Harness) {
		f.userIn = func(u *store.User) { u.ID = strings.ToLower(u.ID) }
	}},
	{"pads IDs with blanks", "users of organizations, settings of organizations", func(f *faulty, _ *storetest.Harness) {
		f.userIn = func(u *store.User) { u.ID, u.Org = strings.TrimRight(u.ID, " "), strings.TrimRight(u.Org, " ") }
		f.updateSettings = func(ctx context.Context, set *policy.Settings) error {
			c := *set
			c.Org = strings.TrimRight(c.Org, " ")
			return f.Store.UpdateSettings(ctx, &c)
		}
	}},
	{"has users of one ID once", "users of organizations", func(f *faulty, _ *storetest.Harness) {
		f.userIn = func(u *store.User) { u.Org = "acme" }
	}},
	{"does not write the suspension", "users are kept", func(f *faulty, _ *storetest.Harness) {
		f.userOut = func(u *store.User) { u.SuspendedAt = time.Time{} }
	}},

	{"has no settings where none were written", "settings of an unknown organization", func(f *faulty, _ *storetest.Harness) {
		f.settings = func(ctx context.Context, org string) (*policy.Settings, error) {
			set, err := f.Store.Settings(ctx, org)
			if err == nil && set.Version == 0 {
				return nil, nil
			}
			return set, err
		}
	}},
	{"does not find settings that were never written", "settings of an unknown organization", func(f *faulty, _ *storetest.Harness) {
		f.settings = func(ctx context.Context, org string) (*policy.Settings, error) {
			set, err := f.Store.Settings(ctx, org)
			if err == nil && set.Version == 0 {
				return nil, store.ErrNotFound
			}
			return set, err
		}
	}},
	{"forgets whose settings were never written", "settings of an unknown organization", func(f *faulty, _ *storetest.Harness) {
		f.settings = func(ctx context.Context, org string) (*policy.Settings, error) {
			set, err := f.Store.Settings(ctx, org)
			if err == nil && set.Version == 0 {
				set.Org = ""
			}
			return set, err
		}
	}},
	{"gives out the settings written last", "settings of an unknown organization, settings of organizations", func(f *faulty, _ *storetest.Harness) {
		last := ""
		f.updateSettings = func(ctx context.Context, set *policy.Settings) error {
			last = set.Org
			return f.Store.UpdateSettings(ctx, set)
		}
		f.settings = func(ctx context.Context, org string) (*policy.Settings, error) {
			set, err := f.Store.Settings(ctx, last)
			if err == nil {
				set.Org = org
			}
			return set, err
		}
	}},
	{"takes a list of nobody for no list", "settings are kept", func(f *faulty, _ *storetest.Harness) {
		f.updateSettings = func(ctx context.Context, set *policy.Settings) error {
			c := *set
			if strings.HasPrefix(c.AllowedIPs.String(), "#") || c.AllowedIPs.String() == "" {
				c.AllowedIPs = policy.IPList{}
			}
			return f.Store.UpdateSettings(ctx, &c)
		}
	}},
	{"keeps periods in hours", "settings are kept", func(f *faulty, _ *storetest.Harness) {
		f.updateSettings = func(ctx context.Context, set *policy.Settings) error {
			c := *set
			c.MaxAge = c.MaxAge.Truncate(time.Hour)
			return f.Store.UpdateSettings(ctx, &c)
		}
	}},
	{"does not look at the version of settings", "settings changed, parallel settings", func(f *faulty, _ *storetest.Harness) {
		f.updateSettings = func(ctx context.Context, set *policy.Settings) error {
			c := *set
			for {
				now, err := f.Store.Settings(ctx, set.Org)
				if err != nil {
					return err
				}
				c.Version = now.Version
				if err := f.Store.UpdateSettings(ctx, &c); !errors.Is(err, store.ErrConflict) {
					return err
				}
			}
		}
	}},
	{"keeps the settings that it is given", "settings do not change", func(f *faulty, _ *storetest.Harness) {
		var given *policy.Settings
		f.updateSettings = func(ctx context.Context, set *policy.Settings) error {
			given = set
			return f.Store.UpdateSettings(ctx, set)
		}
		f.settings = func(ctx context.Context, org string) (*policy.Settings, error) {
			set, err := f.Store.Settings(ctx, org)
			if given != nil && err == nil {
				set.RestrictUsers, set.MaxAge = given.RestrictUsers, given.MaxAge
			}
			return set, err
		}
	}},
	{"writes into settings that it gave out", "settings do not change", func(f *faulty, _ *storetest.Harness) {
		out := make(map[string]*policy.Settings)
		f.settings = func(ctx context.Context, org string) (*policy.Settings, error) {
			set, err := f.Store.Settings(ctx, org)
			out[org] = set
			return set, err
		}
		f.updateSettings = func(ctx context.Context, set *policy.Settings) error {
			err := f.Store.UpdateSettings(ctx, set)
			if have := out[set.Org]; have != nil && err == nil {
				*have = *set
			}
			return err
		}
	}},
	{"repairs periods out of range", "settings out of range", func(f *faulty, _ *storetest.Harness) {
		f.updateSettings = func(ctx context.Context, set *policy.Settings) error {
			c := *set
			c.MaxAge = min(max(c.MaxAge, 0), policy.MaxAgeLimit).Truncate(time.Second)
			return f.Store.UpdateSettings(ctx, &c)
		}
	}},
}

func ignoreVersion(ctx context.Context, f *faulty, k *store.Key) error {
	k = cloneKey(k)
	for {
		old, err := f.key(ctx, k.ID)
		if err != nil {
			return err
		}
		k.Version = old.Version
		if err := f.Store.UpdateKey(ctx, k); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// listBy makes a store that lists keys by itself: it gets all keys, newest
// first, and returns a page.
func listBy(page func(all []*store.Key, q store.Query) []*store.Key) func(f *faulty, _ *storetest.Harness) {
	return func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			every := q
			every.After, every.Limit = store.Cursor{}, 1000
			all, err := f.Store.Keys(ctx, every)
			if err != nil {
				return nil, err
			}
			limit := q.Limit
			if limit <= 0 {
				limit = 100
			}
			got := page(all, q)
			return got[:min(len(got), limit, 1000)], nil
		}
	}
}

func sortedKeys(all []*store.Key, order func(a, b *store.Key) int) []*store.Key {
	slices.SortStableFunc(all, order)
	return all
}

// named makes a store that looks for names by itself.
func named(matches func(name, part string) bool) func(f *faulty, _ *storetest.Harness) {
	return func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			part := q.Name
			q.Name = ""
			all, err := f.Store.Keys(ctx, q)
			if err != nil || part == "" {
				return all, err
			}
			return slices.DeleteFunc(all, func(k *store.Key) bool { return !matches(k.Name, part) }), nil
		}
	}
}

var listFaults = []fault{
	{"lists revoked keys", "keys are whole", func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			q.Revoked = true
			return f.Store.Keys(ctx, q)
		}
	}},
	{"lists keys without their digests", "keys are whole", func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			ks, err := f.Store.Keys(ctx, q)
			for _, k := range ks {
				k.Digest = token.Digest{}
			}
			return ks, err
		}
	}},
	{"does not find an empty page", "keys of nobody", func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			ks, err := f.Store.Keys(ctx, q)
			if err == nil && len(ks) == 0 {
				return nil, store.ErrNotFound
			}
			return ks, err
		}
	}},
	{"lists oldest first", "keys in order", listBy(func(all []*store.Key, q store.Query) []*store.Key {
		slices.Reverse(all)
		return all
	})},
	{"lists IDs of one time ascending", "keys in order", listBy(func(all []*store.Key, q store.Query) []*store.Key {
		return sortedKeys(all, func(a, b *store.Key) int {
			if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
				return c
			}
			return strings.Compare(a.ID, b.ID)
		})
	})},
	{"orders IDs without their case", "keys in order", listBy(func(all []*store.Key, q store.Query) []*store.Key {
		return sortedKeys(all, func(a, b *store.Key) int {
			if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
				return c
			}
			return strings.Compare(strings.ToLower(b.ID), strings.ToLower(a.ID))
		})
	})},
	{"orders by the second", "keys in order", listBy(func(all []*store.Key, q store.Query) []*store.Key {
		return sortedKeys(all, func(a, b *store.Key) int {
			if c := b.CreatedAt.Truncate(time.Second).Compare(a.CreatedAt.Truncate(time.Second)); c != 0 {
				return c
			}
			return strings.Compare(b.ID, a.ID)
		})
	})},
	{"takes an unknown creation time for the newest", "keys in order", listBy(func(all []*store.Key, q store.Query) []*store.Key {
		return sortedKeys(all, func(a, b *store.Key) int {
			switch {
			case a.CreatedAt.IsZero() && !b.CreatedAt.IsZero():
				return -1
			case b.CreatedAt.IsZero() && !a.CreatedAt.IsZero():
				return 1
			}
			return 0
		})
	})},
	{"ignores the organization", "keys by filter", func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			q.Org = ""
			return f.Store.Keys(ctx, q)
		}
	}},
	{"lets the ID decide alone", "keys by filter", func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			if q.ID != "" {
				q = store.Query{ID: q.ID, Revoked: q.Revoked}
			}
			return f.Store.Keys(ctx, q)
		}
	}},
	{"finds a revoked key by its ID", "keys by filter", func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			q.Revoked = q.Revoked || q.ID != ""
			return f.Store.Keys(ctx, q)
		}
	}},
	{"looks for names in one case", "keys by name, keys by filter", named(strings.Contains)},
	{"folds all letters of names", "keys by name", named(func(name, part string) bool {
		return strings.Contains(strings.ToLower(name), strings.ToLower(part))
	})},
	{"takes names for patterns of LIKE", "keys by name", named(func(name, part string) bool {
		glob := strings.NewReplacer("%", "*", "_", "?").Replace(strings.ToLower(part))
		ok, _ := path.Match("*"+glob+"*", strings.ToLower(name))
		return ok
	})},
	{"looks for names from their beginning", "keys by name", named(func(name, part string) bool {
		return strings.HasPrefix(strings.ToLower(name), strings.ToLower(part))
	})},
	{"goes on after the time alone", "keys in pages, keys in order", listBy(func(all []*store.Key, q store.Query) []*store.Key {
		return slices.DeleteFunc(all, func(k *store.Key) bool {
			return q.After != store.Cursor{} && !k.CreatedAt.Before(q.After.CreatedAt)
		})
	})},
	{"goes on with the last key", "keys in pages, keys in order", listBy(func(all []*store.Key, q store.Query) []*store.Key {
		return slices.DeleteFunc(all, func(k *store.Key) bool {
			return q.After != store.Cursor{} && (k.CreatedAt.After(q.After.CreatedAt) || k.CreatedAt.Equal(q.After.CreatedAt) && k.ID > q.After.ID)
		})
	})},
	{"goes on from a key that must be there", "keys in pages, a cursor is a place", listBy(func(all []*store.Key, q store.Query) []*store.Key {
		if q.After == (store.Cursor{}) {
			return all
		}
		i := slices.IndexFunc(all, func(k *store.Key) bool { return k.ID == q.After.ID })
		if i < 0 {
			return nil
		}
		return all[i+1:]
	})},
	{"does not cut off the time of a cursor", "a cursor is a place", func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			if !q.After.CreatedAt.IsZero() {
				q.After.CreatedAt = q.After.CreatedAt.Add(999)
			}
			return f.Store.Keys(ctx, q)
		}
	}},
	{"has pages without a limit", "key limits", func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			if q.Limit == 0 {
				q.Limit = 1000
			}
			return f.Store.Keys(ctx, q)
		}
	}},
	{"has empty pages without a limit", "key limits", func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			ks, err := f.Store.Keys(ctx, q)
			if q.Limit <= 0 {
				ks = nil
			}
			return ks, err
		}
	}},
	{"orders users without their case", "users in order and pages", func(f *faulty, _ *storetest.Harness) {
		f.users = func(ctx context.Context, q store.UserQuery) ([]*store.User, error) {
			us, err := f.Store.Users(ctx, q)
			slices.SortFunc(us, func(a, b *store.User) int { return strings.Compare(strings.ToLower(a.ID), strings.ToLower(b.ID)) })
			return us, err
		}
	}},
	{"orders users by UTF-16", "users in order and pages", func(f *faulty, _ *storetest.Harness) {
		f.users = func(ctx context.Context, q store.UserQuery) ([]*store.User, error) {
			us, err := f.Store.Users(ctx, q)
			slices.SortFunc(us, func(a, b *store.User) int { // surrogates are before U+FFEE
				switch {
				case a.ID == "😀" && b.ID == "\uffee":
					return -1
				case b.ID == "😀" && a.ID == "\uffee":
					return 1
				}
				return strings.Compare(a.ID, b.ID)
			})
			return us, err
		}
	}},
	{"starts every page of users anew", "users in order and pages, users by filter", func(f *faulty, _ *storetest.Harness) {
		f.users = func(ctx context.Context, q store.UserQuery) ([]*store.User, error) {
			q.After = ""
			return f.Store.Users(ctx, q)
		}
	}},
	{"finds users in every organization", "users by filter", func(f *faulty, _ *storetest.Harness) {
		f.users = func(ctx context.Context, q store.UserQuery) ([]*store.User, error) {
			if q.Org == "" {
				q.Org = "acme"
			}
			return f.Store.Users(ctx, q)
		}
	}},
}

// eachTime applies f to every time of a key.
func eachTime(f func(t time.Time) time.Time) func(k *store.Key) {
	return func(k *store.Key) {
		for _, t := range []*time.Time{&k.CreatedAt, &k.NotAfter, &k.DisabledAt, &k.RevokedAt} {
			*t = f(*t)
		}
	}
}

// eachText applies f to the name and the scopes of a key.
func eachText(f func(s string) string) func(k *store.Key) {
	return func(k *store.Key) {
		k.Name = f(k.Name)
		for i, s := range k.Scopes {
			k.Scopes[i] = f(s)
		}
	}
}

var rowFaults = []fault{
	{"ends texts at a NUL", "texts that are refused", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = eachText(func(s string) string { s, _, _ = strings.Cut(s, "\x00"); return s })
	}},
	{"repairs texts", "texts that are refused", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = eachText(func(s string) string { return strings.ToValidUTF8(s, "?") })
	}},
	{"refuses texts as if they were not there", "texts that are refused", func(f *faulty, _ *storetest.Harness) {
		f.putUser = func(ctx context.Context, u *store.User) error {
			if err := f.Store.PutUser(ctx, u); err != nil {
				return store.ErrNotFound
			}
			return nil
		}
	}},
	{"writes before it refuses", "texts that are refused", func(f *faulty, _ *storetest.Harness) {
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			err := f.Store.UpdateKey(ctx, k)
			if old, keyErr := f.key(ctx, k.ID); err != nil && keyErr == nil && old.Version == k.Version {
				old.DailyLimit = 12
				_ = f.Store.UpdateKey(ctx, old)
			}
			return err
		}
	}},
	{"trims names", "texts are kept", func(f *faulty, _ *storetest.Harness) { f.keyIn = eachText(strings.TrimSpace) }},
	{"joins lines", "texts are kept", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = eachText(func(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") })
	}},
	{"folds e-mails", "texts are kept", func(f *faulty, _ *storetest.Harness) {
		f.userIn = func(u *store.User) { u.Email = strings.ToLower(u.Email) }
	}},
	{"keeps scopes as one text", "texts are kept, empty texts", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = func(k *store.Key) { k.Scopes = strings.Split(strings.Join(k.Scopes, ","), ",") }
	}},
	{"keeps scopes as a set", "empty texts", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = func(k *store.Key) {
			slices.Sort(k.Scopes)
			k.Scopes = slices.Compact(k.Scopes)
		}
	}},
	{"keeps keys without an ID", "empty texts", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = func(k *store.Key) {
			if k.ID == "" {
				k.ID = "none"
			}
		}
	}},
	{"keeps keys without a digest", "empty texts", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = func(k *store.Key) {
			if k.Digest == (token.Digest{}) {
				k.Digest[0] = 1
			}
		}
	}},
	{"cannot look for what it does not keep", "texts that nothing has", func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			if strings.Contains(q.ID, "\x00") {
				return nil, errors.New("invalid byte sequence for encoding")
			}
			return f.Store.Keys(ctx, q)
		}
	}},
	{"looks for texts up to a NUL", "texts that nothing has", func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			q.ID, _, _ = strings.Cut(q.ID, "\x00")
			return f.Store.Keys(ctx, q)
		}
	}},
	{"shortens long texts", "long texts", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = eachText(func(s string) string { return s[:min(len(s), 255)] })
	}},
	{"shortens texts that are too long", "long texts", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = eachText(func(s string) string { return s[:min(len(s), store.MaxText)] })
	}},
	{"shortens long IDs", "long texts", func(f *faulty, _ *storetest.Harness) {
		f.userIn = func(u *store.User) { u.ID = u.ID[:min(len(u.ID), store.MaxID)] }
	}},

	{"keeps seconds", "times are kept", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = eachTime(func(t time.Time) time.Time { return t.Truncate(time.Second) })
	}},
	{"keeps milliseconds of users", "times are kept", func(f *faulty, _ *storetest.Harness) {
		f.userIn = func(u *store.User) { u.SuspendedAt = u.SuspendedAt.Truncate(time.Millisecond) }
	}},
	{"keeps nanoseconds since the epoch", "times are kept", func(f *faulty, _ *storetest.Harness) {
		f.keyOut = eachTime(func(t time.Time) time.Time {
			if t.IsZero() {
				return t
			}
			return time.Unix(0, t.UnixNano()).UTC()
		})
	}},
	{"takes never for the epoch", "times are kept, update, purge", func(f *faulty, _ *storetest.Harness) {
		f.keyOut = eachTime(func(t time.Time) time.Time {
			if t.IsZero() {
				return time.Unix(0, 0).UTC()
			}
			return t
		})
	}},
	{"returns times in its own zone", "times are kept", func(f *faulty, _ *storetest.Harness) {
		f.keyOut = eachTime(func(t time.Time) time.Time { return t.In(time.FixedZone("", 3600)) })
	}},
	{"keeps the clock's face and not the instant", "times are kept", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = eachTime(func(t time.Time) time.Time {
			return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
		})
	}},
	{"rounds times", "times are cut off", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = eachTime(func(t time.Time) time.Time { return t.Round(time.Microsecond) })
	}},
	{"cuts off toward the epoch", "times are cut off", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = eachTime(func(t time.Time) time.Time {
			if t.IsZero() {
				return t
			}
			return time.Unix(t.Unix(), 0).Add(time.Duration(t.Nanosecond()) / time.Microsecond * time.Microsecond).Add(towardEpoch(t))
		})
	}},
	{"keeps what is finer", "times are cut off", func(f *faulty, _ *storetest.Harness) {
		given := make(map[string]time.Time)
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			given[k.ID] = k.CreatedAt.UTC()
			return f.Store.InsertKey(ctx, k, replaces, max)
		}
		f.keyOut = func(k *store.Key) { k.CreatedAt = given[k.ID] }
	}},
	{"bounds times", "times that are refused", func(f *faulty, _ *storetest.Harness) {
		f.keyIn = eachTime(func(t time.Time) time.Time {
			if last := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC); t.After(last) {
				return last
			}
			return t
		})
	}},
	{"takes times before all for never", "times that are refused", func(f *faulty, _ *storetest.Harness) {
		f.userIn = func(u *store.User) {
			if u.SuspendedAt.Before(time.Time{}) {
				u.SuspendedAt = time.Time{}
			}
		}
	}},
}

// towardEpoch is what the time of an instant before the epoch loses by cutting
// off toward it.
func towardEpoch(t time.Time) time.Duration {
	if t.Unix() < 0 && t.Nanosecond()%1000 != 0 {
		return time.Microsecond
	}
	return 0
}

var failureFaults = []fault{
	{"does not look at contexts", "context has ended", func(f *faulty, _ *storetest.Harness) {
		f.putUser = func(ctx context.Context, u *store.User) error {
			return f.Store.PutUser(context.WithoutCancel(ctx), u)
		}
	}},
	{"hides why a context ended", "context has ended", func(f *faulty, _ *storetest.Harness) {
		f.keys = func(ctx context.Context, q store.Query) ([]*store.Key, error) {
			ks, err := f.Store.Keys(ctx, q)
			if err != nil {
				err = fmt.Errorf("keys: %v", err)
			}
			return ks, err
		}
	}},
	{"writes although the context has ended", "context has ended", func(f *faulty, _ *storetest.Harness) {
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			_ = f.Store.UpdateKey(context.WithoutCancel(ctx), k)
			return ctx.Err()
		}
	}},
	{"takes a failure for an unknown key", "context has ended, failure is no answer", func(f *faulty, _ *storetest.Harness) {
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			r, err := f.Store.Lookup(ctx, d)
			if err != nil {
				return nil, store.ErrNotFound
			}
			return r, nil
		}
	}},
	{"wraps an answer around a failure", "context has ended, failure is no answer", func(f *faulty, _ *storetest.Harness) {
		f.updateKey = func(ctx context.Context, k *store.Key) error {
			if err := f.Store.UpdateKey(ctx, k); err != nil {
				return errors.Join(store.ErrConflict, err)
			}
			return nil
		}
	}},
	{"takes a failure for no settings", "failure is no answer", func(f *faulty, _ *storetest.Harness) {
		f.settings = func(ctx context.Context, org string) (*policy.Settings, error) {
			set, err := f.Store.Settings(ctx, org)
			if errors.Is(err, errDown) {
				return &policy.Settings{Org: org}, nil
			}
			return set, err
		}
	}},
	{"returns something beside a failure", "failure is no answer", func(f *faulty, _ *storetest.Harness) {
		f.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			r, err := f.Store.Lookup(ctx, d)
			if errors.Is(err, errDown) {
				r = store.NewRecord(&store.Key{}, &store.User{})
			}
			return r, err
		}
		f.settings = func(ctx context.Context, org string) (*policy.Settings, error) {
			set, err := f.Store.Settings(ctx, org)
			if errors.Is(err, errDown) {
				set = &policy.Settings{Org: org}
			}
			return set, err
		}
	}},
	{"writes a half when the context ends", "context ends meanwhile", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if replaces == nil {
				return f.Store.InsertKey(ctx, k, nil, max)
			}
			if err := f.Store.InsertKey(ctx, k, nil, -1); err != nil {
				return err
			}
			<-ctx.Done()
			old := cloneKey(replaces)
			return f.Store.UpdateKey(ctx, old)
		}
	}},
	{"says yes when the context ends", "context ends meanwhile", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if replaces != nil {
				return nil
			}
			return f.Store.InsertKey(ctx, k, nil, max)
		}
	}},
	{"takes an end of the context for an answer", "context ends meanwhile", func(f *faulty, _ *storetest.Harness) {
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if replaces != nil {
				<-ctx.Done()
				return store.ErrConflict
			}
			return f.Store.InsertKey(ctx, k, nil, max)
		}
	}},
	{"has a memory of its own in each process", "handles share the medium", func(f *faulty, h *storetest.Harness) {
		h.Other = memstore.New()
	}},
	{"caches in each process", "handles share the medium", func(f *faulty, h *storetest.Harness) {
		other := &faulty{Store: f.Store}
		cached := make(map[token.Digest]*store.Record)
		other.lookup = func(ctx context.Context, d token.Digest) (*store.Record, error) {
			if r := cached[d]; r != nil {
				return r, nil
			}
			r, err := f.Store.Lookup(ctx, d)
			cached[d] = r
			return r, err
		}
		h.Other = other
	}},
}

// feedBy makes a store whose feed tells something else than what it should.
func feedBy(tell func(changes []store.Change, after, last int64) ([]store.Change, int64)) func(f *faulty, _ *storetest.Harness) {
	return func(f *faulty, _ *storetest.Harness) {
		f.changes = func(ctx context.Context, after int64) ([]store.Change, int64, error) {
			changes, last, err := f.Store.Changes(ctx, after)
			if err == nil {
				changes, last = tell(changes, after, last)
			}
			return changes, last, err
		}
	}
}

// without makes a feed that leaves changes out.
func without(left func(c store.Change) bool) func(f *faulty, _ *storetest.Harness) {
	return feedBy(func(changes []store.Change, _, last int64) ([]store.Change, int64) {
		return slices.DeleteFunc(changes, left), last
	})
}

var feedFaults = []fault{
	{"begins its feed with a change", "feed of an empty store", feedBy(func(changes []store.Change, after, last int64) ([]store.Change, int64) {
		if last == 0 && after == 0 {
			return []store.Change{{Kind: store.ChangedAll}}, 0
		}
		return changes, last
	})},
	{"begins its feed somewhere", "feed of an empty store", feedBy(func(changes []store.Change, _, last int64) ([]store.Change, int64) {
		return changes, last + 1
	})},
	{"tells of no settings", "feed lists every write", without(func(c store.Change) bool { return c.Kind == store.ChangedSettings })},
	{"tells of no users", "feed lists every write, feed in pages, feed under parallel writes", without(func(c store.Change) bool { return c.Kind == store.ChangedUser })},
	{"tells of every other key", "feed lists every write", func(f *faulty, h *storetest.Harness) {
		n := 0
		without(func(c store.Change) bool { n++; return c.Kind == store.ChangedKey && n%2 == 0 })(f, h)
	}},
	{"does not say which key", "feed lists every write", feedBy(func(changes []store.Change, _, last int64) ([]store.Change, int64) {
		for i := range changes {
			changes[i].Digest = token.Digest{}
		}
		return changes, last
	})},
	{"tells of recorded uses", "feed lists every write", func(f *faulty, _ *storetest.Harness) {
		f.recordUses = func(ctx context.Context, batch []store.Use) error {
			if k, err := f.key(ctx, batch[0].KeyID); err == nil {
				_ = f.Store.UpdateKey(ctx, k)
			}
			return f.Store.RecordUses(ctx, batch)
		}
	}},
	{"tells of writes that failed", "feed lists every write", func(f *faulty, _ *storetest.Harness) {
		var failed atomic.Bool
		f.putUser = func(ctx context.Context, u *store.User) error {
			err := f.Store.PutUser(ctx, u)
			failed.Store(err != nil)
			return err
		}
		f.changes = func(ctx context.Context, after int64) ([]store.Change, int64, error) {
			changes, last, err := f.Store.Changes(ctx, after)
			if after >= 0 && failed.Swap(false) {
				return append(changes, store.Change{Kind: store.ChangedUser}), last + 1, err
			}
			return changes, last, err
		}
	}},
	{"tells late", "feed lists every write", feedBy(func(changes []store.Change, after, last int64) ([]store.Change, int64) {
		if after < 0 {
			return nil, max(0, last-1)
		}
		if len(changes) == 0 {
			return nil, after
		}
		return changes[:len(changes)-1], last - 1
	})},
	{"tells more than one page", "feed in pages", func(f *faulty, _ *storetest.Harness) {
		f.changes = func(ctx context.Context, after int64) ([]store.Change, int64, error) {
			a, last, err := f.Store.Changes(ctx, after)
			if err != nil || after < 0 {
				return a, last, err
			}
			b, last, err := f.Store.Changes(ctx, last)
			return append(a, b...), last, err
		}
	}},
	{"skips the rest of a page", "feed in pages", func(f *faulty, _ *storetest.Harness) {
		f.changes = func(ctx context.Context, after int64) ([]store.Change, int64, error) {
			a, last, err := f.Store.Changes(ctx, after)
			if len(a) == 1000 {
				_, last, err = f.Store.Changes(ctx, -1)
			}
			return a, last, err
		}
	}},
	{"tells newest first", "feed in pages", feedBy(func(changes []store.Change, _, last int64) ([]store.Change, int64) {
		slices.Reverse(changes)
		return changes, last
	})},
	{"goes on from the beginning", "feed in pages", feedBy(func(changes []store.Change, after, last int64) ([]store.Change, int64) {
		if after >= 0 && len(changes) == 0 {
			return nil, 0
		}
		return changes, last
	})},
	{"stays where it is", "feed in pages", feedBy(func(changes []store.Change, after, last int64) ([]store.Change, int64) {
		if after >= 0 {
			return changes, after
		}
		return changes, last
	})},
	{"gives out places of changes that are not there yet", "feed under parallel writes", reservedPlaces},
	{"tells of a change twice", "feed under parallel writes", feedBy(func(changes []store.Change, after, last int64) ([]store.Change, int64) {
		if len(changes) > 0 {
			return append(changes, changes[0]), last
		}
		return changes, last
	})},
	{"waits at a place beyond its end", "feed that forgot", feedBy(func(changes []store.Change, after, last int64) ([]store.Change, int64) {
		if last < after {
			return nil, after
		}
		return changes, last
	})},
	{"forgets in silence", "feed that forgot", func(f *faulty, _ *storetest.Harness) {
		f.changes = func(ctx context.Context, after int64) ([]store.Change, int64, error) {
			changes, last, err := f.Store.Changes(ctx, after)
			if _, end, _ := f.Store.Changes(ctx, -1); err == nil && after < end && len(changes) > 0 && changes[0].Kind == store.ChangedAll {
				return f.Store.Changes(ctx, end-1)
			}
			return changes, last, err
		}
	}},
	{"goes on too far after it forgot", "feed that forgot", func(f *faulty, _ *storetest.Harness) {
		f.changes = func(ctx context.Context, after int64) ([]store.Change, int64, error) {
			changes, last, err := f.Store.Changes(ctx, after)
			if len(changes) > 0 && changes[0].Kind == store.ChangedAll {
				last = 1 << 62
			}
			return changes, last, err
		}
	}},
}

// reservedPlaces takes the place of a change first and puts the change there
// later, as a database does whose sequences know no transactions.
func reservedPlaces(f *faulty, _ *storetest.Harness) {
	var mu sync.Mutex
	feed := []*store.Change{}
	var reads atomic.Int64
	f.putUser = func(ctx context.Context, u *store.User) error {
		mu.Lock()
		place := len(feed)
		feed = append(feed, nil)
		mu.Unlock()
		// The case has somebody who reads all the time; the other writers come here
		// after a read or two.
		for seen := reads.Load(); reads.Load() < seen+10; {
			runtime.Gosched()
		}
		err := f.Store.PutUser(ctx, u)
		mu.Lock()
		defer mu.Unlock()
		feed[place] = &store.Change{Kind: store.ChangedUser, Org: u.Org, User: u.ID}
		return err
	}
	f.changes = func(_ context.Context, after int64) ([]store.Change, int64, error) {
		defer reads.Add(1)
		mu.Lock()
		defer mu.Unlock()
		var changes []store.Change
		if after >= 0 {
			for _, c := range feed[after:] {
				if c != nil {
					changes = append(changes, *c)
				}
			}
		}
		return changes, int64(len(feed)), nil
	}
}

// swap replaces an answer of a store by another.
func swap(err, from, to error) error {
	if errors.Is(err, from) {
		return to
	}
	return err
}

// meeting returns a function that waits until it has been called n times, and
// after that never. It is for cases that make at least so many calls at once.
func meeting(n int64) func() {
	var met atomic.Int64
	all := make(chan struct{})
	return func() {
		if met.Add(1) == n {
			close(all)
		}
		<-all
	}
}
