package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/ratelimittest"
)

// A Leased that is alone is a Counter in every respect.
func TestLeasedKeepsTheContractOfCounters(t *testing.T) {
	t.Parallel()
	ratelimittest.Run(t, func(t *testing.T) ratelimit.Counter {
		l := ratelimit.NewLeased(ratelimit.NewMemory(), nil)
		t.Cleanup(func() { closed(t, l) })
		return l
	})
}

// newLeased returns a node with a line of its own to m. It has to be made in the
// bubble that it is used in, and is closed at the end of that.
func newLeased(t testing.TB, m ratelimit.Lender, opts *ratelimit.LeaseOptions) (*ratelimit.Leased, *line) {
	l := &line{to: m}
	l.latency.Store(int64(time.Millisecond))
	leased := ratelimit.NewLeased(l, opts)
	t.Cleanup(func() {
		l.latency.Store(0)
		_ = leased.Close(context.Background())
	})
	return leased, l
}

// S61, D8: 250 pass and the 251st is refused, with a trip for every nine requests.
func TestLeasedAdmits250AndRefusesThe251st(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		d := ratelimit.NewDaily(leased, nil)
		for i := range int64(250) {
			r := take(t, d, "k", 0)
			require.True(t, r.OK)
			require.Equal(t, i+1, r.Used)
			require.Equal(t, 249-i, r.Remaining)
		}
		for range 100 {
			r := take(t, d, "k", 0)
			require.False(t, r.OK)
			require.EqualValues(t, 250, r.Used)
			require.Zero(t, r.Remaining)
		}
		require.EqualValues(t, 1, line.adds.Load())
		require.LessOrEqual(t, line.borrows.Load(), int64(36))
		require.EqualValues(t, 250, add(t, m, "k", peek(t, d, "k", 0).Reset, 0))
	})
}

// D5: what a Peek shows is what was served here, not what is lent: exact for a node
// that is alone, whatever it holds.
func TestLeasedPeek(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leased, _ := newLeased(t, ratelimit.NewMemory(), nil)
		d := ratelimit.NewDaily(leased, &ratelimit.DailyOptions{Limit: 1000})
		for i := range int64(300) {
			p := peek(t, d, "k", 0)
			require.True(t, p.OK)
			require.Equal(t, i, p.Used)
			require.Equal(t, 1000-i, p.Remaining)
			take(t, d, "k", 0)
		}
		// A limit below what is used: Remaining is 0 and not negative (D4).
		require.Zero(t, peek(t, d, "k", 200).Remaining)
		require.Zero(t, peek(t, d, "k", 300).Remaining)
		require.EqualValues(t, 1, peek(t, d, "k", 301).Remaining)
	})
}

// What another node holds counts as used until it comes back.
func TestLeasedPeekElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		here, _ := newLeased(t, m, nil)
		there, _ := newLeased(t, m, nil)
		addOK(t, there, "k", 1000)
		addOK(t, there, "k", 1000)
		require.EqualValues(t, 11, add(t, here, "k", midnight, 0), "2 used, 9 more held")
		require.EqualValues(t, 2, add(t, there, "k", midnight, 0))
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 2, add(t, here, "k", midnight, 0))
	})
}

// Nothing is worth a loan that is used less than once a second: it costs its one
// trip and leaves nothing idle.
func TestLeasedColdKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		for i := range int64(50) {
			require.Equal(t, i+1, addOK(t, leased, "k", 250))
			require.Equal(t, i+1, add(t, m, "k", midnight, 0))
			time.Sleep(1300 * time.Millisecond)
		}
		require.EqualValues(t, 50, line.adds.Load())
		require.EqualValues(t, 50, line.trips())
	})
}

// No key costs much more than a trip per request, however often it is used.
func TestLeasedLukewarmKeys(t *testing.T) {
	t.Parallel()
	for every := 100 * time.Millisecond; every < 1200*time.Millisecond; every += 100 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			leased, line := newLeased(t, ratelimit.NewMemory(), nil)
			for range 100 {
				addOK(t, leased, "k", 250)
				time.Sleep(every)
			}
			require.LessOrEqual(t, line.trips(), int64(110), "a request every %v", every)
		})
	}
}

// The next loan is there before the last one is spent: once the pace is known no
// caller waits for a trip.
func TestLeasedBorrowsInAdvance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leased, line := newLeased(t, ratelimit.NewMemory(), nil)
		for i := range 5000 {
			began := time.Now()
			addOK(t, leased, "k", 100_000)
			if i > 50 { // the first loans are small
				require.Zero(t, time.Since(began), "request %d", i)
			}
			time.Sleep(time.Millisecond / 4)
		}
		require.LessOrEqual(t, line.trips(), int64(13))
	})
}

// Callers that come at once wait for the same loan.
func TestLeasedJoins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leased, line := newLeased(t, ratelimit.NewMemory(), nil)
		addOK(t, leased, "k", 10_000)
		began := time.Now()
		n, errs := burst(leased, "k", 10_000, 10)
		require.Empty(t, errs)
		require.Equal(t, 10, n)
		require.EqualValues(t, 1, line.borrows.Load())
		require.Equal(t, time.Millisecond, time.Since(began))
		// A loan is at most twice the one before: 20, 40, 80.
		n, errs = burst(leased, "k", 10_000, 100)
		require.Empty(t, errs)
		require.Equal(t, 100, n)
		require.EqualValues(t, 4, line.borrows.Load())
		require.Equal(t, 4*time.Millisecond, time.Since(began))
	})
}

// Callers that read at once share a trip that began after they came, so that reading
// is in the way of nobody who spends.
func TestLeasedReadersShareATrip(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		addOK(t, leased, "k", 10_000)
		before := line.trips()
		var wg sync.WaitGroup
		read := func(least, most int64) {
			wg.Go(func() {
				count, ok, err := leased.Add(t.Context(), "k", midnight, 0, 10_000)
				if count < least || count > most || !ok || err != nil {
					t.Errorf("%d, %t, %v; want %d to %d", count, ok, err, least, most)
				}
			})
		}
		read(1, 1)
		synctest.Wait() // its trip is under way, and reads before the addition
		time.Sleep(600 * time.Microsecond)
		add(t, m, "k", midnight, 1)
		for range 100 {
			read(2, 2)
		}
		began := time.Now()
		wg.Wait()
		require.EqualValues(t, 2, line.trips()-before)
		require.Less(t, time.Since(began), 2*time.Millisecond)

		for range 100 {
			read(2, 3)
		}
		synctest.Wait()
		began = time.Now()
		addOK(t, leased, "k", 10_000)
		require.LessOrEqual(t, time.Since(began), 4*time.Millisecond)
		wg.Wait()
	})
}

// A caller that gives up does not end the trip that others wait for, and takes
// nothing with it.
func TestLeasedCallersContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		addOK(t, leased, "k", 250)
		line.latency.Store(int64(time.Second / 2))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/5)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, ok, err := leased.Add(ctx, "k", midnight, 1, 250)
			if ok || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Add = %t, %v", ok, err)
			}
		})
		time.Sleep(time.Second / 8)
		require.EqualValues(t, 2, addOK(t, leased, "k", 250))
		wg.Wait()
		require.EqualValues(t, 1, line.borrows.Load())
		closed(t, leased)
		require.EqualValues(t, 2, add(t, m, "k", midnight, 0))
	})
}

// The values of a caller's context reach the Lender.
func TestLeasedContextValues(t *testing.T) {
	t.Parallel()
	type name struct{}
	m := ratelimit.NewMemory()
	seen := make(chan any, 1)
	leased := ratelimit.NewLeased(lenderFunc{m, func(ctx context.Context) { seen <- ctx.Value(name{}) }}, nil)
	defer leased.Close(context.Background())
	ctx := context.WithValue(t.Context(), name{}, 7)
	for range 2 {
		_, ok, err := leased.Add(ctx, "k", midnight, 1, 250)
		require.NoError(t, err)
		require.True(t, ok)
	}
	require.Equal(t, 7, <-seen)
	go func() { <-seen }()
}

// A lenderFunc calls seen with the context of every Lend.
type lenderFunc struct {
	ratelimit.Lender
	seen func(ctx context.Context)
}

func (l lenderFunc) Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	l.seen(ctx)
	return l.Lender.Lend(ctx, account, key, end, spent, want, limit, now)
}

// What is not used for a second comes back, with its window or without, and then
// there is no goroutine left: a bubble does not end with one.
func TestLeasedGivesBackWhatIsIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		line := &line{to: m}
		leased := ratelimit.NewLeased(line, nil) // not closed
		for i := range 60 {
			key := fmt.Sprint("key", i%20)
			addOK(t, leased, key, 10_000)
		}
		_, _, err := leased.Add(t.Context(), "key0", midnight.Add(day), 1, 10_000)
		require.NoError(t, err)
		require.EqualValues(t, 11, add(t, m, "key0", midnight, 0))
		time.Sleep(900 * time.Millisecond)
		require.EqualValues(t, 11, add(t, m, "key0", midnight, 0))
		time.Sleep(400 * time.Millisecond)
		for i := range 20 {
			require.EqualValues(t, 3, add(t, m, fmt.Sprint("key", i), midnight, 0))
		}
		require.EqualValues(t, 20, line.backs.Load())
		time.Sleep(time.Second)
		require.Zero(t, leased.Leases())
		require.Equal(t, 3, m.Accounts()-17, "ended, and not forgotten yet")
	})
}

// Also a node that uses some of its loan gives back what it does not use within a
// second.
func TestLeasedGivesBackWhatIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, _ := newLeased(t, m, nil)
		var most int64
		for i := range int64(40) {
			require.Equal(t, i+1, addOK(t, leased, "k", 10_000))
			time.Sleep(300 * time.Millisecond)
			if held := add(t, m, "k", midnight, 0) - (i + 1); held > 0 {
				most++
			} else {
				most = 0
			}
			require.LessOrEqual(t, most, int64(4), "units lie idle for longer than a second")
		}
	})
}

// A key with a steady pace borrows what it uses and gives nothing back, however
// much the lender would lend.
func TestLeasedSteadyPace(t *testing.T) {
	t.Parallel()
	for _, perSecond := range []int{8, 30, 100, 1000} {
		synctest.Test(t, func(t *testing.T) {
			m := ratelimit.NewMemory()
			leased, line := newLeased(t, m, nil)
			for i := range int64(2000) {
				require.Equal(t, i+1, addOK(t, leased, "k", 1e6))
				require.LessOrEqual(t, add(t, m, "k", midnight, 0)-i, int64(2*max(perSecond, 10)), "held")
				time.Sleep(time.Second / time.Duration(perSecond))
			}
			require.LessOrEqual(t, line.backs.Load(), int64(1))
			require.LessOrEqual(t, line.trips(), int64(2000*2/perSecond+12), "%d a second", perSecond)
		})
	}
}

// Whoever found a loan before it was given back finds it drained, and whoever found
// a lease before it was dropped looks again.
func TestLeasedGoneIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, _ := newLeased(t, m, nil)
		addOK(t, leased, "k", 250)
		addOK(t, leased, "k", 250)
		spend, again := leased.Spender("k", midnight), leased.Adder(t.Context(), "k", midnight, 250)
		require.True(t, spend())
		require.False(t, again())
		time.Sleep(5 * time.Second)
		require.False(t, spend())
		require.True(t, again())
		require.EqualValues(t, 4, add(t, m, "k", midnight, 0))
	})
}

// An answer that did not come may have lent something: it is given back all the
// same.
func TestLeasedGivesBackWhatItDoesNotKnowOf(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		addOK(t, leased, "k", 250)
		line.fault = func(n int64) fault {
			if n == 2 {
				return unanswered
			}
			return none
		}
		_, _, err := leased.Add(t.Context(), "k", midnight, 1, 250)
		require.ErrorIs(t, err, errLine)
		require.EqualValues(t, 11, add(t, m, "k", midnight, 0))
		time.Sleep(3 * time.Second)
		require.EqualValues(t, 1, add(t, m, "k", midnight, 0))
	})
}

// What was to be given back is not spent, and its account not used again, however
// the attempt ended: nothing is refused early, and nothing admitted twice.
func TestLeasedGivesBackBeforeItBorrowsAgain(t *testing.T) {
	t.Parallel()
	for _, f := range []fault{lost, unanswered, late} {
		synctest.Test(t, func(t *testing.T) {
			m := ratelimit.NewMemory()
			leased, line := newLeased(t, m, nil)
			line.fault = func(n int64) fault {
				if n == 3 {
					return f
				}
				return none
			}
			addOK(t, leased, "k", 250)
			addOK(t, leased, "k", 250)
			time.Sleep(1300 * time.Millisecond) // the third trip gives back
			require.EqualValues(t, 1, line.backs.Load())
			for i := range int64(200) {
				require.Equal(t, i+3, addOK(t, leased, "k", 250))
				time.Sleep(40 * time.Millisecond)
			}
			time.Sleep(3 * time.Second)
			require.EqualValues(t, 202, add(t, m, "k", midnight, 0))
		})
	}
}

// A lease is not dropped while it borrows, however long that takes.
func TestLeasedKeepsWhatBorrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		addOK(t, leased, "k", 250)
		line.latency.Store(int64(1900 * time.Millisecond))
		require.EqualValues(t, 2, addOK(t, leased, "k", 250))
		require.EqualValues(t, 3, addOK(t, leased, "k", 250))
		line.latency.Store(0)
		time.Sleep(5 * time.Second)
		require.EqualValues(t, 3, add(t, m, "k", midnight, 0))
		require.Zero(t, leased.Leases())
	})
}

// A lease that waits for its turn to be given back, and borrows meanwhile, is not
// idle any more when its turn comes.
func TestLeasedGivesBackOnlyWhatIsStillIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		line.latency.Store(0)
		var keys []string
		for i := range 17 { // one more than are given back at a time
			keys = append(keys, fmt.Sprint("key", i))
			addOK(t, leased, keys[i], 250)
			addOK(t, leased, keys[i], 250)
		}
		line.latency.Store(int64(time.Second))
		time.Sleep(1300 * time.Millisecond)
		require.EqualValues(t, 16, line.backs.Load())
		waiting := ""
		for _, key := range keys {
			ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
			if _, ok, _ := leased.Add(ctx, key, midnight, 1, 250); ok {
				waiting = key
			}
			cancel()
		}
		require.NotEmpty(t, waiting)
		for i := range int64(30) {
			require.Equal(t, i+4, addOK(t, leased, waiting, 250))
		}
		line.latency.Store(0)
		time.Sleep(5 * time.Second)
		for _, key := range keys {
			want := int64(2)
			if key == waiting {
				want = 33
			}
			require.Equal(t, want, add(t, m, key, midnight, 0))
		}
	})
}

// Close gives everything back at once. After it every addition is counted by the
// lender. It can be called again.
func TestLeasedClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		for i := range 300 {
			addOK(t, leased, fmt.Sprint("key", i%100), 10_000)
		}
		began := time.Now()
		closed(t, leased)
		require.LessOrEqual(t, time.Since(began), 10*time.Millisecond, "several are given back at a time")
		for i := range 100 {
			require.EqualValues(t, 3, add(t, m, fmt.Sprint("key", i), midnight, 0))
		}
		borrows := line.borrows.Load()
		for i := range int64(20) {
			require.Equal(t, i+4, addOK(t, leased, "key7", 10_000))
			require.Equal(t, i+4, add(t, m, "key7", midnight, 0))
		}
		closed(t, leased)
		require.Equal(t, borrows, line.borrows.Load())
		require.EqualValues(t, 3, add(t, leased, "key8", midnight, 0))
	})
}

// Close beside callers: none is refused early or fails, and nothing stays lent.
func TestLeasedCloseBesideCallers(t *testing.T) {
	t.Parallel()
	for range 20 {
		m := ratelimit.NewMemory()
		leased := ratelimit.NewLeased(m, nil)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 500 {
					if _, ok, err := leased.Add(context.Background(), "k", midnight, 1, 2000); !ok || err != nil {
						t.Errorf("Add = %t, %v", ok, err)
						return
					}
				}
			})
		}
		closed(t, leased)
		wg.Wait()
		require.EqualValues(t, 2000, add(t, m, "k", midnight, 0))
	}
}

// An addition that is late, and finds that the next loan is to be borrowed, borrows
// nothing after Close, also if that could not give back.
func TestLeasedCloseIsTheLastTrip(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leased, line := newLeased(t, ratelimit.NewMemory(), nil)
		addOK(t, leased, "k", 10_000)
		addOK(t, leased, "k", 10_000)
		renew := leased.Renewer("k", midnight, 10_000)
		line.cut.Store(true)
		require.Error(t, leased.Close(t.Context()))
		line.cut.Store(false)
		trips := line.trips()
		renew()
		synctest.Wait()
		require.Equal(t, trips, line.trips())
	})
}

// A Close that cannot give back says so, and another one may.
func TestLeasedCloseFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		for i := range 6 {
			addOK(t, leased, fmt.Sprint("key", i%3), 10_000)
		}
		line.cut.Store(true)
		err := leased.Close(t.Context())
		require.ErrorIs(t, err, errLine)
		require.ErrorContains(t, err, "3 of 3 loans")
		require.EqualValues(t, 11, add(t, m, "key1", midnight, 0))
		line.cut.Store(false)
		closed(t, leased)
		require.EqualValues(t, 2, add(t, m, "key1", midnight, 0))
	})
}

// Close ends with its context.
func TestLeasedCloseContext(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		begin func(l *ratelimit.Leased)
	}{
		{"during the last trip", func(*ratelimit.Leased) {}},
		{"during a trip of the sweeper", func(*ratelimit.Leased) { time.After(0); <-time.After(1300 * time.Millisecond) }},
		{"during a trip of a caller", func(l *ratelimit.Leased) {
			go func() { _, _, _ = l.Add(context.Background(), "k", midnight, 0, 0) }()
			synctest.Wait()
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				leased, line := newLeased(t, ratelimit.NewMemory(), nil)
				addOK(t, leased, "k", 10_000)
				addOK(t, leased, "k", 10_000)
				line.latency.Store(int64(1900 * time.Millisecond))
				test.begin(leased)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
				defer cancel()
				began := time.Now()
				require.ErrorIs(t, leased.Close(ctx), context.DeadlineExceeded)
				require.Equal(t, time.Second/2, time.Since(began))
				line.latency.Store(0)
				closed(t, leased)
			})
		})
	}
}

// A node that was paused for longer than a loan lasts spends nothing of it before
// the lender has renewed it. Whether the wall clock was set does not matter.
func TestLeasedExpires(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		paused time.Duration
		trip   int64
	}{
		{"not yet", ratelimit.LoanTime - 1100*time.Millisecond, 0},
		{"within the margin", ratelimit.LoanTime - 900*time.Millisecond, 1},
		{"for long", time.Hour, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := ratelimit.NewMemory()
				wall := new(sharedClock)
				wall.Set(noon)
				leased, line := newLeased(t, m, &ratelimit.LeaseOptions{Now: wall.Now})
				addOK(t, leased, "k", 10_000)
				addOK(t, leased, "k", 10_000)
				wall.Set(noon.AddDate(1, 0, 0))
				borrows := line.borrows.Load()
				leased.Pause(test.paused)
				require.EqualValues(t, 3, addOK(t, leased, "k", 10_000))
				require.Equal(t, test.trip, line.borrows.Load()-borrows)
				require.EqualValues(t, 4, addOK(t, leased, "k", 10_000))
				require.Equal(t, test.trip, line.borrows.Load()-borrows)

				leased.Pause(time.Hour)
				line.cut.Store(true)
				_, ok, err := leased.Add(t.Context(), "k", midnight, 1, 10_000)
				require.False(t, ok)
				require.ErrorIs(t, err, errLine)
				line.cut.Store(false)
				closed(t, leased)
				require.EqualValues(t, 4, add(t, m, "k", midnight, 0))
			})
		})
	}
}

// S76: a lender that fails is an error as soon as the units held are spent, idle or
// expired, and nothing is lost when it answers again.
func TestLeasedFailsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		for range 5 {
			addOK(t, leased, "k", 1000)
		}
		line.cut.Store(true)
		n, errs := burst(leased, "k", 1000, 50)
		require.Equal(t, 6, n, "what is held")
		require.Len(t, errs, 44)
		for _, err := range errs {
			require.ErrorIs(t, err, errLine)
		}
		for _, n := range []int64{0, 2} {
			_, _, err := leased.Add(t.Context(), "k", midnight, n, 1000)
			require.ErrorIs(t, err, errLine)
		}
		_, _, err := leased.Add(t.Context(), "new", midnight, 1, 1000)
		require.ErrorIs(t, err, errLine)
		time.Sleep(time.Minute)
		line.cut.Store(false)
		require.EqualValues(t, 12, addOK(t, leased, "k", 1000), "at once")
		time.Sleep(3 * time.Second)
		require.EqualValues(t, 12, add(t, m, "k", midnight, 0))
	})
}

// What is idle while the lender fails comes back when it answers again, however
// long that takes; but when the window has ended by the node's clock, which may be
// ahead, only for an hour.
func TestLeasedGivesBackAfterAnOutage(t *testing.T) {
	t.Parallel()
	for i := range 4 {
		ended, long := i&1 > 0, i&2 > 0
		synctest.Test(t, func(t *testing.T) {
			m := ratelimit.NewMemory()
			wall := new(sharedClock)
			wall.Set(noon)
			leased, line := newLeased(t, m, &ratelimit.LeaseOptions{Now: wall.Now})
			addOK(t, leased, "k", 10_000)
			addOK(t, leased, "k", 10_000)
			line.cut.Store(true)
			time.Sleep(10 * time.Minute)
			require.Equal(t, 1, leased.Leases())
			require.LessOrEqual(t, line.backs.Load(), int64(10*60), "at most one try a second")
			if long {
				time.Sleep(time.Hour)
			}
			if ended {
				wall.Set(midnight.Add(1))
				time.Sleep(3 * time.Second)
			}
			givenUp := ended && long
			require.Equal(t, givenUp, leased.Leases() == 0)
			line.cut.Store(false)
			time.Sleep(3 * time.Second)
			require.Zero(t, leased.Leases())
			require.Equal(t, givenUp, add(t, m, "k", midnight, 0) == 11)
		})
	}
}

// A trip that gets no answer ends after its timeout, and so do those who wait.
func TestLeasedTimeout(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{0, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			leased, line := newLeased(t, ratelimit.NewMemory(), &ratelimit.LeaseOptions{Timeout: timeout})
			addOK(t, leased, "k", 250)
			line.latency.Store(int64(time.Hour))
			began := time.Now()
			n, errs := burst(leased, "k", 250, 10)
			require.Zero(t, n)
			require.Len(t, errs, 10)
			require.ErrorIs(t, errs[0], context.DeadlineExceeded)
			require.Equal(t, max(timeout, 2*time.Second), time.Since(began))
			line.latency.Store(0)
			closed(t, leased)
		})
	}
}

// Nobody waits for longer than the timeout in all, however many trips of a slow
// lender that takes: those for whom it is too long fail. What was admitted is what
// is counted in the end.
func TestLeasedSlowLender(t *testing.T) {
	t.Parallel()
	for _, latency := range []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, time.Second, 1900 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			memory := ratelimit.NewMemory()
			leased, line := newLeased(t, memory, nil)
			line.latency.Store(int64(latency))
			began := time.Now()
			n, errs := burst(leased, "k", 250, 100)
			require.LessOrEqual(t, time.Since(began), 2*time.Second, "%v", latency)
			require.NotZero(t, n, "%v", latency)
			require.Equal(t, 100, n+len(errs))
			for _, err := range errs {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
			require.Equal(t, latency < 200*time.Millisecond, len(errs) == 0, "%v: %d failed", latency, len(errs))
			closed(t, leased)
			count, _, err := memory.Add(t.Context(), "k", midnight, 0, 250)
			require.NoError(t, err)
			require.EqualValues(t, n, count)
		})
	}
}

// The timeout holds as well for who waits for a loan and has to be counted in the
// lender in the end, because the node is closed meanwhile.
func TestLeasedSlowLenderBesideClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leased, line := newLeased(t, ratelimit.NewMemory(), nil)
		addOK(t, leased, "k", 250)
		line.latency.Store(int64(1500 * time.Millisecond))
		ended := make(chan error)
		go func() {
			time.Sleep(time.Millisecond)
			ended <- leased.Close(context.Background())
		}()
		began := time.Now()
		_, ok, err := leased.Add(context.Background(), "k", midnight, 1, 250)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.False(t, ok)
		require.Equal(t, 2*time.Second, time.Since(began))
		require.NoError(t, <-ended)
	})
}

// A node that has spent its last unit while it was told that it holds as many as it
// may asks again at once, since there are more.
func TestLeasedSpendsTheLastWhileItBorrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 250
		memory := ratelimit.NewMemory()
		leased, line := newLeased(t, memory, nil)
		line.latency.Store(int64(10 * time.Millisecond))
		for range 9 { // the first is counted, the second borrows 10
			addOK(t, leased, "k", limit)
		}
		count, _, err := memory.Add(t.Context(), "k", midnight, 0, limit)
		require.NoError(t, err)
		_, ok, err := memory.Add(t.Context(), "k", midnight, limit-3-count, limit) // by others: 3 are left
		require.NoError(t, err)
		require.True(t, ok)

		addOK(t, leased, "k", limit) // the next loan is asked for
		time.Sleep(6 * time.Millisecond)
		addOK(t, leased, "k", limit) // and the last unit spent, after the lender has seen it
		for range 3 {
			addOK(t, leased, "k", limit)
		}
		refused(t, leased, "k", limit)
		closed(t, leased)
	})
}

// A key that is not worth a loan waits no longer either.
func TestLeasedTimeoutOfAColdKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leased, line := newLeased(t, ratelimit.NewMemory(), nil)
		line.latency.Store(int64(time.Hour))
		began := time.Now()
		_, ok, err := leased.Add(context.Background(), "k", midnight, 1, 250)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.False(t, ok)
		require.Equal(t, 2*time.Second, time.Since(began))
	})
}

// D4: a limit that is lowered or raised acts at once, also on what is held.
func TestLeasedLimitChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, _ := newLeased(t, m, nil)
		for range 500 {
			addOK(t, leased, "k", 10_000)
		}
		for range 5 {
			refused(t, leased, "k", 499)
			refused(t, leased, "k", 500)
		}
		require.EqualValues(t, 500, add(t, m, "k", midnight, 0), "nothing is held any more")
		require.EqualValues(t, 501, addOK(t, leased, "k", 510))
		for i := range int64(9) {
			require.Equal(t, 502+i, addOK(t, leased, "k", 510))
		}
		refused(t, leased, "k", 510)
		for i := range int64(100) {
			require.Equal(t, 511+i, addOK(t, leased, "k", 20_000))
		}
		refused(t, leased, "k", 610)
		// Two limits at the same time are each held to their own.
		for i := range int64(20) {
			require.Equal(t, 611+2*i, addOK(t, leased, "k", 650))
			require.Equal(t, 612+2*i, addOK(t, leased, "k", 20_000))
		}
		refused(t, leased, "k", 650)
		require.EqualValues(t, 651, addOK(t, leased, "k", 20_000))
		// No limit at all, and none of the limits that refuse everything.
		for i := range int64(2000) {
			require.Equal(t, 652+i, addOK(t, leased, "k", math.MaxInt64))
		}
		require.LessOrEqual(t, add(t, m, "k", midnight, 0), int64(2651+1000))
		refused(t, leased, "k", 0)
		refused(t, leased, "k", -1)
		refused(t, leased, "k", 0)
		refused(t, leased, "k", 2651)
		require.EqualValues(t, 2652, addOK(t, leased, "k", 2652))
	})
}

// What is held is not spent beyond its own limit when it turns out that others go by
// a higher one.
func TestLeasedLimitBesideAHigherOne(t *testing.T) {
	t.Parallel()
	for others := int64(8); others <= 11; others++ {
		synctest.Test(t, func(t *testing.T) {
			m := ratelimit.NewMemory()
			leased, _ := newLeased(t, m, nil)
			addOK(t, leased, "k", 12)
			addOK(t, leased, "k", 12)
			require.EqualValues(t, 6, add(t, m, "k", midnight, 0), "2 were used, and 4 are held")
			add(t, m, "k", midnight, others)
			leased.Pause(ratelimit.LoanTime) // it has to be renewed
			for count := 2 + others + 1; count <= 12; count++ {
				require.Equal(t, count, addOK(t, leased, "k", 12))
			}
			refused(t, leased, "k", 12)
		})
	}
}

// Several units at a time go past what is held, and find it in nobody's way.
func TestLeasedSeveral(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leased, _ := newLeased(t, ratelimit.NewMemory(), nil)
		addOK(t, leased, "k", 100)
		addOK(t, leased, "k", 100)
		steps := []struct {
			n, max, count int64
			ok            bool
		}{
			{98, 100, 100, true},
			{2, 101, 100, false},
			{1, 101, 101, true},
			{1, 110, 102, true},
			{1, 110, 103, true},
			{7, 110, 110, true},
			{2, 110, 110, false},
			{0, 0, 110, true},
		}
		for _, s := range steps {
			count, ok, err := leased.Add(t.Context(), "k", midnight, s.n, s.max)
			require.NoError(t, err)
			require.Equal(t, s.count, count)
			require.Equal(t, s.ok, ok)
		}
	})
}

// A key that is used up costs no trips: a node remembers for ten seconds that
// nothing can come back.
func TestLeasedRemembersARefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		add(t, m, "k", midnight, 250)
		for range 1000 {
			refused(t, leased, "k", 250)
			time.Sleep(time.Second / 10)
		}
		require.LessOrEqual(t, line.trips(), int64(12))
		// What another limit admits is admitted.
		require.EqualValues(t, 251, addOK(t, leased, "k", 251))
		refused(t, leased, "k", 251)
	})
}

// Whoever asks a little more than once a second for what is used up costs no trips
// either.
func TestLeasedRemembersARefusalOfASlowClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		add(t, m, "k", midnight, 250)
		for range 100 {
			refused(t, leased, "k", 250)
			time.Sleep(900 * time.Millisecond)
		}
		require.LessOrEqual(t, line.trips(), int64(24))
		require.Equal(t, 1, leased.Leases())
		time.Sleep(11 * time.Second)
		require.Zero(t, leased.Leases())
	})
}

// What a dead node holds of a key that is used up costs a client that goes on a
// trip in 2.5 seconds, and not four in each until the day ends.
func TestLeasedAsksSeldomForWhatTheDeadHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		add(t, m, "k", midnight, 248)
		lend(t, m, "dead", "k", midnight, 0, all, 249, time.Now())
		lend(t, m, "slow", "k", midnight, 0, all, 250, time.Now())
		for range 100 * 60 { // a minute
			refused(t, leased, "k", 250)
			time.Sleep(time.Second / 100)
		}
		require.InDelta(t, 42, line.trips(), 3)
		// It was not dead: what comes back is found, and then it is quick again.
		lend(t, m, "slow", "k", midnight, 0, 0, 250, time.Now())
		time.Sleep(2500 * time.Millisecond)
		addOK(t, leased, "k", 250)
		before := line.trips()
		for range 200 {
			refused(t, leased, "k", 250)
			time.Sleep(time.Second / 100)
		}
		require.InDelta(t, 8, line.trips()-before, 2)
	})
}

// Where another node holds what is left, a refusal is remembered for a quarter of a
// second; where it died, too, since nobody knows.
func TestLeasedAsksAgainForWhatOthersHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, line := newLeased(t, m, nil)
		add(t, m, "k", midnight, 248)
		lend(t, m, "other", "k", midnight, 0, all, 250, time.Now())
		lend(t, m, "dead", "k", midnight, 0, all, 250, time.Now())
		for range 20 {
			refused(t, leased, "k", 250)
			time.Sleep(time.Second / 10)
		}
		require.InDelta(t, 8, line.trips(), 2)
		lend(t, m, "other", "k", midnight, 0, 0, 250, time.Now())
		time.Sleep(time.Second / 4)
		require.EqualValues(t, 250, addOK(t, leased, "k", 250))
		refused(t, leased, "k", 250)
	})
}

// Units that lie idle with one node reach another that is refused: nobody waits
// for longer than a second and a half. The longest is printed.
func TestLeasedRefusesEarlyForASecond(t *testing.T) {
	t.Parallel()
	var longest time.Duration
	for phase := time.Duration(0); phase < time.Second; phase += 37 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			m := ratelimit.NewMemory()
			here, _ := newLeased(t, m, nil)
			there, _ := newLeased(t, m, nil)
			add(t, m, "k", midnight, 9_800)
			for range 3 {
				addOK(t, there, "k", 10_000)
			}
			idle := time.Now()
			time.Sleep(phase)
			served := int64(9_803)
			for served < 10_000 {
				_, ok, err := here.Add(t.Context(), "k", midnight, 1, 10_000)
				require.NoError(t, err)
				if ok {
					served++
				} else {
					longest = max(longest, time.Since(idle))
				}
				time.Sleep(2 * time.Millisecond)
			}
			refused(t, here, "k", 10_000)
		})
	}
	t.Logf("the last early refusal came %v after the units lay idle", longest)
	require.LessOrEqual(t, longest, 1510*time.Millisecond)
}

// D4: what is held at midnight is of the old day. It comes back, and the new day
// begins full.
func TestLeasedMidnight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased, _ := newLeased(t, m, nil)
		d := ratelimit.NewDaily(leased, nil)
		now := midnight.Add(-10 * time.Millisecond)
		at := func() ratelimit.Result {
			var r ratelimit.Result
			require.NoError(t, d.TakeAt(t.Context(), "k", 0, now, &r))
			require.True(t, r.OK)
			now = now.Add(time.Millisecond)
			time.Sleep(time.Millisecond)
			return r
		}
		for i := range int64(20) {
			r := at()
			require.Equal(t, i%10+1, r.Used)
			require.Equal(t, midnight.Add(day*time.Duration(i/10)), r.Reset)
		}
		time.Sleep(1500 * time.Millisecond)
		require.EqualValues(t, 10, add(t, m, "k", midnight, 0))
		require.EqualValues(t, 10, add(t, m, "k", midnight.Add(day), 0))
	})
}

// F63: leases of keys that are not used go, and take their slots with them.
func TestLeasedForgetsKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		leased := ratelimit.NewLeased(m, nil)
		for round := range 12 {
			for i := range 500 {
				key := fmt.Sprint("key", round, "/", i)
				addOK(t, leased, key, 250)
				addOK(t, leased, key, 250)
			}
			time.Sleep(time.Second / 2)
		}
		require.LessOrEqual(t, leased.Leases(), 4*500)
		require.LessOrEqual(t, leased.Slots(), 16*500)
		for range 12 {
			addOK(t, leased, "used", 10_000)
			time.Sleep(time.Second / 4)
		}
		require.Equal(t, 1, leased.Leases())
		time.Sleep(3 * time.Second)
		require.Zero(t, leased.Leases())
		require.LessOrEqual(t, leased.Slots(), 500, "room is taken back, with what was in it")
		require.EqualValues(t, 2, add(t, m, "key7/7", midnight, 0))
	})
}

// Keys and windows whose hashes are equal are different.
func TestLeasedEqualHashes(t *testing.T) {
	t.Parallel()
	ends := []time.Time{midnight, midnight.Add(day), midnight.Add(time.Microsecond), {}}
	for _, key := range []string{"", "k", "kk"} {
		for _, end := range ends {
			require.Equal(t, fmt.Sprint(key, end), ratelimit.FindLease([]string{"", "k", "kk"}, ends, key, end))
		}
		require.Empty(t, ratelimit.FindLease([]string{"", "k", "kk"}, ends, key, noon))
	}
	require.Empty(t, ratelimit.FindLease([]string{"", "k"}, ends, "kk", midnight))
}

// F55: many callers of many keys at once: exactly what there is room for is
// admitted, and nothing is lost while leases come and go.
func TestLeasedMeetsManyCallers(t *testing.T) {
	t.Parallel()
	m := ratelimit.NewMemory()
	opts := &ratelimit.LeaseOptions{IdleAfter: time.Millisecond} // gives back all the time
	fleet := []*ratelimit.Leased{ratelimit.NewLeased(m, opts), ratelimit.NewLeased(m, opts)}
	const callers, each, keys, limit = 8, 2000, 8, 1500
	var admitted [keys]atomic.Int64
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := range each {
				k := i % keys
				count, ok, err := fleet[caller%2].Add(context.Background(), fmt.Sprint("key", k), midnight, 1, limit)
				if err != nil || count > limit {
					t.Errorf("Add = %d, %t, %v", count, ok, err)
					return
				}
				if ok {
					admitted[k].Add(1)
				}
			}
		})
	}
	wg.Wait()
	for _, l := range fleet {
		closed(t, l)
	}
	for k := range keys {
		require.Equal(t, admitted[k].Load(), add(t, m, fmt.Sprint("key", k), midnight, 0))
		require.LessOrEqual(t, admitted[k].Load(), int64(limit))
	}
}

// The warm path allocates nothing.
func TestLeasedAddAllocatesNothing(t *testing.T) {
	leased := ratelimit.NewLeased(ratelimit.NewMemory(), nil)
	defer leased.Close(context.Background())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d := ratelimit.NewDaily(leased, nil)
	for range 200 {
		addOK(t, leased, "k", 100_000)
		take(t, d, "k", 100_000)
	}
	require.Zero(t, testing.AllocsPerRun(1000, func() { leased.Add(ctx, "k", midnight, 1, 100_000) }))
	require.Zero(t, testing.AllocsPerRun(1000, func() { d.Take(ctx, "k", 100_000) }))
	refused(t, leased, "k", 1)
	refused(t, leased, "k", 1)
	require.Zero(t, testing.AllocsPerRun(1000, func() { leased.Add(ctx, "k", midnight, 1, 1) }), "refused")
}

// S76: what cannot decide is an error, and the same for Close.
func TestLeasedCannotDecide(t *testing.T) {
	t.Parallel()
	m := ratelimit.NewMemory()
	tests := []struct {
		name   string
		leased *ratelimit.Leased
	}{
		{"nil", nil},
		{"zero", new(ratelimit.Leased)},
		{"without a lender", ratelimit.NewLeased(nil, nil)},
		{"negative idle time", ratelimit.NewLeased(m, &ratelimit.LeaseOptions{IdleAfter: -1})},
		{"long idle time", ratelimit.NewLeased(m, &ratelimit.LeaseOptions{IdleAfter: 5*time.Second + 1})},
		{"negative timeout", ratelimit.NewLeased(m, &ratelimit.LeaseOptions{Timeout: -1})},
		{"long timeout", ratelimit.NewLeased(m, &ratelimit.LeaseOptions{Timeout: 5*time.Second + 1})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for n := range int64(3) {
				_, ok, err := test.leased.Add(t.Context(), "k", midnight, n, 250)
				require.False(t, ok)
				require.ErrorContains(t, err, "ratelimit: ")
			}
			require.ErrorContains(t, test.leased.Close(t.Context()), "ratelimit: ")
		})
	}
}

// The names of accounts begin with the node's, and none is used twice.
func TestLeasedNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := ratelimit.NewMemory()
		seen := make(map[string]bool)
		var mu sync.Mutex
		for range 2 {
			leased := ratelimit.NewLeased(accountFunc{m, func(account string) {
				mu.Lock()
				defer mu.Unlock()
				require.Regexp(t, `^web1 [A-Z2-7]{26}-[0-9]+$`, account)
				seen[account] = true
			}}, &ratelimit.LeaseOptions{Node: "web1 "})
			for range 3 {
				addOK(t, leased, "k", 250)
				addOK(t, leased, "k", 250)
				time.Sleep(5 * time.Second)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, seen, 6)
	})
}

// An accountFunc calls seen with the account of every Lend.
type accountFunc struct {
	ratelimit.Lender
	seen func(account string)
}

func (l accountFunc) Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	l.seen(account)
	return l.Lender.Lend(ctx, account, key, end, spent, want, limit, now)
}
