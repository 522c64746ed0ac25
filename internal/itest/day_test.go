package itest

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// oneDay calls f, and if it fails while the day of UTC changes by the clock now, once
// more: counts begin anew at midnight, so that f has seen those of two days. It must
// make all that it counts, and fail by require only.
func oneDay(t testing.TB, now func() time.Time, f func(t testing.TB)) {
	t.Helper()
	day := func() string { return now().UTC().Format(time.DateOnly) }
	began := day()
	a := try(t, f)
	if len(a.failures) > 0 && day() != began {
		t.Log("again, since midnight came: ", a.failures)
		a = try(t, f)
	}
	for _, failure := range a.failures {
		t.Errorf("%s", failure)
	}
	if len(a.failures) > 0 {
		t.FailNow()
	}
}

// An attempt is a test of which the failures are no failures yet.
type attempt struct {
	testing.TB
	mu       sync.Mutex
	failures []string
}

// try returns when f has come to its end or to a failure.
func try(t testing.TB, f func(t testing.TB)) *attempt {
	a := &attempt{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(a)
	}()
	<-done
	return a
}

func (a *attempt) Errorf(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures = append(a.failures, fmt.Sprintf(format, args...))
}

func (a *attempt) FailNow() { runtime.Goexit() }

// TestOneDay: only what fails over a midnight is tried again, and only once.
func TestOneDay(t *testing.T) {
	t.Parallel()
	evening := time.Date(2026, 2, 3, 23, 59, 59, 0, time.UTC)
	for _, test := range []struct {
		name   string
		later  time.Duration
		passes int // the call of f that passes first
		calls  int
		failed bool
	}{
		{"passes", 0, 1, 1, false},
		{"passes over midnight", time.Second, 1, 1, false},
		{"fails", 0, 2, 1, true},
		{"fails over midnight", time.Second, 2, 2, false},
		{"fails twice", time.Second, 3, 2, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			now := evening
			calls := 0
			outer := try(t, func(t testing.TB) {
				oneDay(t, func() time.Time { return now }, func(t testing.TB) {
					calls++
					now = evening.Add(test.later)
					require.GreaterOrEqual(t, calls, test.passes)
				})
			})
			require.Equal(t, test.calls, calls)
			require.Equal(t, test.failed, len(outer.failures) > 0)
		})
	}
}
