package console_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware/console"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
)

// TestNobody: without a person every page is 401 and says where to sign in, and the
// API is not asked for anything.
func TestNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.console.SignInURL = "/login?next=%2Fconsole%2F" })
	_, prefix := w.create("olga", "export")
	for _, path := range pages(prefix) {
		for _, as := range []string{"", "over", "Bearer x"} {
			p := w.get(401, path, as)
			p.says("You are not signed in.", "Sign in", "Status 401")
			require.Contains(t, p.Body.String(), `href="/login?next=%2Fconsole%2F"`)
			require.NotEmpty(t, p.Header().Get("WWW-Authenticate"), "RFC 9110 15.5.2")
			p.without("My keys", "export")
		}
	}
	require.Empty(t, w.asked)

	w = newWorld(t)
	require.NotContains(t, w.get(401, "/", "").Body.String(), "button primary", "there is nowhere to sign in")
}

// TestPersons: a session and a JWT are persons, and what the API is asked for is asked
// for by the same one.
func TestPersons(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.get(200, "/", "ann").says("ann@acme.example")
	w.get(200, "/", "Bearer ann.x.jwt").says("ann@acme.example")
}

// TestKeysSignNobodyIn (ASVS 5.0, 7.2.2): a key shows no page, whether the
// Authenticator leaves it alone or takes it for somebody, and beside a session too.
func TestKeysSignNobodyIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, prefix := w.create("olga", "export")
	careless := newWorld(t, func(s *setup) { s.auth = anybody{policy.APIKey} })
	future := newWorld(t, func(s *setup) { s.auth = anybody{policy.Credential(99)} })
	none := newWorld(t, func(s *setup) { s.auth = anybody{0} })
	for _, path := range pages(prefix) {
		w.get(401, path, "Bearer "+secret)
		for _, w := range []*world{careless, future, none} {
			w.get(403, path, "Bearer "+secret).says("An API key signs nobody in.")
			require.Empty(t, w.asked)
		}
		r := request(t.Context(), "GET", path, "olga")
		r.Header.Set("X-Api-User", "olga@acme.example")
		r.Header.Set("X-Api-Token", secret)
		asked := len(w.asked)
		p := w.serve(r)
		require.Equal(t, 401, p.Code, "a session counts for nothing there (D34)")
		require.Len(t, w.asked, asked)
		p.without("export", prefix)
	}
}

// TestSessionsDown: D34: whoever comes with a JWT is not asked for the session, of which
// a cookie was left over.
func TestSessionsDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.auth = sessionsDown{} })
	r := request(t.Context(), "GET", "/", "ann")
	require.Equal(t, 503, w.serve(r).Code)
	r.Header.Set("Authorization", "Bearer ann.x.jwt")
	require.Equal(t, 200, w.serve(r).Code)
}

// sessionsDown are persons whose sessions cannot be looked up.
type sessionsDown struct{ persons }

func (s sessionsDown) Authenticate(r *http.Request) (*policy.Principal, error) {
	if _, err := r.Cookie("session"); err == nil {
		return nil, errors.New("session store: connection refused")
	}
	return s.persons.Authenticate(r)
}

// anybody takes every request for one of that kind.
type anybody struct{ kind policy.Credential }

func (a anybody) Authenticate(*http.Request) (*policy.Principal, error) {
	return &policy.Principal{Credential: a.kind, Org: org, User: "olga", Owner: true}, nil
}

// TestAuthenticatorFails: who cannot be told is 503, and the host is told why.
func TestAuthenticatorFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) { s.auth = failing{errDown} })
	p := w.get(503, "/", "olga")
	p.says("Not available now", "Try again.")
	p.without(errDown.Error())
	require.Equal(t, "1", p.Header().Get("Retry-After"))
	require.Len(t, w.failed, 1)
	require.ErrorIs(t, w.failed[0], errDown)

	w = newWorld(t, func(s *setup) { s.auth = failing{nil} })
	w.get(503, "/", "olga")
	require.Len(t, w.failed, 1)

	w = newWorld(t, func(s *setup) { s.auth, s.console.Failed = failing{errDown}, nil })
	w.get(503, "/", "olga")
}

type failing struct{ err error }

func (f failing) Authenticate(*http.Request) (*policy.Principal, error) { return nil, f.err }

// TestUnknownPeople: whom the API does not know, or who is suspended (D17), sees no
// page; a plain user sees none of the owners' (S22, S47), and no link to one.
func TestUnknownPeople(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, prefix := w.create("olga", "export")
	w.put(store.User{ID: "bob", SuspendedAt: start})
	for _, path := range pages(prefix) {
		w.get(403, path, "nobody").says("Not allowed", "This service does not know the user.")
		w.get(403, path, "bob").says("This user is suspended.")
		if strings.HasPrefix(path, "/org/") {
			p := w.get(403, path, "ann")
			p.says("Only owners of the organization may do this.")
			p.without("All keys", "Settings", "People", "export")
		}
	}
	w.get(200, "/", "ann").without("All keys", "Settings", "People")
	w.get(200, "/", "olga").says("All keys", "Settings", "People", "owner of acme")
	w.get(404, "/keys/"+prefix, "ann").says("There is no such API key.")
}

// TestSignOut: every page that is somebody's links to it.
func TestSignOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *setup) {
		s.console = console.Options{SignOutURL: "/logout", Title: "Widgets <Ltd>"}
	})
	p := w.get(200, "/", "ann")
	require.Contains(t, p.Body.String(), `<a href="/logout">Sign out</a>`)
	require.Contains(t, p.Body.String(), `<title>My keys · Widgets &lt;Ltd&gt;</title>`)
	w.get(401, "/", "").without("Sign out")
	w = newWorld(t)
	w.get(200, "/", "ann").without("Sign out")
}
