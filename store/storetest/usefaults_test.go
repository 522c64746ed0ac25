package storetest_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/internal/row"
	"github.com/keystile/keystile/store/storetest"
)

// usesBy makes a store that keeps use facts by itself. It is sound if all that
// it is given is nil: add is how one use of a known key is added to a summary,
// given is applied to uses as they come, told to summaries as they go.
func usesBy(add func(sum *store.UseSummary, u store.Use), given func(u *store.Use), told func(sum *store.UseSummary)) func(f *faulty, _ *storetest.Harness) {
	return func(f *faulty, _ *storetest.Harness) {
		var mu sync.Mutex
		sums := make(map[string]*store.UseSummary)
		f.recordUses = func(ctx context.Context, batch []store.Use) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			batch = slices.Clone(batch)
			if given != nil {
				for i := range batch {
					given(&batch[i])
				}
			}
			batch, err := row.Uses(batch)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, u := range batch {
				if _, err := f.key(ctx, u.KeyID); err != nil {
					continue
				}
				if sums[u.KeyID] == nil {
					sums[u.KeyID] = &store.UseSummary{}
				}
				if add != nil {
					add(sums[u.KeyID], u)
				} else {
					row.Add(sums[u.KeyID], u)
				}
			}
			return nil
		}
		f.uses = func(ctx context.Context, org string, ids []string) ([]store.UseSummary, error) {
			all, err := f.Store.Uses(ctx, org, ids)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			for i, id := range ids {
				if k, err := f.key(ctx, id); err == nil && k.Org == org && sums[id] != nil {
					all[i] = *sums[id]
					all[i].Addrs, all[i].Days = slices.Clone(sums[id].Addrs), slices.Clone(sums[id].Days)
				}
				all[i].KeyID = id
				if told != nil {
					told(&all[i])
				}
			}
			return all, nil
		}
	}
}

// addTo returns an add that lets fix change a summary after each use.
func addTo(fix func(before store.UseSummary, sum *store.UseSummary, u store.Use)) func(sum *store.UseSummary, u store.Use) {
	return func(sum *store.UseSummary, u store.Use) {
		before := *sum
		before.Addrs, before.Days = slices.Clone(sum.Addrs), slices.Clone(sum.Days)
		row.Add(sum, u)
		fix(before, sum, u)
	}
}

var useFaults = []fault{
	{"overwrites uses", "uses add up, parallel uses", usesBy(func(sum *store.UseSummary, u store.Use) {
		*sum = store.UseSummary{}
		row.Add(sum, u)
	}, nil, nil)},
	{"loses a batch that comes while another is written", "parallel uses", func(f *faulty, _ *storetest.Harness) {
		meet := meeting(2)
		var writing atomic.Int64
		f.recordUses = func(ctx context.Context, batch []store.Use) error {
			defer writing.Add(-1)
			busy := writing.Add(1) > 1
			meet()
			if busy {
				return nil
			}
			return f.Store.RecordUses(ctx, batch)
		}
	}},
	{"counts batches and not requests", "uses add up", usesBy(nil, func(u *store.Use) { u.Count = min(u.Count, 1) }, nil)},
	{"counts in 32 bits", "uses add up", usesBy(nil, nil, func(sum *store.UseSummary) {
		for i := range sum.Days {
			sum.Days[i].Count = int64(int32(sum.Days[i].Count))
		}
	})},
	{"counts for the day of First", "uses add up", usesBy(addTo(func(before store.UseSummary, sum *store.UseSummary, u store.Use) {
		sum.Days = before.Days
		u.Last = u.First
		row.Add(sum, u)
		sum.Addrs = before.Addrs
		u.Addr = netip.Addr{}
	}), nil, nil)},
	{"counts for days of the server's zone", "uses add up", usesBy(nil, nil, func(sum *store.UseSummary) {
		for i := range sum.Days {
			sum.Days[i].Day = sum.Days[i].Day.Add(-8 * time.Hour)
		}
	})},
	{"lets the use that comes last decide", "a late use moves nothing back", usesBy(addTo(func(_ store.UseSummary, sum *store.UseSummary, u store.Use) {
		sum.LastUsed = u.Last
	}), nil, nil)},
	{"lets the user agent that comes last decide", "a late use moves nothing back", usesBy(addTo(func(_ store.UseSummary, sum *store.UseSummary, u store.Use) {
		sum.UserAgent = u.UserAgent
	}), nil, nil)},
	{"drops uses that come late", "a late use moves nothing back", usesBy(func(sum *store.UseSummary, u store.Use) {
		if !u.Last.Before(sum.LastUsed) {
			row.Add(sum, u)
		}
	}, nil, nil)},
	{"never moves a first time", "a late use moves nothing back", usesBy(addTo(func(before store.UseSummary, sum *store.UseSummary, u store.Use) {
		for i := range sum.Addrs {
			for _, b := range before.Addrs {
				if b.Addr == sum.Addrs[i].Addr {
					sum.Addrs[i].First = b.First
				}
			}
		}
	}), nil, nil)},
	{"lists eleven addresses", "ten addresses", usesBy(addTo(func(before store.UseSummary, sum *store.UseSummary, u store.Use) {
		if len(before.Addrs) == 10 && len(sum.Addrs) == 10 && sum.Addrs[9] != before.Addrs[9] {
			sum.Addrs = append(sum.Addrs, before.Addrs[9])
		}
	}), nil, nil)},
	{"lists the first ten addresses", "ten addresses", usesBy(addTo(func(before store.UseSummary, sum *store.UseSummary, u store.Use) {
		if len(before.Addrs) == 10 {
			sum.Addrs = before.Addrs
		}
	}), nil, nil)},
	{"lists addresses first used first", "ten addresses", usesBy(nil, nil, func(sum *store.UseSummary) { slices.Reverse(sum.Addrs) })},
	{"does not count what it does not list", "ten addresses", usesBy(addTo(func(before store.UseSummary, sum *store.UseSummary, u store.Use) {
		if !slices.ContainsFunc(sum.Addrs, func(a store.AddrUse) bool { return a.Addr == u.Addr }) {
			*sum = before
		}
	}), nil, nil)},
	{"keeps 31 days", "thirty days", keepDays(31)},
	{"keeps 29 days", "thirty days", keepDays(29)},
	{"keeps 30 days with uses", "thirty days", keepDays(1000)},
	{"lists days oldest first", "thirty days", usesBy(nil, nil, func(sum *store.UseSummary) { slices.Reverse(sum.Days) })},
	{"lists the unknown address", "addresses of uses", usesBy(nil, func(u *store.Use) {
		if !u.Addr.IsValid() {
			u.Addr = netip.IPv6Unspecified()
		}
	}, nil)},
	{"drops uses from unknown addresses", "addresses of uses", usesBy(func(sum *store.UseSummary, u store.Use) {
		if u.Addr.IsValid() {
			row.Add(sum, u)
		}
	}, nil, nil)},
	{"lists mapped addresses apart", "addresses of uses", func(f *faulty, h *storetest.Harness) {
		usesBy(nil, nil, func(sum *store.UseSummary) {
			for i, a := range sum.Addrs {
				if a.Addr.Is4() {
					sum.Addrs[i].Addr = netip.AddrFrom16(a.Addr.As16())
				}
			}
		})(f, h)
	}},
	{"takes every address for an IPv4 one", "addresses of uses", usesBy(nil, nil, func(sum *store.UseSummary) {
		for i, a := range sum.Addrs {
			b := a.Addr.As16()
			sum.Addrs[i].Addr = netip.AddrFrom4([4]byte(b[12:]))
		}
	})},
	{"keeps a user agent until there is another", "user agents", usesBy(addTo(func(before store.UseSummary, sum *store.UseSummary, u store.Use) {
		if sum.UserAgent == "" {
			sum.UserAgent = before.UserAgent
		}
	}), nil, nil)},
	{"cuts user agents anywhere", "user agents", usesBy(nil, nil, func(sum *store.UseSummary) {
		if len(sum.UserAgent) == 255 {
			sum.UserAgent += "\xc3"
		}
	})},
	{"keeps short user agents", "user agents", usesBy(nil, nil, func(sum *store.UseSummary) {
		sum.UserAgent = sum.UserAgent[:min(len(sum.UserAgent), 255)]
	})},
	{"refuses user agents", "user agents", func(f *faulty, _ *storetest.Harness) {
		f.recordUses = func(ctx context.Context, batch []store.Use) error {
			for _, u := range batch {
				if !row.Text(u.UserAgent) {
					return fmt.Errorf("invalid user agent")
				}
			}
			return f.Store.RecordUses(ctx, batch)
		}
	}},
	{"refuses a batch with an unknown key", "uses of unknown keys", func(f *faulty, _ *storetest.Harness) {
		f.recordUses = func(ctx context.Context, batch []store.Use) error {
			for _, u := range batch {
				if _, err := f.key(ctx, u.KeyID); err != nil {
					return err
				}
			}
			return f.Store.RecordUses(ctx, batch)
		}
	}},
	{"keeps uses of keys to come", "uses of unknown keys, uses stay with the key", func(f *faulty, _ *storetest.Harness) {
		var early []store.Use
		f.recordUses = func(ctx context.Context, batch []store.Use) error {
			early = append(early, batch...)
			return f.Store.RecordUses(ctx, batch)
		}
		f.insertKey = func(ctx context.Context, k, replaces *store.Key, max int) error {
			if err := f.Store.InsertKey(ctx, k, replaces, max); err != nil {
				return err
			}
			mine := slices.DeleteFunc(slices.Clone(early), func(u store.Use) bool { return u.KeyID != k.ID })
			return f.Store.RecordUses(ctx, mine)
		}
	}},
	{"drops uses of revoked keys", "uses of unknown keys", func(f *faulty, _ *storetest.Harness) {
		f.recordUses = func(ctx context.Context, batch []store.Use) error {
			batch = slices.DeleteFunc(slices.Clone(batch), func(u store.Use) bool {
				k, err := f.key(ctx, u.KeyID)
				return err == nil && !k.RevokedAt.IsZero()
			})
			return f.Store.RecordUses(ctx, batch)
		}
	}},
	{"records the good part of a batch", "uses that are refused", func(f *faulty, _ *storetest.Harness) {
		f.recordUses = func(ctx context.Context, batch []store.Use) error {
			for _, u := range batch {
				if err := f.Store.RecordUses(ctx, []store.Use{u}); err != nil {
					return err
				}
			}
			return nil
		}
	}},
	{"takes back uses", "uses that are refused", func(f *faulty, _ *storetest.Harness) {
		f.recordUses = func(ctx context.Context, batch []store.Use) error {
			batch = slices.Clone(batch)
			for i := range batch {
				batch[i].Count = max(batch[i].Count, 1)
			}
			return f.Store.RecordUses(ctx, batch)
		}
	}},
	{"keeps a use that ends before it begins", "times of uses", usesBy(addTo(func(before store.UseSummary, sum *store.UseSummary, u store.Use) {
		if len(before.Addrs) == 0 && !u.First.Equal(u.Last) {
			sum.Addrs[0].First, sum.Addrs[0].Last = u.Last, u.First
		}
	}), nil, nil)},
	{"keeps nanoseconds of uses", "times of uses", usesBy(nil, nil, func(sum *store.UseSummary) {
		if !sum.LastUsed.IsZero() {
			sum.LastUsed = sum.LastUsed.Add(999)
		}
	})},
	{"tells of other organizations' keys", "uses of what was never used", func(f *faulty, _ *storetest.Harness) {
		f.uses = func(ctx context.Context, org string, ids []string) ([]store.UseSummary, error) {
			var all []store.UseSummary
			for _, id := range ids {
				if k, err := f.key(ctx, id); err == nil {
					org = k.Org
				}
				one, err := f.Store.Uses(ctx, org, []string{id})
				if err != nil {
					return nil, err
				}
				all = append(all, one...)
			}
			return all, nil
		}
	}},
	{"leaves unused keys out", "uses of what was never used", func(f *faulty, _ *storetest.Harness) {
		f.uses = func(ctx context.Context, org string, ids []string) ([]store.UseSummary, error) {
			all, err := f.Store.Uses(ctx, org, ids)
			return slices.DeleteFunc(all, func(s store.UseSummary) bool { return s.LastUsed.IsZero() }), err
		}
	}},
	{"answers in the order of IDs", "uses of what was never used", func(f *faulty, _ *storetest.Harness) {
		f.uses = func(ctx context.Context, org string, ids []string) ([]store.UseSummary, error) {
			ids = slices.Sorted(slices.Values(ids))
			return f.Store.Uses(ctx, org, ids)
		}
	}},
	{"keeps facts of purged keys", "uses stay with the key", usesBy(nil, nil, nil)},
	{"writes its facts into the key", "uses stay with the key", func(f *faulty, _ *storetest.Harness) {
		f.recordUses = func(ctx context.Context, batch []store.Use) error {
			for _, u := range batch {
				if k, err := f.key(ctx, u.KeyID); err == nil {
					_ = f.Store.UpdateKey(ctx, k)
				}
			}
			return f.Store.RecordUses(ctx, batch)
		}
	}},
	{"changes the batch", "uses are copied", func(f *faulty, _ *storetest.Harness) {
		f.recordUses = func(ctx context.Context, batch []store.Use) error {
			slices.SortFunc(batch, func(a, b store.Use) int { return a.Last.Compare(b.Last) })
			return f.Store.RecordUses(ctx, batch)
		}
	}},
	{"returns the facts that it keeps", "uses are copied", func(f *faulty, _ *storetest.Harness) {
		kept := make(map[string][]store.AddrUse)
		f.uses = func(ctx context.Context, org string, ids []string) ([]store.UseSummary, error) {
			all, err := f.Store.Uses(ctx, org, ids)
			for i := range all {
				if kept[ids[i]] == nil {
					kept[ids[i]] = all[i].Addrs
				}
				all[i].Addrs = kept[ids[i]]
			}
			return all, err
		}
	}},
}

// keepDays keeps so many days, or all of them.
func keepDays(n int) func(f *faulty, _ *storetest.Harness) {
	return func(f *faulty, h *storetest.Harness) {
		days := make(map[time.Time]int64)
		usesBy(addTo(func(_ store.UseSummary, sum *store.UseSummary, u store.Use) {
			days[row.Day(u.Last)] += u.Count
			sum.Days = nil
			for day, count := range days {
				if day.After(row.Day(sum.LastUsed).AddDate(0, 0, -n)) {
					sum.Days = append(sum.Days, store.DayUse{Day: day, Count: count})
				}
			}
			slices.SortFunc(sum.Days, func(a, b store.DayUse) int { return b.Day.Compare(a.Day) })
			if n > 100 {
				sum.Days = sum.Days[:min(len(sum.Days), 30)]
			}
		}), nil, nil)(f, h)
	}
}
