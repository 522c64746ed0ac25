package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/keystile/keystile/store"
)

var failureCases = []testCase{
	{
		name: "context has ended",
		rule: "A method whose context has ended returns an error that wraps ctx.Err, is none of the store's answers, and changes nothing (S76).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			k := s.insert(newKey(u, 1))
			revoked := newKey(u, 2)
			revoked.RevokedAt = base.AddDate(-1, 0, 0)
			s.insert(revoked)
			var end int64
			if s.Feed != nil {
				end = s.end()
			}

			canceled, cancel := context.WithCancel(s.ctx)
			cancel()
			late, cancel := context.WithDeadline(s.ctx, time.Unix(1, 0))
			defer cancel()
			for want, ctx := range map[error]context.Context{context.Canceled: canceled, context.DeadlineExceeded: late} {
				for what, call := range s.calls(k, u) {
					err := call(ctx)
					s.failed(err, "%s", what)
					if !errors.Is(err, want) {
						s.errorf("%s: got error %v, want %v", what, err, want)
					}
				}
			}
			s.stored(k, "calls whose context had ended")
			s.stored(revoked, "calls whose context had ended")
			s.absent(newKey(u, 100), "calls whose context had ended")
			s.same(s.user("acme", "ada"), u, "Users after calls whose context had ended")
			s.listsUsers(store.UserQuery{Org: "acme"}, "ada")
			s.same(s.settings("acme"), zeroSettings("acme"), "Settings after calls whose context had ended")
			if s.Uses != nil {
				s.sums("acme", store.UseSummary{KeyID: k.ID})
			}
			if s.Feed != nil {
				s.feeds(end)
			}
		},
	},
	{
		name: "context ends meanwhile",
		rule: "A write whose context ends while it is under way is done whole or not at all, and is never an answer of the store that is not true (S76).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			s.insert(newKey(u, 0))
			for n := range 20 {
				active := s.keys(store.Query{User: "ada"})
				if len(active) != 1 {
					s.fatalf("Keys: got %d unrevoked keys of a user who rotates one, want 1", len(active))
				}
				old, k := active[0], newKey(u, n+1)
				old.RevokedAt = base
				ctx, cancel := context.WithCancel(s.ctx)
				go cancel()
				err := s.Store.InsertKey(ctx, k, old, 1)
				cancel()
				_, lost := s.Store.Lookup(s.ctx, k.Digest)
				switch {
				case err == nil && lost != nil:
					s.errorf("InsertKey had no error, but Lookup: %v", lost)
				case err != nil:
					s.failed(err, "InsertKey of a rotation whose context ended")
				}
			}
		},
	},
	{
		name: "failure is no answer",
		rule: "When the store fails, every method returns an error, and it is none of the store's answers: an outage is never taken for an unknown key (S76).",
		run: func(s *suite) {
			s.need("Break", s.Break != nil)
			u := s.addUser("acme", "ada")
			k := s.insert(newKey(u, 1))
			calls := s.calls(k, u)
			calls["Lookup of an unknown digest"] = func(ctx context.Context) error {
				r, err := s.Store.Lookup(ctx, digest(99))
				if r != nil {
					s.errorf("Lookup that failed returned a record")
				}
				return err
			}
			calls["Settings of an unknown organization"] = func(ctx context.Context) error {
				set, err := s.Store.Settings(ctx, "nobody")
				if set != nil {
					s.errorf("Settings that failed returned settings")
				}
				return err
			}
			calls["UpdateKey of an unknown key"] = func(ctx context.Context) error {
				return s.Store.UpdateKey(ctx, newKey(u, 99))
			}
			s.ok(s.Break(), "Break")
			for what, call := range calls {
				s.failed(call(s.ctx), "%s of a store that is broken", what)
			}
		},
	},
}

// calls returns a call of every method, each of which would work, given a key
// and a user as they are stored.
func (s *suite) calls(k *store.Key, u *store.User) map[string]func(ctx context.Context) error {
	calls := map[string]func(ctx context.Context) error{
		"Lookup":   func(ctx context.Context) error { _, err := s.Store.Lookup(ctx, k.Digest); return err },
		"Settings": func(ctx context.Context) error { _, err := s.Store.Settings(ctx, k.Org); return err },
		"InsertKey": func(ctx context.Context) error {
			return s.Store.InsertKey(ctx, newKey(u, 100), nil, noCap)
		},
		"InsertKey of a rotation": func(ctx context.Context) error {
			old := clone(k)
			old.RevokedAt = base
			return s.Store.InsertKey(ctx, newKey(u, 100), old, noCap)
		},
		"Keys": func(ctx context.Context) error { _, err := s.Store.Keys(ctx, store.Query{}); return err },
		"UpdateKey": func(ctx context.Context) error {
			changed := clone(k)
			changed.Name = "changed"
			return s.Store.UpdateKey(ctx, changed)
		},
		"PurgeKeys": func(ctx context.Context) error {
			_, err := s.Store.PurgeKeys(ctx, base.AddDate(10, 0, 0))
			return err
		},
		"Users": func(ctx context.Context) error {
			_, err := s.Store.Users(ctx, store.UserQuery{Org: u.Org})
			return err
		},
		"PutUser": func(ctx context.Context) error {
			changed := *u
			changed.Tier = "changed"
			return s.Store.PutUser(ctx, &changed)
		},
		"PutUser of a new user": func(ctx context.Context) error {
			return s.Store.PutUser(ctx, &store.User{Org: u.Org, ID: "new"})
		},
		"UpdateSettings": func(ctx context.Context) error {
			return s.Store.UpdateSettings(ctx, zeroSettings(u.Org))
		},
	}
	if s.Uses != nil {
		calls["RecordUses"] = func(ctx context.Context) error {
			return s.Uses.RecordUses(ctx, []store.Use{use(k, "192.0.2.1", base)})
		}
		calls["Uses"] = func(ctx context.Context) error {
			_, err := s.Uses.Uses(ctx, k.Org, []string{k.ID})
			return err
		}
	}
	if s.Feed != nil {
		calls["Changes"] = func(ctx context.Context) error { _, _, err := s.Feed.Changes(ctx, 0); return err }
		calls["Changes after -1"] = func(ctx context.Context) error { _, _, err := s.Feed.Changes(ctx, -1); return err }
	}
	return calls
}
