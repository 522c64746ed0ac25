package ratelimit_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/keystile/keystile/ratelimit"
)

// at18h is a clock that stands at 18:00 of a day, for examples with a fixed
// output. A service leaves Now out.
func at18h() time.Time { return time.Date(2026, time.March, 10, 18, 0, 0, 0, time.UTC) }

// Two requests a day for every key, unless the key has a limit of its own.
func ExampleNewDaily() {
	daily := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Limit: 2, Now: at18h})
	ctx := context.Background()
	for range 3 {
		r, err := daily.Take(ctx, "csk_live_a1b2c3d4", 0)
		if err != nil {
			fmt.Println(err) // refuse: nobody knows what is left
			return
		}
		fmt.Printf("admitted: %-5t used: %d of %d, wait: %v\n", r.OK, r.Used, r.Limit, r.RetryAfter)
	}
	r, _ := daily.Take(ctx, "csk_live_ffffffff", 1000)
	fmt.Printf("another key: %t, %d left until %v\n", r.OK, r.Remaining, r.Reset)
	// Output:
	// admitted: true  used: 1 of 2, wait: 0s
	// admitted: true  used: 2 of 2, wait: 6h0m0s
	// admitted: false used: 2 of 2, wait: 6h0m0s
	// another key: true, 999 left until 2026-03-11 00:00:00 +0000 UTC
}

// What a usage page shows: Peek spends nothing, and answers at the limit too.
func ExampleDaily_Peek() {
	daily := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Limit: 1, Now: at18h})
	ctx := context.Background()
	for range 2 {
		r, _ := daily.Peek(ctx, "csk_live_a1b2c3d4", 0)
		fmt.Printf("used %d of %d since %v\n", r.Used, r.Limit, r.Start.Format(time.DateOnly))
		daily.Take(ctx, "csk_live_a1b2c3d4", 0)
	}
	// Output:
	// used 0 of 1 since 2026-03-10
	// used 1 of 1 since 2026-03-10
}

// A caller that has read its clock hands the time on, so that everything about
// one request is judged at one time.
func ExampleDaily_TakeAt() {
	daily := ratelimit.NewDaily(ratelimit.NewMemory(), nil)
	now := time.Date(2026, time.March, 10, 23, 59, 59, 0, time.UTC)
	var r ratelimit.Result
	if err := daily.TakeAt(context.Background(), "csk_live_a1b2c3d4", 0, now, &r); err != nil {
		fmt.Println(err)
	}
	fmt.Println(r.Remaining, "left for", r.Reset.Sub(now))
	// Output: 249 left for 1s
}

// Two at once, and one more every ten seconds.
func ExampleNewBurst() {
	burst := ratelimit.NewBurst(rate.Every(10*time.Second), 2, &ratelimit.BurstOptions{Now: at18h})
	for range 3 {
		r, _ := burst.Take(context.Background(), "csk_live_a1b2c3d4", 0)
		fmt.Println(r.OK, r.RetryAfter)
	}
	// Output:
	// true 0s
	// true 10s
	// false 10s
}

// A token bucket is not a daily quota (F62): it is full in the morning and
// refills all day long.
func ExampleNewBurst_incorrect() {
	now := at18h()
	clock := func() time.Time { return now }
	quota := ratelimit.NewBurst(250.0/(24*60*60), 250, &ratelimit.BurstOptions{Now: clock})

	admitted := 0
	for end := now.Add(24 * time.Hour); now.Before(end); now = now.Add(time.Minute) {
		if r, err := quota.Take(context.Background(), "csk_live_a1b2c3d4", 0); err == nil && r.OK {
			admitted++
		}
	}
	fmt.Println("250 a day admitted", admitted, "in 24 hours; use NewDaily")
	// Output: 250 a day admitted 499 in 24 hours; use NewDaily
}

// The burst limiter comes first: what it refuses costs nothing of the day.
func ExampleAll() {
	daily := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Now: at18h})
	burst := ratelimit.NewBurst(1, 2, &ratelimit.BurstOptions{Now: at18h})
	limiter := ratelimit.All(burst, daily)
	for range 4 {
		r, _ := limiter.Take(context.Background(), "csk_live_a1b2c3d4", 0)
		fmt.Println(r.OK, r.Name)
	}
	r, _ := daily.Peek(context.Background(), "csk_live_a1b2c3d4", 0)
	fmt.Println("used today:", r.Used)
	// Output:
	// true daily
	// true daily
	// false burst
	// false burst
	// used today: 2
}

// In the other order, requests that are refused for being too fast use up the
// day: what an earlier limiter took is not given back.
func ExampleAll_incorrect() {
	daily := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Now: at18h})
	burst := ratelimit.NewBurst(1, 2, &ratelimit.BurstOptions{Now: at18h})
	limiter := ratelimit.All(daily, burst)
	for range 4 {
		limiter.Take(context.Background(), "csk_live_a1b2c3d4", 0)
	}
	r, _ := daily.Peek(context.Background(), "csk_live_a1b2c3d4", 0)
	fmt.Println("used today, of which two were refused:", r.Used)
	// Output: used today, of which two were refused: 4
}

// A Memory counts by key and by the end of a window.
func ExampleNewMemory() {
	m := ratelimit.NewMemory()
	ctx := context.Background()
	today := time.Date(2026, time.March, 11, 0, 0, 0, 0, time.UTC)
	fmt.Println(m.Add(ctx, "k", today, 3, 5))
	fmt.Println(m.Add(ctx, "k", today, 3, 5))
	fmt.Println(m.Add(ctx, "k", today, 2, 5))
	fmt.Println(m.Add(ctx, "k", today.AddDate(0, 0, 1), 1, 5))
	// Output:
	// 3 true <nil>
	// 3 false <nil>
	// 5 true <nil>
	// 1 true <nil>
}

// A tally is a Counter of one's own. Any store will do that can look and add in
// one atomic step; package ratelimittest tells whether it is right.
type tally struct {
	mu     sync.Mutex
	counts map[window]int64
}

type window struct {
	key string
	end int64 // the instant, without zone and monotonic reading
}

func (t *tally) Add(ctx context.Context, key string, end time.Time, n, max int64) (count int64, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, fmt.Errorf("tally: %w", err)
	}
	if n < 0 {
		return 0, false, fmt.Errorf("tally: negative n")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	w := window{key, end.UnixMicro()}
	count = t.counts[w]
	switch {
	case n == 0:
		return count, true, nil
	case count > max || n > max-count: // not count+n > max, which may wrap around
		return count, false, nil
	}
	t.counts[w] = count + n
	return count + n, true, nil
}

// A service brings the counter that its processes share.
func ExampleCounter() {
	shared := &tally{counts: make(map[window]int64)}
	one := ratelimit.NewDaily(shared, &ratelimit.DailyOptions{Limit: 3, Now: at18h})
	two := ratelimit.NewDaily(shared, &ratelimit.DailyOptions{Limit: 3, Now: at18h})
	for range 2 {
		for _, process := range []ratelimit.Limiter{one, two} {
			r, err := process.Take(context.Background(), "csk_live_a1b2c3d4", 0)
			fmt.Println(r.OK, r.Remaining, err)
		}
	}
	// Output:
	// true 2 <nil>
	// true 1 <nil>
	// true 0 <nil>
	// false 0 <nil>
}

// What is wrong with a limiter is told before the first request needs it.
func ExampleValidate() {
	leased := ratelimit.NewLeased(nil, nil) // a Lender was forgotten
	err := ratelimit.Validate(ratelimit.NewDaily(leased, &ratelimit.DailyOptions{Limit: -5}))
	fmt.Println(err)
	// Output:
	// ratelimit: Leased without a Lender
	// ratelimit: DailyOptions.Limit is negative and not Unlimited
}
