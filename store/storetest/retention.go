package storetest

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keystile/keystile/store"
)

var retentionCases = []testCase{
	{
		name: "addresses are kept for an age",
		rule: "An address is listed until it was last used longer ago than UseRetention.Age, and the user agent until the key was; when the key was used, and how often, stays (D24).",
		run: func(s *suite) {
			const month = 30 * 24 * time.Hour
			s.retaining(store.UseRetention{Age: month}, func(s *suite, now *clock) {
				k := s.insert(newKey(s.addUser("acme", "ada"), 1))
				later := base.Add(10 * 24 * time.Hour)
				s.record(use(k, "192.0.2.1", base))
				now.set(later)
				s.record(use(k, "192.0.2.2", later))
				want := sum(k, later, "curl/8", day(later, 1), addr("192.0.2.2", later, later, 1), addr("192.0.2.1", base, base, 1))
				want.Days = append(want.Days, day(base, 1))
				now.set(base.Add(month))
				s.sums("acme", want)
				now.set(base.Add(month + time.Microsecond))
				want.Addrs = want.Addrs[:1]
				s.sums("acme", want)
				now.set(later.Add(month))
				s.sums("acme", want)
				now.set(later.Add(month + time.Microsecond))
				want.Addrs, want.UserAgent = nil, ""
				s.sums("acme", want)

				// An address that is used again starts anew, while one that was not
				// forgotten goes on.
				again := later.Add(month + time.Hour)
				now.set(again)
				s.record(use(k, "192.0.2.1", again))
				want = sum(k, again, "curl/8", day(again, 1), addr("192.0.2.1", again, again, 1))
				s.sums("acme", want)
				now.set(again.Add(month))
				s.record(use(k, "192.0.2.1", again.Add(month)))
				want = sum(k, again.Add(month), "curl/8", day(again.Add(month), 1), addr("192.0.2.1", again, again.Add(month), 2))
				s.sums("acme", want)
			})
		},
	},
	{
		name: "a late use beyond the age",
		rule: "A use that arrives when it is older than UseRetention.Age counts, and its address and user agent are not listed (D24).",
		run: func(s *suite) {
			s.retaining(store.UseRetention{Age: 24 * time.Hour}, func(s *suite, now *clock) {
				k := s.insert(newKey(s.addUser("acme", "ada"), 1))
				now.set(base.Add(48 * time.Hour))
				s.record(use(k, "192.0.2.1", base))
				s.sums("acme", sum(k, base, "", day(base, 1)))
				now.set(base) // It is not only hidden.
				s.sums("acme", sum(k, base, "", day(base, 1)))
			})
		},
	},
	{
		name: "old addresses are deleted",
		rule: "What is older than UseRetention.Age is deleted in the course of later calls of RecordUses, also of keys that are not used any more, revoked or not: setting the clock back does not bring it back (D24).",
		run: func(s *suite) {
			const week = 7 * 24 * time.Hour
			s.retaining(store.UseRetention{Age: week}, func(s *suite, now *clock) {
				u := s.addUser("acme", "ada")
				idle, revoked, both, busy := s.insert(newKey(u, 1)), s.insert(newKey(u, 2)), s.insert(newKey(u, 3)), s.insert(newKey(u, 4))
				revoked.RevokedAt, revoked.Revoked = base, true
				s.update(revoked)
				s.record(use(idle, "192.0.2.1", base), use(revoked, "2001:db8::1", base), use(both, "192.0.2.2", base), use(busy, "192.0.2.3", base))
				end := base.Add(week)
				s.record(use(both, "192.0.2.4", end))
				for range rounds {
					end = end.Add(24 * time.Hour)
					now.set(end)
					s.record(use(busy, "192.0.2.5", end))
				}
				now.set(base)
				s.sums("acme", sum(idle, base, "", day(base, 1)), sum(revoked, base, "", day(base, 1)))
				for _, k := range []*store.Key{both, busy} {
					for _, a := range s.summary("acme", k.ID).Addrs {
						if a.First.Equal(base) {
							s.errorf("the address %v of %s was not deleted", a.Addr, k.ID)
						}
					}
				}
			})
		},
	},
	{
		name: "a use ahead of the clock",
		rule: "UseRetention.Age is measured by the store's clock: a use of whatever time makes no other fact older (D24).",
		run: func(s *suite) {
			s.retaining(store.UseRetention{Age: 24 * time.Hour}, func(s *suite, now *clock) {
				u := s.addUser("acme", "ada")
				k, ahead := s.insert(newKey(u, 1)), s.insert(newKey(u, 2))
				future := base.AddDate(100, 0, 0)
				s.record(use(k, "192.0.2.1", base), use(ahead, "192.0.2.2", base))
				for n := range rounds {
					now.set(base.Add(time.Duration(n) * 2 * time.Hour))
					s.record(use(ahead, "192.0.2.3", future))
				}
				s.sums("acme", sum(k, base, "curl/8", day(base, 1), addr("192.0.2.1", base, base, 1)),
					sum(ahead, future, "curl/8", day(future, rounds), addr("192.0.2.3", future, future, rounds), addr("192.0.2.2", base, base, 1)))
			})
		},
	},
	{
		name: "fewer addresses",
		rule: "Of a key UseRetention.Addrs addresses are kept, those used last, and none if it is -1; everything else is kept as ever (D24).",
		run: func(s *suite) {
			for _, tt := range []struct{ addrs, want int }{{0, store.MaxUseAddrs}, {store.MaxUseAddrs, store.MaxUseAddrs}, {3, 3}, {1, 1}, {-1, 0}} {
				s.retaining(store.UseRetention{Addrs: tt.addrs}, func(s *suite, now *clock) {
					k := s.insert(newKey(s.addUser("acme", "ada"), 1))
					now.set(base.AddDate(100, 0, 0)) // There is no age.
					const used = store.MaxUseAddrs + 2
					want := sum(k, base.Add(used*time.Second), "curl/8", day(base, used))
					for n := 1; n <= used; n++ {
						at, address := base.Add(time.Duration(n)*time.Second), fmt.Sprintf("192.0.2.%d", n)
						s.record(use(k, address, at))
						if n > used-tt.want {
							want.Addrs = append([]store.AddrUse{addr(address, at, at, 1)}, want.Addrs...)
						}
					}
					s.sums("acme", want)
				})
			}
		},
	},
	{
		name: "retentions that are refused",
		rule: "A UseRetention with a number of addresses below -1 or above ten, or with an age below zero or too short to mean anything, is refused, and the error names the field (D24).",
		run: func(s *suite) {
			s.need("Uses", s.Uses != nil)
			s.need("Retaining", s.Retaining != nil)
			for _, tt := range []struct {
				r    store.UseRetention
				want []string
			}{
				{store.UseRetention{Addrs: -2}, []string{"Addrs"}},
				{store.UseRetention{Addrs: store.MaxUseAddrs + 1}, []string{"Addrs"}},
				{store.UseRetention{Age: -1}, []string{"Age"}},
				{store.UseRetention{Age: -24 * time.Hour}, []string{"Age"}},
				{store.UseRetention{Age: 90}, []string{"Age"}}, // days that have become nanoseconds
				{store.UseRetention{Addrs: -2, Age: -1}, []string{"Addrs", "Age"}},
			} {
				h, err := s.Retaining(tt.r, time.Now)
				if err == nil {
					s.errorf("%+v was not refused", tt.r)
					s.close(h)
					continue
				}
				for _, field := range tt.want {
					if !strings.Contains(err.Error(), "UseRetention."+field) {
						s.errorf("%+v: the error does not name UseRetention.%s: %v", tt.r, field, err)
					}
				}
			}
		},
	},
}

// rounds is how many batches are recorded, each some hours after the one before,
// until everything of a few keys must have been looked at.
const rounds = 10

// A clock is one that is set.
type clock struct{ at atomic.Pointer[time.Time] }

func (c *clock) set(at time.Time) { c.at.Store(&at) }
func (c *clock) now() time.Time   { return *c.at.Load() }

// retaining runs a part of a case on a store of its own, whose clock begins at
// base.
func (s *suite) retaining(r store.UseRetention, run func(s *suite, now *clock)) {
	s.need("Uses", s.Uses != nil)
	s.need("Retaining", s.Retaining != nil)
	now := new(clock)
	now.set(base)
	h, err := s.Retaining(r, now.now)
	s.ok(err, "Retaining %+v", r)
	defer s.close(h)
	if h.Store == nil || h.Uses == nil {
		s.fatalf("Retaining: the Harness has no Store or no Uses")
	}
	run(&suite{Harness: h, ctx: s.ctx, report: s.report}, now)
}

// close closes a Harness that a case has made.
func (s *suite) close(h Harness) {
	if h.Close != nil {
		if err := h.Close(); err != nil {
			s.errorf("Close: %v", err)
		}
	}
}
