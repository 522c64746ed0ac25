package middleware_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/token"
)

// TestOneEventPerRequest: each request is observed once, before its handler, with
// what an audit needs and nothing that authenticates (S75).
func TestOneEventPerRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var events []middleware.Event
	h := w.guard(&middleware.Options{Observe: func(_ *http.Request, e middleware.Event) { events = append(events, e) }}).
		Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { require.NotEmpty(t, events, "observed too late") }))
	gone, goneKey := w.create(keys.CreateParams{Org: testOrg, User: testUser, Name: "gone"})
	require.NoError(t, w.mgr.Revoke(t.Context(), keys.Actor{}, keys.Ref{Org: testOrg, ID: goneKey.ID}))
	tests := []struct {
		name    string
		request *http.Request
		reason  policy.Reason // empty: let through
		key     string        // whose the credential was found to be
		err     string
	}{
		{"admitted", bearer(w.token.Reveal()), "", w.key.ID, ""},
		{"nothing", do0(), policy.NoCredentials, "", ""},
		{"unknown", bearer(unknownToken), policy.InvalidToken, "", "no such key"},
		{"malformed", bearer("csk_live_"), policy.InvalidToken, "", "malformed"},
		{"revoked", bearer(gone.Reveal()), policy.InvalidToken, goneKey.ID, "revoked"},
		{"another user's", pair("x@acme.example", w.token.Reveal()), policy.InvalidToken, w.key.ID, "another user"},
		{"two credentials", both(w.token.Reveal()), policy.MultipleCredentials, "", ""},
		{"of no kind", bearer("a.b.c"), policy.InvalidToken, "", "no kind"},
	}
	for _, test := range tests {
		events = nil
		do(h, test.request)
		require.Len(t, events, 1, test.name)
		e := events[0]
		require.True(t, e.Time.Equal(w.clock.now), test.name)
		if test.key == "" {
			require.Nil(t, e.Principal, test.name)
		} else {
			require.Equal(t, test.key, e.Principal.KeyID, test.name)
		}
		if test.reason == "" {
			require.Nil(t, e.Refusal, test.name)
			require.EqualValues(t, 249, e.Quota.Remaining)
		} else {
			require.Equal(t, test.reason, e.Refusal.Reason, test.name)
		}
		if test.err == "" {
			require.NoError(t, e.Err, test.name)
		} else {
			require.ErrorContains(t, e.Err, test.err, test.name)
		}
		asJSON, err := json.Marshal(e)
		require.NoError(t, err)
		for _, text := range []string{fmt.Sprintf("%+v %#v", e, e), string(asJSON)} {
			require.NotContains(t, text, w.token.Reveal()[17:], test.name)
			require.NotContains(t, text, gone.Reveal()[17:], test.name)
		}
	}
}

// TestStaleIsVisible: what is served from the cache while the store fails is marked.
func TestStaleIsVisible(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	down := &outage{Store: w.store.Store}
	mgr, err := keys.New(down, &keys.Options{Now: w.clock.Now, Cache: &store.CacheOptions{TTL: time.Second, ServeStale: time.Minute}})
	require.NoError(t, err)
	t.Cleanup(mgr.Close)
	var event middleware.Event
	g, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Now: w.clock.Now, Observe: func(_ *http.Request, e middleware.Event) { event = e },
	})
	require.NoError(t, err)
	h := g.Wrap(pong)
	require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code)
	require.False(t, event.Stale)
	down.since.Store(true)
	w.clock.set(w.clock.Now().Add(2 * time.Second))
	require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code)
	require.True(t, event.Stale)
	down.since.Store(false)
	w.clock.set(w.clock.Now().Add(2 * time.Minute))
	require.Equal(t, 200, do(h, bearer(w.token.Reveal())).Code)
	require.False(t, event.Stale)
}

// An outage is a store that fails from some time on.
type outage struct {
	*memstore.Store
	since atomic.Bool
}

func (o *outage) Lookup(ctx context.Context, d token.Digest) (*store.Record, error) {
	if o.since.Load() {
		return nil, errors.New("connection refused")
	}
	return o.Store.Lookup(ctx, d)
}

func (o *outage) Settings(ctx context.Context, org string) (*policy.Settings, error) {
	if o.since.Load() {
		return nil, errors.New("connection refused")
	}
	return o.Store.Settings(ctx, org)
}

// FuzzCredentials: whatever stands in the three headers: no panic; only the exact
// token in one of the two forms is let through; a refusal repeats nothing.
func FuzzCredentials(f *testing.F) {
	w := newWorld(f)
	h := w.guard(&middleware.Options{Unmetered: true}).Wrap(pong)
	secret := w.token.Reveal()
	for _, s := range []string{"", "Bearer", "Bearer ", "bearer  @", "Bearer @ ", "Bearer\t@", "Basic @", "BearerX @", "Bearer @,@", "@", "\xff", "Bearer @\x00"} {
		f.Add(s, "", "", true, false)
	}
	f.Add("", testEmail, "@", false, true)
	f.Add("", "ANN@acme.example ", "@", false, true)
	f.Add("Bearer @", testEmail, "@", true, true)
	f.Fuzz(func(t *testing.T, authorization, user, token string, withBearer, withPair bool) {
		fill := func(s string) string { return strings.ReplaceAll(s, "@@", secret) }
		fillOne := func(s string) string { return strings.ReplaceAll(s, "@", secret) }
		r := do0()
		if withBearer {
			r.Header["Authorization"] = []string{fillOne(authorization)}
		}
		if withPair {
			r.Header["X-Api-User"], r.Header["X-Api-Token"] = []string{fill(user)}, []string{fillOne(token)}
		}
		got := do(h, r)
		scheme, rest, spaced := strings.Cut(fillOne(authorization), " ")
		wantBearer := withBearer && !withPair && spaced && strings.EqualFold(scheme, "bearer") &&
			strings.TrimLeft(rest, " ") == secret
		wantPair := withPair && !withBearer && fillOne(token) == secret &&
			strings.EqualFold(strings.Trim(fill(user), " \t"), testEmail)
		require.Equal(t, wantBearer || wantPair, got.Code == 200, "%q %q %q", authorization, user, token)
		if got.Code != 200 {
			require.NotContains(t, got.Body.String()+fmt.Sprint(got.Header()), secret[9:])
			require.Contains(t, []int{400, 401}, got.Code)
		}
	})
}
