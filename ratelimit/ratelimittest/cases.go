package ratelimittest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// unlimited is a max that nothing reaches.
const unlimited = math.MaxInt64

// monday is the end of an ordinary day.
var monday = time.Date(2026, time.March, 10, 0, 0, 0, 0, time.UTC)

// day returns the end of the n-th day after monday.
func day(n int) time.Time { return monday.AddDate(0, 0, n) }

var cases = []testCase{
	{
		name:        "counts",
		explanation: "a count must start at 0, and Add must return it as it is after the step",
		steps: []step{
			{"k", monday, 1, 250, 1, true},
			{"k", monday, 1, 250, 2, true},
			{"k", monday, 1, 250, 3, true},
			{"k", monday, 7, 250, 10, true},
		},
	},
	{
		name:        "ceiling",
		explanation: "max must be reached and never exceeded: of 251 additions of 1, 250 are ok under a max of 250 (S61)",
		run:         ceiling,
	},
	{
		name:        "several",
		explanation: "an addition that would exceed max must add nothing at all, not the part that fits",
		steps: []step{
			{"k", monday, 7, 10, 7, true},
			{"k", monday, 4, 10, 7, false},
			{"k", monday, 2, 10, 9, true},
			{"k", monday, 2, 10, 9, false},
			{"k", monday, 1, 10, 10, true},
			{"k", monday, 1, 10, 10, false},
			{"at once", monday, 10, 10, 10, true},
			{"too many", monday, 11, 10, 0, false},
			{"too many", monday, 10, 10, 10, true},
			{"no room", monday, 1, 0, 0, false},
			{"no room", monday, 1, -1, 0, false},
			{"no room", monday, 1, math.MinInt64, 0, false},
			{"no room", monday, 1, 1, 1, true},
			{"no room", monday, 1, math.MinInt64, 1, false},
		},
	},
	{
		name:        "keys",
		explanation: "every key must have counts of its own (S63), and keys are different if any byte is, whatever bytes they are and however many",
		run:         keys,
	},
	{
		name:        "windows",
		explanation: "every window of a key must have a count of its own (D4), the windows of the zero Time, of before 1970 and of the far future among them",
		steps: []step{
			{"k", day(0), 1, 2, 1, true},
			{"k", day(0), 1, 2, 2, true},
			{"k", day(0), 1, 2, 2, false},
			{"k", day(1), 1, 2, 1, true},
			{"k", day(2), 2, 2, 2, true},
			{"k", time.Time{}, 1, 2, 1, true},
			{"k", time.Unix(0, 0), 2, 2, 2, true},
			{"k", time.Date(1931, 5, 1, 0, 0, 0, 0, time.UTC), 1, 2, 1, true},
			{"k", time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), 2, 2, 2, true},
			{"k", day(0), 0, 2, 2, true},
			{"k", day(1), 0, 2, 1, true},
			{"k", day(2), 0, 2, 2, true},
			{"k", time.Time{}, 0, 2, 1, true},
			{"k", time.Unix(0, 0), 0, 2, 2, true},
			{"k", time.Date(1931, 5, 1, 0, 0, 0, 0, time.UTC), 0, 2, 1, true},
			{"k", time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), 0, 2, 2, true},
		},
	},
	{
		name:        "joined",
		explanation: "a key that ends as another's window begins must not meet it: key and end may not be joined without a length or a separator that keys cannot contain",
		steps: []step{
			// Were the end a decimal number of any unit, both would be 1772000000...
			{"k1", time.Unix(772_000_000, 0), 1, 9, 1, true},
			{"k", time.Unix(1_772_000_000, 0), 2, 9, 2, true},
			{"k1", time.Unix(772_000_000, 0), 0, 9, 1, true},
		},
	},
	{
		name:        "instants",
		explanation: "ends must be compared as instants, in any zone and with a monotonic reading or without",
		run:         instants,
	},
	{
		name:        "precision",
		explanation: "ends that are a microsecond apart must be different windows",
		steps: []step{
			{"k", monday, 1, 9, 1, true},
			{"k", monday.Add(time.Microsecond), 2, 9, 2, true},
			{"k", monday.Add(-time.Microsecond), 3, 9, 3, true},
			{"k", monday.Add(time.Millisecond), 4, 9, 4, true},
			{"k", monday, 0, 9, 1, true},
		},
	},
	{
		name:        "step back",
		explanation: "going back to an earlier end must find its count as it was left, and going ahead again the later one (D4)",
		steps: []step{
			{"k", day(0), 3, 3, 3, true},
			{"k", day(1), 1, 3, 1, true},
			{"k", day(0), 1, 3, 3, false},
			{"k", day(1), 1, 3, 2, true},
			{"k", day(400), 3, 3, 3, true}, // a jump far ahead, undone
			{"k", day(1), 1, 3, 3, true},
			{"k", day(2), 1, 3, 1, true},
			{"k", day(0), 0, 3, 3, true},
			{"k", day(400), 0, 3, 3, true},
		},
	},
	{
		name:        "eight windows",
		explanation: "a window may be forgotten only when eight other windows of its key were made after it, whichever are earlier in time and whichever were used last",
		run:         eightWindows,
	},
	{
		name:        "read",
		explanation: "an n of 0 must return the count, be ok whatever max is, and change nothing",
		steps: []step{
			{"k", monday, 0, 250, 0, true},
			{"k", monday, 0, 0, 0, true},
			{"k", monday, 0, -1, 0, true},
			{"k", monday, 5, 5, 5, true},
			{"k", monday, 0, 250, 5, true},
			{"k", monday, 0, 5, 5, true},
			{"k", monday, 0, 4, 5, true},
			{"k", monday, 0, 0, 5, true},
			{"k", monday, 0, math.MinInt64, 5, true},
			{"k", monday, 0, unlimited, 5, true},
			{"k", monday, 1, 6, 6, true},
		},
	},
	{
		name:        "nothing made",
		explanation: "what adds nothing must make no count: neither reading nor being refused may push another window out",
		run:         nothingMade,
	},
	{
		name:        "max changes",
		explanation: "max must be that of the call: one that is lowered below the count refuses and changes nothing, one that is raised admits at once",
		steps: []step{
			{"k", monday, 5, 10, 5, true},
			{"k", monday, 1, 3, 5, false},
			{"k", monday, 1, 5, 5, false},
			{"k", monday, 1, 6, 6, true},
			{"k", monday, 4, 10, 10, true},
			{"k", monday, 1, 10, 10, false},
			{"k", monday, 5, 20, 15, true},
			{"k", monday, 1, unlimited, 16, true},
		},
	},
	{
		name:        "large numbers",
		explanation: "counts up to the largest int64 must be exact, and count + n must not wrap around",
		steps: []step{
			{"k", monday, 1, unlimited, 1, true},
			{"k", monday, math.MaxInt64, unlimited, 1, false},
			{"k", monday, math.MaxInt64 - 1, unlimited, math.MaxInt64, true},
			{"k", monday, 1, unlimited, math.MaxInt64, false},
			{"k", monday, math.MaxInt64, unlimited, math.MaxInt64, false},
			{"k", monday, 0, unlimited, math.MaxInt64, true},
			{"above 2^53", monday, 1 << 53, unlimited, 1 << 53, true},
			{"above 2^53", monday, 1, unlimited, 1<<53 + 1, true},
		},
	},
	{
		name:        "negative n",
		explanation: "a negative n must be an error and change nothing: a counter gives no refunds (D5)",
		run:         negative,
	},
	{
		name:        "context",
		explanation: "a context that has ended must give an error that wraps its Err, and nothing may be added",
		run:         endedContext,
	},
	{
		name:        "parallel ceiling",
		explanation: "of 300 additions of 1 at once under a max of 250, exactly 250 must be ok, and each must get another count",
		run:         parallelCeiling,
	},
	{
		name:        "parallel room",
		explanation: "nobody may be refused while there is room: an addition that is refused must not be visible to others for a moment",
		run:         parallelRoom,
	},
	{
		name:        "parallel making",
		explanation: "no addition may be lost when many callers make the same keys and windows at once",
		run:         parallelMaking,
	},
}

func ceiling(p *probe) error {
	for i := int64(1); i <= 250; i++ {
		if err := p.want(step{"k", monday, 1, 250, i, true}); err != nil {
			return err
		}
	}
	for range 3 {
		if err := p.want(step{"k", monday, 1, 250, 250, false}); err != nil {
			return err
		}
	}
	return nil
}

func keys(p *probe) error {
	long := strings.Repeat("x", 1023)
	names := []string{
		"", "k", "K", "k ", " k", "k\t", "k\n", "k\x00", "k\x00a", "kk",
		"a:b", "a: b", "a/b", "a|b", "a%b", "a_b", "a'b", `a"b`, `a\b`, "{a}b", "a*b", "a?b",
		"é", "e\u0301", "É", "\xff", "\xfe", "\xff\xfe", "\ufffd",
		"1", "01", "1.0", "1e0", "+1", "null",
		long, long + "x", long + "y", "y" + long,
	}
	for i, name := range names {
		if err := p.want(step{name, monday, int64(i + 1), unlimited, int64(i + 1), true}); err != nil {
			return err
		}
	}
	for i, name := range names {
		if err := p.want(step{name, monday, 0, unlimited, int64(i + 1), true}); err != nil {
			return err
		}
	}
	// The empty key has no place for a prefix: another run has another window.
	bare := *p
	bare.prefix = ""
	window := monday.Add(time.Duration(rand.Int64N(1<<60)) * time.Nanosecond).Truncate(time.Microsecond)
	return bare.follow([]step{
		{"", window, 1, 1, 1, true},
		{"", window, 1, 1, 1, false},
	})
}

func instants(p *probe) error {
	// Whole microseconds, with the monotonic reading that Round(0) strips.
	end := time.Now().Add(90 * time.Minute)
	end = end.Add(-time.Duration(end.Nanosecond() % 1000))
	reading := end.Round(0)
	return p.follow([]step{
		{"k", end, 1, 9, 1, true},
		{"k", reading, 1, 9, 2, true},
		{"k", reading.In(time.FixedZone("east", 5*60*60+45*60)), 1, 9, 3, true},
		{"k", reading.In(time.FixedZone("west", -11*60*60)), 1, 9, 4, true},
		{"k", time.UnixMicro(reading.UnixMicro()), 1, 9, 5, true},
	})
}

func eightWindows(p *probe) error {
	// Made in an order that is neither that of time nor its reverse.
	order := []int{4, 1, 7, 0, 6, 2, 5, 3}
	var steps []step
	for _, d := range order {
		steps = append(steps, step{"k", day(d), int64(d + 1), unlimited, int64(d + 1), true})
	}
	for d := range order {
		steps = append(steps, step{"k", day(d), 0, unlimited, int64(d + 1), true})
	}
	// The oldest made is used once more. Still it is the one that may go when
	// another is made.
	steps = append(steps,
		step{"k", day(order[0]), 1, unlimited, int64(order[0] + 2), true},
		step{"k", day(8), 9, unlimited, 9, true})
	for _, d := range append(order[1:], 8) {
		steps = append(steps, step{"k", day(d), 0, unlimited, int64(d + 1), true})
	}
	return p.follow(steps)
}

func nothingMade(p *probe) error {
	steps := []step{{"k", day(0), 1, 250, 1, true}}
	for d := 1; d <= 10; d++ {
		steps = append(steps,
			step{"k", day(d), 0, 250, 0, true},
			step{"k", day(d), 5, 4, 0, false})
	}
	return p.follow(append(steps, step{"k", day(0), 1, 250, 2, true}))
}

func negative(p *probe) error {
	if err := p.want(step{"k", monday, 5, 10, 5, true}); err != nil {
		return err
	}
	for _, n := range []int64{-1, -5, -6, math.MinInt64} {
		for _, key := range []string{"k", "new"} {
			s := step{key: key, end: monday, n: n, max: 10}
			if count, ok, err := p.add(s.key, s.end, s.n, s.max); err == nil {
				return fmt.Errorf("%v = %d, %t; want an error", s, count, ok)
			}
		}
	}
	return p.follow([]step{
		{"k", monday, 0, 10, 5, true},
		{"new", monday, 0, 10, 0, true},
	})
}

func endedContext(p *probe) error {
	if err := p.want(step{"k", monday, 5, 10, 5, true}); err != nil {
		return err
	}
	canceled, cancel := context.WithCancel(p.ctx)
	cancel()
	expired, cancel := context.WithDeadline(p.ctx, time.Unix(1, 0))
	defer cancel()
	for _, ctx := range []context.Context{canceled, expired} {
		late := *p
		late.ctx = ctx
		for _, s := range []step{{key: "k", n: 1}, {key: "k", n: 0}, {key: "k", n: 6}, {key: "new", n: 1}, {key: "new", n: 0}} {
			s.end, s.max = monday, 10
			count, ok, err := late.add(s.key, s.end, s.n, s.max)
			if !errors.Is(err, ctx.Err()) {
				return fmt.Errorf("%v = %d, %t, error %v; want an error that wraps %q", s, count, ok, err, ctx.Err())
			}
			if ok {
				return fmt.Errorf("%v is ok beside its error %w", s, err)
			}
		}
	}
	return p.follow([]step{
		{"k", monday, 0, 10, 5, true},
		{"new", monday, 0, 10, 0, true},
		{"k", monday, 1, 10, 6, true},
	})
}

func parallelCeiling(p *probe) error {
	const callers, limit = 300, 250
	var mu sync.Mutex
	admitted := make(map[int64]bool)
	err := together(callers, func(int) error {
		count, ok, err := p.add("k", monday, 1, limit)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case !ok && count != limit:
			return fmt.Errorf("an addition was refused at a count of %d, below %d", count, limit)
		case ok && (count < 1 || count > limit):
			return fmt.Errorf("an addition was admitted with a count of %d, not between 1 and %d", count, limit)
		case ok && admitted[count]:
			return fmt.Errorf("two additions were admitted with a count of %d", count)
		case ok:
			admitted[count] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(admitted) != limit {
		return fmt.Errorf("%d additions were admitted; want %d", len(admitted), limit)
	}
	return p.want(step{"k", monday, 0, limit, limit, true})
}

func parallelRoom(p *probe) error {
	// Half of the callers add 1, all of which fits. The other half ask for more
	// than there can be, and have no business in anybody's way.
	const callers, each = 16, 40
	const limit = callers / 2 * each
	err := together(callers, func(caller int) error {
		s := step{key: "k", end: monday, n: 1, max: limit, ok: true}
		if caller%2 == 0 {
			s.n, s.ok = limit+1, false
		}
		for range each {
			count, ok, err := p.add(s.key, s.end, s.n, s.max)
			if err != nil {
				return err
			}
			if ok != s.ok {
				return fmt.Errorf("%v = %d, %t; want %t", s, count, ok, s.ok)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return p.want(step{"k", monday, 0, limit, limit, true})
}

func parallelMaking(p *probe) error {
	const callers, keys, windows = 8, 25, 4
	err := together(callers, func(int) error {
		for k := range keys {
			for w := range windows {
				if _, _, err := p.add(fmt.Sprint("k", k), day(w), 1, unlimited); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for k := range keys {
		for w := range windows {
			if err := p.want(step{fmt.Sprint("k", k), day(w), 0, unlimited, callers, true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// together calls f for the numbers below n, all at once, and returns what went
// wrong first.
func together(n int, f func(int) error) error {
	var wg sync.WaitGroup
	start := make(chan struct{})
	errs := make(chan error, n)
	for i := range n {
		wg.Go(func() {
			<-start
			if err := f(i); err != nil {
				errs <- err
			}
		})
	}
	close(start)
	wg.Wait()
	close(errs)
	return <-errs // nil if there is none
}
