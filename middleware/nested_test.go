package middleware_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
)

// counting is a policy that counts how often it is asked.
func counting(n *int) policy.Policy {
	return policy.Func(func(policy.Request) policy.Decision { *n++; return policy.Decision{Allow: true} })
}

// TestNestedGuards: a Guard around a mux and others of its family inside: each
// policy is evaluated once, one unit is spent, one Event is seen, whatever the
// nesting.
func TestNestedGuards(t *testing.T) {
	t.Parallel()
	var base, left, right, events int
	w := newWorld(t)
	limiter := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Now: w.clock.Now})
	g := w.guard(&middleware.Options{
		Limiter: limiter,
		Policy:  policy.All(policy.Default(), counting(&base)),
		Observe: func(*http.Request, middleware.Event) { events++ },
	})
	l, r := g.With(counting(&left)), g.With(counting(&right))
	both := l.With(counting(&right))
	tests := []struct {
		name              string
		h                 http.Handler
		base, left, right int
		used              int64
	}{
		{"Wrap", g.Wrap(pong), 1, 0, 0, 1},
		{"Wrap in Wrap", g.Wrap(g.Wrap(pong)), 1, 0, 0, 1},
		{"Authenticate alone is not metered", g.Authenticate(pong), 1, 0, 0, 0},
		{"Wrap in Authenticate", g.Authenticate(g.Wrap(pong)), 1, 0, 0, 1},
		{"WrapFunc in Authenticate", g.Authenticate(g.WrapFunc(func(rw http.ResponseWriter, r *http.Request, _ *policy.Principal) {
			pong(rw, r)
		})), 1, 0, 0, 1},
		{"a stricter Guard inside evaluates what it adds", g.Authenticate(l.Wrap(pong)), 1, 1, 0, 1},
		{"a stricter Guard outside", l.Authenticate(g.Wrap(pong)), 1, 1, 0, 1},
		{"siblings", l.Authenticate(r.Wrap(pong)), 1, 1, 1, 1},
		{"siblings, deep", g.Authenticate(l.Authenticate(r.Wrap(l.Wrap(g.Wrap(pong))))), 1, 1, 1, 1},
		{"two layers", l.Authenticate(both.Wrap(pong)), 1, 1, 1, 1},
		{"two layers at once", g.Authenticate(both.Wrap(pong)), 1, 1, 1, 1},
		{"Authenticate in Wrap", g.Wrap(g.Authenticate(pong)), 1, 0, 0, 1},
		{"Authenticate in Authenticate", g.Authenticate(g.Authenticate(pong)), 1, 0, 0, 0},
	}
	for _, test := range tests { // in sequence: they share counters
		t.Run(test.name, func(t *testing.T) {
			base, left, right, events = 0, 0, 0, 0
			before, err := limiter.Peek(t.Context(), w.key.Family, 0)
			require.NoError(t, err)
			got := do(test.h, pair(testEmail, w.token.Reveal()))
			require.Equal(t, 200, got.Code)
			require.Equal(t, "pong from the protected handler", got.Body.String())
			require.Equal(t, []string{"private"}, got.Header().Values("Cache-Control"))
			after, err := limiter.Peek(t.Context(), w.key.Family, 0)
			require.NoError(t, err)
			require.Equal(t, []int{test.base, test.left, test.right}, []int{base, left, right})
			require.Equal(t, test.used, after.Used-before.Used)
			require.Equal(t, 1, events)
		})
	}
}

// TestNestedRefusal: what the inner Guard refuses spends nothing, is observed
// once, and is no use of the key.
func TestNestedRefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var events []middleware.Event
	limiter := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Now: w.clock.Now})
	g := w.guard(&middleware.Options{
		Limiter: limiter,
		Observe: func(_ *http.Request, e middleware.Event) { events = append(events, e) },
	})
	requireRefusal(t, do(g.Authenticate(g.With(policy.Scope("admin")).Wrap(pong)), bearer(w.token.Reveal())), 403, policy.InsufficientScope)
	require.Len(t, events, 1)
	require.Equal(t, policy.InsufficientScope, events[0].Refusal.Reason)
	result, err := limiter.Peek(t.Context(), w.key.Family, 0)
	require.NoError(t, err)
	require.Zero(t, result.Used)
}

// TestNestedGuardKnowsTheSettings: a rule that only the inner Guard has goes by the
// settings and the address that the outer one found.
func TestNestedGuardKnowsTheSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.guard(&middleware.Options{Policy: policy.All()})
	h := g.Authenticate(g.With(policy.AllowedIPs()).Wrap(pong))
	w.settings(func(s *policy.Settings) { s.AllowedIPs, _ = policy.ParseIPList("192.0.2.1") })
	require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code)
	w.settings(func(s *policy.Settings) { s.AllowedIPs, _ = policy.ParseIPList("10.0.0.0/8") })
	requireRefusal(t, do(h, bearer(w.token.Reveal())), 403, policy.AddressNotAllowed)
}

// TestForeignMarksAreNotTrusted: only the Guard's own mark counts: neither a
// principal that a test put into the context, nor a Guard of another family.
func TestForeignMarksAreNotTrusted(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t), newWorld(t)
	g := w.guard(nil)
	r := bearer(unknownToken)
	r = r.WithContext(middleware.WithPrincipal(r.Context(), &policy.Principal{Credential: policy.Session, Owner: true}))
	requireRefusal(t, do(g.Wrap(pong), r), 401, policy.InvalidToken)
	// The other family lets its own key through; g judges it anew.
	nested := other.guard(nil).Authenticate(g.Wrap(pong))
	requireRefusal(t, do(nested, bearer(other.token.Reveal())), 401, policy.InvalidToken)
	// And through the other family in between g finds its own mark again.
	loose := other.guard(&middleware.Options{Authenticators: []middleware.Authenticator{anybody{}}})
	require.Equal(t, 200, do(g.Authenticate(loose.Authenticate(g.Wrap(pong))), bearer(w.token.Reveal())).Code)
}

// anybody is an Authenticator that lets everyone in, as a person.
type anybody struct{}

func (anybody) Authenticate(*http.Request) (*policy.Principal, error) {
	return &policy.Principal{Credential: policy.JWT, User: "anybody"}, nil
}

// TestHandlerInAnotherGoroutine: http.TimeoutHandler between two Guards runs the
// inner one in a goroutine of its own.
func TestHandlerInAnotherGoroutine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.guard(nil)
	h := g.Authenticate(http.TimeoutHandler(g.Wrap(pong), time.Minute, "late"))
	require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code)
}

// TestGuardThatIsLate: a Guard that decides when the Authenticate around it has returned
// observes what it refuses, which was observed already, and not what it lets through.
func TestGuardThatIsLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	events := 0
	g := w.guard(&middleware.Options{Observe: func(*http.Request, middleware.Event) { events++ }})
	var late *http.Request
	do(g.Authenticate(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { late = r })), bearer(w.token.Reveal()))
	require.Equal(t, 1, events)
	require.Equal(t, 200, do(g.Wrap(pong), late).Code)
	require.Equal(t, 1, events)
	requireRefusal(t, do(g.With(policy.Scope("admin")).Wrap(pong), late), 403, policy.InsufficientScope)
	require.Equal(t, 2, events)
}

// TestPanickingHandlerIsObserved: the outer Guard notes a request whose handler
// panicked, and the panic goes on.
func TestPanickingHandlerIsObserved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	events := 0
	g := w.guard(&middleware.Options{Observe: func(*http.Request, middleware.Event) { events++ }})
	h := g.Authenticate(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("handler") }))
	require.PanicsWithValue(t, "handler", func() { do(h, bearer(w.token.Reveal())) })
	require.Equal(t, 1, events)
}
