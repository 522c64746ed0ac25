package storetest

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keystile/keystile/store"
)

var feedCases = []testCase{
	{
		name: "feed of an empty store",
		rule: "The feed of an empty store has no changes and ends at 0.",
		run: func(s *suite) {
			s.need("Feed", s.Feed != nil)
			if end := s.end(); end != 0 {
				s.errorf("the end is %d, want 0", end)
			}
			changes, last, err := s.Feed.Changes(s.ctx, 0)
			s.ok(err, "Changes")
			if len(changes) != 0 || last != 0 {
				s.errorf("Changes after 0: got %v and %d, want nothing and 0", changes, last)
			}
		},
	},
	{
		name: "feed lists every write",
		rule: "Every write is in the feed once it has returned, with what it touched, in the order of the writes; a rotation touches both keys. A write that failed, a read and the recording of uses are not (S33, S46, S77).",
		run: func(s *suite) {
			s.need("Feed", s.Feed != nil)
			start := s.end()
			var all []store.Change
			wrote := func(what string, want ...store.Change) {
				after := s.end()
				got := s.changes(start)
				if !slices.Equal(got[:min(len(got), len(all))], all) {
					s.fatalf("%s: changes from before are not as they were", what)
				}
				got = got[len(all):]
				if !sameChanges(got, want) {
					s.errorf("%s: got the changes %v, want %v", what, got, want)
				}
				all = append(all, got...)
				s.feeds(after)
			}
			u := s.addUser("acme", "ada")
			wrote("PutUser of a new user", userChange(u))
			k, other := s.insert(newKey(u, 1)), newKey(u, 2)
			wrote("InsertKey", keyChange(k))
			s.update(k)
			wrote("UpdateKey", keyChange(k))
			s.rotate(other, k, base)
			wrote("InsertKey of a rotation", keyChange(k), keyChange(other))
			s.putUser(u)
			wrote("PutUser", userChange(u))
			set := zeroSettings("globex")
			s.putSettings(set)
			wrote("UpdateSettings", store.Change{Kind: store.ChangedSettings, Org: "globex"})
			s.putSettings(set)
			wrote("UpdateSettings again", store.Change{Kind: store.ChangedSettings, Org: "globex"})

			after := s.end()
			s.is(s.Store.UpdateKey(s.ctx, newKey(u, 1)), store.ErrConflict, "UpdateKey")
			s.is(s.Store.UpdateKey(s.ctx, newKey(u, 9)), store.ErrNotFound, "UpdateKey")
			s.is(s.Store.InsertKey(s.ctx, newKey(u, 1), nil, noCap), store.ErrExists, "InsertKey")
			s.is(s.Store.InsertKey(s.ctx, newKey(u, 9), nil, 0), store.ErrLimit, "InsertKey")
			s.is(s.Store.InsertKey(s.ctx, newKey(u, 9), clone(k), noCap), store.ErrConflict, "InsertKey of a rotation")
			s.is(s.Store.PutUser(s.ctx, &store.User{Org: "acme", ID: "ada"}), store.ErrExists, "PutUser")
			s.is(s.Store.UpdateSettings(s.ctx, zeroSettings("globex")), store.ErrConflict, "UpdateSettings")
			s.purges(base, 0)
			s.stored(k, "reads")
			if s.Uses != nil {
				s.record(use(k, "192.0.2.1", base))
			}
			s.feeds(after)

			s.purges(base.Add(time.Hour), 1)
			wrote("PurgeKeys", keyChange(k))
		},
	},
	{
		name: "feed in pages",
		rule: "Changes returns at most 1000 changes, oldest first, and the place of the last of them; to go on from each place given out shows every change once, and after the last there are none.",
		run: func(s *suite) {
			s.need("Feed", s.Feed != nil)
			start := s.end()
			const total = 1003
			var want []store.Change
			for n := range total {
				want = append(want, userChange(s.addUser("acme", fmt.Sprint(n))))
			}
			var got []store.Change
			var pages []int
			after := start
			for {
				changes, last, err := s.Feed.Changes(s.ctx, after)
				s.ok(err, "Changes")
				if len(changes) > 1000 {
					s.errorf("Changes: got %d changes, want at most 1000", len(changes))
				}
				if len(changes) == 0 {
					if last != after {
						s.errorf("Changes after the end %d: the place to go on from is %d", after, last)
					}
					break
				}
				if last <= after {
					s.fatalf("Changes after %d: the place to go on from is %d", after, last)
				}
				got, pages, after = append(got, changes...), append(pages, len(changes)), last
			}
			if !slices.Equal(got, want) {
				s.errorf("Changes in pages of %v: got %d changes, want all %d in order", pages, len(got), len(want))
			}
			if end := s.end(); end != after {
				s.errorf("the end is %d, but the place of the last change is %d", end, after)
			}
		},
	},
	{
		name: "feed under parallel writes",
		rule: "A change is in the feed once its write has returned, and never appears before a place that was given out: whoever follows the feed sees every change once, in the order of each writer.",
		run: func(s *suite) {
			s.need("Feed", s.Feed != nil)
			start := s.end()
			const writers, rounds = 4, 15
			var running atomic.Int32
			running.Store(writers)
			s.outcomes(writers+1, func(i int) error {
				if i == writers {
					return s.follow(start, &running, writers*rounds)
				}
				defer running.Add(-1)
				for n := range rounds {
					_, before, err := s.Feed.Changes(s.ctx, -1)
					if err != nil {
						return err
					}
					u := &store.User{Org: fmt.Sprint(i), ID: fmt.Sprint(n)}
					if err := s.either(i).PutUser(s.ctx, u); err != nil {
						return err
					}
					changes, _, err := s.Feed.Changes(s.ctx, before)
					if err != nil {
						return err
					}
					if !slices.Contains(changes, userChange(u)) {
						s.errorf("a write has returned and is not after the place where the feed ended before it")
					}
				}
				return nil
			})
			next := make(map[string]int)
			for _, c := range s.changes(start) {
				if c.User != fmt.Sprint(next[c.Org]) {
					s.errorf("changes of one writer are out of order")
				}
				next[c.Org]++
			}
		},
	},
	{
		name: "feed that forgot",
		rule: "If changes after a place are no longer kept, or the place lies beyond the feed's end, the first change is of ChangedAll, and one can go on from the place returned.",
		run: func(s *suite) {
			s.need("Feed", s.Feed != nil)
			u := s.addUser("acme", "ada")
			resumes := func(after int64, what string) {
				changes, last, err := s.Feed.Changes(s.ctx, after)
				s.ok(err, "Changes")
				if len(changes) == 0 || changes[0] != (store.Change{Kind: store.ChangedAll}) {
					s.fatalf("Changes after %s: got %d changes, want ChangedAll first", what, len(changes))
				}
				s.changes(last)
				s.putUser(u)
				if got := s.changes(last); !slices.Contains(got, userChange(u)) {
					s.errorf("Changes after the place that was returned with ChangedAll: a later change is not there")
				}
			}
			resumes(s.end()+1000, "a place beyond the end")
			resumes(1<<62, "a place far beyond the end")
			s.feeds(s.end())

			s.need("ForgetChanges", s.ForgetChanges != nil)
			before := s.end()
			s.putUser(u)
			s.ok(s.ForgetChanges(s.ctx), "ForgetChanges")
			resumes(before, "a place whose changes are forgotten")
			resumes(0, "the beginning of a feed that forgot")
			s.feeds(s.end())
		},
	},
}

func keyChange(k *store.Key) store.Change {
	return store.Change{Kind: store.ChangedKey, Digest: k.Digest, Org: k.Org, User: k.User}
}

func userChange(u *store.User) store.Change {
	return store.Change{Kind: store.ChangedUser, Org: u.Org, User: u.ID}
}

// sameChanges reports whether one write made these changes, in whatever order.
func sameChanges(got, want []store.Change) bool {
	for _, w := range want {
		if !slices.Contains(got, w) {
			return false
		}
	}
	return len(got) == len(want)
}

// feeds checks the changes after a place.
func (s *suite) feeds(after int64, want ...store.Change) {
	if got := s.changes(after); !slices.Equal(got, want) {
		s.errorf("Changes after %d: got %v, want %v", after, got, want)
	}
}

// follow reads the feed from a place on until no writer is running, and checks
// that it sees that many changes, each once.
func (s *suite) follow(after int64, running *atomic.Int32, want int) error {
	seen := make(map[store.Change]int)
	for {
		done := running.Load() == 0
		changes, last, err := s.Feed.Changes(s.ctx, after)
		if err != nil {
			return err
		}
		for _, c := range changes {
			seen[c]++
		}
		if done && len(changes) == 0 {
			break
		}
		after = last
	}
	for c, n := range seen {
		if n != 1 {
			s.errorf("whoever follows the feed saw a change of %s/%s %d times", c.Org, c.User, n)
		}
	}
	if len(seen) != want {
		s.errorf("whoever follows the feed saw %d changes, want %d", len(seen), want)
	}
	return nil
}
