package simulate_test

import (
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// A clock is that of a machine: its wall clock is off by some time, which changes,
// and its monotonic one is right.
type clock struct{ off atomic.Int64 }

func (c *clock) set(off time.Duration) { c.off.Store(int64(off)) }

// Now is time.Now on that machine.
func (c *clock) Now() time.Time { return reading(time.Now(), time.Duration(c.off.Load())) }

// reading returns what time.Now returns at an instant on a machine whose wall clock
// is off. Package time has no way to make it: in a bubble its times have no
// monotonic reading, and its Add moves both clocks. A service that is given such
// times shows nothing about clocks that are set.
func reading(instant time.Time, off time.Duration) time.Time {
	const hasMonotonic = 1 << 63
	wall := instant.Round(0).Add(off)
	seconds := wall.Unix() - time.Date(1885, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	layout := (*struct {
		wall      uint64
		monotonic int64
		loc       *time.Location
	})(unsafe.Pointer(&wall))
	layout.wall = hasMonotonic | uint64(seconds)<<30 | uint64(wall.Nanosecond())
	layout.monotonic = instant.UnixNano() - time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	return wall
}

// The layout of a Time is what reading takes it for.
func TestReading(t *testing.T) {
	t.Parallel()
	midnight := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, passed := range []time.Duration{0, 1, time.Second, 49 * time.Hour} {
		for _, off := range []time.Duration{0, 1, -1, time.Millisecond, -3 * time.Second, 49 * time.Hour, -400 * 24 * time.Hour} {
			r := reading(midnight.Add(passed), off)
			require.Equal(t, midnight.Add(passed+off), r.Round(0))
			require.Equal(t, passed, r.Sub(reading(midnight, 0)), "whatever the wall clock says")
			require.Equal(t, passed+time.Second, r.Add(time.Second).Sub(reading(midnight, -off)))
		}
	}
}

// pause waits in the time of the bubble that the caller is in.
func pause(d time.Duration) { <-time.After(d) }
