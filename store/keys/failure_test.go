package keys_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/token"
)

// Every method, as a call that succeeds, with what it gives back.
var methods = []struct {
	name string
	call func(ctx context.Context, b *bundle, k *store.Key) (any, error)
}{
	{"Create", func(ctx context.Context, b *bundle, _ *store.Key) (any, error) {
		t, k, err := b.Create(ctx, params("bob"))
		return []any{t, k}, err
	}},
	{"Get", func(ctx context.Context, b *bundle, k *store.Key) (any, error) { return b.Get(ctx, ref(k)) }},
	{"List", func(ctx context.Context, b *bundle, _ *store.Key) (any, error) {
		return b.List(ctx, store.Query{Org: org})
	}},
	{"Update", func(ctx context.Context, b *bundle, k *store.Key) (any, error) {
		return b.Update(ctx, keys.UpdateParams{Ref: ref(k), Name: new("renamed"), DailyLimit: new(int64(7))})
	}},
	{"Disable", func(ctx context.Context, b *bundle, k *store.Key) (any, error) { return b.Disable(ctx, owner, ref(k)) }},
	{"Enable", func(ctx context.Context, b *bundle, k *store.Key) (any, error) {
		if _, err := b.Disable(ctx, owner, ref(k)); err != nil {
			return nil, err
		}
		return b.Enable(ctx, owner, ref(k))
	}},
	{"Revoke", func(ctx context.Context, b *bundle, k *store.Key) (any, error) {
		return nil, b.Revoke(ctx, plain, ref(k))
	}},
	{"Rotate", func(ctx context.Context, b *bundle, k *store.Key) (any, error) {
		t, k, err := b.Rotate(ctx, keys.RotateParams{Ref: ref(k), Grace: time.Hour})
		return []any{t, k}, err
	}},
	{"Table", func(ctx context.Context, b *bundle, _ *store.Key) (any, error) {
		rows, _, err := b.Table(ctx, keys.TableQuery{Org: org})
		return rows, err
	}},
	{"Row", func(ctx context.Context, b *bundle, k *store.Key) (any, error) { return b.Row(ctx, ref(k)) }},
	{"Places", func(ctx context.Context, b *bundle, _ *store.Key) (any, error) { return b.Places(ctx, org, "ada") }},
	{"Allowance", func(ctx context.Context, b *bundle, _ *store.Key) (any, error) {
		return b.Allowance(ctx, plain, org, "ada")
	}},
	{"Days", func(ctx context.Context, b *bundle, k *store.Key) (any, error) {
		_, days, err := b.Days(ctx, ref(k))
		return days, err
	}},
	{"Explain", func(ctx context.Context, b *bundle, k *store.Key) (any, error) {
		return b.Explain(ctx, ref(k), addr("192.0.2.1"))
	}},
	{"Preview", func(ctx context.Context, b *bundle, _ *store.Key) (any, error) {
		return b.Preview(ctx, &policy.Settings{Org: org, RestrictUsers: true}, day)
	}},
	{"PutUser of a new user", func(ctx context.Context, b *bundle, _ *store.Key) (any, error) {
		return nil, b.PutUser(ctx, &store.User{Org: org, ID: "carol"})
	}},
	{"PutUser of a known user", func(ctx context.Context, b *bundle, _ *store.Key) (any, error) {
		return nil, b.PutUser(ctx, &store.User{Org: org, ID: "ada", Tier: "Team"})
	}},
	{"SetPermitted", func(ctx context.Context, b *bundle, _ *store.Key) (any, error) {
		return nil, b.SetPermitted(ctx, owner, org, "ada", true)
	}},
	{"User", func(ctx context.Context, b *bundle, _ *store.Key) (any, error) { return b.User(ctx, org, "ada") }},
	{"Users", func(ctx context.Context, b *bundle, _ *store.Key) (any, error) {
		return b.Users(ctx, store.UserQuery{Org: org})
	}},
	{"Settings", func(ctx context.Context, b *bundle, _ *store.Key) (any, error) { return b.Settings(ctx, org) }},
	{"UpdateSettings", func(ctx context.Context, b *bundle, _ *store.Key) (any, error) {
		return b.UpdateSettings(ctx, owner, &policy.Settings{Org: org, RestrictUsers: true})
	}},
	{"Purge", func(ctx context.Context, b *bundle, k *store.Key) (any, error) {
		if err := b.Revoke(ctx, plain, ref(k)); err != nil {
			return nil, err
		}
		b.clock.Add(time.Second)
		return b.Purge(ctx, 0)
	}},
}

// longSecret is any part of a token that is longer than its ID.
var longSecret = regexp.MustCompile(`csk_live_[0-9a-f]{9}`)

// A store that fails at its k-th call, for every k, before it did anything or after
// it did everything: the error says so, no token is given out, nothing is half
// written, no error has a secret, and the Manager goes on working.
func TestFailureAtEveryCall(t *testing.T) {
	t.Parallel()
	for _, m := range methods {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			var ops []string // the calls of a success
			b := setup(t, nil)
			_, k := b.create()
			b.hook.on(func(op string) error { ops = append(ops, op); return nil }, nil)
			_, err := m.call(t.Context(), b, k)
			require.NoError(t, err)
			require.NotEmpty(t, ops)

			for i, op := range ops {
				for _, late := range []bool{false, true} {
					b := setup(t, nil)
					secret, k := b.create()
					before := b.dump()
					n := 0
					fail := func(string) error {
						if n++; n == i+1 {
							before = b.dump() // as the call found it, if it did nothing
							return fmt.Errorf("somestore: %w", errDown)
						}
						return nil
					}
					if late {
						b.hook.on(nil, fail)
					} else {
						b.hook.on(fail, nil)
					}
					got, err := m.call(t.Context(), b, k)
					where := fmt.Sprintf("call %d, %s, late: %t", i+1, op, late)
					require.ErrorIs(t, err, errDown, where)
					require.NotErrorIs(t, err, store.ErrNotFound, where)
					require.NotRegexp(t, longSecret, err.Error(), where)
					require.NotContains(t, err.Error(), "digest", where)
					if pair, ok := got.([]any); ok {
						require.Empty(t, pair[0].(token.Token).Reveal(), where)
						require.Nil(t, pair[1], where)
					}
					require.Equal(t, before, b.dump(), "%s: nothing is written after a failure", where)

					b.hook.on(nil, nil)
					require.NotEqual(t, policy.StoreUnavailable, b.use(secret), where)
					p := params("olga")
					p.Actor = operator
					_, _, err = b.Create(t.Context(), p)
					require.NoError(t, err, where)
				}
			}
		})
	}
}

// dump is all that is stored.
func (b *bundle) dump() string {
	b.t.Helper()
	ctx := b.t.Context()
	ks, err := b.mem.Keys(ctx, store.Query{Revoked: true, Limit: 1000})
	require.NoError(b.t, err)
	us, err := b.mem.Users(ctx, store.UserQuery{Org: org, Limit: 1000})
	require.NoError(b.t, err)
	s, err := b.mem.Settings(ctx, org)
	require.NoError(b.t, err)
	text, err := json.Marshal([]any{ks, us, s})
	require.NoError(b.t, err)
	return string(text)
}

// An ended context is an error that says so, and writes nothing.
func TestEndedContext(t *testing.T) {
	t.Parallel()
	for _, m := range methods {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			_, k := b.create()
			before := b.dump()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := m.call(ctx, b, k)
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, before, b.dump())
		})
	}
}

// S16, S57: the secret is shown once, by Reveal, and nowhere else: not in anything
// that a method returns, however it is printed, logged or marshaled, nor in what is
// stored.
func TestSecretIsNowhere(t *testing.T) {
	t.Parallel()
	for _, m := range methods {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			secret, k := b.create()
			got, err := m.call(t.Context(), b, k)
			require.NoError(t, err)

			var out bytes.Buffer
			for _, v := range []any{got, struct{ held any }{got}, b.dump(), k} {
				fmt.Fprintf(&out, "%v %+v %#v %s\n", v, v, v, v)
				slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
				slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
				text, err := json.Marshal(v)
				require.NoError(t, err)
				out.Write(text)
			}
			require.NotContains(t, out.String(), secret)
			require.NotRegexp(t, longSecret, out.String())
		})
	}
}

// D28, S75: no error repeats a secret that was given in the place of something
// else.
func TestErrorsDoNotRepeatSecrets(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	secret, k := b.create()
	bad := secret + "\x00"
	_, _, createErr := b.Create(ctx, keys.CreateParams{Org: secret, User: secret, Name: bad, Scopes: []string{bad, bad}})
	_, _, userErr := b.Create(ctx, keys.CreateParams{Org: secret, User: secret, Name: secret})
	_, updateErr := b.Update(ctx, keys.UpdateParams{Ref: ref(k), Name: &bad})
	_, listErr := b.List(ctx, store.Query{Org: bad})
	_, getErr := b.Get(ctx, keys.Ref{Org: org, User: secret, ID: bad})
	_, settingsErr := b.Settings(ctx, bad)
	_, updateSettingsErr := b.UpdateSettings(ctx, owner, &policy.Settings{Org: bad})
	for i, err := range []error{
		createErr, userErr, updateErr, listErr, getErr, settingsErr, updateSettingsErr,
		b.PutUser(ctx, &store.User{Org: bad, ID: bad, Email: bad, Tier: bad}),
		b.SetPermitted(ctx, owner, secret, secret, true),
		b.Revoke(ctx, plain, keys.Ref{Org: secret, ID: secret}),
	} {
		require.Error(t, err, i)
		require.NotContains(t, err.Error(), "csk_live_", i)
	}
}
