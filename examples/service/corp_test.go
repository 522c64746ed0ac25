package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// TestCorpSuspended: who is suspended manages nothing from then on, an owner no more
// than others, whatever a session or a JWT still says (D17).
func TestCorpSuspended(t *testing.T) {
	t.Parallel()
	mgr, err := keys.New(memstore.New(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer mgr.Close()
	put := func(id string, owner, suspended bool) {
		u := &store.User{Org: "acme", ID: id, Email: id + "@acme.example", Tier: "Pro", Owner: owner}
		if suspended {
			u.SuspendedAt = time.Now()
		}
		if err := mgr.PutUser(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	people := newSessions(time.Now)
	guard, err := middleware.New(mgr.Verifier(), &middleware.Options{
		Authenticators: []middleware.Authenticator{middleware.APIKeys(mgr.Verifier(), nil), people},
		ClientIP:       middleware.PeerIP,
	})
	if err != nil {
		t.Fatal(err)
	}
	corps := newCorpAPI(mgr, guard, nil)
	sessions := make(map[string]*http.Request)
	for _, id := range []string{"owner", "user"} {
		put(id, id == "owner", false)
		sessions[id] = signedInAs(people, person{id: id, org: "acme", tier: "Pro", role: roleOwner})
	}
	do := func(as, method, path, body string) (int, string) {
		r := httptest.NewRequest(method, corpBase+path, strings.NewReader(body))
		r.Header = sessions[as].Header.Clone()
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		corps.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	key := func(id string) string {
		_, k, err := mgr.Create(t.Context(), keys.CreateParams{
			Actor: keys.Actor{ID: id, Credential: policy.Session}, Org: "acme", User: id, Name: "x",
		})
		if err != nil {
			t.Fatal(err)
		}
		return k.ID
	}
	requests := func(id string) [][3]string {
		return [][3]string{
			{http.MethodPatch, "/corps/acme/users/user@acme.example", `{"accessTokenAllowed":true}`},
			{http.MethodPatch, "/corps/acme", `{"restrictedAccessTokens":false}`},
			{http.MethodGet, "/user/apitokens", ""},
			{http.MethodPost, "/user/apitokens", `{"name":"y"}`},
			{http.MethodDelete, "/user/apitokens/" + key(id), ""},
		}
	}
	all := map[string][][3]string{"owner": requests("owner"), "user": requests("user")}
	for id, rs := range all {
		put(id, id == "owner", true)
		for _, r := range rs {
			if code, body := do(id, r[0], r[1], r[2]); code != http.StatusForbidden || !strings.Contains(body, "suspended") {
				t.Errorf("suspended %s, %s %s: %d %s", id, r[0], r[1], code, body)
			}
		}
	}
	for id, rs := range all {
		put(id, id == "owner", false)
		for _, r := range rs {
			want := r[0] != http.MethodPatch || id == "owner"
			if code, body := do(id, r[0], r[1], r[2]); (code < 300) != want {
				t.Errorf("%s, %s %s: %d %s", id, r[0], r[1], code, body)
			}
		}
	}
}

// TestMatches: an If-Match names any of several versions (RFC 9110 13.1.1).
func TestMatches(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		header []string
		want   bool
	}{
		{"none", nil, true},
		{"any", []string{"*"}, true},
		{"it", []string{`"3"`}, true},
		{"another", []string{`"2"`}, false},
		{"one of several", []string{`"1", "3"`}, true},
		{"in another line", []string{`"1"`, `"3"`}, true},
		{"none of several", []string{`"1","2"`}, false},
		{"without quotes", []string{`3`}, false},
		{"weak", []string{`W/"3"`}, false},
		{"empty", []string{""}, false},
	} {
		if got := matches(test.header, `"3"`); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}
