package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
)

// useSink is a store.Uses that keeps what it was given.
type useSink struct {
	mu      sync.Mutex
	batches [][]store.Use
	err     error
	panics  bool
	take    func() // takes the time of a batch
}

func (s *useSink) RecordUses(ctx context.Context, uses []store.Use) error {
	if s.take != nil {
		s.take()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.panics {
		panic("store of the host")
	}
	if s.err != nil {
		return s.err
	}
	s.batches = append(s.batches, append([]store.Use(nil), uses...))
	return nil
}

func (s *useSink) Uses(context.Context, string, []string) ([]store.UseSummary, error) {
	return nil, nil
}

func (s *useSink) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *useSink) total() (uses int, requests int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.batches {
		for _, u := range b {
			uses++
			requests += u.Count
		}
	}
	return uses, requests
}

// TestUsesAreWrittenInBatches: S77, S49, D24: admitted requests are joined by key
// and address and written off the path; refused ones are no use; Close writes
// the rest (F74, F75).
func TestUsesAreWrittenInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &useSink{}
		g := w.guard(&middleware.Options{Uses: sink, Now: time.Now})
		h := g.Wrap(pong)
		start := time.Now()
		for range 100 {
			require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code)
			time.Sleep(10 * time.Millisecond)
		}
		other := bearer(w.token.Reveal())
		other.RemoteAddr = "[2001:db8::1]:1234"
		other.Header.Set("User-Agent", strings.Repeat("x", 1000))
		require.Equal(t, 200, do(h, other).Code)
		require.Equal(t, 403, do(g.With(policy.Scope("admin")).Wrap(pong), bearer(w.token.Reveal())).Code)
		require.Equal(t, 401, do(h, bearer(unknownToken)).Code)
		written, _ := sink.total()
		require.Zero(t, written, "nothing is written on the path")

		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Len(t, sink.batches, 1)
		uses, requests := sink.total()
		require.Equal(t, 2, uses)
		require.EqualValues(t, 101, requests)
		for _, u := range sink.batches[0] {
			require.Equal(t, w.key.ID, u.KeyID)
			if u.Addr.Is4() {
				require.True(t, u.First.Equal(start))
				require.True(t, u.Last.Equal(start.Add(990*time.Millisecond)))
			} else {
				require.Len(t, u.UserAgent, 256)
			}
		}

		require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code)
		require.NoError(t, g.Close(t.Context()))
		require.NoError(t, g.Close(t.Context()), "again")
		_, requests = sink.total()
		require.EqualValues(t, 102, requests)
		require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code, "a closed Guard goes on deciding")
		_, requests = sink.total()
		require.EqualValues(t, 102, requests)
	})
}

// TestUsesSurviveAFailingStore: what a store did not take is written later, and
// the failure is told.
func TestUsesSurviveAFailingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &useSink{}
		down := errors.New("down")
		var told []error
		g := w.guard(&middleware.Options{Uses: sink, Now: time.Now, UsesFailed: func(err error) { told = append(told, err) }})
		h := g.Wrap(pong)
		sink.fail(down)
		for range 3 {
			require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code)
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		require.Len(t, told, 3)
		require.ErrorIs(t, told[0], down)
		sink.fail(nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		uses, requests := sink.total()
		require.Equal(t, 1, uses)
		require.EqualValues(t, 3, requests)
		sink.fail(down)
		require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code)
		require.ErrorIs(t, g.Close(t.Context()), down)
	})
}

// TestUsesSurviveAPanickingStore: a store that panics has failed, and the program goes on.
func TestUsesSurviveAPanickingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &useSink{panics: true}
		var told []error
		g := w.guard(&middleware.Options{Uses: sink, Now: time.Now, UsesFailed: func(err error) { told = append(told, err) }})
		require.Equal(t, 200, do(g.Wrap(pong), bearer(w.token.Reveal())).Code)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Len(t, told, 1)
		require.ErrorContains(t, told[0], "panicked: store of the host")
		sink.panics = false
		require.NoError(t, g.Close(t.Context()))
		_, requests := sink.total()
		require.EqualValues(t, 1, requests, "none was lost")
	})
}

// TestUsesAcrossMidnight: the days of a chart get their own counts.
func TestUsesAcrossMidnight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &useSink{}
		g := w.guard(&middleware.Options{Uses: sink, Now: w.clock.Now})
		h := g.Wrap(pong)
		w.clock.now = time.Date(2026, 3, 1, 23, 59, 59, 0, time.UTC)
		require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code)
		w.clock.now = w.clock.now.Add(2 * time.Second)
		require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code)
		require.NoError(t, g.Close(t.Context()))
		uses, requests := sink.total()
		require.Equal(t, 2, uses)
		require.EqualValues(t, 2, requests)
	})
}

// TestUsesAreBounded: a key with many addresses neither grows the buffer nor takes
// the room of others: what is beyond its share is counted without an address; and
// what is lost for want of room is told (F75).
func TestUsesAreBounded(t *testing.T) {
	t.Parallel()
	w, sink := newWorld(t), &useSink{}
	g := w.guard(&middleware.Options{Uses: sink, UseInterval: time.Hour, Unmetered: true})
	h := g.Wrap(pong)
	r := bearer(w.token.Reveal())
	for i := range 6000 {
		r.RemoteAddr = fmt.Sprintf("10.%d.%d.1:80", i/256, i%256)
		require.Equal(t, 200, do(h, r).Code)
	}
	require.NoError(t, g.Close(t.Context()))
	uses, requests := sink.total()
	require.Equal(t, 65, uses, "64 addresses, and the others in one")
	require.EqualValues(t, 6000, requests, "none was lost")

	sink = &useSink{}
	keys := anyKeys{}
	g = w.guard(&middleware.Options{
		Authenticators: []middleware.Authenticator{&keys}, Uses: sink, UseInterval: time.Hour, Unmetered: true,
	})
	h = g.Wrap(pong)
	for range 100_000 {
		require.Equal(t, 200, do(h, r).Code)
	}
	err := g.Close(t.Context())
	uses, requests = sink.total()
	require.ErrorContains(t, err, fmt.Sprintf("uses were lost: more keys and addresses between two writes than can be noted: %d requests", 100_000-requests))
	require.LessOrEqual(t, uses, 1<<16)
	for _, b := range sink.batches {
		require.LessOrEqual(t, len(b), 1000)
	}
}

// TestLostUsesAreTold: what is lost for want of room while the store fails is told,
// once, and with the store's failure.
func TestLostUsesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &useSink{}
		down := errors.New("down")
		sink.fail(down)
		var told []error
		g := w.guard(&middleware.Options{
			Authenticators: []middleware.Authenticator{&anyKeys{}}, Unmetered: true, Now: time.Now,
			Uses: sink, UsesFailed: func(err error) { told = append(told, err) },
		})
		h, r := g.Wrap(pong), bearer(w.token.Reveal())
		for range 70_000 {
			require.Equal(t, 200, do(h, r).Code)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Len(t, told, 1)
		require.ErrorIs(t, told[0], down)
		_, lost, ok := strings.Cut(told[0].Error(), "than can be noted: ")
		require.True(t, ok, told[0])

		sink.fail(nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		_, requests := sink.total()
		require.Equal(t, fmt.Sprintf("%d requests", 70_000-requests), lost, "the rest is written")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Len(t, told, 1, "it is told once")
		require.NoError(t, g.Close(t.Context()))
	})
}

// TestUsesOfAClockThatStepsBack: the first use is the earliest, the last one the
// latest, with its User-Agent, in whatever order they are noted.
func TestUsesOfAClockThatStepsBack(t *testing.T) {
	t.Parallel()
	w, sink := newWorld(t), &useSink{}
	g := w.guard(&middleware.Options{Uses: sink, UseInterval: time.Hour})
	h, noon := g.Wrap(pong), w.clock.Now()
	for _, use := range []struct {
		agent string
		after time.Duration
	}{{"second", 0}, {"first", -time.Minute}, {"third", time.Minute}, {"between", 30 * time.Second}} {
		w.clock.set(noon.Add(use.after))
		r := bearer(w.token.Reveal())
		r.Header.Set("User-Agent", use.agent)
		require.Equal(t, 200, do(h, r).Code)
	}
	require.NoError(t, g.Close(t.Context()))
	require.Len(t, sink.batches, 1)
	require.Len(t, sink.batches[0], 1)
	use := sink.batches[0][0]
	require.EqualValues(t, 4, use.Count)
	require.Equal(t, noon.Add(-time.Minute), use.First)
	require.Equal(t, noon.Add(time.Minute), use.Last)
	require.Equal(t, "third", use.UserAgent)
}

// TestUsesKeepNothingOfTheRequest: a noted User-Agent is a copy: the string of a
// request may be a small part of a large one, which would be kept with it.
func TestUsesKeepNothingOfTheRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	large := strings.Repeat("agent1agent2", 100)
	for _, agents := range [][]string{{large[:6]}, {large[6:12], large[:6]}} { // noted first, and joined
		sink := &useSink{}
		g := w.guard(&middleware.Options{Uses: sink, UseInterval: time.Hour})
		for _, agent := range agents {
			r := bearer(w.token.Reveal())
			r.Header["User-Agent"] = []string{agent}
			require.Equal(t, 200, do(g.Wrap(pong), r).Code)
		}
		require.NoError(t, g.Close(t.Context()))
		kept := sink.batches[0][0].UserAgent
		require.Equal(t, "agent1", kept)
		require.NotSame(t, unsafe.StringData(large), unsafe.StringData(kept))
	}
}

// anyKeys is an Authenticator of the host to whom every request is another key's.
type anyKeys struct{ n int }

func (a *anyKeys) Authenticate(*http.Request) (*policy.Principal, error) {
	a.n++
	id := fmt.Sprint("key-", a.n)
	return &policy.Principal{Credential: policy.APIKey, KeyID: id, Quota: id}, nil
}

// TestCloseInTime: Close gives up when its context ends.
func TestCloseInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stuck := make(chan struct{})
		g := w.guard(&middleware.Options{Uses: stuckUses{stuck}, Now: time.Now})
		require.Equal(t, 200, do(g.Wrap(pong), bearer(w.token.Reveal())).Code)
		time.Sleep(11 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, g.Close(ctx), context.DeadlineExceeded)
		close(stuck)
	})
}

// TestCloseAfterAStuckWrite: a write that the store does not answer takes little of the
// time that Close has, however long the interval is, and what it was to write is written.
func TestCloseAfterAStuckWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &stuckOnce{}
		g := w.guard(&middleware.Options{Uses: sink, Now: time.Now, UseInterval: 5 * time.Minute})
		for range 3 {
			require.Equal(t, 200, do(g.Wrap(pong), bearer(w.token.Reveal())).Code)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.NoError(t, g.Close(ctx))
		_, requests := sink.total()
		require.EqualValues(t, 3, requests)
	})
}

// stuckOnce is a store.Uses that does not answer its first call.
type stuckOnce struct {
	useSink
	once sync.Once
}

func (s *stuckOnce) RecordUses(ctx context.Context, uses []store.Use) error {
	s.once.Do(func() { <-ctx.Done() })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.useSink.RecordUses(ctx, uses)
}

// TestSlowStoreGetsAll: the time that a store has is that of a batch, and not of all that
// are to be written.
func TestSlowStoreGetsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &useSink{take: func() { time.Sleep(200 * time.Millisecond) }}
		var told []error
		g := w.guard(&middleware.Options{
			Authenticators: []middleware.Authenticator{&anyKeys{}}, Unmetered: true, Now: time.Now,
			Uses: sink, UseInterval: time.Minute, UsesFailed: func(err error) { told = append(told, err) },
		})
		h, r := g.Wrap(pong), bearer(w.token.Reveal())
		time.Sleep(30 * time.Second) // between two writes
		for range 3 {
			for range 40_000 {
				require.Equal(t, 200, do(h, r).Code)
			}
			time.Sleep(time.Minute)
		}
		require.NoError(t, g.Close(t.Context()))
		require.Empty(t, told)
		_, requests := sink.total()
		require.EqualValues(t, 120_000, requests)
	})
}

// TestSecondCloseHeedsItsContext: it waits for the first one, but no longer than it may.
func TestSecondCloseHeedsItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stuck := make(chan struct{})
		g := w.guard(&middleware.Options{Uses: stuckUses{stuck}, Now: time.Now})
		require.Equal(t, 200, do(g.Wrap(pong), bearer(w.token.Reveal())).Code)
		first := make(chan error, 1)
		go func() { first <- g.Close(context.Background()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, g.Close(ctx), context.DeadlineExceeded)
		close(stuck)
		require.NoError(t, <-first)
		for range 100 {
			require.NoError(t, g.Close(ctx), "what the first one did is known")
		}
	})
}

// stuckUses is a store.Uses that hangs, whatever its context says.
type stuckUses struct{ done chan struct{} }

func (s stuckUses) RecordUses(context.Context, []store.Use) error { <-s.done; return nil }

func (s stuckUses) Uses(context.Context, string, []string) ([]store.UseSummary, error) {
	return nil, nil
}
