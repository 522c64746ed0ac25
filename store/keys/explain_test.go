package keys_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// rules are all rules, in the order of S72.
var rules = []keys.Rule{
	keys.RuleKnown, keys.RuleRevoked, keys.RuleSuspended, keys.RuleEnabled,
	keys.RulePermitted, keys.RuleExpiry, keys.RuleAddress, keys.RuleQuota,
}

// S72: each rule by itself, in the order in which requests are judged, whatever
// the others say; the first refusal is what a request is told.
func TestExplain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		prepare func(b *bundle, k *store.Key)
		want    map[keys.Rule]policy.Reason // those that refuse
		told    policy.Reason
	}{
		{"active", func(*bundle, *store.Key) {}, nil, admitted},
		{"revoked", func(b *bundle, k *store.Key) {
			require.NoError(b.t, b.Revoke(b.t.Context(), owner, ref(k)))
		}, map[keys.Rule]policy.Reason{keys.RuleRevoked: policy.InvalidToken}, policy.InvalidToken},
		{"suspended", func(b *bundle, _ *store.Key) {
			b.put(store.User{ID: "ada", SuspendedAt: start})
		}, map[keys.Rule]policy.Reason{keys.RuleSuspended: policy.InvalidToken}, policy.InvalidToken},
		{"expired, but for the period only", func(b *bundle, _ *store.Key) {
			b.set(func(s *policy.Settings) { s.MaxAge = day })
			b.clock.Add(day)
		}, map[keys.Rule]policy.Reason{keys.RuleExpiry: policy.Expired}, policy.Expired},
		{"elsewhere", func(b *bundle, _ *store.Key) {
			b.set(func(s *policy.Settings) { s.AllowedIPs = list(b.t, "198.51.100.0/24") })
		}, map[keys.Rule]policy.Reason{keys.RuleAddress: policy.AddressNotAllowed}, policy.AddressNotAllowed},
		{"all of the settings, and disabled", func(b *bundle, k *store.Key) {
			_, err := b.Disable(b.t.Context(), owner, ref(k))
			require.NoError(b.t, err)
			b.set(func(s *policy.Settings) {
				s.MaxAge, s.RestrictUsers, s.AllowedIPs = time.Second, true, list(b.t, "# nobody")
			})
			b.clock.Add(time.Second)
		}, map[keys.Rule]policy.Reason{
			keys.RuleEnabled: policy.KeyDisabled, keys.RulePermitted: policy.UserNotPermitted,
			keys.RuleExpiry: policy.Expired, keys.RuleAddress: policy.AddressNotAllowed,
		}, policy.KeyDisabled},
		{"without a grant", func(b *bundle, _ *store.Key) {
			b.set(func(s *policy.Settings) { s.RestrictUsers, s.MaxAge = true, time.Second })
			b.clock.Add(time.Second)
		}, map[keys.Rule]policy.Reason{keys.RulePermitted: policy.UserNotPermitted, keys.RuleExpiry: policy.Expired}, policy.UserNotPermitted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			_, k := b.create()
			tt.prepare(b, k)
			e, err := b.Explain(t.Context(), ref(k), addr("192.0.2.1"))
			require.NoError(t, err)
			var want []keys.Verdict
			for _, rule := range rules[:7] {
				why := tt.want[rule]
				want = append(want, keys.Verdict{Rule: rule, Decision: policy.Decision{Allow: why == "", Reason: why}})
			}
			require.Equal(t, want, e.Verdicts, "and none of a quota without a limiter")
			require.Equal(t, policy.Decision{Allow: tt.told == admitted, Reason: tt.told}, e.Decision)
			require.Equal(t, b.stored(k.ID), e.Key)
			require.Equal(t, b.status(k), e.Status)
			require.Equal(t, "ada", e.User.ID)
			require.Equal(t, org, e.Settings.Org)
			require.Equal(t, addr("192.0.2.1"), e.Addr)
			require.Equal(t, b.clock.Now(), e.Time)
			require.Zero(t, e.Quota)
		})
	}
}

// An address that is not known is in no list (D18).
func TestExplainUnknownAddress(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, k := b.create()
	e, err := b.Explain(t.Context(), ref(k), netip.Addr{})
	require.NoError(t, err)
	require.True(t, e.Decision.Allow)
	b.set(func(s *policy.Settings) { s.AllowedIPs = list(t, "0.0.0.0/0\n::/0") })
	e, err = b.Explain(t.Context(), ref(k), netip.Addr{})
	require.NoError(t, err)
	require.Equal(t, policy.AddressNotAllowed, e.Decision.Reason)
}

// D27, D28: a key is found within the Ref only, and by its ID only.
func TestExplainUnknownKey(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	secret, k := b.create()
	for _, r := range []keys.Ref{
		{}, {Org: org}, {Org: "other", ID: k.ID}, {Org: org, User: "bob", ID: k.ID}, {Org: org, ID: secret}, {Org: org, ID: k.ID[:16]},
	} {
		_, err := b.Explain(t.Context(), r, addr("192.0.2.1"))
		require.ErrorIs(t, err, store.ErrNotFound)
		require.NotRegexp(t, longSecret, err.Error())
	}
}

// S61, D5: how the quota stands, of the family of keys, without spending any of it.
func TestExplainQuota(t *testing.T) {
	t.Parallel()
	now := start
	mem := ratelimit.NewMemory()
	limiter := ratelimit.NewDaily(mem, &ratelimit.DailyOptions{Now: func() time.Time { return now }})
	b := setup(t, &keys.Options{Limiter: limiter})
	p := params("ada")
	p.DailyLimit = 3
	_, old, err := b.Create(t.Context(), p)
	require.NoError(t, err)
	_, k, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(old), Grace: time.Hour})
	require.NoError(t, err)
	for used := range int64(4) {
		for range 5 {
			e, err := b.Explain(t.Context(), ref(k), addr("192.0.2.1"))
			require.NoError(t, err)
			require.Equal(t, used, e.Quota.Used, "spending nothing")
			require.Equal(t, int64(3), e.Quota.Limit)
			want := policy.Decision{Allow: true}
			if used == 3 {
				want = policy.Decision{Reason: policy.DailyLimit}
				require.Equal(t, 12*time.Hour, e.Quota.RetryAfter)
			}
			require.Equal(t, keys.Verdict{Rule: keys.RuleQuota, Decision: want}, e.Verdicts[7])
			require.Equal(t, want, e.Decision)
			require.Equal(t, keys.Active, e.Status.State, "a quota is no state of a key")
		}
		if _, err := limiter.Take(t.Context(), old.Family, 3); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(12 * time.Hour)
	e, err := b.Explain(t.Context(), ref(k), addr("192.0.2.1"))
	require.NoError(t, err)
	require.True(t, e.Decision.Allow, "the next day")
}

// A limiter that refuses for a while, or gives no answer, is told apart from a
// spent day.
func TestExplainOtherLimiters(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		limiter fixed
		want    policy.Reason
	}{
		{"daily", fixed{r: ratelimit.Result{Name: ratelimit.DailyName}}, policy.DailyLimit},
		{"burst", fixed{r: ratelimit.Result{Name: ratelimit.BurstName, Limit: 5}}, policy.BurstLimit},
		{"of the host", fixed{r: ratelimit.Result{Name: "minute"}}, policy.BurstLimit},
		{"down", fixed{r: ratelimit.Result{OK: true}, err: errDown}, policy.StoreUnavailable},
		{"zero", fixed{}, policy.BurstLimit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, &keys.Options{Limiter: tt.limiter})
			_, k := b.create()
			e, err := b.Explain(t.Context(), ref(k), addr("192.0.2.1"))
			require.NoError(t, err)
			require.Equal(t, policy.Decision{Reason: tt.want}, e.Decision)
			require.ErrorIs(t, e.Err, tt.limiter.err)
			if tt.limiter.err != nil {
				require.Zero(t, e.Quota)
			}
		})
	}
}

// A fixed Limiter always says the same and must not be spent from.
type fixed struct {
	r   ratelimit.Result
	err error
}

func (fixed) Take(context.Context, string, int64) (ratelimit.Result, error) {
	panic("Explain spends")
}

func (f fixed) Peek(context.Context, string, int64) (ratelimit.Result, error) { return f.r, f.err }

// Over random organizations, every key of every kind from every address, Explain
// says what a request is told by a Guard over the same Manager and limiter.
func TestExplainIsWhatAGuardSays(t *testing.T) {
	t.Parallel()
	seen := make(map[policy.Reason]int)
	for seed := range uint64(60) {
		w := newWorld(t, 1000+seed)
		limiter := ratelimit.NewDaily(ratelimit.NewMemory(), &ratelimit.DailyOptions{Limit: 4, Now: w.clock.Now})
		explainer, err := keys.New(w.hook, &keys.Options{Limiter: limiter, Now: w.clock.Now})
		require.NoError(t, err)
		var from netip.Addr
		guard, err := middleware.New(w.Verifier(), &middleware.Options{
			Limiter: limiter, Now: w.clock.Now, ClientIP: func(*http.Request) netip.Addr { return from },
		})
		require.NoError(t, err)
		for _, k := range w.keys {
			for _, from = range addrPool {
				e, err := explainer.Explain(t.Context(), keys.Ref{Org: org, ID: k.ID}, from)
				require.NoError(t, err)

				r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
				r.Header.Set("Authorization", "Bearer "+w.secrets[k.ID])
				_, quota, err := guard.Admit(r)
				var told policy.Reason
				if refusal, ok := errors.AsType[*middleware.Refusal](err); ok {
					told = refusal.Reason
				}
				require.Equal(t, told, e.Decision.Reason, "seed %d", seed)
				require.Equal(t, err == nil, e.Decision.Allow, "seed %d", seed)
				if err == nil {
					require.Equal(t, quota.Used, e.Quota.Used+1, "the request spent one, Explain none")
				}
				seen[told]++
			}
		}
	}
	for _, reason := range []policy.Reason{
		admitted, policy.InvalidToken, policy.KeyDisabled, policy.UserNotPermitted, policy.Expired, policy.AddressNotAllowed, policy.DailyLimit,
	} {
		require.Greater(t, seen[reason], 5, "%v", seen)
	}
}
