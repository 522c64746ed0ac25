package ratelimit_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata" // the tests know the zones wherever they run

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
)

// A clock is a wall clock that a test sets.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

// newDaily returns a Daily over a new Memory, and its clock, which stands at
// noon.
func newDaily(opts ratelimit.DailyOptions) (*ratelimit.Daily, *clock) {
	c := &clock{noon}
	opts.Now = c.Now
	return ratelimit.NewDaily(ratelimit.NewMemory(), &opts), c
}

// take takes a unit and requires that it is decided.
func take(t testing.TB, l ratelimit.Limiter, key string, limit int64) ratelimit.Result {
	t.Helper()
	r, err := l.Take(t.Context(), key, limit)
	require.NoError(t, err)
	return r
}

func peek(t testing.TB, l ratelimit.Limiter, key string, limit int64) ratelimit.Result {
	t.Helper()
	r, err := l.Peek(t.Context(), key, limit)
	require.NoError(t, err)
	return r
}

// admitted returns how many of n Takes were.
func admitted(t testing.TB, l ratelimit.Limiter, key string, limit int64, n int) (admitted int) {
	t.Helper()
	for range n {
		if take(t, l, key, limit).OK {
			admitted++
		}
	}
	return admitted
}

// S61: "Daily request limit per key, default 250": 250 pass, the 251st is
// refused. S62: a refusal says when to come back.
func TestDailyAdmits250AndRefusesThe251st(t *testing.T) {
	t.Parallel()
	d, clock := newDaily(ratelimit.DailyOptions{})
	want := ratelimit.Result{
		OK:     true,
		Name:   "daily",
		Window: day,
		Limit:  250,
		Start:  time.Date(2026, time.March, 10, 0, 0, 0, 0, time.UTC),
		Reset:  time.Date(2026, time.March, 11, 0, 0, 0, 0, time.UTC),
	}
	for i := range int64(250) {
		clock.now = clock.now.Add(time.Minute)
		want.Used, want.Remaining = i+1, 249-i
		if i == 249 { // none is left, so the next one has to wait
			want.RetryAfter = 12*time.Hour - 250*time.Minute
		}
		require.Equal(t, want, take(t, d, "k", 0))
	}
	want.OK = false
	for range 3 {
		require.Equal(t, want, take(t, d, "k", 0))
	}
}

// S61: the limit is configurable, of the limiter and of the key. D6: 0 is the
// default, -1 is unlimited.
func TestDailyLimits(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		byOption int64
		ofKey    int64
		admitted int // of 600
	}{
		{"default", 0, 0, 250},
		{"of the limiter", 7, 0, 7},
		{"of the key", 7, 9, 9},
		{"of the key, below", 7, 1, 1},
		{"unlimited key", 7, ratelimit.Unlimited, 600},
		{"unlimited by default", ratelimit.Unlimited, 0, 600},
		{"limited key", ratelimit.Unlimited, 9, 9},
		{"largest", 7, math.MaxInt64, 600},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d, _ := newDaily(ratelimit.DailyOptions{Limit: test.byOption})
			require.Equal(t, test.admitted, admitted(t, d, "k", test.ofKey, 600))
			require.EqualValues(t, test.admitted, peek(t, d, "k", test.ofKey).Used)
		})
	}
}

// D6: what an unlimited key uses is counted, and stays counted when it gets a
// limit.
func TestDailyCountsUnlimitedKeys(t *testing.T) {
	t.Parallel()
	d, _ := newDaily(ratelimit.DailyOptions{})
	for i := range int64(300) {
		r := take(t, d, "k", ratelimit.Unlimited)
		require.True(t, r.OK)
		require.Equal(t, i+1, r.Used)
		require.EqualValues(t, ratelimit.Unlimited, r.Limit)
		require.EqualValues(t, ratelimit.Unlimited, r.Remaining)
		require.Zero(t, r.RetryAfter)
	}
	require.False(t, take(t, d, "k", 250).OK)
	require.Zero(t, peek(t, d, "k", 250).Remaining)
	require.EqualValues(t, 100, peek(t, d, "k", 400).Remaining)
}

// D4: a limit that is lowered below what was used refuses at once and leaves a
// Remaining of 0, not a negative one; a limit that is raised admits at once.
func TestDailyLimitChangesDuringTheDay(t *testing.T) {
	t.Parallel()
	d, _ := newDaily(ratelimit.DailyOptions{})
	require.Equal(t, 5, admitted(t, d, "k", 10, 5))
	steps := []struct {
		limit     int64
		ok        bool
		used      int64
		remaining int64
	}{
		{3, false, 5, 0},
		{5, false, 5, 0},
		{6, true, 6, 0},
		{6, false, 6, 0},
		{8, true, 7, 1},
		{0, true, 8, 242},
		{1, false, 8, 0},
		{8, false, 8, 0},
		{ratelimit.Unlimited, true, 9, ratelimit.Unlimited},
	}
	for _, step := range steps {
		p := peek(t, d, "k", step.limit)
		require.Equal(t, step.ok, p.OK)
		r := take(t, d, "k", step.limit)
		require.Equal(t, step.ok, r.OK)
		require.Equal(t, step.used, r.Used)
		require.Equal(t, step.remaining, r.Remaining)
		if !r.OK {
			require.Positive(t, r.RetryAfter)
		}
	}
}

// D5: Peek spends nothing, and answers at the limit too.
func TestDailyPeekSpendsNothing(t *testing.T) {
	t.Parallel()
	d, _ := newDaily(ratelimit.DailyOptions{Limit: 2})
	for used := range int64(3) {
		for range 10 {
			p := peek(t, d, "k", 0)
			require.Equal(t, used < 2, p.OK)
			require.Equal(t, used, p.Used)
			require.Equal(t, 2-used, p.Remaining)
			require.Equal(t, used == 2, p.RetryAfter == 12*time.Hour)
			require.Equal(t, midnight, p.Reset)
		}
		require.Equal(t, used < 2, take(t, d, "k", 0).OK)
	}
}

// S63: the limit is per key.
func TestDailyKeysAreIndependent(t *testing.T) {
	t.Parallel()
	d, _ := newDaily(ratelimit.DailyOptions{})
	require.Equal(t, 250, admitted(t, d, "csk_live_00000001", 0, 300))
	require.Equal(t, 250, admitted(t, d, "csk_live_00000002", 0, 300))
	require.False(t, peek(t, d, "csk_live_00000001", 0).OK)
	require.True(t, peek(t, d, "csk_live_00000003", 0).OK)
}

// D4: a fixed calendar day: midnight starts every key anew, to the nanosecond,
// whenever its first request was.
func TestDailyStartsAnewAtMidnight(t *testing.T) {
	t.Parallel()
	d, clock := newDaily(ratelimit.DailyOptions{})
	clock.now = midnight.Add(-1)
	require.Equal(t, 250, admitted(t, d, "k", 0, 300))
	require.EqualValues(t, 1, take(t, d, "k", 0).RetryAfter)
	clock.now = midnight
	r := take(t, d, "k", 0)
	require.True(t, r.OK)
	require.EqualValues(t, 249, r.Remaining)
	require.Equal(t, midnight, r.Start)
	require.Equal(t, midnight.Add(day), r.Reset)
	require.Equal(t, 249, admitted(t, d, "k", 0, 300))
}

// D4, with the default clock: waiting for RetryAfter is enough, and a second
// less is not (F66).
func TestDailyRetryAfterIsWhenItStartsAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := ratelimit.NewDaily(ratelimit.NewMemory(), nil)
		time.Sleep(10*time.Hour + 1)
		require.Equal(t, 250, admitted(t, d, "k", 0, 300))
		wait := peek(t, d, "k", 0).RetryAfter
		time.Sleep(wait - time.Second)
		require.False(t, take(t, d, "k", 0).OK)
		require.Equal(t, time.Second, peek(t, d, "k", 0).RetryAfter)
		time.Sleep(time.Second)
		require.True(t, take(t, d, "k", 0).OK)
	})
}

// F60, D4: "a clock that steps back finds that day's count as it was left, and
// a day reached after a jump ahead was undone starts full".
func TestDailyClockSteps(t *testing.T) {
	t.Parallel()
	d, clock := newDaily(ratelimit.DailyOptions{Limit: 10})
	at := func(hours int) { clock.now = noon.Add(time.Duration(hours) * time.Hour) }

	require.Equal(t, 10, admitted(t, d, "k", 0, 20))
	at(24)
	require.Equal(t, 4, admitted(t, d, "k", 0, 4))
	at(0) // back into the finished day: it stays used up, and that is all
	require.False(t, take(t, d, "k", 0).OK)
	require.Equal(t, 12*time.Hour, take(t, d, "k", 0).RetryAfter)
	at(-24) // a day that nothing was spent on
	require.Equal(t, 10, admitted(t, d, "k", 0, 20))
	at(24) // ahead again: what was left is left
	require.EqualValues(t, 6, peek(t, d, "k", 0).Remaining)

	at(24 * 365) // far ahead by mistake
	require.Equal(t, 10, admitted(t, d, "k", 0, 20))
	at(24) // undone: nobody is locked out for the length of the jump
	require.Equal(t, 6, admitted(t, d, "k", 0, 20))
	at(48)
	require.Equal(t, 10, admitted(t, d, "k", 0, 20))
}

// Requests that alternate between two days are counted on their own days.
func TestDailyAlternatingDays(t *testing.T) {
	t.Parallel()
	d, clock := newDaily(ratelimit.DailyOptions{Limit: 10})
	ok := make(map[time.Time]int)
	for range 20 {
		for _, now := range []time.Time{midnight.Add(-1), midnight} {
			clock.now = now
			if take(t, d, "k", 0).OK {
				ok[now]++
			}
		}
	}
	require.Equal(t, map[time.Time]int{midnight.Add(-1): 10, midnight: 10}, ok)
}

// D4, F59: the day is that of the Location, whatever zone the clock is in.
func TestDailyLocation(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		zone       string
		now        string // RFC 3339
		start, end string
	}{
		{"UTC by default", "", "2026-03-10T23:59:59.999999999Z", "2026-03-10T00:00:00Z", "2026-03-11T00:00:00Z"},
		{"UTC, clock elsewhere", "", "2026-03-11T04:00:00+05:00", "2026-03-10T00:00:00Z", "2026-03-11T00:00:00Z"},
		{"quarter of an hour", "Asia/Kathmandu", "2026-03-10T18:15:00Z", "2026-03-10T18:15:00Z", "2026-03-11T18:15:00Z"},
		{"half of an hour, to be changed", "Australia/Lord_Howe", "2026-04-05T12:00:00Z", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z"},
		{"23 hours", "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},
		{"25 hours", "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},
		{"25 hours, the last", "America/New_York", "2026-11-02T04:59:59Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"},

		// The clock goes from 24:00 to 01:00: the day begins at 01:00.
		{"no midnight", "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"},
		{"before no midnight", "America/Sao_Paulo", "2018-11-04T02:59:59Z", "2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z"},
		{"no midnight, by a rule", "Africa/Cairo", "2026-04-24T12:00:00Z", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"},
		{"no midnight, far ahead", "Africa/Cairo", "2090-04-28T12:00:00Z", "2090-04-27T22:00:00Z", "2090-04-28T21:00:00Z"},
		// From 24:00 to 23:00: the day has two hours of 23.
		{"midnight later", "America/Sao_Paulo", "2018-02-18T02:30:00Z", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z"},
		{"midnight later, by a rule", "Africa/Cairo", "2026-10-29T21:30:00Z", "2026-10-28T21:00:00Z", "2026-10-29T22:00:00Z"},
		// From 01:00 to 00:00: midnight comes twice, and the first counts.
		{"two midnights", "America/Havana", "2026-11-01T05:30:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"},
		{"at the second", "America/Havana", "2026-11-01T05:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"},
		// From 00:01 to 23:01 of the day before: the day that has begun goes on.
		{"a minute of tomorrow", "America/St_Johns", "2006-10-29T02:30:30Z", "2006-10-29T02:30:00Z", "2006-10-30T03:30:00Z"},
		{"and back", "America/St_Johns", "2006-10-29T03:00:00Z", "2006-10-29T02:30:00Z", "2006-10-30T03:30:00Z"},
		{"before it", "America/St_Johns", "2006-10-29T02:29:59Z", "2006-10-28T02:30:00Z", "2006-10-29T02:30:00Z"},
		// Without 30 December, and with 30 September twice.
		{"before a date that is skipped", "Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"},
		{"after it", "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"},
		{"a date that is repeated", "Pacific/Kwajalein", "1969-09-30T20:00:00Z", "1969-09-29T13:00:00Z", "1969-10-01T12:00:00Z"},
		{"a day's step back", "America/Juneau", "1867-10-19T03:00:00Z", "1867-10-18T08:57:41Z", "1867-10-20T08:57:41Z"},
		{"the last of a leap year, by a rule", "Europe/Berlin", "2044-12-31T12:00:00Z", "2044-12-30T23:00:00Z", "2044-12-31T23:00:00Z"},
		{"before zones", "Europe/Paris", "1800-01-01T12:00:00Z", "1799-12-31T23:50:39Z", "1800-01-01T23:50:39Z"},
		{"year 1", "Asia/Tokyo", "0001-01-01T12:00:00Z", "0000-12-31T14:41:01Z", "0001-01-01T14:41:01Z"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			loc, err := time.LoadLocation(test.zone)
			require.NoError(t, err)
			now, err := time.Parse(time.RFC3339, test.now)
			require.NoError(t, err)
			d, clock := newDaily(ratelimit.DailyOptions{Location: loc})
			clock.now = now
			r := peek(t, d, "k", 0)
			require.Equal(t, test.start, r.Start.Format(time.RFC3339Nano), "start")
			require.Equal(t, test.end, r.Reset.Format(time.RFC3339Nano), "end")
			require.Equal(t, day, r.Window, "w of RateLimit-Policy is constant")
		})
	}
}

// zones are locations with every kind of trouble, and fixed ones.
func zones(t testing.TB) []*time.Location {
	locs := []*time.Location{
		time.UTC,
		time.FixedZone("east", 14*60*60),
		time.FixedZone("far west", -60*60*60),
		time.FixedZone("far east", 60*60*60),
	}
	for _, name := range []string{
		"Africa/Cairo", "Africa/Casablanca", "America/Asuncion", "America/Havana", "America/Juneau", "America/New_York",
		"America/Nuuk", "America/Santiago", "America/Sao_Paulo", "America/St_Johns", "Antarctica/Troll", "Asia/Amman",
		"Asia/Beirut", "Asia/Gaza", "Asia/Kathmandu", "Asia/Manila", "Asia/Tehran", "Atlantic/Azores",
		"Australia/Lord_Howe", "Europe/Berlin", "Europe/Dublin", "Pacific/Apia", "Pacific/Kwajalein",
	} {
		loc, err := time.LoadLocation(name)
		require.NoError(t, err)
		locs = append(locs, loc)
	}
	return locs
}

// requireDay requires that the day of now is one: it contains now, begins with
// a date, and has the same bounds wherever in it one asks.
func requireDay(t testing.TB, loc *time.Location, now time.Time) {
	t.Helper()
	at := func(now time.Time) (start, end time.Time) {
		// A Daily of its own for each, so that none remembers another's day.
		clock := func() time.Time { return now }
		d := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Location: loc, Now: clock})
		r, err := d.Peek(t.Context(), "k", 0)
		require.NoError(t, err)
		return r.Start, r.Reset
	}
	start, end := at(now)
	require.False(t, now.Before(start), "%v is before the start %v", now, start)
	require.True(t, now.Before(end), "%v is not before the end %v", now, end)

	date := func(t time.Time) string { return t.In(loc).Format(time.DateOnly) }
	require.Less(t, date(start.Add(-1)), date(start), "%v does not begin a date in %v", start, loc)
	require.Less(t, date(end.Add(-1)), date(end), "%v does not begin a date in %v", end, loc)
	require.Less(t, end.Sub(start), 50*time.Hour)

	for _, other := range []time.Time{start, end.Add(-1)} {
		s, e := at(other)
		require.Equal(t, []time.Time{start, end}, []time.Time{s, e})
	}
	_, before := at(start.Add(-1))
	require.Equal(t, start, before, "there is a gap before the day")
	after, _ := at(end)
	require.Equal(t, end, after, "there is a gap after the day")
}

// D4, F59: every instant is in one day, in every zone.
func TestDailyDaysAreAPartition(t *testing.T) {
	t.Parallel()
	for _, loc := range zones(t) {
		t.Run(loc.String(), func(t *testing.T) {
			t.Parallel()
			for range 100 {
				now := time.Unix(rand.Int64N(400*365*24*60*60)-200*365*24*60*60, rand.Int64N(1e9))
				requireDay(t, loc, now)
				// Around the change of the offset before it, if there is one.
				if change, _ := now.In(loc).ZoneBounds(); !change.IsZero() {
					requireDay(t, loc, change)
					requireDay(t, loc, change.Add(-1))
				}
			}
		})
	}
}

func FuzzDailyDay(f *testing.F) {
	locs := zones(f)
	for i := range locs {
		f.Add(i, int64(1_541_300_400), int64(0)) // São Paulo skips a midnight
		f.Add(i, int64(1_162_089_000), int64(999_999_999))
		f.Add(i, int64(-62_072_524_800), int64(0)) // the year 3
	}
	f.Fuzz(func(t *testing.T, zone int, sec, nsec int64) {
		const years = 9000 * 365 * 24 * 60 * 60
		if zone < 0 || zone >= len(locs) || sec < -years/4 || sec > years || nsec < 0 || nsec >= 1e9 {
			t.Skip("no zone, no number of nanoseconds, or not of the years 2 to 9990")
		}
		now := time.Unix(sec, nsec)
		if now.Year() < 2 || now.Year() > 9990 {
			t.Skip("dates are compared as text of four digits")
		}
		requireDay(t, locs[zone], now)
	})
}

// S61, F55: 300 parallel requests against a limit of 250 admit exactly 250.
func TestDailyParallel(t *testing.T) {
	t.Parallel()
	d := ratelimit.NewDaily(ratelimit.NewMemory(), nil)
	var ok, refused atomic.Int64
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() {
			r, err := d.Take(t.Context(), "k", 0)
			switch {
			case err != nil:
				t.Error(err)
			case r.OK:
				ok.Add(1)
			default:
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 250, ok.Load())
	require.EqualValues(t, 50, refused.Load())
	require.EqualValues(t, 250, peek(t, d, "k", 0).Used)
}

// The same while the day changes: 250 of each day, whoever sees which first.
func TestDailyParallelAcrossMidnight(t *testing.T) {
	t.Parallel()
	d := ratelimit.NewDaily(ratelimit.NewMemory(), nil)
	var ok [2]atomic.Int64
	var wg sync.WaitGroup
	for i := range 600 {
		wg.Go(func() {
			now := midnight.Add(time.Duration(i%2) - 1)
			var r ratelimit.Result
			if err := d.TakeAt(t.Context(), "k", 0, now, &r); err != nil {
				t.Error(err)
			}
			if r.OK {
				ok[i%2].Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 250, ok[0].Load())
	require.EqualValues(t, 250, ok[1].Load())
}

// One clock: a Daily that has one reads it once for each question, and goes by it
// whatever time it is given; TakeAt of one without a clock goes by that time.
func TestDailyReadsOneClock(t *testing.T) {
	t.Parallel()
	reads := 0
	d := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Now: func() time.Time { reads++; return noon }})
	take(t, d, "k", 0)
	require.Equal(t, 1, reads)
	peek(t, d, "k", 0)
	require.Equal(t, 2, reads)
	later := noon.Add(5 * day)
	var r ratelimit.Result
	require.NoError(t, d.TakeAt(t.Context(), "k", 0, later, &r))
	require.Equal(t, 3, reads)
	require.Equal(t, midnight, r.Reset)
	require.EqualValues(t, 2, r.Used)

	require.NoError(t, ratelimit.NewDaily(ratelimit.NewMemory(), nil).TakeAt(t.Context(), "k", 0, later, &r))
	require.Equal(t, midnight.Add(5*day), r.Reset)
	require.EqualValues(t, 1, r.Used)
}

// A call is one Add as a counter sees it.
type call struct {
	key    string
	end    time.Time
	n, max int64
}

// A spy is a Counter that notes its calls and answers what it was told.
type spy struct {
	calls []call
	count int64
	ok    bool
	err   error
}

func (s *spy) Add(_ context.Context, key string, end time.Time, n, max int64) (int64, bool, error) {
	s.calls = append(s.calls, call{key, end, n, max})
	return s.count, s.ok, s.err
}

// A Take is one atomic step of the Counter, by the key as it is.
func TestDailyIsOneStepOfTheCounter(t *testing.T) {
	t.Parallel()
	s := &spy{count: 1, ok: true}
	d := ratelimit.NewDaily(s, &ratelimit.DailyOptions{Now: func() time.Time { return noon }})
	take(t, d, "a key:\x00", 0)
	take(t, d, "", 7)
	take(t, d, "k", ratelimit.Unlimited)
	peek(t, d, "k", 7)
	require.Equal(t, []call{
		{"a key:\x00", midnight, 1, 250},
		{"", midnight, 1, 7},
		{"k", midnight, 1, math.MaxInt64},
		{"k", midnight, 0, 7},
	}, s.calls)
}

// F65, S76: a counter that fails never lets a request through, whatever else it
// says, and its error is kept.
func TestDailyCounterFails(t *testing.T) {
	t.Parallel()
	down := errors.New("connection refused")
	d := ratelimit.NewDaily(&spy{count: 1, ok: true, err: down}, nil)
	for _, ask := range []func(context.Context, string, int64) (ratelimit.Result, error){d.Take, d.Peek} {
		r, err := ask(t.Context(), "a secret", 0)
		require.ErrorIs(t, err, down)
		require.ErrorContains(t, err, "ratelimit: daily: ")
		require.NotContains(t, err.Error(), "a secret")
		require.Equal(t, ratelimit.Result{}, r)
	}
}

// A context that has ended spends nothing.
func TestDailyEndedContext(t *testing.T) {
	t.Parallel()
	d, _ := newDaily(ratelimit.DailyOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := d.Take(ctx, "k", 0)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, ratelimit.Result{}, r)
	require.Zero(t, peek(t, d, "k", 0).Used)
}

// A Daily that cannot decide refuses by an error, on every call: nobody is let
// through by a forgotten argument (S76), and nothing panics.
func TestDailyRefusesByError(t *testing.T) {
	t.Parallel()
	opts := func(limit int64) *ratelimit.DailyOptions { return &ratelimit.DailyOptions{Limit: limit} }
	tests := []struct {
		name  string
		daily *ratelimit.Daily
		limit int64
		text  string
	}{
		{"nil", nil, 0, "without a Counter"},
		{"zero", new(ratelimit.Daily), 5, "without a Counter"},
		{"nil counter", ratelimit.NewDaily(nil, nil), ratelimit.Unlimited, "without a Counter"},
		{"nil memory", ratelimit.NewDaily((*ratelimit.Memory)(nil), nil), 0, "NewMemory"},
		{"negative default", ratelimit.NewDaily(ratelimit.NewMemory(), opts(-2)), 0, "DailyOptions.Limit"},
		{"negative default, limited key", ratelimit.NewDaily(ratelimit.NewMemory(), opts(math.MinInt64)), 5, "DailyOptions.Limit"},
		{"negative limit (D6)", ratelimit.NewDaily(ratelimit.NewMemory(), nil), -2, "limit of the key"},
		{"smallest limit (D6)", ratelimit.NewDaily(ratelimit.NewMemory(), nil), math.MinInt64, "limit of the key"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := test.daily
			answers := []func() (ratelimit.Result, error){
				func() (ratelimit.Result, error) { return d.Take(t.Context(), "k", test.limit) },
				func() (ratelimit.Result, error) { return d.Peek(t.Context(), "k", test.limit) },
				func() (ratelimit.Result, error) {
					r := ratelimit.Result{OK: true, Remaining: 5} // of a decision before
					err := d.TakeAt(t.Context(), "k", test.limit, noon, &r)
					return r, err
				},
			}
			for answer := range slices.Values(answers) {
				r, err := answer()
				require.ErrorContains(t, err, test.text)
				require.Equal(t, ratelimit.Result{}, r)
			}
		})
	}
}

// The options are copied: who keeps them cannot change the limiter.
func TestDailyCopiesItsOptions(t *testing.T) {
	t.Parallel()
	opts := &ratelimit.DailyOptions{Limit: 3}
	d := ratelimit.NewDaily(ratelimit.NewMemory(), opts)
	*opts = ratelimit.DailyOptions{Limit: ratelimit.Unlimited}
	require.Equal(t, 3, admitted(t, d, "k", 0, 10))
}

// A decision allocates nothing, whichever it is.
func TestDailyAllocatesNothing(t *testing.T) {
	d := ratelimit.NewDaily(ratelimit.NewMemory(), nil)
	for _, limit := range []int64{ratelimit.Unlimited, 1} {
		require.Zero(t, testing.AllocsPerRun(1000, func() { d.TakeAt(t.Context(), "k", limit, noon, new(ratelimit.Result)) }))
		require.Zero(t, testing.AllocsPerRun(1000, func() { d.Peek(t.Context(), "k", limit) }))
	}
}
