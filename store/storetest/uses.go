package storetest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keystile/keystile/store"
)

var useCases = []testCase{
	{
		name: "uses of what was never used",
		rule: "Uses returns the summaries in the order asked for; that of a key that was never used, is unknown or is another organization's has only its KeyID (S49).",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			k := s.insert(newKey(s.addUser("acme", "ada"), 1))
			other := s.insert(newKey(s.addUser("globex", "ada"), 2))
			s.record(use(other, "192.0.2.1", base), use(k, "192.0.2.2", base))
			unused := s.insert(newKey(s.user("acme", "ada"), 3))
			used := sum(k, base, "curl/8", day(base, 1), addr("192.0.2.2", base, base, 1))
			none := func(id string) store.UseSummary { return store.UseSummary{KeyID: id} }
			s.sums("acme")
			s.sums("acme", none(unused.ID), none("csk_live_ffffffff"), used, none(other.ID), none(""), none("a\x00b"), none("\xff"), used)
			s.sums("globex", none(k.ID), sum(other, base, "curl/8", day(base, 1), addr("192.0.2.1", base, base, 1)))
			s.sums("ACME", none(k.ID))
			s.sums("", none(k.ID))
			s.sums("acme\x00", none(k.ID))
		},
	},
	{
		name: "uses add up",
		rule: "Uses of one address add their counts, keep the first of their Firsts and the last of their Lasts, and count for the day of Last in UTC, in one batch as in several (S49, D24).",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			k := s.insert(newKey(s.addUser("acme", "ada"), 1))
			midnight := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
			a := store.Use{KeyID: k.ID, Addr: netip.MustParseAddr("192.0.2.1"), UserAgent: "one", First: midnight.Add(-2 * time.Hour), Last: midnight.Add(-time.Microsecond), Count: 3}
			b := store.Use{KeyID: k.ID, Addr: netip.MustParseAddr("2001:db8::1"), UserAgent: "two", First: midnight.Add(-time.Hour), Last: midnight, Count: 5}
			c := store.Use{KeyID: k.ID, Addr: a.Addr, UserAgent: "three", First: midnight.Add(time.Hour), Last: midnight.Add(2*time.Hour + 7*time.Microsecond), Count: 1 << 40}
			s.record(a)
			s.sums("acme", sum(k, a.Last, "one", day(a.Last, 3), addr("192.0.2.1", a.First, a.Last, 3)))
			s.record(b, c)
			want := sum(k, c.Last, "three", day(midnight, 5+1<<40), addr("192.0.2.1", a.First, c.Last, 3+1<<40), addr("2001:db8::1", b.First, b.Last, 5))
			want.Days = append(want.Days, day(a.Last, 3))
			s.sums("acme", want)

			all := s.insert(newKey(s.user("acme", "ada"), 2))
			a.KeyID, b.KeyID, c.KeyID, want.KeyID = all.ID, all.ID, all.ID, all.ID
			zone := time.FixedZone("", -8*3600) // does not decide the day
			a.First, a.Last, b.Last = a.First.In(zone), a.Last.In(zone), b.Last.In(zone)
			s.record(b, a, c)
			s.sums("acme", want)
		},
	},
	{
		name: "a late use moves nothing back",
		rule: "Facts only grow: an older use that arrives late adds to the counts and the first time, and moves neither a last time nor the user agent back (S49, D24).",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			k := s.insert(newKey(s.addUser("acme", "ada"), 1))
			s.record(use(k, "192.0.2.1", base))
			late := use(k, "192.0.2.1", base.Add(-26*time.Hour))
			late.UserAgent, late.Count = "older", 4
			s.record(late)
			elsewhere := use(k, "192.0.2.2", base.Add(-time.Hour))
			elsewhere.UserAgent = "older"
			s.record(elsewhere)
			want := sum(k, base, "curl/8", day(base, 2), addr("192.0.2.1", late.First, base, 5), addr("192.0.2.2", elsewhere.First, elsewhere.Last, 1))
			want.Days = append(want.Days, day(late.Last, 4))
			s.sums("acme", want)
		},
	},
	{
		name: "ten addresses",
		rule: "A summary lists the 10 addresses that were used last, last used first; the others are forgotten, however many there were (D24).",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			k := s.insert(newKey(s.addUser("acme", "ada"), 1))
			at := func(n int) time.Time { return base.Add(time.Duration(n) * time.Second) }
			one := func(n int) store.Use { return use(k, fmt.Sprintf("192.0.2.%d", n), at(n)) }
			listed := func(ns ...int) {
				last := slices.Max(ns)
				got := s.summary("acme", k.ID)
				var addrs []store.AddrUse
				for _, n := range ns {
					addrs = append(addrs, addr(fmt.Sprintf("192.0.2.%d", n), at(n), at(n), 1))
				}
				if d := diff(got.Addrs, addrs); d != "" {
					s.errorf("addresses after the use at %d: %s", last, d)
				}
			}
			for n := range 9 {
				s.record(one(n))
			}
			listed(8, 7, 6, 5, 4, 3, 2, 1, 0)
			s.record(one(20))
			listed(20, 8, 7, 6, 5, 4, 3, 2, 1, 0)
			s.record(one(21))
			listed(21, 20, 8, 7, 6, 5, 4, 3, 2, 1)
			s.record(one(10)) // late, and newer than what is listed last
			listed(21, 20, 10, 8, 7, 6, 5, 4, 3, 2)
			s.record(one(0)) // late, and older than all
			listed(21, 20, 10, 8, 7, 6, 5, 4, 3, 2)
			s.record(one(30), one(31), one(32), one(33), one(34), one(35), one(36), one(37), one(38), one(39), one(40), one(41))
			listed(41, 40, 39, 38, 37, 36, 35, 34, 33, 32)
			if got := s.summary("acme", k.ID); len(got.Days) != 1 || got.Days[0].Count != 25 {
				s.errorf("Days: got %v, want a count of 25: addresses that are not listed count", got.Days)
			}
		},
	},
	{
		name: "thirty days",
		rule: "A summary counts by day in UTC, newest first, for the last 30 days, that of the last use included; days without use are left out (D24).",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			k := s.insert(newKey(s.addUser("acme", "ada"), 1))
			counted := func(want ...store.DayUse) {
				if d := diff(s.summary("acme", k.ID).Days, want); d != "" {
					s.errorf("days: %s", d)
				}
			}
			for n := range 31 {
				s.record(use(k, "192.0.2.1", base.AddDate(0, 0, n)))
			}
			var want []store.DayUse
			for n := 30; n > 0; n-- {
				want = append(want, day(base.AddDate(0, 0, n), 1))
			}
			counted(want...)
			s.record(use(k, "192.0.2.1", base)) // too late to be counted
			counted(want...)
			s.record(use(k, "192.0.2.1", base.AddDate(0, 0, 1)))
			want[29].Count = 2
			counted(want...)
			s.record(use(k, "192.0.2.1", base.AddDate(0, 0, 58)))
			counted(day(base.AddDate(0, 0, 58), 1), day(base.AddDate(0, 0, 30), 1), day(base.AddDate(0, 0, 29), 1))
			s.record(use(k, "192.0.2.1", base.AddDate(0, 0, 88)))
			counted(day(base.AddDate(0, 0, 88), 1))
		},
	},
	{
		name: "addresses of uses",
		rule: "A use from an unknown address is counted but not listed; an IPv4 address written as IPv6, or one with a zone, is the same as without (D18, D24).",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			k := s.insert(newKey(s.addUser("acme", "ada"), 1))
			unknown := use(k, "192.0.2.1", base)
			unknown.Addr, unknown.UserAgent = netip.Addr{}, "unknown"
			s.record(unknown)
			s.sums("acme", sum(k, base, "unknown", day(base, 1)))
			s.record(use(k, "192.0.2.1", base), use(k, "::ffff:192.0.2.1", base), use(k, "fe80::1%eth0", base.Add(-1000)), use(k, "fe80::1", base.Add(-1000)),
				use(k, "fe80::1%eth1", base.Add(-1000)), use(k, "::192.0.2.1", base.Add(-2000)), use(k, "0.0.0.0", base.Add(-3000)), use(k, "::", base.Add(-4000)))
			s.sums("acme", sum(k, base, "curl/8", day(base, 9), addr("192.0.2.1", base, base, 2), addr("fe80::1", base.Add(-1000), base.Add(-1000), 3),
				addr("::192.0.2.1", base.Add(-2000), base.Add(-2000), 1), addr("0.0.0.0", base.Add(-3000), base.Add(-3000), 1), addr("::", base.Add(-4000), base.Add(-4000), 1)))
		},
	},
	{
		name: "user agents",
		rule: "The user agent is that of the last use, an empty one too. It is the client's choice, so no string of it fails a batch: NULs and invalid UTF-8 become U+FFFD, and 256 bytes are kept, on a rune's border (D24).",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			k := s.insert(newKey(s.addUser("acme", "ada"), 1))
			for n, agent := range []struct{ given, want string }{
				{"Go-http-client/2.0", "Go-http-client/2.0"},
				{"", ""},
				{`'; DROP TABLE uses; -- "\%_`, `'; DROP TABLE uses; -- "\%_`},
				{strings.Repeat("x", 256), strings.Repeat("x", 256)},
				{strings.Repeat("x", 257), strings.Repeat("x", 256)},
				{strings.Repeat("x", 1<<20), strings.Repeat("x", 256)},
				{strings.Repeat("é", 128) + "x", strings.Repeat("é", 128)},
				{"x" + strings.Repeat("é", 128), "x" + strings.Repeat("é", 127)},
				{"xx" + strings.Repeat("日", 85), "xx" + strings.Repeat("日", 84)},
				{"xyz" + strings.Repeat("😀", 64), "xyz" + strings.Repeat("😀", 63)},
				{"a\x00b", "a\ufffdb"},
				{"caf\xe9 au lait", "caf\ufffd au lait"},
				{"\xff\xfe\x00\x80", "\ufffd"},
				{strings.Repeat("x", 255) + "\xff", strings.Repeat("x", 255)},
			} {
				u := use(k, "192.0.2.1", base.Add(time.Duration(n)*time.Second))
				u.UserAgent = agent.given
				s.record(u)
				got := s.summary("acme", k.ID).UserAgent
				if got != agent.want || !utf8.ValidString(got) {
					s.errorf("user agent of %s: got %s, want %s", short(agent.given), short(got), short(agent.want))
				}
			}
		},
	},
	{
		name: "uses of unknown keys",
		rule: "Uses of unknown keys are dropped, and the rest of their batch is recorded; a revoked key is not unknown (D24).",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			u := s.addUser("acme", "ada")
			k, revoked := s.insert(newKey(u, 1)), newKey(u, 2)
			revoked.RevokedAt = base.AddDate(-1, 0, 0)
			s.insert(revoked)
			later := newKey(u, 3)
			bad := use(k, "192.0.2.1", base)
			bad.KeyID = "a\x00b"
			s.record()
			s.record(use(later, "192.0.2.1", base), use(k, "192.0.2.1", base), bad, use(revoked, "192.0.2.1", base), use(&store.Key{}, "192.0.2.1", base))
			s.insert(later)
			s.sums("acme", sum(k, base, "curl/8", day(base, 1), addr("192.0.2.1", base, base, 1)),
				sum(revoked, base, "curl/8", day(base, 1), addr("192.0.2.1", base, base, 1)), store.UseSummary{KeyID: later.ID})
		},
	},
	{
		name: "uses that are refused",
		rule: "A use with a count below 1 or without a time is refused, and the whole batch with it: facts only grow.",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			k := s.insert(newKey(s.addUser("acme", "ada"), 1))
			for what, change := range map[string]func(u *store.Use){
				"a count of 0":     func(u *store.Use) { u.Count = 0 },
				"a negative count": func(u *store.Use) { u.Count = -1 },
				"no First":         func(u *store.Use) { u.First = time.Time{} },
				"no Last":          func(u *store.Use) { u.Last = time.Time{} },
			} {
				good, bad := use(k, "192.0.2.1", base), use(k, "192.0.2.1", base)
				change(&bad)
				s.failed(s.Uses.RecordUses(s.ctx, []store.Use{good, bad, good}), "RecordUses with %s", what)
			}
			s.sums("acme", store.UseSummary{KeyID: k.ID})
		},
	},
	{
		name: "times of uses",
		rule: "Times of uses are cut off to microseconds and returned in UTC, and a Last before its First, as when the clock was set back, is taken the other way around.",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			k := s.insert(newKey(s.addUser("acme", "ada"), 1))
			u := use(k, "192.0.2.1", base)
			u.First, u.Last = base.Add(26*time.Hour+999).In(time.FixedZone("", 3600)), base.Add(time.Microsecond+1)
			s.record(u)
			s.sums("acme", sum(k, base.Add(26*time.Hour), "curl/8", day(base.AddDate(0, 0, 1), 1), addr("192.0.2.1", base.Add(time.Microsecond), base.Add(26*time.Hour), 1)))
		},
	},
	{
		name: "parallel uses",
		rule: "Batches at once lose nothing: every request is counted once (D24).",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			u := s.addUser("acme", "ada")
			a, b := s.insert(newKey(u, 1)), s.insert(newKey(u, 2))
			const batches = 20
			s.outcomes(batches, func(i int) error {
				at := base.Add(time.Duration(i) * time.Second)
				batch := []store.Use{use(a, "192.0.2.1", at), use(b, "192.0.2.2", at), use(a, "192.0.2.3", at)}
				if i%2 == 1 {
					slices.Reverse(batch)
				}
				return s.Uses.RecordUses(s.ctx, batch)
			})
			last := base.Add((batches - 1) * time.Second)
			gotA, gotB := s.summary("acme", a.ID), s.summary("acme", b.ID)
			if len(gotA.Addrs) != 2 {
				s.fatalf("Addrs: got %v, want 2", gotA.Addrs)
			}
			slices.SortFunc(gotA.Addrs, func(x, y store.AddrUse) int { return x.Addr.Compare(y.Addr) })
			s.same(gotA, sum(a, last, "curl/8", day(base, 2*batches), addr("192.0.2.1", base, last, batches), addr("192.0.2.3", base, last, batches)), "Uses")
			s.same(gotB, sum(b, last, "curl/8", day(base, batches), addr("192.0.2.2", base, last, batches)), "Uses")
		},
	},
	{
		name: "uses stay with the key",
		rule: "Use facts outlive updates, rotation and revocation of a key and are no part of its version; they are purged with it, and do not come back with a new key of its ID (D37).",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			u := s.addUser("acme", "ada")
			k := s.insert(newKey(u, 1))
			s.record(use(k, "192.0.2.1", base))
			want := sum(k, base, "curl/8", day(base, 1), addr("192.0.2.1", base, base, 1))
			k.Name = "renamed"
			s.update(k)
			s.sums("acme", want)
			s.stored(k, "a use")
			next := newKey(u, 2)
			s.rotate(next, k, base)
			s.sums("acme", want, store.UseSummary{KeyID: next.ID})
			u.Tier = "changed"
			s.putUser(u)
			s.sums("acme", want)
			s.purges(base.Add(time.Hour), 1)
			s.sums("acme", store.UseSummary{KeyID: k.ID})
			s.record(use(k, "192.0.2.1", base))
			s.insert(newKey(u, 1))
			s.sums("acme", store.UseSummary{KeyID: k.ID})
		},
	},
	{
		name: "uses are copied",
		rule: "RecordUses copies what it is given and does not change it, and what Uses returns is the caller's.",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			k := s.insert(newKey(s.addUser("acme", "ada"), 1))
			batch := []store.Use{use(k, "::ffff:192.0.2.1", base.Add(1)), use(k, "192.0.2.2", base.Add(-time.Hour))}
			given := slices.Clone(batch)
			s.record(batch...)
			if !slices.Equal(batch, given) {
				s.errorf("RecordUses changed its argument")
			}
			clear(batch)
			want := sum(k, base, "curl/8", day(base, 2), addr("192.0.2.1", base, base, 1), addr("192.0.2.2", base.Add(-time.Hour), base.Add(-time.Hour), 1))
			for range 2 {
				got := s.summary("acme", k.ID)
				s.same(got, want, "Uses")
				clear(got.Addrs)
				clear(got.Days)
			}
		},
	},
}

// use returns one request with k.
func use(k *store.Key, address string, at time.Time) store.Use {
	return store.Use{KeyID: k.ID, Addr: netip.MustParseAddr(address), UserAgent: "curl/8", First: at, Last: at, Count: 1}
}

func sum(k *store.Key, last time.Time, agent string, d store.DayUse, addrs ...store.AddrUse) store.UseSummary {
	return store.UseSummary{KeyID: k.ID, LastUsed: last, UserAgent: agent, Addrs: addrs, Days: []store.DayUse{d}}
}

func addr(address string, first, last time.Time, n int64) store.AddrUse {
	return store.AddrUse{Addr: netip.MustParseAddr(address), First: first, Last: last, Count: n}
}

func day(at time.Time, n int64) store.DayUse {
	return store.DayUse{Day: at.UTC().Truncate(24 * time.Hour), Count: n}
}

func (s *suite) record(uses ...store.Use) {
	s.ok(s.Uses.RecordUses(s.ctx, uses), "RecordUses")
}

func (s *suite) summary(org, id string) store.UseSummary {
	got, err := s.Uses.Uses(s.ctx, org, []string{id})
	s.ok(err, "Uses")
	if len(got) != 1 {
		s.fatalf("Uses of one key: got %d summaries", len(got))
	}
	return got[0]
}

// sums checks the summaries of the keys that want names.
func (s *suite) sums(org string, want ...store.UseSummary) {
	var keyIDs []string
	for _, w := range want {
		keyIDs = append(keyIDs, w.KeyID)
	}
	got, err := s.Uses.Uses(s.ctx, org, keyIDs)
	s.ok(err, "Uses")
	if len(got) != len(want) {
		s.fatalf("Uses of %d keys: got %d summaries", len(want), len(got))
	}
	for i := range want {
		s.same(got[i], want[i], "Uses in %q of %q", org, want[i].KeyID)
	}
}
