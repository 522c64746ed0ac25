package keys_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/token"
)

// A trail is a Sink whose calls a test can watch and fail.
type trail struct {
	mu       sync.Mutex
	events   []audit.Event           // that were written
	before   func(audit.Event) error // an error is returned instead
	reported []error                 // by AuditFailed
}

func (s *trail) Write(ctx context.Context, e audit.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.before != nil {
		if err := s.before(e); err != nil {
			return err
		}
	}
	e.Changes = slices.Clone(e.Changes)
	s.events = append(s.events, e)
	return nil
}

func (s *trail) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reported = append(s.reported, err)
}

// take returns what was written since the last call.
func (s *trail) take() []audit.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.events
	s.events = nil
	return events
}

func audited(t *testing.T, required bool) (*bundle, *trail) {
	t.Helper()
	s := new(trail)
	b := setup(t, &keys.Options{Audit: s, AuditRequired: required, AuditFailed: s.failed})
	s.take()
	return b, s
}

// olga is an owner as an API would describe one.
var olga = keys.Actor{
	ID: "olga", Role: keys.Owner, Credential: policy.JWT, Addr: addr("192.0.2.9"), UserAgent: "browser",
}

// Every act, as a call that succeeds, and what the trail says of it.
var acts = []struct {
	name    string
	prepare func(b *bundle, k *store.Key)
	call    func(ctx context.Context, b *bundle, k *store.Key) error
	action  string
	host    bool   // there is no actor: the host did it
	org     string // "-": none
	user    string
	changes []audit.Change // KEY stands for the ID of the new key
}{
	{
		name: "Create",
		call: func(ctx context.Context, b *bundle, _ *store.Key) error {
			p := params("ada")
			p.Actor, p.Scopes, p.DailyLimit, p.NotAfter = olga, []string{"a:b", "c"}, -1, start.Add(day)
			_, _, err := b.Create(ctx, p)
			return err
		},
		action: "key.create", user: "ada",
		changes: []audit.Change{
			{Field: "name", After: "export"},
			{Field: "scopes", After: "a:b c"},
			{Field: "daily_limit", Before: "0", After: "-1"},
			{Field: "created_at", After: "2026-03-01T12:00:00Z"},
			{Field: "not_after", After: "2026-03-02T12:00:00Z"},
		},
	},
	{
		name: "Update",
		call: func(ctx context.Context, b *bundle, k *store.Key) error {
			_, err := b.Update(ctx, keys.UpdateParams{
				Actor: olga, Ref: ref(k), Name: new("new"), DailyLimit: new(int64(7)), Scopes: &[]string{"a"},
			})
			return err
		},
		action: "key.update", user: "ada",
		changes: []audit.Change{
			{Field: "name", Before: "export", After: "new"},
			{Field: "scopes", After: "a"},
			{Field: "daily_limit", Before: "0", After: "7"},
		},
	},
	{
		name: "Rotate",
		call: func(ctx context.Context, b *bundle, k *store.Key) error {
			_, _, err := b.Rotate(ctx, keys.RotateParams{Actor: olga, Ref: ref(k), Grace: time.Hour})
			return err
		},
		action: "key.rotate", user: "ada",
		changes: []audit.Change{
			{Field: "revoked_at", After: "2026-03-01T13:00:00Z"},
			{Field: "replaced_by", After: "KEY"},
		},
	},
	{
		name: "Disable, by a Ref without a user",
		call: func(ctx context.Context, b *bundle, k *store.Key) error {
			_, err := b.Disable(ctx, olga, keys.Ref{Org: org, ID: k.ID})
			return err
		},
		action: "key.disable", user: "ada",
		changes: []audit.Change{{Field: "disabled_at", After: "2026-03-01T12:00:00Z"}},
	},
	{
		name: "Enable",
		prepare: func(b *bundle, k *store.Key) {
			_, err := b.Disable(b.t.Context(), owner, ref(k))
			require.NoError(b.t, err)
		},
		call: func(ctx context.Context, b *bundle, k *store.Key) error {
			_, err := b.Enable(ctx, olga, ref(k))
			return err
		},
		action: "key.enable", user: "ada",
		changes: []audit.Change{{Field: "disabled_at", Before: "2026-03-01T12:00:00Z"}},
	},
	{
		name:   "Revoke",
		call:   func(ctx context.Context, b *bundle, k *store.Key) error { return b.Revoke(ctx, olga, ref(k)) },
		action: "key.revoke", user: "ada",
		changes: []audit.Change{{Field: "revoked_at", After: "2026-03-01T12:00:00Z"}},
	},
	{
		name: "PutUser, a new one",
		call: func(ctx context.Context, b *bundle, _ *store.Key) error {
			return b.PutUser(ctx, &store.User{Org: org, ID: "carol", Email: "carol@acme.example", Tier: "Pro", Owner: true, Permitted: true})
		},
		action: "user.put", host: true, user: "carol",
		changes: []audit.Change{
			{Field: "email", After: "carol@acme.example"},
			{Field: "tier", After: "Pro"},
			{Field: "owner", Before: "false", After: "true"},
			{Field: "permitted", Before: "false", After: "true"},
		},
	},
	{
		name: "PutUser, a known one",
		call: func(ctx context.Context, b *bundle, _ *store.Key) error {
			return b.PutUser(ctx, &store.User{Org: org, ID: "ada", Email: "ada@acme.example", Tier: "Team", SuspendedAt: start})
		},
		action: "user.put", host: true, user: "ada",
		changes: []audit.Change{
			{Field: "tier", Before: "Pro", After: "Team"},
			{Field: "suspended_at", After: "2026-03-01T12:00:00Z"},
		},
	},
	{
		name: "SetPermitted",
		call: func(ctx context.Context, b *bundle, _ *store.Key) error {
			return b.SetPermitted(ctx, olga, org, "ada", true)
		},
		action: "user.permission", user: "ada",
		changes: []audit.Change{{Field: "permitted", Before: "false", After: "true"}},
	},
	{
		name: "UpdateSettings",
		prepare: func(b *bundle, _ *store.Key) {
			b.set(func(s *policy.Settings) { s.MaxAge, s.AllowedIPs = 60*day, list(b.t, "192.0.2.7 # one") })
		},
		call: func(ctx context.Context, b *bundle, _ *store.Key) error {
			_, err := b.UpdateSettings(ctx, olga, &policy.Settings{
				Org: org, Version: 1, MaxAge: 30 * day, RestrictUsers: true, AllowedIPs: list(b.t, "192.0.2.0/24\n2001:db8::1"),
			})
			return err
		},
		action: "settings.update",
		changes: []audit.Change{
			{Field: "restrict_users", Before: "false", After: "true"},
			{Field: "max_age", Before: "5184000", After: "2592000"},
			{Field: "allowed_ips", Before: "192.0.2.7 # one", After: "192.0.2.0/24\n2001:db8::1"},
		},
	},
	{
		name: "Purge",
		prepare: func(b *bundle, k *store.Key) {
			require.NoError(b.t, b.Revoke(b.t.Context(), plain, ref(k)))
			b.clock.Add(time.Minute)
		},
		call: func(ctx context.Context, b *bundle, _ *store.Key) error {
			_, err := b.Purge(ctx, 0)
			return err
		},
		action: "keys.purge", host: true, org: "-",
		changes: []audit.Change{
			{Field: "revoked_before", After: "2026-03-01T12:01:00Z"},
			{Field: "deleted", Before: "0", After: "1"},
		},
	},
}

// Each act that is done is told once, when it is over; if the trail is required,
// also before, while nothing is changed yet, with the changes to come.
func TestEveryActIsAudited(t *testing.T) {
	t.Parallel()
	for _, tt := range acts {
		for _, required := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, required: %t", tt.name, required), func(t *testing.T) {
				t.Parallel()
				b, s := audited(t, required)
				_, k := b.create()
				if tt.prepare != nil {
					tt.prepare(b, k)
				}
				s.take()
				before := b.dump()
				s.before = func(e audit.Event) error {
					require.Equal(t, e.Phase == audit.Intent, b.dump() == before, "an intent comes before the act, the outcome after it")
					return nil
				}
				require.NoError(t, tt.call(t.Context(), b, k))

				events := s.take()
				want := audit.Event{
					Time: b.clock.Now(), Action: tt.action, Org: org, User: tt.user, KeyID: k.ID,
					Actor: audit.Actor{ID: "olga", Role: "owner", Credential: policy.JWT, Addr: addr("192.0.2.9"), UserAgent: "browser"},
				}
				if tt.host {
					want.Actor = audit.Actor{Role: "operator"}
				}
				if tt.org == "-" {
					want.Org = ""
				}
				newest, err := b.List(t.Context(), store.Query{Org: org})
				require.NoError(t, err)
				for _, c := range tt.changes {
					if c.After == "KEY" {
						c.After = other(newest, k).ID
					}
					want.Changes = append(want.Changes, c)
				}
				switch {
				case tt.action == audit.KeyCreate:
					want.KeyID = other(newest, k).ID
				case !strings.HasPrefix(tt.action, "key."):
					want.KeyID = ""
				}

				require.NotEmpty(t, events)
				want.ID = events[0].ID
				require.Len(t, want.ID, 26, "130 bits")
				var phases []audit.Event
				if required {
					intent := want
					intent.Phase = audit.Intent
					if tt.action == audit.KeysPurge {
						intent.Changes = intent.Changes[:1] // nobody knows how many
					}
					phases = append(phases, intent)
				}
				want.Phase, want.Outcome = audit.Outcome, audit.Success
				require.Equal(t, append(phases, want), events)
				require.Empty(t, s.reported)
			})
		}
	}
}

// other returns the key of ks that is not k.
func other(ks []*store.Key, k *store.Key) *store.Key {
	i := slices.IndexFunc(ks, func(o *store.Key) bool { return o.ID != k.ID })
	if i < 0 {
		return k
	}
	return ks[i]
}

// Acts that are refused are told once as well, by whomever, with a code for
// programs; there is nothing to announce.
func TestRefusalsAreAudited(t *testing.T) {
	t.Parallel()
	create := func(p keys.CreateParams) func(context.Context, *bundle, *store.Key) error {
		return func(ctx context.Context, b *bundle, _ *store.Key) error {
			_, _, err := b.Create(ctx, p)
			return err
		}
	}
	nobody := keys.Ref{Org: org, ID: "csk_live_00000000"}
	for _, tt := range []struct {
		name    string
		prepare func(b *bundle, k *store.Key)
		call    func(ctx context.Context, b *bundle, k *store.Key) error
		action  string
		reason  string
	}{
		{"Create, bad name", nil, create(keys.CreateParams{Org: org, User: "ada"}), "key.create", "validation_error"},
		{"Create, unknown user", nil, create(params("nobody")), "key.create", "not_found"},
		{"Create, suspended user", func(b *bundle, _ *store.Key) { b.put(store.User{ID: "ada", SuspendedAt: start}) }, create(params("ada")), "key.create", "user_suspended"},
		{"Create, not permitted (S25)", func(b *bundle, _ *store.Key) {
			b.set(func(s *policy.Settings) { s.RestrictUsers = true })
		}, create(params("ada")), "key.create", "user_not_permitted"},
		{"Create, tier (S54)", func(b *bundle, _ *store.Key) { b.put(store.User{ID: "ada", Tier: "Free"}) }, create(params("ada")), "key.create", "tier_not_allowed"},
		{"Update, bad limit", nil, func(ctx context.Context, b *bundle, k *store.Key) error {
			_, err := b.Update(ctx, keys.UpdateParams{Ref: ref(k), DailyLimit: new(int64(-2))})
			return err
		}, "key.update", "validation_error"},
		{"Update, another version", nil, func(ctx context.Context, b *bundle, k *store.Key) error {
			_, err := b.Update(ctx, keys.UpdateParams{Ref: ref(k), Version: 9, Name: new("new")})
			return err
		}, "key.update", "conflict"},
		{"Update, unknown key", nil, func(ctx context.Context, b *bundle, _ *store.Key) error {
			_, err := b.Update(ctx, keys.UpdateParams{Ref: nobody, Name: new("new")})
			return err
		}, "key.update", "not_found"},
		{"Rotate, too long a grace", nil, func(ctx context.Context, b *bundle, k *store.Key) error {
			_, _, err := b.Rotate(ctx, keys.RotateParams{Ref: ref(k), Grace: -1})
			return err
		}, "key.rotate", "validation_error"},
		{"Rotate, disabled (D39)", func(b *bundle, k *store.Key) {
			_, err := b.Disable(b.t.Context(), owner, ref(k))
			require.NoError(b.t, err)
		}, func(ctx context.Context, b *bundle, k *store.Key) error {
			_, _, err := b.Rotate(ctx, keys.RotateParams{Ref: ref(k)})
			return err
		}, "key.rotate", "not_active"},
		{"Disable, no owner", nil, func(ctx context.Context, b *bundle, k *store.Key) error {
			_, err := b.Disable(ctx, plain, ref(k))
			return err
		}, "key.disable", "forbidden"},
		{"Enable, no owner", nil, func(ctx context.Context, b *bundle, k *store.Key) error {
			_, err := b.Enable(ctx, plain, ref(k))
			return err
		}, "key.enable", "forbidden"},
		{"Revoke, unknown key", nil, func(ctx context.Context, b *bundle, _ *store.Key) error {
			return b.Revoke(ctx, plain, nobody)
		}, "key.revoke", "not_found"},
		{"PutUser, bad", nil, func(ctx context.Context, b *bundle, _ *store.Key) error {
			return b.PutUser(ctx, &store.User{Org: org})
		}, "user.put", "validation_error"},
		{"SetPermitted, no owner (S30)", nil, func(ctx context.Context, b *bundle, _ *store.Key) error {
			return b.SetPermitted(ctx, plain, org, "ada", true)
		}, "user.permission", "forbidden"},
		{"SetPermitted, unknown user", nil, func(ctx context.Context, b *bundle, _ *store.Key) error {
			return b.SetPermitted(ctx, owner, org, "nobody", true)
		}, "user.permission", "not_found"},
		{"UpdateSettings, no owner (S22)", nil, func(ctx context.Context, b *bundle, _ *store.Key) error {
			_, err := b.UpdateSettings(ctx, plain, &policy.Settings{Org: org})
			return err
		}, "settings.update", "forbidden"},
		{"UpdateSettings, bad period", nil, func(ctx context.Context, b *bundle, _ *store.Key) error {
			_, err := b.UpdateSettings(ctx, owner, &policy.Settings{Org: org, MaxAge: -1})
			return err
		}, "settings.update", "validation_error"},
		{"Purge, negative retention", nil, func(ctx context.Context, b *bundle, _ *store.Key) error {
			_, err := b.Purge(ctx, -1)
			return err
		}, "keys.purge", "validation_error"},
	} {
		for _, required := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, required: %t", tt.name, required), func(t *testing.T) {
				t.Parallel()
				s := new(trail)
				b := setup(t, &keys.Options{Audit: s, AuditRequired: required, Tiers: []string{"Pro"}})
				_, k := b.create()
				if tt.prepare != nil {
					tt.prepare(b, k)
				}
				s.take()
				before := b.dump()
				err := tt.call(t.Context(), b, k)
				require.Error(t, err)
				require.Equal(t, before, b.dump())
				events := s.take()
				require.Len(t, events, 1)
				e := events[0]
				require.Equal(t, audit.Outcome, e.Phase)
				require.Equal(t, tt.action, e.Action)
				require.Equal(t, audit.Failure, e.Outcome)
				require.Equal(t, tt.reason, e.Reason)
				require.Equal(t, err, e.Err)
				require.Empty(t, e.Changes, "what was not checked is not told as a change")
			})
		}
	}
}

// What only the store can refuse was announced before.
func TestRefusalsOfTheStore(t *testing.T) {
	t.Parallel()
	b, s := audited(t, true)
	for range 5 {
		b.create()
	}
	s.take()
	_, _, err := b.Create(t.Context(), params("ada"))
	require.ErrorIs(t, err, store.ErrLimit)
	checkPair(t, s.take(), audit.Failure, "limit_reached")

	_, err = b.UpdateSettings(t.Context(), owner, &policy.Settings{Org: org, Version: 7})
	require.ErrorIs(t, err, store.ErrConflict)
	checkPair(t, s.take(), audit.Failure, "conflict")
}

// checkPair checks that events are the intent and the outcome of one act.
func checkPair(t *testing.T, events []audit.Event, outcome, reason string) {
	t.Helper()
	require.Len(t, events, 2)
	require.Equal(t, audit.Intent, events[0].Phase)
	require.Empty(t, events[0].Outcome)
	require.Equal(t, audit.Outcome, events[1].Phase)
	require.Equal(t, events[0].ID, events[1].ID)
	require.Equal(t, outcome, events[1].Outcome)
	require.Equal(t, reason, events[1].Reason)
}

var errTrail = fmt.Errorf("trail: disk full (%w)", store.ErrNotFound)

// failAt makes the k-th write, from 1, of the trail fail, or every one for a k of 0.
func (s *trail) failAt(k int) {
	n := 0
	s.before = func(audit.Event) error {
		if n++; k == 0 || n == k {
			return errTrail
		}
		return nil
	}
}

// A required trail that fails at its k-th write: without the intent nothing is
// done, and the caller is told; without the outcome everything is done, and the
// caller is told that it is, since it is.
func TestRequiredTrailFails(t *testing.T) {
	t.Parallel()
	for _, tt := range acts {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, at := range []int{0, 1, 2} {
				b, s := audited(t, true)
				_, k := b.create()
				if tt.prepare != nil {
					tt.prepare(b, k)
				}
				s.take()
				before := b.dump()
				s.failAt(at)
				err := tt.call(t.Context(), b, k)
				events := s.take()
				switch at {
				case 0:
					require.Len(t, s.reported, 2)
					require.Empty(t, events)
				case 1:
					require.Len(t, s.reported, 1)
					require.Len(t, events, 1)
					require.Equal(t, audit.Failure, events[0].Outcome)
					require.Equal(t, "audit_unavailable", events[0].Reason)
				case 2:
					require.NoError(t, err)
					require.NotEqual(t, before, b.dump())
					require.Equal(t, []error{errTrail}, s.reported)
					require.Len(t, events, 1)
					require.Equal(t, audit.Intent, events[0].Phase)
					continue
				}
				require.ErrorIs(t, err, keys.ErrAudit)
				require.ErrorContains(t, err, "disk full")
				require.NotErrorIs(t, err, store.ErrNotFound, "what the trail says is no answer about keys")
				require.Equal(t, before, b.dump())
				require.ErrorIs(t, s.reported[0], errTrail)
			}
		})
	}
}

// A trail that is not required stops nothing.
func TestBestEffortTrailFails(t *testing.T) {
	t.Parallel()
	for _, tt := range acts {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, report := range []bool{true, false} {
				s := new(trail)
				opts := &keys.Options{Audit: s}
				if report {
					opts.AuditFailed = s.failed
				}
				b := setup(t, opts)
				_, k := b.create()
				if tt.prepare != nil {
					tt.prepare(b, k)
				}
				before := b.dump()
				s.failAt(0)
				require.NoError(t, tt.call(t.Context(), b, k))
				require.NotEqual(t, before, b.dump())
				if report {
					require.Equal(t, []error{errTrail}, s.reported)
				}
			}
		})
	}
}

// A store that fails at its k-th call, for every k: each act has one outcome, after
// at most one intent. It is a failure as long as nothing can have been written, and
// unknown from then on.
func TestAuditOfFailures(t *testing.T) {
	t.Parallel()
	writes := []string{"InsertKey", "UpdateKey", "PutUser", "UpdateSettings", "PurgeKeys"}
	for _, tt := range acts {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for at := 1; ; at++ {
				b, s := audited(t, true)
				_, k := b.create()
				if tt.prepare != nil {
					tt.prepare(b, k)
				}
				s.take()
				n, failed := 0, ""
				b.hook.on(nil, func(op string) error {
					if n++; n == at {
						failed = op
						return errDown
					}
					return nil
				})
				err := tt.call(t.Context(), b, k)
				if failed == "" {
					require.NoError(t, err)
					require.Greater(t, at, 1)
					return
				}
				require.ErrorIs(t, err, errDown)
				events := s.take()
				last := events[len(events)-1]
				require.Equal(t, audit.Outcome, last.Phase)
				require.Equal(t, "store_unavailable", last.Reason)
				require.ErrorIs(t, last.Err, errDown)
				if slices.Contains(writes, failed) {
					checkPair(t, events, audit.Unknown, "store_unavailable")
					continue
				}
				require.Len(t, events, 1)
				require.Equal(t, audit.Failure, last.Outcome)
			}
		})
	}
}

// A caller who goes away after the act does not keep its outcome out of the trail.
func TestOutcomeOutlivesTheRequest(t *testing.T) {
	t.Parallel()
	for _, required := range []bool{false, true} {
		b, s := audited(t, required)
		_, k := b.create()
		s.take()
		ctx, cancel := context.WithCancel(t.Context())
		b.hook.on(nil, func(op string) error {
			if op == "UpdateKey" {
				cancel()
			}
			return nil
		})
		require.NoError(t, b.Revoke(ctx, plain, ref(k)))
		events := s.take()
		require.Equal(t, audit.Success, events[len(events)-1].Outcome)
		require.Empty(t, s.reported)
	}
}

// What changes nothing is not announced. A push of a user that changes nothing is
// not even told, since every sign-in is one.
func TestNothingToChange(t *testing.T) {
	t.Parallel()
	b, s := audited(t, true)
	_, k := b.create()
	_, err := b.Disable(t.Context(), owner, ref(k))
	require.NoError(t, err)
	b.permit("ada", true)
	s.take()

	b.put(store.User{ID: "ada"})
	require.Empty(t, s.take())

	_, err = b.Disable(t.Context(), owner, ref(k))
	require.NoError(t, err)
	b.permit("ada", true)
	for _, e := range s.take() {
		require.Equal(t, audit.Outcome, e.Phase)
		require.Equal(t, audit.Success, e.Outcome)
		require.Empty(t, e.Changes)
	}
}

// An act that starts over because somebody else was faster is one act still. Its
// outcome has the changes that it made.
func TestAuditOfRetries(t *testing.T) {
	t.Parallel()
	b, s := audited(t, true)
	_, k := b.create()
	s.take()
	first := true
	b.hook.on(func(op string) error {
		if op == "UpdateKey" && first {
			first = false
			o := b.stored(k.ID)
			o.Name = "of somebody else"
			require.NoError(t, b.mem.UpdateKey(t.Context(), o))
		}
		return nil
	}, nil)
	_, err := b.Update(t.Context(), keys.UpdateParams{Ref: ref(k), Name: new("mine")})
	require.NoError(t, err)
	events := s.take()
	checkPair(t, events, audit.Success, "")
	require.Equal(t, []audit.Change{{Field: "name", Before: "export", After: "mine"}}, events[0].Changes)
	require.Equal(t, []audit.Change{{Field: "name", Before: "of somebody else", After: "mine"}}, events[1].Changes)
}

// A collision of IDs is tried again (D27): the outcome names the key that was made.
func TestAuditOfCollisions(t *testing.T) {
	t.Parallel()
	b, s := audited(t, true)
	tries := 0
	b.hook.on(func(op string) error {
		if op != "InsertKey" {
			return nil
		}
		if tries++; tries < 3 {
			return store.ErrExists
		}
		return nil
	}, nil)
	_, k := b.create()
	events := s.take()
	checkPair(t, events, audit.Success, "")
	require.Equal(t, k.ID, events[1].KeyID)

	b.hook.on(func(op string) error {
		if op == "InsertKey" {
			return store.ErrExists
		}
		return nil
	}, nil)
	_, _, err := b.Create(t.Context(), params("ada"))
	require.Error(t, err)
	checkPair(t, s.take(), audit.Failure, "conflict")
}

// S13 with a trail: of 50 parallel creations each has an outcome of its own, and
// there are as many successes as keys.
func TestParallelActs(t *testing.T) {
	t.Parallel()
	b, s := audited(t, true)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { _, _, _ = b.Create(t.Context(), params("ada")) })
	}
	wg.Wait()
	ids, outcomes := make(map[string]int), make(map[string]int)
	for _, e := range s.take() {
		if e.Phase == audit.Outcome {
			ids[e.ID]++
			outcomes[e.Outcome+" "+e.Reason]++
		}
	}
	require.Len(t, ids, 50)
	require.Equal(t, map[string]int{"success ": 5, "failure limit_reached": 45}, outcomes)
}

// S16, S71: no token, no more than its public prefix, and no digest is in any
// event, whatever becomes of the act, and also not where a caller takes a token for
// an ID (D28).
func TestTrailHasNoSecrets(t *testing.T) {
	t.Parallel()
	for _, format := range []*token.Format{nil, {Prefix: "acme_", Peppers: [][]byte{bytes.Repeat([]byte("p"), 32)}}} {
		var lines bytes.Buffer
		json := audit.NewJSON(&lines)
		b := setup(t, &keys.Options{Format: format, Audit: json, AuditRequired: true})
		var secrets []string
		note := func(secret string, k *store.Key) {
			secrets = append(secrets, secret[len(k.ID):], secret[len(k.ID):len(k.ID)+9],
				hex.EncodeToString(k.Digest[:]), base64.StdEncoding.EncodeToString(k.Digest[:]),
				fmt.Sprint(k.Digest[:]), fmt.Sprintf("%q", k.Digest[:]))
		}
		for _, tt := range acts {
			secret, k := b.create()
			note(secret, k)
			if tt.prepare != nil && !strings.HasPrefix(tt.name, "UpdateSettings") {
				tt.prepare(b, k)
			}
			_ = tt.call(t.Context(), b, k)
			for _, id := range []string{secret, secret[:len(secret)-1], secret + "0", " " + secret} {
				r := keys.Ref{Org: org, User: "ada", ID: id}
				require.Error(t, b.Revoke(t.Context(), plain, r))
				_, err := b.Disable(t.Context(), owner, r)
				require.Error(t, err)
				_, err = b.Update(t.Context(), keys.UpdateParams{Ref: r, Name: new("x")})
				require.Error(t, err)
				_, _, err = b.Rotate(t.Context(), keys.RotateParams{Ref: r})
				require.Error(t, err)
			}
			b.put(store.User{ID: "ada"})
			ks, err := b.List(t.Context(), store.Query{Org: org})
			require.NoError(t, err)
			for _, k := range ks {
				require.NoError(t, b.Revoke(t.Context(), plain, ref(k)))
			}
			if s, err := b.Settings(t.Context(), org); err == nil && s.RestrictUsers {
				b.set(func(s *policy.Settings) { s.RestrictUsers = false })
			}
		}
		text := lines.String()
		require.Contains(t, text, `"key.rotate"`)
		require.Greater(t, strings.Count(text, "\n"), 100)
		for _, secret := range secrets {
			require.NotContains(t, text, secret)
		}
	}
}

// AuditRequired without a trail would refuse nothing, or everything: it is a
// mistake.
func TestRequiredNeedsATrail(t *testing.T) {
	t.Parallel()
	_, err := keys.New(nil, &keys.Options{AuditRequired: true})
	require.Subset(t, fieldsOf(err), []string{"AuditRequired"})
}

func fieldsOf(err error) (names []string) {
	for _, e := range flatten(err) {
		if fe, ok := errors.AsType[*keys.FieldError](e); ok {
			names = append(names, fe.Field)
		}
	}
	return names
}

// The text of a Role is part of the trail, so it is stable.
func TestRoles(t *testing.T) {
	t.Parallel()
	for role, want := range map[keys.Role]string{
		keys.PlainUser: "user", keys.Owner: "owner", keys.Operator: "operator", 9: "role(9)",
	} {
		require.Equal(t, want, role.String())
	}
}

// TestTrailMasksTokens: S16: a token that somebody put where a name or an ID belongs
// is cut down to its prefix in the trail, and a JWT is cut out.
func TestTrailMasksTokens(t *testing.T) {
	t.Parallel()
	var lines bytes.Buffer
	mgr, err := keys.New(memstore.New(), &keys.Options{Audit: audit.NewJSON(&lines)})
	require.NoError(t, err)
	require.NoError(t, mgr.PutUser(t.Context(), &store.User{Org: "acme", ID: "u"}))
	secret := token.Generate().Reveal()
	actor := keys.Actor{ID: "u", Role: keys.Owner, UserAgent: "curl " + secret}
	require.Error(t, mgr.SetPermitted(t.Context(), actor, "acme", secret, true))
	_, _, err = mgr.Create(t.Context(), keys.CreateParams{Actor: actor, Org: "acme", User: "u", Name: "old " + secret})
	require.NoError(t, err)
	require.Contains(t, lines.String(), secret[:17]+"…")
	require.NotContains(t, lines.String(), secret[17:])

	lines.Reset()
	jwt := "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"
	actor = keys.Actor{ID: jwt, Role: keys.Owner, UserAgent: "curl " + jwt}
	mgr.Refused(t.Context(), audit.KeyUpdate, actor, keys.Ref{Org: jwt, User: jwt, ID: jwt}, keys.ErrForbidden)
	_, _, err = mgr.Create(t.Context(), keys.CreateParams{Actor: actor, Org: "acme", User: "u", Name: "old " + jwt})
	require.NoError(t, err)
	require.Contains(t, lines.String(), "curl …")
	require.Contains(t, lines.String(), "old …")
	require.NotContains(t, lines.String(), "eyJzdWIiOiJhZGEifQ")
	require.NotContains(t, lines.String(), "c2lnbmF0dXJl")
}
