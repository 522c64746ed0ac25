package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/keystile/keystile/store"
)

var userCases = []testCase{
	{
		name: "users are kept",
		rule: "PutUser with Version 0 adds a user with Version 1, and with the row's Version replaces every field and raises it by one (S31, D16, D17, D42).",
		run: func(s *suite) {
			u := fullUser("acme", "ada")
			for _, change := range []func(){
				func() {},
				func() { u.Email = "" },
				func() { u.Tier = "" },
				func() { u.Owner = false },
				func() { u.Permitted = false },
				func() { u.SuspendedAt = time.Time{} },
				func() { version := u.Version; *u = *fullUser("acme", "ada"); u.Version = version },
				func() {}, // no change is a write too
			} {
				change()
				s.putUser(u)
				s.same(s.user("acme", "ada"), u, "Users after PutUser")
			}
		},
	},
	{
		name: "user exists",
		rule: "PutUser with Version 0 is ErrExists if there is a user with that ID in the organization, and changes nothing.",
		run: func(s *suite) {
			u := fullUser("acme", "ada")
			s.putUser(u)
			for range 2 {
				s.is(s.Store.PutUser(s.ctx, &store.User{Org: "acme", ID: "ada", Tier: "Free"}), store.ErrExists, "PutUser of a user that is there")
				s.same(s.user("acme", "ada"), u, "Users after a refused PutUser")
				s.putUser(u)
			}
		},
	},
	{
		name: "user changed",
		rule: "PutUser is ErrConflict if Version is not the stored one, and ErrNotFound if there is no such user, and changes nothing.",
		run: func(s *suite) {
			u := fullUser("acme", "ada")
			for _, version := range []int64{1, 2, -1} {
				s.is(s.Store.PutUser(s.ctx, &store.User{Org: "acme", ID: "ada", Version: version}), store.ErrNotFound, "PutUser of version %d of no user", version)
			}
			if got := s.users(store.UserQuery{Org: "acme"}); len(got) != 0 {
				s.fatalf("Users after a refused PutUser: got %d users, want none", len(got))
			}
			s.putUser(u)
			s.putUser(u)
			for _, version := range []int64{1, 3, -1} {
				s.is(s.Store.PutUser(s.ctx, &store.User{Org: "acme", ID: "ada", Version: version}), store.ErrConflict, "PutUser with version %d of 2", version)
				s.same(s.user("acme", "ada"), u, "Users after a refused PutUser")
			}
		},
	},
	{
		name: "users of organizations",
		rule: "A user's ID is unique within the organization: the same ID elsewhere is another user, and so is one in another case or with a blank.",
		run: func(s *suite) {
			users := []*store.User{}
			for _, org := range []string{"acme", "ACME", "acme ", " ", "acm"} {
				for _, id := range []string{"ada", "ADA", "ada ", " ada", "eada"} {
					u := fullUser(org, id)
					u.Email = fmt.Sprintf("%q in %q", id, org)
					s.putUser(u)
					users = append(users, u)
				}
			}
			users[0].Tier, users[0].Owner = "Free", false
			s.putUser(users[0])
			for _, u := range users {
				s.same(s.user(u.Org, u.ID), u, "Users")
			}
		},
	},
	{
		name: "parallel users",
		rule: "Of 20 creations of one user at once exactly one works and the others are ErrExists; of 20 updates of one version exactly one, and the others are ErrConflict.",
		run: func(s *suite) {
			got := s.outcomes(20, func(i int) error {
				return s.either(i).PutUser(s.ctx, &store.User{Org: "acme", ID: "ada", Email: fmt.Sprint(i)})
			})
			if got[nil] != 1 || got[store.ErrExists] != 19 {
				s.errorf("creations: got %v, want 1 without an error and 19 with ErrExists", got)
			}
			u := s.user("acme", "ada")
			got = s.outcomes(20, func(i int) error {
				mine := *u
				mine.Tier = fmt.Sprint(i)
				return s.either(i).PutUser(s.ctx, &mine)
			})
			if got[nil] != 1 || got[store.ErrConflict] != 19 {
				s.errorf("updates: got %v, want 1 without an error and 19 with ErrConflict", got)
			}
			if v := s.user("acme", "ada").Version; v != 2 {
				s.errorf("Version is %d, want 2", v)
			}
		},
	},
	{
		name: "users in order and pages",
		rule: "Users are listed by ID, byte for byte, those of one organization; pages that go on after the last ID show every user once, and a page has at most Limit users: 100 if it is 0 or less, and never more than 1000.",
		run: func(s *suite) {
			few := []string{"a", "B", "b", "ab", "a b", "_", "%", "é", "e", "日本", "😀", "\uffee", "10", "9", "a\\", "Zoë", "zoe"}
			want := slices.Clone(few)
			const total = 1003
			for n := len(want); n < total; n++ {
				want = append(want, fmt.Sprintf("u%04d", n*7%total))
			}
			for org, ids := range map[string][]string{"few": few, "acme": want} {
				for _, id := range ids {
					s.ok(s.Store.PutUser(s.ctx, &store.User{Org: org, ID: id}), "PutUser")
				}
				slices.Sort(ids)
			}
			for limit, n := range map[int]int{0: 100, -1: 100, 1: 1, 1000: 1000, 1001: 1000, 1<<31 - 1: 1000} {
				s.listsUsers(store.UserQuery{Org: "acme", Limit: limit}, want[:n]...)
			}
			for _, size := range []int{1, 2, 7, 16, 17, 18} {
				s.pagesUsers("few", size, few)
			}
			s.pagesUsers("acme", 100, want)
			s.pagesUsers("acme", 1000, want)
			place := "u01 is no user, but a place"
			n, _ := slices.BinarySearch(want, place)
			s.listsUsers(store.UserQuery{Org: "acme", After: place}, want[n:][:100]...)
		},
	},
	{
		name: "users by filter",
		rule: "A UserQuery selects users of its Org only, so none if that is empty, and with an ID that user alone.",
		run: func(s *suite) {
			s.listsUsers(store.UserQuery{Org: "acme"})
			for _, org := range []string{"acme", "globex"} {
				s.addUser(org, "ada")
				s.addUser(org, "bob")
			}
			s.listsUsers(store.UserQuery{Org: "acme"}, "ada", "bob")
			s.listsUsers(store.UserQuery{Org: "acme", ID: "bob"}, "bob")
			s.listsUsers(store.UserQuery{Org: "acme", ID: "BOB"})
			s.listsUsers(store.UserQuery{Org: "acme", ID: "b%"})
			s.listsUsers(store.UserQuery{Org: "acme", ID: "bo"})
			s.listsUsers(store.UserQuery{Org: "ACME"})
			s.listsUsers(store.UserQuery{})
			s.listsUsers(store.UserQuery{ID: "ada"})
			s.listsUsers(store.UserQuery{Org: "acme", After: "ada"}, "bob")
			s.listsUsers(store.UserQuery{Org: "acme", ID: "ada", After: "ada"})
			s.listsUsers(store.UserQuery{Org: "acme", After: "bob"})
		},
	},
}

// pagesUsers checks which users of an organization are shown by pages of a size.
func (s *suite) pagesUsers(org string, size int, want []string) {
	var all []string
	q := store.UserQuery{Org: org, Limit: size}
	for len(all) <= len(want) {
		page := userIDs(s.users(q))
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
		q.After = page[len(page)-1]
	}
	if !slices.Equal(all, want) {
		s.errorf("pages of %d users: got %d users, want all %d in order", size, len(all), len(want))
	}
}

// listsUsers checks which users a query selects, in order, and of which
// organization they are.
func (s *suite) listsUsers(q store.UserQuery, want ...string) {
	got := s.users(q)
	if !slices.Equal(userIDs(got), want) {
		s.errorf("Users of %+v: got %s, want %s", q, short(userIDs(got)), short(want))
	}
	for _, u := range got {
		if u.Org != q.Org {
			s.errorf("Users of %+v: got a user of %q", q, u.Org)
		}
	}
}
