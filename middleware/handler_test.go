package middleware_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
)

// TestAddrFrom: a handler is told the address that the rules were about (D18), and
// of no other than a Guard's.
func TestAddrFrom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, test := range []struct {
		name   string
		source middleware.AddrSource
		want   netip.Addr
	}{
		{"peer", nil, netip.MustParseAddr("192.0.2.1")},
		{"configured", func(*http.Request) netip.Addr { return netip.MustParseAddr("2001:db8::1") }, netip.MustParseAddr("2001:db8::1")},
		{"unknown", func(*http.Request) netip.Addr { return netip.Addr{} }, netip.Addr{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := w.guard(&middleware.Options{ClientIP: test.source, Unmetered: true})
			served := 0
			h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				addr, ok := middleware.AddrFrom(r.Context())
				require.True(t, ok)
				require.Equal(t, test.want, addr)
				served++
			})
			do(g.Wrap(h), bearer(w.token.Reveal()))
			do(g.Authenticate(h), bearer(w.token.Reveal()))
			do(g.Authenticate(g.With().Wrap(h)), bearer(w.token.Reveal()))
			require.Equal(t, 3, served)
		})
	}
	_, ok := middleware.AddrFrom(t.Context())
	require.False(t, ok)
	_, ok = middleware.AddrFrom(middleware.WithPrincipal(t.Context(), &policy.Principal{}))
	require.False(t, ok, "only a Guard knows an address")
}

// TestRefuse: what a handler refuses is written like what its Guard refuses, in
// both forms of D1, or by the host's own function; no-store always (D40).
func TestRefuse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refusal := &middleware.Refusal{
		Status: http.StatusBadRequest, Code: "ValidationError", Reason: "invalid_fields", Message: "Some fields are not valid.",
		Fields: []middleware.FieldProblem{{Field: "name", Message: "must not be empty"}, {Field: "list", Line: 2, Message: "is <bad>"}},
	}
	tests := []struct {
		name, accept string
		guard        *middleware.Guard
		media, body  string
	}{
		{
			"JSON", "", w.guard(nil), "application/json; charset=utf-8",
			`{"success":false,"status":400,"message":"Some fields are not valid.","error":{"code":"ValidationError",` +
				`"reason":"invalid_fields","message":"Some fields are not valid.","fields":[` +
				`{"field":"name","message":"must not be empty"},{"field":"list","line":2,"message":"is \u003cbad\u003e"}]}}`,
		},
		{
			"problem", "application/problem+json", w.guard(nil), "application/problem+json",
			`{"type":"about:blank","title":"Bad Request","status":400,"detail":"Some fields are not valid.",` +
				`"code":"ValidationError","reason":"invalid_fields","fields":[` +
				`{"field":"name","message":"must not be empty"},{"field":"list","line":2,"message":"is \u003cbad\u003e"}]}`,
		},
		{
			"host", "", w.guard(&middleware.Options{Refuse: func(w http.ResponseWriter, _ *http.Request, f *middleware.Refusal) {
				w.WriteHeader(f.Status)
				_, _ = w.Write([]byte(f.Code))
			}}), "", "ValidationError",
		},
		{"nil guard", "", nil, "application/json; charset=utf-8", ""},
		{"zero guard", "", new(middleware.Guard), "application/json; charset=utf-8", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("POST", "/", nil)
			r.Header.Set("Accept", test.accept)
			got := httptest.NewRecorder()
			test.guard.Refuse(got, r, refusal)
			require.Equal(t, 400, got.Code)
			require.Equal(t, "no-store", got.Header().Get("Cache-Control"))
			require.Equal(t, "nosniff", got.Header().Get("X-Content-Type-Options"))
			require.Equal(t, test.media, got.Header().Get("Content-Type"))
			if test.body != "" {
				require.Equal(t, test.body, got.Body.String())
			}
		})
	}
}

// TestGuardLimiter: handlers see what the Guard spends of.
func TestGuardLimiter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	daily := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Now: w.clock.Now})
	g := w.guard(&middleware.Options{Limiter: daily})
	require.Same(t, daily, g.Limiter())
	require.Same(t, daily, g.With().Limiter())

	g = w.guard(nil)
	do(g.Wrap(pong), bearer(w.token.Reveal()))
	require.NotNil(t, g.Limiter(), "the default")

	require.Nil(t, w.guard(&middleware.Options{Unmetered: true}).Limiter())
	require.Nil(t, (*middleware.Guard)(nil).Limiter())
	require.Nil(t, new(middleware.Guard).Limiter())
}
