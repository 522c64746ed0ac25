package storetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keystile/keystile/store"
)

var listCases = []testCase{
	{
		name: "keys are whole",
		rule: "Keys returns whole rows, without those whose RevokedAt is set unless asked for (S47, D12).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			want := []*store.Key{s.insert(fullKey(u, 3)), s.insert(newKey(u, 2)), s.insert(fullKey(u, 1))}
			got := s.keys(store.Query{Revoked: true})
			if !slices.Equal(ids(got), ids(want)) {
				s.fatalf("Keys: got %v, want %v", ids(got), ids(want))
			}
			for i := range want {
				s.same(got[i], want[i], "Keys")
			}
			if got := s.keys(store.Query{}); !slices.Equal(ids(got), ids(want[1:2])) {
				s.errorf("Keys without revoked ones: got %v, want %v", ids(got), ids(want[1:2]))
			}
		},
	},
	{
		name: "keys of nobody",
		rule: "A Query that selects nothing is no error: the answer is an empty page.",
		run: func(s *suite) {
			s.lists(store.Query{})
			s.insert(newKey(s.addUser("acme", "ada"), 1))
			for _, q := range []store.Query{
				{Org: "globex"},
				{User: "bob"},
				{ID: "csk_live_ffffffff"},
				{Name: "nothing"},
				{After: store.Cursor{CreatedAt: base.AddDate(-9, 0, 0), ID: "csk_live_00000001"}},
			} {
				s.lists(q)
			}
		},
	},
	{
		name: "keys in order",
		rule: "Keys are listed newest first by (CreatedAt, ID), both descending, IDs byte for byte; a creation time that is zero is the oldest of all, and the Unix epoch is an ordinary date (D22).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			times := []time.Time{
				time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC),
				base.Add(time.Microsecond), base,
				time.Unix(0, 1000).UTC(), time.Unix(0, 0).UTC(), time.Unix(0, -1000).UTC(),
				time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC),
				time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC),
				{},
			}
			names := []string{"z", "b", "a9", "a10", "a", "_", "Z", "A", "é"}
			slices.SortFunc(names, func(a, b string) int { return strings.Compare(b, a) })
			var want []string
			var ks []*store.Key
			for i, at := range times {
				for j, name := range names {
					k := newKey(u, 100*i+j)
					k.CreatedAt, k.ID = at, fmt.Sprintf("%d%s", i, name)
					want, ks = append(want, k.ID), append(ks, k)
				}
			}
			for i := range ks { // in some other order
				s.insert(ks[i*7%len(ks)])
			}
			s.lists(store.Query{}, want...)
			for n := range ks { // from each of them on
				after := store.Cursor{CreatedAt: ks[n].CreatedAt, ID: ks[n].ID}
				s.lists(store.Query{After: after}, want[n+1:]...)
			}
		},
	},
	{
		name: "keys by filter",
		rule: "The fields of a Query are all required to match, each exactly but for Name; a zero field selects everything (S47, S50, S51).",
		run: func(s *suite) {
			n := 0
			var all []*store.Key
			for _, org := range []string{"acme", "globex"} {
				for _, user := range []string{"ada", "ADA", "bob"} {
					u := s.addUser(org, user)
					for _, name := range []string{"export", "Import"} {
						for _, revoked := range []bool{false, true} {
							n++
							k := newKey(u, n)
							k.Name = name
							if revoked {
								k.RevokedAt = base.AddDate(n%3, 0, 0)
							}
							all = append(all, s.insert(k))
						}
					}
				}
			}
			slices.Reverse(all)
			for _, org := range []string{"", "acme", "globex", "ACME", "acm", "acme "} {
				for _, user := range []string{"", "ada", "ADA", "bob", "ad", "%"} {
					for _, id := range []string{"", all[0].ID, all[9].ID, strings.ToUpper(all[9].ID), "csk_live_", "csk_live_________"} {
						for _, name := range []string{"", "port", "IMPORT", "x"} {
							for _, revoked := range []bool{false, true} {
								q := store.Query{Org: org, User: user, ID: id, Name: name, Revoked: revoked}
								var want []string
								for _, k := range all {
									if (org == "" || org == k.Org) && (user == "" || user == k.User) && (id == "" || id == k.ID) &&
										strings.Contains(strings.ToLower(k.Name), strings.ToLower(name)) && (revoked || k.RevokedAt.IsZero()) {
										want = append(want, k.ID)
									}
								}
								s.lists(q, want...)
							}
						}
					}
				}
			}
		},
	},
	{
		name: "keys by name",
		rule: "Name selects keys whose name has that part, ASCII letters in either case and everything else as it is: % _ \\ * ? [ ' are ordinary, and other letters keep their case (S50).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			names := []string{
				"Export", "export all", "100%", "100", "a_b", "aXb", `a\b`, `a\\b`, `a\_b`, "a*b", "a?b", "[ab]", "it's", `"quoted"`,
				"ÄRGER", "ärger", "Straße", "STRASSE", "İstanbul", "istanbul", "K", "\u212a", "ſ", "s", "e\u0301", "é", "日本", "a\nb", "😀", "",
			}
			for i, name := range names {
				k := newKey(u, i)
				k.Name = name
				s.insert(k)
			}
			for _, part := range append(names, "EXPORT", "xpor", "t a", "%", "_", `\`, `\\`, `\_`, `\%`, "*", "?", "[a", "'", `"`, "''", "--", "ä", "Ä", "ß", "SS", "k", "İ", "i", "\u0301", "本", "\n", " ", "%%", "__") {
				var want []string
				for i, name := range slices.Backward(names) { // newest first
					if strings.Contains(lower(name), lower(part)) {
						want = append(want, newKey(u, i).ID)
					}
				}
				s.lists(store.Query{Name: part}, want...)
			}
		},
	},
	{
		name: "keys in pages",
		rule: "Pages that go on after the last key of the page before show every key once, also where many were created in the same microsecond, where keys are revoked or made meanwhile, and where a filter applies.",
		run: func(s *suite) {
			u, v := s.addUser("acme", "ada"), s.addUser("acme", "bob")
			const total = 60
			for n := range total {
				k := newKey(u, n*37%total)
				if n%2 == 0 {
					k = newKey(v, n*37%total)
				}
				k.CreatedAt = base.Add(time.Duration(n/17) * time.Microsecond)
				s.insert(k)
			}
			for _, q := range []store.Query{{}, {Org: "acme"}, {Org: "acme", User: "ada"}, {User: "bob", Name: "KEY"}} {
				all := ids(s.keys(q))
				for _, size := range []int{1, 2, 7, 17, 30, 59, 60, 61, 1000} {
					q.Limit = size
					if got := s.pages(q, nil); !slices.Equal(got, all) {
						s.errorf("pages of %d for %+v: got %v, want %v", size, q, got, all)
					}
				}
			}
			all := ids(s.keys(store.Query{}))
			round := 0
			got := s.pages(store.Query{Limit: 10}, func(page []*store.Key) {
				round++
				newer := newKey(u, 1000+round)
				newer.CreatedAt = base.AddDate(1, 0, 0)
				s.insert(newer)
				gone := page[len(page)-1]
				gone.RevokedAt = base
				s.update(gone)
			})
			if !slices.Equal(got, all) {
				s.errorf("pages of 10 while keys come and go: got %v, want %v", got, all)
			}
		},
	},
	{
		name: "key limits",
		rule: "A page has at most Limit keys: 100 if it is 0 or less, and never more than 1000.",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			const total = 1003
			for n := range total {
				s.insert(newKey(u, n))
			}
			for limit, want := range map[int]int{0: 100, -1: 100, -1 << 31: 100, 1: 1, 99: 99, 101: 101, 1000: 1000, 1001: 1000, 1<<31 - 1: 1000} {
				got := s.keys(store.Query{Limit: limit})
				if len(got) != want {
					s.errorf("Keys with a limit of %d: got %d keys, want %d", limit, len(got), want)
				} else if got[0].ID != newKey(u, total-1).ID || got[want-1].ID != newKey(u, total-want).ID {
					s.errorf("Keys with a limit of %d: not the newest ones", limit)
				}
			}
		},
	},
	{
		name: "a cursor is a place",
		rule: "After is a place in the order and need not be a key that is there still; it is cut off to a microsecond as every time is.",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			for n := range 3 {
				k := newKey(u, n)
				k.CreatedAt = base.Add(time.Duration(n) * time.Microsecond)
				s.insert(k)
			}
			zero, one, two := newKey(u, 0).ID, newKey(u, 1).ID, newKey(u, 2).ID
			at := func(d time.Duration, id string) store.Query {
				return store.Query{After: store.Cursor{CreatedAt: base.Add(d), ID: id}}
			}
			s.lists(at(2*time.Microsecond, ""), one, zero)
			s.lists(at(2*time.Microsecond, "a"), one, zero)
			s.lists(at(2*time.Microsecond, "z"), two, one, zero)
			s.lists(at(time.Hour, "a"), two, one, zero)
			s.lists(at(time.Microsecond+999, one), zero)
			s.lists(at(-time.Hour, "z"))
			zone := time.FixedZone("", -7*3600)
			s.lists(store.Query{After: store.Cursor{CreatedAt: base.Add(time.Microsecond).In(zone), ID: one}}, zero)
		},
	},
}

// lists checks which keys a query selects, in order.
func (s *suite) lists(q store.Query, want ...string) {
	if got := ids(s.keys(q)); !slices.Equal(got, want) {
		s.errorf("Keys of %+v: got %v, want %v", q, got, want)
	}
}

// pages returns the IDs of all pages of q; between them it calls then.
func (s *suite) pages(q store.Query, then func(page []*store.Key)) []string {
	var all []string
	for range 1000 {
		page := s.keys(q)
		if len(page) > q.Limit {
			s.fatalf("Keys with a limit of %d: got %d keys", q.Limit, len(page))
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, ids(page)...)
		last := page[len(page)-1]
		q.After = store.Cursor{CreatedAt: last.CreatedAt, ID: last.ID}
		if then != nil {
			then(page)
		}
	}
	s.fatalf("Keys of %+v: the pages have no end", q)
	return nil
}

// lower returns s with its ASCII letters in lower case.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
