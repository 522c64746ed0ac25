package storetest

import (
	"fmt"
	"time"

	"github.com/keystile/keystile/store"
)

// times are times that a store must keep.
var times = []time.Time{
	{},
	time.Unix(0, 0),
	time.Unix(0, 1000),
	time.Unix(0, -1000),
	time.Unix(-1, 0),
	time.Date(1969, 12, 31, 23, 59, 59, 999999000, time.UTC),
	time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC),
	time.Date(1582, 10, 15, 1, 2, 3, 4000, time.UTC),
	time.Date(1677, 9, 21, 0, 12, 43, 0, time.UTC),           // before the first time in nanoseconds
	time.Date(2262, 4, 11, 23, 47, 17, 0, time.UTC),          // after the last time in nanoseconds
	time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC),            // after the last time in 32 bits of seconds
	time.Date(2016, 12, 31, 23, 59, 59, 999999000, time.UTC), // before a leap second
	time.Date(2024, 2, 29, 12, 0, 0, 123456000, time.UTC),
	time.Date(2026, 3, 29, 2, 30, 0, 100000, time.FixedZone("CEST", 2*3600)),
	time.Date(2026, 3, 1, 0, 0, 0, 0, time.FixedZone("", -11*3600-30*60)),
	time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC),
}

var timeCases = []testCase{
	{
		name: "times are kept",
		rule: "Times are kept with a precision of a microsecond and returned in UTC; the zero Time stays zero, the Unix epoch is an ordinary date, and so are all from year 1 to 9999 (D22).",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			for n, at := range times {
				s.keepsTime(u, n, at, at)
			}
		},
	},
	{
		name: "times are cut off",
		rule: "What is finer than a microsecond is cut off toward the past, before the epoch too.",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			for n, at := range []time.Time{
				time.Unix(0, 0), base, time.Unix(0, -1000), time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC),
				time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC), base.Add(123456 * time.Microsecond),
			} {
				for i, more := range []time.Duration{1, 499, 500, 999} {
					s.keepsTime(u, 10*n+i, at.Add(more), at)
				}
			}
		},
	},
	{
		name: "times that are refused",
		rule: "A time outside of the years 1 to 9999 is refused, and nothing is written.",
		run: func(s *suite) {
			u := s.addUser("acme", "ada")
			k := s.insert(newKey(u, 1))
			for _, bad := range []time.Time{
				time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC),
				time.Date(9999, 12, 31, 23, 30, 0, 0, time.FixedZone("", -3600)),
				time.Time{}.Add(-time.Microsecond),
				time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC),
				time.Date(300_000, 1, 1, 0, 0, 0, 0, time.UTC),
				time.Unix(1<<60, 0),
			} {
				for i, set := range []func(k *store.Key){
					func(k *store.Key) { k.NotAfter = bad },
					func(k *store.Key) { k.DisabledAt = bad },
					func(k *store.Key) { k.RevokedAt = bad },
					func(k *store.Key) { k.CreatedAt = bad },
				} {
					given := newKey(u, 2)
					set(given)
					s.failed(s.Store.InsertKey(s.ctx, given, nil, noCap), "InsertKey with the year %d", bad.Year())
					s.absent(given, "a refused insertion")
					if i < 3 {
						given = clone(k)
						set(given)
						s.failed(s.Store.UpdateKey(s.ctx, given), "UpdateKey with the year %d", bad.Year())
					}
				}
				given := clone(k)
				given.RevokedAt = bad
				s.failed(s.Store.InsertKey(s.ctx, newKey(u, 2), given, noCap), "InsertKey of a rotation with the year %d", bad.Year())
				changed := *u
				changed.SuspendedAt = bad
				s.failed(s.Store.PutUser(s.ctx, &changed), "PutUser with the year %d", bad.Year())
			}
			s.stored(k, "refused writes")
			s.same(s.user("acme", "ada"), u, "Users after refused writes")
		},
	},
}

// keepsTime writes at wherever a store keeps a time of a key or user, and checks
// that it becomes want.
func (s *suite) keepsTime(u *store.User, n int, at, want time.Time) {
	want = want.UTC()
	k := newKey(u, 2*n)
	k.CreatedAt, k.NotAfter, k.DisabledAt, k.RevokedAt = at, at, at, at
	s.insert(k)
	k.CreatedAt, k.NotAfter, k.DisabledAt, k.RevokedAt = want, want, want, want
	s.stored(k, fmt.Sprintf("insertion with %v", at))
	s.lists(store.Query{Revoked: true, ID: k.ID, After: store.Cursor{CreatedAt: at, ID: k.ID + "z"}}, k.ID)

	k = newKey(u, 2*n+1)
	s.insert(k)
	k.NotAfter, k.DisabledAt = at, at
	s.update(k)
	k.NotAfter, k.DisabledAt = want, want
	s.stored(k, fmt.Sprintf("an update with %v", at))
	if !want.IsZero() {
		next := newKey(u, 100_000+n)
		next.CreatedAt = base
		s.rotate(next, k, at)
		k.RevokedAt = want
		s.stored(k, fmt.Sprintf("rotation with %v", at))
	}

	u.SuspendedAt = at
	s.putUser(u)
	u.SuspendedAt = want
	s.same(s.user(u.Org, u.ID), u, "Users after PutUser with %v", at)
	s.same(s.lookup(k.Digest).User, u, "Lookup after PutUser with %v", at)
}
