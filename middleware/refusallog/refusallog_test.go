package refusallog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/refusallog"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/token"
)

// A memory is a Sink that keeps events, or fails, or hangs until it is let go.
type memory struct {
	hang chan struct{} // nil: not

	mu     sync.Mutex
	events []audit.Event
	err    error
}

func (m *memory) Write(_ context.Context, e audit.Event) error {
	if m.hang != nil {
		<-m.hang
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	m.events = append(m.events, e)
	return nil
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// take returns the events and forgets them.
func (m *memory) take() []audit.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	events := m.events
	m.events = nil
	return events
}

func newLog(t *testing.T, s audit.Sink, opts *refusallog.Options) *refusallog.Log {
	t.Helper()
	l, err := refusallog.New(s, opts)
	require.NoError(t, err)
	return l
}

func refusal(status int, reason policy.Reason) middleware.Event {
	return middleware.Event{Time: time.Now(), Refusal: &middleware.Refusal{Status: status, Reason: reason}}
}

var request = httptest.NewRequest("GET", "/", nil)

// TestRefusalsOfAGuard: what a Guard refuses is in the trail with whom it concerns,
// without any secret of the request (S16, S75), and nothing else is.
func TestRefusalsOfAGuard(t *testing.T) {
	t.Parallel()
	sink := new(memory)
	l := newLog(t, sink, nil)
	mgr, err := keys.New(memstore.New(), nil)
	require.NoError(t, err)
	require.NoError(t, mgr.PutUser(t.Context(), &store.User{Org: "acme", ID: "ann", Email: "ann@acme.example"}))
	secret, key, err := mgr.Create(t.Context(), keys.CreateParams{Org: "acme", User: "ann", Name: "CI"})
	require.NoError(t, err)
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{Observe: l.Observe})
	require.NoError(t, err)
	h := guard.Wrap(http.NotFoundHandler())
	people := guard.With(policy.Via(policy.JWT)).Wrap(http.NotFoundHandler())

	send := func(h http.Handler, header ...string) {
		r := httptest.NewRequest("GET", "/"+secret.Reveal(), nil)
		r.RemoteAddr = "192.0.2.7:1"
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	send(h, "Authorization", "Bearer "+secret.Reveal()) // is let through
	send(h)
	send(h, "Authorization", "Bearer "+token.Generate().Reveal(),
		"User-Agent", "x/"+secret.Reveal()+" eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln y"+strings.Repeat("z", 300))
	send(h, "X-Api-User", "bob@acme.example", "X-Api-Token", secret.Reveal())
	send(h, "Authorization", "Bearer "+secret.Reveal(), "X-Api-User", "ann@acme.example", "X-Api-Token", secret.Reveal())
	send(people, "Authorization", "Bearer "+secret.Reveal())
	require.NoError(t, l.Close(t.Context()))

	type line struct{ Reason, Org, User, KeyID, Actor, Err string }
	var lines []line
	for _, e := range sink.take() {
		require.Equal(t, audit.Authentication, e.Action)
		require.Equal(t, audit.Outcome, e.Phase)
		require.Equal(t, audit.Failure, e.Outcome)
		require.Equal(t, netip.MustParseAddr("192.0.2.7"), e.Actor.Addr)
		require.WithinDuration(t, time.Now(), e.Time, time.Minute)
		require.NotEmpty(t, e.ID)
		require.Zero(t, e.Suppressed)
		var out bytes.Buffer
		require.NoError(t, audit.NewJSON(&out).Write(t.Context(), e))
		require.NotContains(t, out.String(), secret.Reveal()[17:])
		require.NotContains(t, out.String(), "c2ln", "the signature of a JWT")
		cause := ""
		if e.Err != nil {
			cause = e.Err.Error()
		}
		lines = append(lines, line{e.Reason, e.Org, e.User, e.KeyID, e.Actor.ID, cause})
		if strings.Contains(cause, "no such key") {
			require.Equal(t, "x/"+key.ID+"… … y", e.Actor.UserAgent[:len("x/"+key.ID+"… … y")])
			require.LessOrEqual(t, len(e.Actor.UserAgent), 256)
		}
	}
	require.Equal(t, []line{
		{"no_credentials", "", "", "", "", ""},
		{"invalid_token", "", "", "", "", lines[1].Err},
		{"invalid_token", "acme", "ann", key.ID, "", lines[2].Err}, // a stolen key: whose it is, not who sent it
		{"multiple_credentials", "", "", "", "", ""},
		{"wrong_credential_kind", "acme", "ann", key.ID, "ann", ""}, // S60
	}, lines)
	require.Contains(t, lines[1].Err, "no such key")
	require.Contains(t, lines[2].Err, "another user")
}

// TestWhatIsNoRefusalOfACaller: quotas and failures are not written.
func TestWhatIsNoRefusalOfACaller(t *testing.T) {
	t.Parallel()
	sink := new(memory)
	l := newLog(t, sink, nil)
	l.Observe(request, middleware.Event{})
	l.Observe(request, refusal(429, policy.DailyLimit))
	l.Observe(request, refusal(503, policy.StoreUnavailable))
	require.NoError(t, l.Close(t.Context()))
	require.Empty(t, sink.take())
}

// TestBoundedRate: of each reason so many are written in a minute, the rest is
// counted, and one reason takes nothing from another.
func TestBoundedRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := new(memory)
		l := newLog(t, sink, &refusallog.Options{PerMinute: 3})
		for range 10 {
			l.Observe(request, refusal(401, policy.InvalidToken))
		}
		l.Observe(request, refusal(403, policy.AddressNotAllowed))
		synctest.Wait()
		require.Equal(t, map[string]int{"invalid_token": 3, "address_not_allowed": 1}, count(sink.take()))

		time.Sleep(time.Minute)
		synctest.Wait()
		left := sink.take()
		require.Len(t, left, 1)
		require.EqualValues(t, 7, left[0].Suppressed)
		require.Equal(t, "invalid_token", left[0].Reason)
		require.Equal(t, audit.Authentication, left[0].Action)
		require.True(t, left[0].Time.Equal(time.Now()))

		for range 4 { // another minute
			l.Observe(request, refusal(401, policy.InvalidToken))
		}
		require.NoError(t, l.Close(t.Context()))
		events := sink.take()
		require.Len(t, events, 4)
		require.EqualValues(t, 1, events[3].Suppressed, "also at the end")

		l.Observe(request, refusal(401, policy.InvalidToken))
		require.NoError(t, l.Close(t.Context()), "again")
		require.Empty(t, sink.take())
	})
}

func count(events []audit.Event) map[string]int {
	n := make(map[string]int)
	for _, e := range events {
		n[e.Reason]++
	}
	return n
}

// TestReasonsOfPolicies: a host's own policies may bring any number of reasons;
// what is kept of them is bounded.
func TestReasonsOfPolicies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := new(memory)
		l := newLog(t, sink, &refusallog.Options{PerMinute: 1})
		for range 2 {
			for i := range 100 {
				l.Observe(request, refusal(403, policy.Reason(fmt.Sprint("mine_", i))))
				synctest.Wait()
			}
		}
		require.Len(t, sink.take(), 65, "64 and one of all others")
		require.NoError(t, l.Close(t.Context()))
		var left int64
		for _, e := range sink.take() {
			left += e.Suppressed
		}
		require.EqualValues(t, 200-65, left)
	})
}

// TestSlowSink: no request waits for a sink that hangs; what does not fit in the
// queue is counted.
func TestSlowSink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := &memory{hang: make(chan struct{})}
		l := newLog(t, sink, &refusallog.Options{PerMinute: 1000})
		for range 1000 {
			l.Observe(request, refusal(401, policy.InvalidToken))
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.Close(ctx), context.DeadlineExceeded)
		close(sink.hang)
		require.NoError(t, l.Close(t.Context()))
		events := sink.take()
		require.Len(t, events, 1+256+1)
		require.EqualValues(t, 1000-257, events[257].Suppressed)
	})
}

// TestFailingSink: what a sink does not take is reported, and counted in the next
// line that it takes.
func TestFailingSink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("disk full")
		sink := &memory{err: down}
		var failed []error
		l := newLog(t, sink, &refusallog.Options{PerMinute: 2, Failed: func(err error) { failed = append(failed, err) }})
		for range 5 {
			l.Observe(request, refusal(401, policy.InvalidToken))
		}
		time.Sleep(61 * time.Second) // two lines and the count of three fail
		synctest.Wait()
		require.Equal(t, []error{down, down, down}, failed)
		sink.fail(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		events := sink.take()
		require.Len(t, events, 1)
		require.EqualValues(t, 5, events[0].Suppressed)
		require.NoError(t, l.Close(t.Context()))
	})
}

// TestRefusedAtOnce: many requests at once make as many lines as the rate allows,
// and every one is counted.
func TestRefusedAtOnce(t *testing.T) {
	t.Parallel()
	sink := new(memory)
	l := newLog(t, sink, &refusallog.Options{PerMinute: 50})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 50 {
				l.Observe(request, refusal(401, policy.InvalidToken))
			}
		})
	}
	wg.Wait()
	require.NoError(t, l.Close(t.Context()))
	events := sink.take()
	total := int64(len(events))
	for _, e := range events {
		if e.Suppressed > 0 {
			total += e.Suppressed - 1
		}
	}
	require.EqualValues(t, 1000, total)
	require.LessOrEqual(t, len(events), 2*50+2, "a minute may turn in between")
}

func TestNewReportsEverything(t *testing.T) {
	t.Parallel()
	_, err := refusallog.New(nil, &refusallog.Options{PerMinute: -1})
	require.ErrorContains(t, err, "Sink")
	require.ErrorContains(t, err, "PerMinute")
	var zero refusallog.Log
	zero.Observe(request, refusal(401, policy.InvalidToken))
	require.NoError(t, zero.Close(t.Context()))
	var none *refusallog.Log
	none.Observe(request, refusal(401, policy.InvalidToken))
	require.NoError(t, none.Close(t.Context()))
}

// printer is a Sink that prints; a service has audit.NewJSON.
type printer struct{}

func (printer) Write(_ context.Context, e audit.Event) error {
	_, err := fmt.Println(e.Action, e.Outcome, e.Reason, e.Actor.Addr)
	return err
}

func ExampleNew() {
	refusals, err := refusallog.New(printer{}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	mgr, err := keys.New(memstore.New(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{Observe: refusals.Observe})
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest("GET", "/v1/ping", nil)
	r.Header.Set("Authorization", "Bearer csk_live_nonsense")
	guard.Wrap(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)

	if err := refusals.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output: authentication failure invalid_token 192.0.2.1
}
