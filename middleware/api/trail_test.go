package api_test

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware/refusallog"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
)

// A register is a Sink that keeps events.
type register struct {
	mu     sync.Mutex
	events []audit.Event
}

func (t *register) Write(_ context.Context, e audit.Event) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, e)
	return nil
}

// take returns the events and forgets them.
func (t *register) take() []audit.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	events := t.events
	t.events = nil
	return events
}

// TestRefusedOwnerActsAreAudited: whoever is no owner and tries to act as one is in
// the trail (S22, S30, S47), with what was tried on what, once for each request.
func TestRefusedOwnerActsAreAudited(t *testing.T) {
	t.Parallel()
	sink := new(register)
	w := newWorld(t, func(s *setup) { s.keys.Audit = sink })
	_, prefix := w.create("olga")
	actions := map[string]string{
		"PATCH /v1/org/token-settings":                 audit.SettingsUpdate,
		"PATCH /v1/org/api-keys/{prefix}":              audit.KeyUpdate,
		"DELETE /v1/org/api-keys/{prefix}":             audit.KeyRevoke,
		"PUT /v1/org/users/{user}/token-permission":    audit.UserPermission,
		"DELETE /v1/org/users/{user}/token-permission": audit.UserPermission,
		"GET /v1/org/users":                            audit.Authentication,
		"GET /v1/org/api-keys":                         audit.Authentication,
		"POST /v1/org/token-settings/preview":          audit.Authentication,
		"GET /v1/org/api-keys/{prefix}/explain":        audit.Authentication,
		"GET /v1/org/token-settings":                   audit.Authentication,
	}
	walked := 0
	for _, op := range operations(t) {
		if !strings.HasPrefix(op.path, "/v1/org/") {
			continue
		}
		sink.take()
		path := strings.NewReplacer("{prefix}", prefix, "{user}", "bob").Replace(op.path)
		w.do(op.method, path, request{as: "ann", body: sample(op.name())}).refused(403, "Forbidden", "owner_required")
		events := sink.take()
		require.Len(t, events, 1, op.name())
		e := events[0]
		if want := actions[op.name()]; want != "" {
			walked++
			require.Equal(t, want, e.Action, op.name())
		}
		require.Equal(t, audit.Outcome, e.Phase)
		require.Equal(t, audit.Failure, e.Outcome)
		require.Equal(t, "forbidden", e.Reason)
		require.Equal(t, "ann", e.Actor.ID)
		require.Equal(t, "user", e.Actor.Role)
		require.Equal(t, policy.JWT, e.Actor.Credential)
		require.Equal(t, netip.MustParseAddr("192.0.2.1"), e.Actor.Addr)
		require.Equal(t, org, e.Org)
		if strings.Contains(op.path, "{prefix}") {
			require.Equal(t, prefix, e.KeyID, op.name())
		}
		if strings.Contains(op.path, "{user}") {
			require.Equal(t, "bob", e.User, op.name())
		}
	}
	require.Equal(t, len(actions), walked)
}

// TestRefusedPeopleAreAudited: whoever is suspended, unknown, or sent here by the
// page of another site has not done what was asked for, and the trail says so.
func TestRefusedPeopleAreAudited(t *testing.T) {
	t.Parallel()
	sink := new(register)
	w := newWorld(t, func(s *setup) { s.keys.Audit = sink })
	secret, prefix := w.create("ann")
	w.put(store.User{Org: org, ID: "sue", SuspendedAt: start, Owner: true})
	cross := map[string]string{"Sec-Fetch-Site": "cross-site"}
	for _, test := range []struct {
		name, as, id, role, reason string
		headers                    map[string]string
	}{
		{"suspended", "sue", "sue", "owner", "user_suspended", nil},
		{"unknown", "zoe", "zoe", "user", "user_unknown", nil},
		{"from another site", "session:ann", "ann", "user", "cross_origin", cross},
		{"an owner from another site", "session:olga", "olga", "owner", "cross_origin", cross},
	} {
		sink.take()
		r := request{as: test.as, body: object{"name": "x"}, headers: test.headers}
		require.Equal(t, 403, w.do("POST", "/v1/api-keys", r).Code, test.name)
		events := sink.take()
		require.Len(t, events, 1, test.name)
		require.Equal(t, audit.KeyCreate, events[0].Action, test.name)
		require.Equal(t, test.reason, events[0].Reason, test.name)
		require.Equal(t, test.id, events[0].Actor.ID, test.name)
		require.Equal(t, test.role, events[0].Actor.Role, test.name)
		require.Equal(t, audit.Failure, events[0].Outcome, test.name)
	}
	// A whole token where a prefix belongs is not kept (S16).
	w.do("DELETE", "/v1/org/api-keys/"+secret, request{as: "bob"}).refused(403, "Forbidden", "owner_required")
	events := sink.take()
	require.Len(t, events, 1)
	require.Equal(t, prefix, events[0].KeyID)
	// Reading what is one's own is no act.
	w.do("GET", "/v1/api-keys", request{as: "sue"}).refused(403, "Forbidden", "user_suspended")
	require.Empty(t, sink.take())
}

// TestStaleSettingsAreAudited: an owner who was too late has changed nothing, and
// the trail says so.
func TestStaleSettingsAreAudited(t *testing.T) {
	t.Parallel()
	sink := new(register)
	w := newWorld(t, func(s *setup) { s.keys.Audit = sink })
	sink.take()
	r := request{as: "olga", body: object{"apiTokenMaxAge": 60}, headers: map[string]string{"If-Match": `"99"`}}
	w.do("PATCH", "/v1/org/token-settings", r).refused(409, "Conflict", "version_conflict")
	events := sink.take()
	require.Len(t, events, 1)
	require.Equal(t, audit.SettingsUpdate, events[0].Action)
	require.Equal(t, audit.Failure, events[0].Outcome)
	require.Equal(t, "conflict", events[0].Reason)
	require.Equal(t, "olga", events[0].Actor.ID)
	require.Equal(t, "owner", events[0].Actor.Role)
}

// TestKeysThatManageAreAudited_S60: with a refusallog at the Guard a key that tries
// to manage keys is in the trail.
func TestKeysThatManageAreAudited_S60(t *testing.T) {
	t.Parallel()
	sink := new(register)
	refusals, err := refusallog.New(sink, nil)
	require.NoError(t, err)
	w := newWorld(t, func(s *setup) { s.keys.Audit, s.guard.Observe = sink, refusals.Observe })
	secret, prefix := w.create("ann")
	sink.take()
	w.do("POST", "/v1/api-keys", request{as: "key:" + secret, body: object{"name": "x"}}).refused(403, "Forbidden", "wrong_credential_kind")
	require.NoError(t, refusals.Close(t.Context()))
	events := sink.take()
	require.Len(t, events, 1)
	require.Equal(t, audit.Failure, events[0].Outcome)
	require.Equal(t, "wrong_credential_kind", events[0].Reason)
	require.Equal(t, prefix, events[0].KeyID)
	require.Equal(t, "ann", events[0].Actor.ID)
	require.Equal(t, policy.APIKey, events[0].Actor.Credential)
}
