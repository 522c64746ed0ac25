package api_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store/audit"
)

// TestFailingStore_S76: with a store that fails at its k-th call, for every k, every
// operation answers 503 and not 200, tells the host and not the client, and has done
// all that was asked for or nothing.
func TestFailingStore_S76(t *testing.T) {
	t.Parallel()
	for _, op := range operations(t) {
		if op.path == "/v1/openapi.json" || op.path == "/v1/usage" {
			continue
		}
		t.Run(op.name(), func(t *testing.T) {
			t.Parallel()
			failures := 0
			for k := int64(1); ; k++ {
				w := newWorld(t)
				_, prefix := w.create("olga")
				q := request{as: "olga", headers: map[string]string{"If-Match": "*"}}
				if op.body() {
					q.body = sample(op.name())
				}
				if op.name() == "PATCH /v1/org/api-keys/{prefix}" {
					q.body = object{"disabled": true, "dailyLimit": 7}
				}
				path := strings.NewReplacer("{prefix}", prefix, "{user}", "ann").Replace(op.path)
				before := w.dump()
				w.store.calls.Store(0)
				w.store.fail.Store(k)
				got := w.do(op.method, path, q)
				w.store.fail.Store(0)
				if w.store.calls.Load() < k {
					require.Less(t, got.Code, 300)
					break
				}
				failures++
				got.refused(503, "Unavailable", "store_unavailable")
				require.NotContains(t, got.Body.String(), errDown.Error())
				require.NotContains(t, got.Body.String(), "csk_live_")
				require.LessOrEqual(t, len(w.failed), 1, "the settings that the Guard reads are the Guard's to report")
				after := w.dump()
				if op.method == "GET" || op.method == "POST" {
					require.Equal(t, before, after, "a creation whose answer is lost has not taken place")
					continue
				}
				if before != after {
					// The change was made, and could not be shown: the whole of it.
					whole := newWorldLike(t, op, q.body)
					require.Equal(t, whole, w.relevant(prefix))
				}
			}
			require.GreaterOrEqual(t, failures, 2)
		})
	}
}

// relevant is what a change can have changed, in a form that is equal in worlds with
// other keys.
func (w *world) relevant(prefix string) string {
	w.t.Helper()
	return strings.ReplaceAll(w.dump(), prefix, "PREFIX")
}

// newWorldLike returns what is left when nothing fails.
func newWorldLike(t *testing.T, op operation, body any) string {
	t.Helper()
	w := newWorld(t)
	_, prefix := w.create("olga")
	path := strings.NewReplacer("{prefix}", prefix, "{user}", "ann").Replace(op.path)
	require.Less(t, w.do(op.method, path, request{as: "olga", body: body, headers: map[string]string{"If-Match": "*"}}).Code, 300)
	return w.relevant(prefix)
}

// TestSuspendedMeanwhile: who is suspended while the request is on its way makes no
// key (F48).
func TestSuspendedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.user("ann")
	u.SuspendedAt = start
	w.store.calls.Store(0)
	w.store.on = func(call int64) {
		if call == 4 { // the Guard's settings, the user, the settings, and the user again
			require.NoError(t, w.mem.PutUser(t.Context(), &u))
		}
	}
	w.do("POST", "/v1/api-keys", request{as: "ann", body: object{"name": "x"}}).refused(403, "Forbidden", "user_suspended")
}

// TestProblem_D1: what the API refuses is a problem of RFC 9457 if that is asked for,
// and the host's own answer if it has one.
func TestProblem_D1(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := w.do("POST", "/v1/api-keys", request{as: "ann", body: "{}", headers: map[string]string{"Accept": "application/problem+json"}})
	require.Equal(t, 400, got.Code)
	require.JSONEq(t, `{"type":"about:blank","title":"Bad Request","status":400,"detail":"The request is not valid: name: is required.",
		"code":"ValidationError","reason":"invalid_fields","fields":[{"field":"name","message":"is required"}]}`, got.Body.String())

	w = newWorld(t, func(s *setup) {
		s.guard.Refuse = func(w http.ResponseWriter, _ *http.Request, f *middleware.Refusal) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(f.Status)
			_, _ = fmt.Fprintf(w, "host: %s", f.Code)
		}
	})
	require.Equal(t, "host: ValidationError", w.do("POST", "/v1/api-keys", request{as: "ann", body: "{}"}).Body.String())
	require.Equal(t, "host: NotFound", w.do("GET", "/", request{}).Body.String())
	require.Equal(t, "host: Unauthorized", w.do("GET", "/v1/usage", request{}).Body.String())
}

// A trail is a Sink that keeps events, until it fails.
type trail struct {
	events []audit.Event
	fail   bool
}

func (s *trail) Write(_ context.Context, e audit.Event) error {
	if s.fail {
		return errDown
	}
	s.events = append(s.events, e)
	return nil
}

// TestAudit: an act is in the trail with who did it, how that was found out, and from
// where; a trail that is required and cannot be written refuses the act with 503.
func TestAudit(t *testing.T) {
	t.Parallel()
	sink := new(trail)
	addr := netip.MustParseAddr("2001:db8::1")
	w := newWorld(t, func(s *setup) {
		s.keys.Audit, s.keys.AuditRequired = sink, true
		s.guard.ClientIP = func(*http.Request) netip.Addr { return addr }
	})
	_, prefix := w.create("ann")
	sink.events = nil
	w.do("PATCH", "/v1/org/api-keys/"+prefix, request{
		as: "session:olga", body: object{"disabled": true}, headers: map[string]string{"User-Agent": "browser"},
	}).data(200)
	require.Len(t, sink.events, 2, "intent and outcome")
	e := sink.events[1]
	require.Equal(t, audit.KeyDisable, e.Action)
	require.Equal(t, audit.Actor{ID: "olga", Role: "owner", Credential: policy.Session, Addr: addr, UserAgent: "browser"}, e.Actor)
	require.Equal(t, prefix, e.KeyID)
	require.Equal(t, "ann", e.User)
	for _, step := range []struct{ method, path, action, as string }{
		{"PATCH", "/v1/org/api-keys/" + prefix, audit.KeyEnable, "olga"},
		{"PATCH", "/v1/api-keys/" + prefix, audit.KeyUpdate, "ann"},
		{"PATCH", settingsPath, audit.SettingsUpdate, "olga"},
		{"PUT", "/v1/org/users/ann/token-permission", audit.UserPermission, "olga"},
		{"POST", "/v1/api-keys/" + prefix + "/rotate", audit.KeyRotate, "ann"},
		{"DELETE", "/v1/api-keys/" + prefix, audit.KeyRevoke, "ann"},
	} {
		var body any
		switch step.action {
		case audit.KeyEnable:
			body = object{"disabled": false}
		case audit.KeyUpdate:
			body = object{"name": "new"}
		case audit.SettingsUpdate:
			body = object{"apiTokenMaxAge": 1000}
		case audit.KeyRotate:
			body = object{"grace": 1}
		}
		q := request{as: step.as, body: body, headers: map[string]string{"If-Match": "*"}}
		before := w.dump()
		sink.fail = true
		w.do(step.method, step.path, q).refused(503, "Unavailable", "store_unavailable")
		require.Equal(t, before, w.dump())
		sink.fail, sink.events = false, nil
		require.Less(t, w.do(step.method, step.path, q).Code, 300)
		require.Equal(t, step.action, sink.events[len(sink.events)-1].Action)
		require.Equal(t, step.as, sink.events[0].Actor.ID)
		require.Equal(t, policy.JWT, sink.events[0].Actor.Credential)
	}
}

// TestGoneClient: a body that ends before its time is no body.
func TestGoneClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.dump()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "/v1/api-keys", brokenBody{bytes.NewReader([]byte(`{"name":"x"}`))})
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer ann.acme.jwt")
	r.Header.Set("Content-Type", "application/json")
	rec := record(w.h, r)
	require.Equal(t, 400, rec.Code)
	require.Contains(t, rec.Body.String(), `"malformed_body"`)
	require.Equal(t, before, w.dump())
}

// A brokenBody ends with an error.
type brokenBody struct{ *bytes.Reader }

func (b brokenBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil {
		return n, errDown
	}
	return n, nil
}
