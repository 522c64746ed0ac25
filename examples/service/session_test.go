package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/keystile/keystile/middleware"
)

// signedIn starts a session and returns a request with its cookie.
func signedIn(s *sessions, user string) *http.Request { return signedInAs(s, person{id: user}) }

func signedInAs(s *sessions, p person) *http.Request {
	w := httptest.NewRecorder()
	s.start(w, httptest.NewRequest(http.MethodPost, "/", nil), p)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, c := range w.Result().Cookies() {
		r.AddCookie(c)
	}
	return r
}

func requireUser(t *testing.T, s *sessions, r *http.Request, want string) {
	t.Helper()
	p, err := s.Authenticate(r)
	switch {
	case want == "" && !errors.Is(err, middleware.ErrNoCredential):
		t.Fatalf("got %v, %v, want no credential", p, err)
	case want != "" && (err != nil || p.User != want):
		t.Fatalf("got %v, %v, want %s", p, err, want)
	}
}

// TestSessionEnds: a session is over after its time, at the sign-out, and when its
// browser signs in anew; a cookie of something else is none.
func TestSessionEnds(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, time.March, 10, 9, 0, 0, 0, time.UTC)
	s := newSessions(func() time.Time { return now })
	ann, bob := signedIn(s, "ann"), signedIn(s, "bob")
	requireUser(t, s, ann, "ann")
	requireUser(t, s, bob, "bob")
	requireUser(t, s, httptest.NewRequest(http.MethodGet, "/", nil), "")
	other := httptest.NewRequest(http.MethodGet, "/", nil)
	other.AddCookie(&http.Cookie{Name: sessionCookie, Value: "of another program"})
	requireUser(t, s, other, "")

	s.end(httptest.NewRecorder(), bob)
	requireUser(t, s, bob, "")
	s.start(httptest.NewRecorder(), ann, person{id: "cid"})
	requireUser(t, s, ann, "")

	dee := signedIn(s, "dee")
	now = now.Add(sessionLifetime - time.Nanosecond)
	requireUser(t, s, dee, "dee")
	now = now.Add(time.Nanosecond)
	requireUser(t, s, dee, "")
}

// TestSessionsAreBounded: one session too many ends the oldest.
func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, time.March, 10, 9, 0, 0, 0, time.UTC)
	s := newSessions(func() time.Time { now = now.Add(time.Millisecond); return now })
	first, second := signedIn(s, "first"), signedIn(s, "second")
	for range maxSessions - 1 {
		signedIn(s, "others")
	}
	requireUser(t, s, first, "")
	requireUser(t, s, second, "second")
	if len(s.byHash) != maxSessions {
		t.Fatalf("%d sessions are kept", len(s.byHash))
	}
}
