package ratelimittest_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/ratelimittest"
)

// A model is a Counter as simple as can be, and right. Every field makes it
// wrong in one way.
type model struct {
	mu      sync.Mutex
	windows map[string][]*window // by key, the newest made last

	name func(key string, end time.Time) (string, any) // what counts are kept under
	kept int                                           // windows of a key

	lastUsed    bool // drops the window used longest ago instead of the oldest made
	readMakes   bool // makes a count by reading
	refusalMake bool // makes a count by refusing
	room        func(count, n, max int64) bool
	step        func(n int64) int64 // what is added for n
	answer      func(before, after int64, ok bool) int64

	apart     bool // looks and adds in two steps
	makeApart bool // looks for a window and makes it in two steps
	undo      bool // adds, looks, and takes back

	firstMax map[string]int64 // remembers the first max of a key

	negative func(n int64) (int64, error) // what an n below 0 comes to
	ended    func(ctx context.Context) (err error, adds bool)
	read     func(count, max int64) bool // whether reading is ok
}

type window struct {
	name  any
	count int64
}

var errNegative = errors.New("negative n")

func newModel() *model {
	return &model{
		windows:  make(map[string][]*window),
		name:     func(key string, end time.Time) (string, any) { return key, end.UnixMicro() },
		kept:     8,
		room:     func(count, n, max int64) bool { return count <= max && n <= max-count },
		step:     func(n int64) int64 { return n },
		answer:   func(_, after int64, _ bool) int64 { return after },
		negative: func(int64) (int64, error) { return 0, errNegative },
		ended:    func(ctx context.Context) (error, bool) { return ctx.Err(), false },
		read:     func(int64, int64) bool { return true },
	}
}

func (m *model) Add(ctx context.Context, key string, end time.Time, n, max int64) (int64, bool, error) {
	err, adds := m.ended(ctx)
	if err != nil && !adds {
		return 0, false, fmt.Errorf("model: %w", err)
	}
	if n < 0 {
		var errN error
		if n, errN = m.negative(n); errN != nil && n == 0 {
			return 0, false, errN
		}
	}
	key, name := m.name(key, end)
	if m.firstMax != nil {
		m.mu.Lock()
		first, known := m.firstMax[key]
		if !known && n > 0 {
			m.firstMax[key] = max
		} else if known {
			max = first
		}
		m.mu.Unlock()
	}

	w := m.find(key, name, n, max)
	m.mu.Lock()
	defer m.mu.Unlock()
	before := w.count
	if n == 0 {
		return m.answer(before, before, true), m.read(before, max), nil
	}
	if m.undo {
		w.count += n
		if w.count > max || w.count < n {
			m.yield()
			w.count -= n
			return w.count, false, nil
		}
		return w.count, true, nil
	}
	ok := n < 0 || m.room(before, n, max)
	if m.apart {
		m.yield()
	}
	if ok {
		w.count = before + m.step(n)
	}
	after := w.count
	if n < 0 {
		return 0, false, errNegative
	}
	return m.answer(before, after, ok), ok, err
}

// yield lets others run between two steps that should be one.
func (m *model) yield() {
	m.mu.Unlock()
	for range 3 {
		runtime.Gosched()
	}
	m.mu.Lock()
}

// find returns the window of key, a detached one if n adds nothing to none.
func (m *model) find(key string, name any, n, max int64) *window {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.windows[key], func(w *window) bool { return w.name == name })
	if i >= 0 {
		w := m.windows[key][i]
		if m.lastUsed {
			m.windows[key] = append(slices.Delete(m.windows[key], i, i+1), w)
		}
		return w
	}
	w := &window{name: name}
	if n == 0 && !m.readMakes || n > 0 && !m.room(0, n, max) && !m.refusalMake {
		return w
	}
	if m.makeApart {
		m.yield()
	}
	kept := append(m.windows[key], w)
	if extra := len(kept) - m.kept; extra > 0 {
		kept = kept[extra:]
	}
	m.windows[key] = kept
	return w
}

// broken are counters that are wrong in one way each, and the cases that have
// to find it. Others may find it too.
var broken = []struct {
	name  string
	cases []string
	spoil func(m *model)
}{
	{"double spend: looks, then adds", []string{"parallel ceiling"}, func(m *model) { m.apart = true }},
	{"lost update: looks for a window, then makes it", []string{"parallel making"}, func(m *model) { m.makeApart = true }},
	{"adds, looks and takes back", []string{"parallel room"}, func(m *model) { m.undo = true }},
	{"admits one too many", []string{"ceiling", "several", "parallel ceiling"}, func(m *model) {
		m.room = func(count, n, max int64) bool { return count <= max && n-1 <= max-count }
	}},
	{"admits whatever is below max", []string{"several"}, func(m *model) {
		m.room = func(count, n, max int64) bool { return count < max }
	}},
	{"refuses the last one", []string{"ceiling", "several", "parallel ceiling"}, func(m *model) {
		m.room = func(count, n, max int64) bool { return count <= max && n < max-count }
	}},
	{"has no ceiling", []string{"ceiling", "several", "max changes", "parallel ceiling"}, func(m *model) {
		m.room = func(int64, int64, int64) bool { return true }
	}},
	{"wraps around", []string{"large numbers"}, func(m *model) {
		m.room = func(count, n, max int64) bool { return count+n <= max }
	}},
	{"wraps around where max is small", []string{"several"}, func(m *model) {
		m.room = func(count, n, max int64) bool { return n <= max-count }
	}},
	{"counts in floating point", []string{"large numbers"}, func(m *model) {
		m.answer = func(_, after int64, _ bool) int64 {
			if after > 1<<53 && after < math.MaxInt64 {
				return int64(float64(after))
			}
			return after
		}
	}},
	{"adds one whatever n is", []string{"counts", "several", "large numbers"}, func(m *model) {
		m.step = func(int64) int64 { return 1 }
	}},
	{"returns the count before the step", []string{"counts", "parallel ceiling"}, func(m *model) {
		m.answer = func(before, _ int64, _ bool) int64 { return before }
	}},
	{"returns no count when it refuses", []string{"ceiling", "several", "parallel ceiling"}, func(m *model) {
		m.answer = func(_, after int64, ok bool) int64 {
			if !ok {
				return 0
			}
			return after
		}
	}},
	{"ignores the window", []string{"windows", "step back", "precision"}, func(m *model) {
		m.name = func(key string, end time.Time) (string, any) { return key, nil }
	}},
	{"ignores the key", []string{"keys"}, func(m *model) {
		m.name = func(key string, end time.Time) (string, any) { return "", end.UnixMicro() }
	}},
	{"names the window by its text", []string{"instants"}, func(m *model) {
		m.name = func(key string, end time.Time) (string, any) { return key, end.Format(time.RFC3339Nano) }
	}},
	{"names the window by its time.Time", []string{"instants"}, func(m *model) {
		m.name = func(key string, end time.Time) (string, any) { return key, end }
	}},
	{"names the window by its date", []string{"precision"}, func(m *model) {
		m.name = func(key string, end time.Time) (string, any) { return key, end.UTC().Format(time.DateOnly) }
	}},
	{"names the window by its second", []string{"precision"}, func(m *model) {
		m.name = func(key string, end time.Time) (string, any) { return key, end.Unix() }
	}},
	{"names the window by its millisecond", []string{"precision"}, func(m *model) {
		m.name = func(key string, end time.Time) (string, any) { return key, end.UnixMilli() }
	}},
	{"joins key and end", []string{"joined"}, func(m *model) {
		m.name = func(key string, end time.Time) (string, any) { return key + fmt.Sprint(end.UnixMicro()), nil }
	}},
	{"folds the case of keys", []string{"keys"}, func(m *model) { m.key(strings.ToLower) }},
	{"trims keys", []string{"keys"}, func(m *model) { m.key(strings.TrimSpace) }},
	{"ends keys at a NUL", []string{"keys"}, func(m *model) {
		m.key(func(key string) string { key, _, _ = strings.Cut(key, "\x00"); return key })
	}},
	{"ends keys at a colon", []string{"keys"}, func(m *model) {
		m.key(func(key string) string { return strings.ReplaceAll(key, ": ", ":") })
	}},
	{"repairs keys that are not UTF-8", []string{"keys"}, func(m *model) {
		m.key(func(key string) string { return strings.ToValidUTF8(key, "\ufffd") })
	}},
	{"cuts keys at 255 bytes", []string{"keys"}, func(m *model) {
		m.key(func(key string) string { return key[:min(len(key), 255)] })
	}},
	{"keeps one window", []string{"step back", "eight windows"}, func(m *model) { m.kept = 1 }},
	{"keeps seven windows", []string{"eight windows"}, func(m *model) { m.kept = 7 }},
	{"drops the window used longest ago", []string{"eight windows"}, func(m *model) { m.lastUsed = true }},
	{"makes a count by reading", []string{"nothing made"}, func(m *model) { m.readMakes = true }},
	{"makes a count by refusing", []string{"nothing made"}, func(m *model) { m.refusalMake = true }},
	{"does not read above max", []string{"read"}, func(m *model) {
		m.read = func(count, max int64) bool { return count <= max }
	}},
	{"does not read at max", []string{"read"}, func(m *model) {
		m.read = func(count, max int64) bool { return count < max }
	}},
	{"keeps the first max of a key", []string{"max changes"}, func(m *model) { m.firstMax = make(map[string]int64) }},
	{"takes a negative n for a refund", []string{"negative n"}, func(m *model) {
		m.negative = func(n int64) (int64, error) { return n, errNegative }
	}},
	{"takes a negative n for none", []string{"negative n"}, func(m *model) {
		m.negative = func(int64) (int64, error) { return 0, nil }
	}},
	{"takes a negative n for a positive one", []string{"negative n"}, func(m *model) {
		m.negative = func(n int64) (int64, error) { return max(-n, 1), nil }
	}},
	{"ignores the context", []string{"context"}, func(m *model) {
		m.ended = func(context.Context) (error, bool) { return nil, false }
	}},
	{"returns an error of its own for the context", []string{"context"}, func(m *model) {
		m.ended = func(ctx context.Context) (error, bool) {
			if ctx.Err() != nil {
				return errors.New("ended"), false
			}
			return nil, false
		}
	}},
	{"takes a deadline for a cancellation", []string{"context"}, func(m *model) {
		m.ended = func(ctx context.Context) (error, bool) {
			if ctx.Err() != nil {
				return context.Canceled, false
			}
			return nil, false
		}
	}},
	{"adds before it looks at the context", []string{"context"}, func(m *model) {
		m.ended = func(ctx context.Context) (error, bool) { return ctx.Err(), true }
	}},
}

// key changes keys before they are counted.
func (m *model) key(change func(string) string) {
	m.name = func(key string, end time.Time) (string, any) { return change(key), end.UnixMicro() }
}

// A reading makes a count of 1 by an n of 0.
type reading struct{ *model }

func (r reading) Add(ctx context.Context, key string, end time.Time, n, max int64) (int64, bool, error) {
	if n == 0 && ctx.Err() == nil {
		n = 1
	}
	return r.model.Add(ctx, key, end, n, max)
}

// A failing counter always fails.
type failing struct{}

func (failing) Add(context.Context, string, time.Time, int64, int64) (int64, bool, error) {
	return 0, false, errors.New("out of order")
}

// failed returns the names of the cases that err, of TestCounter, is about.
func failed(err error) []string {
	if err == nil {
		return nil
	}
	var names []string
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		name, _, _ := strings.Cut(e.Error(), ": ")
		names = append(names, name)
	}
	return names
}

func test(c func() ratelimit.Counter) error {
	return ratelimittest.TestCounter(func() (ratelimit.Counter, error) { return c(), nil })
}

// A right counter passes, also one that has counted before.
func TestCounterPassesTheModel(t *testing.T) {
	t.Parallel()
	require.NoError(t, test(func() ratelimit.Counter { return newModel() }))
	used := newModel()
	for range 3 {
		require.NoError(t, test(func() ratelimit.Counter { return used }))
	}
}

// untilFound runs a suite until the cases fail, some times at most: whether what
// does two steps apart is found in one run is up to the scheduler.
func untilFound(cases []string, run func() error) (err error) {
	for range 20 {
		err = run()
		all := failed(err)
		if !slices.ContainsFunc(cases, func(name string) bool { return !slices.Contains(all, name) }) {
			break
		}
	}
	return err
}

// Every broken counter fails, in the cases that are about what is broken. The
// subtests are not parallel: the last one looks at what all others found.
func TestCounterFindsBrokenCounters(t *testing.T) {
	t.Parallel()
	found := make(map[string]bool)
	for _, b := range broken {
		t.Run(b.name, func(t *testing.T) {
			err := untilFound(b.cases, func() error {
				return test(func() ratelimit.Counter {
					m := newModel()
					b.spoil(m)
					return m
				})
			})
			require.Error(t, err)
			require.Subset(t, failed(err), b.cases)
			require.Contains(t, err.Error(), "the rule: ")
			for _, name := range b.cases {
				found[name] = true
			}
		})
	}
	t.Run("counts by reading", func(t *testing.T) {
		err := test(func() ratelimit.Counter { return reading{newModel()} })
		require.Subset(t, failed(err), []string{"read", "nothing made"})
	})
	t.Run("fails", func(t *testing.T) {
		all := failed(test(func() ratelimit.Counter { return failing{} }))
		for _, name := range all {
			require.True(t, found[name], "no broken counter is there for case %q", name)
		}
		require.Len(t, all, len(found), "a counter that always fails passes a case")
	})
}

func TestCounterReportsThatThereIsNone(t *testing.T) {
	t.Parallel()
	none := errors.New("no server")
	err := ratelimittest.TestCounter(func() (ratelimit.Counter, error) { return nil, none })
	require.ErrorIs(t, err, none)
	require.Contains(t, failed(err), "ceiling")
}

// Run passes a right counter, in subtests by the names of the cases.
func TestRun(t *testing.T) {
	t.Parallel()
	ratelimittest.Run(t, func(t *testing.T) ratelimit.Counter {
		require.Contains(t, t.Name(), "TestRun/")
		return newModel()
	})
}

// Run fails a wrong one, and says which rule it breaks. A test that is to fail
// needs a process of its own.
func TestRunFails(t *testing.T) {
	t.Parallel()
	const variable = "RATELIMITTEST_BROKEN"
	if os.Getenv(variable) != "" {
		ratelimittest.Run(t, func(*testing.T) ratelimit.Counter {
			m := newModel()
			m.kept = 7
			return m
		})
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRunFails$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"=1")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "--- FAIL: TestRunFails/eight_windows")
	require.Contains(t, string(out), "the rule: a window may be forgotten only when eight other windows")
	require.Contains(t, string(out), "--- PASS: TestRunFails/ceiling")
}
