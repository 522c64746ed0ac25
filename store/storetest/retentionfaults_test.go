package storetest_test

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/internal/row"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/store/storetest"
)

// retainsAs makes a store whose retention is another than it was told.
func retainsAs(change func(r *store.UseRetention)) func(_ *faulty, h *storetest.Harness) {
	return func(_ *faulty, h *storetest.Harness) {
		h.Retaining = func(r store.UseRetention, now func() time.Time) (storetest.Harness, error) {
			change(&r)
			return retaining(r, now)
		}
	}
}

// retainsBut makes a store with a retention that is sound but for what wrap does
// to it.
func retainsBut(wrap func(f *faulty, r store.UseRetention, now func() time.Time)) func(_ *faulty, h *storetest.Harness) {
	return func(_ *faulty, h *storetest.Harness) {
		h.Retaining = func(r store.UseRetention, now func() time.Time) (storetest.Harness, error) {
			s, err := memstore.NewWithOptions(&memstore.Options{UseRetention: r, Now: now})
			if err != nil {
				return storetest.Harness{}, err
			}
			f := &faulty{Store: s}
			wrap(f, r, now)
			return f.harness(), nil
		}
	}
}

// tells changes each summary that a store tells.
func tells(change func(sum *store.UseSummary)) func(f *faulty, _ store.UseRetention, _ func() time.Time) {
	return func(f *faulty, _ store.UseRetention, _ func() time.Time) {
		f.uses = func(ctx context.Context, org string, ids []string) ([]store.UseSummary, error) {
			all, err := f.Store.Uses(ctx, org, ids)
			for i := range all {
				change(&all[i])
			}
			return all, err
		}
	}
}

// keeps makes a store that keeps use facts by itself. Of what is not to be kept it
// tells nothing; add is how one use is added to a summary, if not nil.
func keeps(add func(b row.Bounds, sum *store.UseSummary, uses ...store.Use)) func(_ *faulty, h *storetest.Harness) {
	return retainsBut(func(f *faulty, r store.UseRetention, now func() time.Time) {
		keep, err := row.NewRetention("faulty", r, now)
		if err != nil {
			panic(err)
		}
		f.Store = memstore.New()
		var own func(sum *store.UseSummary, u store.Use)
		if add != nil {
			own = func(sum *store.UseSummary, u store.Use) { add(keep.Bounds(), sum, u) }
		}
		usesBy(own, nil, func(sum *store.UseSummary) { keep.Bounds().Apply(sum) })(f, nil)
	})
}

var retentionFaults = []fault{
	{"keeps addresses however old", "addresses are kept for an age, a late use beyond the age, old addresses are deleted", retainsAs(func(r *store.UseRetention) {
		if r.Age > 0 {
			r.Age = math.MaxInt64
		}
	})},
	{"forgets a microsecond too early", "addresses are kept for an age", retainsAs(func(r *store.UseRetention) {
		if r.Age > time.Hour {
			r.Age -= time.Microsecond
		}
	})},
	{"forgets an hour too late", "addresses are kept for an age", retainsAs(func(r *store.UseRetention) {
		if r.Age > 0 {
			r.Age += time.Hour
		}
	})},
	{"keeps the user agent", "addresses are kept for an age, a late use beyond the age, old addresses are deleted", retainsBut(tells(func(sum *store.UseSummary) {
		if !sum.LastUsed.IsZero() {
			sum.UserAgent = "curl/8"
		}
	}))},
	{"forgets when a key was used", "addresses are kept for an age, a late use beyond the age", retainsBut(tells(func(sum *store.UseSummary) {
		if len(sum.Addrs) == 0 {
			sum.LastUsed = time.Time{}
		}
	}))},
	{"forgets how often a key was used", "addresses are kept for an age, a late use beyond the age", retainsBut(tells(func(sum *store.UseSummary) {
		if len(sum.Addrs) == 0 {
			sum.Days = nil
		}
	}))},
	{"forgets all addresses with the first that is old", "addresses are kept for an age", retainsBut(func(f *faulty, _ store.UseRetention, _ func() time.Time) {
		most := make(map[string]int)
		tells(func(sum *store.UseSummary) {
			if most[sum.KeyID] = max(most[sum.KeyID], len(sum.Addrs)); len(sum.Addrs) < most[sum.KeyID] {
				sum.Addrs = nil
			}
		})(f, store.UseRetention{}, nil)
	})},
	{"hides what it should delete", "old addresses are deleted, a late use beyond the age", keeps(nil)},
	{"goes on with what was hidden", "addresses are kept for an age", keeps(func(b row.Bounds, sum *store.UseSummary, uses ...store.Use) {
		row.Add(sum, uses...)
		b.Apply(sum)
	})},
	{"deletes only of keys that are used", "old addresses are deleted", keeps(row.Bounds.Add)},
	{"goes by the time of the last use", "a use ahead of the clock", func(_ *faulty, h *storetest.Harness) {
		h.Retaining = func(r store.UseRetention, now func() time.Time) (storetest.Harness, error) {
			var last time.Time
			s, err := memstore.NewWithOptions(&memstore.Options{UseRetention: r, Now: func() time.Time {
				if now().After(last) {
					return now()
				}
				return last
			}})
			if err != nil {
				return storetest.Harness{}, err
			}
			f := &faulty{Store: s}
			f.recordUses = func(ctx context.Context, batch []store.Use) error {
				for _, u := range batch {
					if u.Last.After(last) {
						last = u.Last
					}
				}
				return f.Store.RecordUses(ctx, batch)
			}
			return f.harness(), nil
		}
	}},
	{"drops uses ahead of the clock", "a use ahead of the clock", retainsBut(func(f *faulty, _ store.UseRetention, now func() time.Time) {
		f.recordUses = func(ctx context.Context, batch []store.Use) error {
			batch = slices.DeleteFunc(slices.Clone(batch), func(u store.Use) bool { return u.Last.After(now()) })
			return f.Store.RecordUses(ctx, batch)
		}
	})},
	{"keeps ten addresses whatever it is told", "fewer addresses", retainsAs(func(r *store.UseRetention) {
		if -1 <= r.Addrs && r.Addrs <= store.MaxUseAddrs {
			r.Addrs = 0
		}
	})},
	{"keeps one address for none", "fewer addresses", retainsAs(func(r *store.UseRetention) {
		if r.Addrs == -1 {
			r.Addrs = 1
		}
	})},
	{"takes the default for none", "fewer addresses", retainsAs(func(r *store.UseRetention) {
		if r.Addrs == 0 {
			r.Addrs = -1
		}
	})},
	{"forgets the user agent with the addresses", "fewer addresses", retainsBut(func(f *faulty, r store.UseRetention, now func() time.Time) {
		if r.Addrs == -1 {
			tells(func(sum *store.UseSummary) { sum.UserAgent = "" })(f, r, now)
		}
	})},
	{"takes any retention", "retentions that are refused", retainsAs(func(r *store.UseRetention) { *r = store.UseRetention{} })},
	{"takes nanoseconds for days", "retentions that are refused", retainsAs(func(r *store.UseRetention) {
		if 0 < r.Age && r.Age < time.Hour {
			r.Age *= 24 * time.Hour
		}
	})},
	{"reports one problem only", "retentions that are refused", func(_ *faulty, h *storetest.Harness) {
		h.Retaining = func(r store.UseRetention, now func() time.Time) (storetest.Harness, error) {
			if r.Addrs < -1 {
				r.Age = 0
			}
			return retaining(r, now)
		}
	}},
}
