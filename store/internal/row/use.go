package row

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keystile/keystile/store"
)

const maxUserAgent = 256

var errUse = errors.New("store: use without a count or a time")

// Uses returns a copy of a batch as stores keep it, or an error if one of the
// uses cannot be kept.
func Uses(uses []store.Use) ([]store.Use, error) {
	batch := slices.Clone(uses)
	for i := range batch {
		u := &batch[i]
		if u.Count < 1 || u.First.IsZero() || u.Last.IsZero() {
			return nil, errUse
		}
		u.First, u.Last = Time(u.First), Time(u.Last)
		if u.Last.Before(u.First) {
			u.First, u.Last = u.Last, u.First
		}
		u.Addr = u.Addr.Unmap().WithZone("")
		u.UserAgent = userAgent(u.UserAgent)
	}
	return batch, nil
}

// userAgent makes a client's string one that stores can keep. NULs become bytes
// that are not UTF-8, and go with them.
func userAgent(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\xff"), "\uFFFD")
	if len(s) <= maxUserAgent {
		return s
	}
	end := maxUserAgent
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// Add adds uses of one key, as [Uses] returned them, to its summary, and then
// forgets what is beyond the summary's bounds.
func Add(sum *store.UseSummary, uses ...store.Use) {
	for _, u := range uses {
		if !u.Last.Before(sum.LastUsed) {
			sum.LastUsed, sum.UserAgent = u.Last, u.UserAgent
		}
		if u.Addr.IsValid() {
			addAddr(sum, u)
		}
		addDay(sum, Day(u.Last), u.Count)
	}
	slices.SortFunc(sum.Addrs, func(a, b store.AddrUse) int {
		return cmp.Or(b.Last.Compare(a.Last), a.Addr.Compare(b.Addr))
	})
	sum.Addrs = sum.Addrs[:min(len(sum.Addrs), store.MaxUseAddrs)]
	slices.SortFunc(sum.Days, func(a, b store.DayUse) int { return b.Day.Compare(a.Day) })
	oldest := Day(sum.LastUsed).AddDate(0, 0, 1-store.MaxUseDays)
	sum.Days = slices.DeleteFunc(sum.Days, func(d store.DayUse) bool { return d.Day.Before(oldest) })
}

// Day returns the midnight, in UTC, at which the day of t began.
func Day(t time.Time) time.Time {
	y, m, d := t.UTC().Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

func addAddr(sum *store.UseSummary, u store.Use) {
	for i := range sum.Addrs {
		if a := &sum.Addrs[i]; a.Addr == u.Addr {
			if u.First.Before(a.First) {
				a.First = u.First
			}
			if u.Last.After(a.Last) {
				a.Last = u.Last
			}
			a.Count += u.Count
			return
		}
	}
	sum.Addrs = append(sum.Addrs, store.AddrUse{Addr: u.Addr, First: u.First, Last: u.Last, Count: u.Count})
}

func addDay(sum *store.UseSummary, day time.Time, n int64) {
	for i := range sum.Days {
		if sum.Days[i].Day.Equal(day) {
			sum.Days[i].Count += n
			return
		}
	}
	sum.Days = append(sum.Days, store.DayUse{Day: day, Count: n})
}
