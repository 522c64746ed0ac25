package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sort"
	"sync/atomic"
	"time"
)

// defaultDaily is the daily limit of a key that has none of its own (S61).
const defaultDaily = 250

var (
	errNoCounter    = errors.New("ratelimit: Daily without a Counter")
	errDefaultLimit = errors.New("ratelimit: DailyOptions.Limit is negative and not Unlimited")
)

// DailyOptions are the options of [NewDaily].
type DailyOptions struct {
	// Limit is the limit of keys that have none of their own: requests a day, or
	// Unlimited. Defaults to 250 (S61). Other negative numbers are an error, which
	// every Take and Peek returns, and [Validate].
	Limit int64

	// Location is where the day begins at midnight. Defaults to UTC (D4).
	Location *time.Location

	// Now is the clock, also of TakeAt, which goes by the time that it is given only
	// if there is none here. Defaults to time.Now for Take and Peek.
	Now func() time.Time
}

// A Daily is a [Limiter] that gives a key a number of units for every calendar
// day. Its Results are named "daily".
//
// A day begins at the first instant of its date in the Location and lasts until
// the first instant of the next date: 23 or 25 hours where the clock is changed,
// from 01:00 where that happens at midnight. Where a clock is set back across
// midnight, the day that has begun goes on. Every instant is in one day, and the
// Counter knows the day by its end. The Window of a Result is 24 hours all the
// same, since RateLimit-Policy has to be constant (D4).
//
// The limit belongs to the call. One that was lowered below what is used refuses
// from then on, with a Remaining of 0, and one that was raised admits.
//
// Use [NewDaily]; the zero Daily answers every Take and Peek with an error.
type Daily struct {
	counter  Counter // nil: err says why
	err      error
	limit    int64
	location *time.Location
	now      func() time.Time // nil: go by the caller's time

	// current is the day last asked for, so that the usual case is a comparison
	// instead of calendar arithmetic. It is only a memory: requests that
	// alternate between two days replace it each time, and are right each time.
	current atomic.Pointer[day]
}

// NewDaily returns a Daily that counts in c. Nil opts stand for the defaults.
// There is no default for c, because what it is decides whether the limit holds
// for one process or for all (D8): if c is nil, or an option has no meaning,
// every Take and Peek returns an error.
func NewDaily(c Counter, opts *DailyOptions) *Daily {
	var o DailyOptions
	if opts != nil {
		o = *opts
	}
	if o.Limit == 0 {
		o.Limit = defaultDaily
	}
	if o.Location == nil {
		o.Location = time.UTC
	}
	d := &Daily{counter: c, limit: o.Limit, location: o.Location, now: o.Now}
	if d.err = errors.Join(when(c == nil, errNoCounter), validate(c), when(o.Limit < Unlimited, errDefaultLimit)); d.err != nil {
		d.counter = nil
	}
	return d
}

// Take spends one unit of key today, or returns a Result that is not OK (S61).
// Limit is the key's own limit, 0 for the default. An error of the Counter is
// returned wrapped; whether the unit was spent is unknown then.
func (d *Daily) Take(ctx context.Context, key string, limit int64) (Result, error) {
	var r Result
	err := d.at(ctx, key, limit, time.Now(), 1, &r)
	return r, err
}

// TakeAt is Take at the given time, for callers that have read their clock
// already: a request is judged by one time, not by several. A Daily that was
// given a clock of its own goes by that. The Result is put into r, the zero one with
// an error: it is large, and a Guard, which asks for it at each request, has a place
// for it.
func (d *Daily) TakeAt(ctx context.Context, key string, limit int64, now time.Time, r *Result) error {
	err := d.at(ctx, key, limit, now, 1, r)
	if err != nil {
		*r = Result{}
	}
	return err
}

// Peek tells how key stands today and spends nothing, at the limit too (D5). Its
// Result is OK if a Take would be admitted.
func (d *Daily) Peek(ctx context.Context, key string, limit int64) (Result, error) {
	var r Result
	err := d.at(ctx, key, limit, time.Now(), 0, &r)
	return r, err
}

// unusable returns why d, which has no counter, cannot decide. We fail closed
// here because a service that forgot the Counter would otherwise not be limited
// at all.
func (d *Daily) unusable() error {
	if d != nil && d.err != nil {
		return d.err
	}
	return errNoCounter
}

// at spends n units of key, 1 or 0, on the day of now, or of d's own clock. It sets
// r in place, because a Result is large and copying one costs more than counting, and
// leaves r alone if it returns an error. Its callers are small enough to be inlined,
// for the same reason.
func (d *Daily) at(ctx context.Context, key string, limit int64, now time.Time, n int64, r *Result) error {
	if d == nil || d.counter == nil {
		return d.unusable()
	}
	if limit == 0 {
		limit = d.limit
	}
	most := limit
	switch {
	case limit == Unlimited:
		most = math.MaxInt64
	case limit < Unlimited:
		return errLimit
	}
	if d.now != nil {
		now = d.now()
	}
	today := d.day(now)
	used, ok, err := d.counter.Add(ctx, key, today.end, n, most)
	if err != nil {
		return fmt.Errorf("ratelimit: daily: %w", err)
	}
	r.OK = ok
	r.Name = DailyName
	r.Window = 24 * time.Hour
	r.Limit = limit
	r.Used = used
	r.Remaining = most - used
	r.Start = today.start
	r.Reset = today.end
	r.RetryAfter = 0
	if r.Remaining <= 0 { // less than 0 if the limit was lowered
		r.Remaining = 0
		r.OK = ok && n > 0 // the Take of the last unit is, a Peek after it is not
		r.RetryAfter = today.end.Sub(now)
	}
	if limit == Unlimited {
		r.Remaining = Unlimited
	}
	return nil
}

// day returns the day of now.
func (d *Daily) day(now time.Time) *day {
	if today := d.current.Load(); today != nil && today.contains(now) {
		return today
	}
	today := dayOf(now, d.location)
	d.current.Store(today)
	return today
}

// A day is a calendar day as instants in UTC: what is counted over and what
// names it in the Counter. It includes start and excludes end.
type day struct {
	start, end  time.Time
	first, past int64 // the same in seconds: days begin at whole ones
}

func (d *day) contains(t time.Time) bool {
	sec := t.Unix()
	return d.first <= sec && sec < d.past
}

// dayOf returns the day that contains t in loc. Its bounds are instants of the
// wall clock: a monotonic reading of t has no part in it.
func dayOf(t time.Time, loc *time.Location) *day {
	year, month, date := t.In(loc).Date()
	d := &day{start: midnight(year, month, date, loc), end: midnight(year, month, date+1, loc)}
	for !t.Before(d.end) { // the clock was set back across a midnight before t
		date++
		d.start, d.end = d.end, midnight(year, month, date+1, loc)
	}
	d.first, d.past = d.start.Unix(), d.end.Unix()
	return d
}

// midnight returns the instant in UTC at which the given date begins in loc: the
// first one of that date or, where the date is skipped, of the next. Time.Date
// does not: for a midnight that the clock skips it returns an instant that may be
// of the day before, and it does not know that a date can begin twice.
func midnight(year int, month time.Month, date int, loc *time.Location) time.Time {
	civil := time.Date(year, month, date, 0, 0, 0, 0, time.UTC)
	before := func(offset int) time.Time { return civil.Add(-time.Duration(offset) * time.Second) }
	offsetAt := func(t time.Time) int { _, offset := t.In(loc).Zone(); return offset }

	// Try the offsets from UTC that are used around that time, the earlier first.
	// They are looked for at intervals, because Time.ZoneBounds gives wrong bounds
	// beyond the table of transitions: it ends leap years on 30 December.
	least, most := math.MaxInt, math.MinInt
	for hours := -48; hours <= 48; hours += 12 {
		offset := offsetAt(civil.Add(time.Duration(hours) * time.Hour))
		if t := before(offset); offsetAt(t) == offset {
			return t
		}
		least, most = min(least, offset), max(most, offset)
	}
	// The clock skips midnight: the date begins when it does.
	seconds := sort.Search(most-least, func(i int) bool {
		t := before(most - i)
		return !t.Before(before(offsetAt(t)))
	})
	return before(most - seconds)
}
