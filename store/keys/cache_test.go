package keys_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/token"
)

// longTTL keeps what was read for longer than any test lasts, so that what a test
// sees of a write is what the Manager told the cache.
var longTTL = &store.CacheOptions{TTL: 5 * time.Minute, NegativeTTL: 5 * time.Minute}

// Property 10, F46: each kind of write is seen by the next request, also a write
// that fails after it took effect.
func TestEveryWriteIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		act  func(b *bundle, k *store.Key) error
		seen func(b *bundle, secret string) bool
	}{
		{
			"Update", func(b *bundle, k *store.Key) error {
				_, err := b.Update(b.t.Context(), keys.UpdateParams{Ref: ref(k), DailyLimit: new(int64(7))})
				return err
			}, func(b *bundle, secret string) bool { return b.record(secret).Principal.DailyLimit == 7 },
		},
		{
			"Disable", func(b *bundle, k *store.Key) error {
				_, err := b.Disable(b.t.Context(), owner, ref(k))
				return err
			}, func(b *bundle, secret string) bool { return b.use(secret) == policy.KeyDisabled },
		},
		{
			"Revoke", func(b *bundle, k *store.Key) error { return b.Revoke(b.t.Context(), owner, ref(k)) },
			func(b *bundle, secret string) bool { return b.use(secret) == policy.InvalidToken },
		},
		{
			"Rotate", func(b *bundle, k *store.Key) error {
				_, _, err := b.Rotate(b.t.Context(), keys.RotateParams{Ref: ref(k)})
				return err
			}, func(b *bundle, secret string) bool { return b.use(secret) == policy.InvalidToken },
		},
		{
			"PutUser", func(b *bundle, _ *store.Key) error {
				return b.PutUser(b.t.Context(), &store.User{Org: org, ID: "ada", Email: "new@acme.example"})
			}, func(b *bundle, secret string) bool { return b.record(secret).User.Email == "new@acme.example" },
		},
		{
			"SetPermitted", func(b *bundle, _ *store.Key) error {
				return b.SetPermitted(b.t.Context(), owner, org, "ada", true)
			}, func(b *bundle, secret string) bool { return b.record(secret).Principal.Permitted },
		},
		{
			"UpdateSettings", func(b *bundle, _ *store.Key) error {
				_, err := b.UpdateSettings(b.t.Context(), owner, &policy.Settings{Org: org, RestrictUsers: true})
				return err
			}, func(b *bundle, secret string) bool { return b.use(secret) == policy.UserNotPermitted },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, &keys.Options{Cache: longTTL})
			secret, k := b.create()
			require.Equal(t, admitted, b.use(secret))
			require.False(t, tt.seen(b, secret), "the test would show nothing otherwise")
			require.NoError(t, tt.act(b, k))
			require.True(t, tt.seen(b, secret))
		})
		t.Run(tt.name+" with an unknown outcome", func(t *testing.T) {
			t.Parallel()
			b := setup(t, &keys.Options{Cache: longTTL})
			secret, k := b.create()
			require.Equal(t, admitted, b.use(secret))
			b.hook.on(nil, func(op string) error {
				if isWrite(op) {
					return errDown
				}
				return nil
			})
			require.ErrorIs(t, tt.act(b, k), errDown)
			require.True(t, tt.seen(b, secret))
		})
	}
}

func (b *bundle) record(secret string) *store.Record {
	b.t.Helper()
	v, err := b.Verifier().Verify(b.t.Context(), secret, b.clock.Now())
	require.NoError(b.t, err)
	return v.Record
}

func isWrite(op string) bool {
	switch op {
	case "InsertKey", "UpdateKey", "PurgeKeys", "PutUser", "UpdateSettings":
		return true
	}
	return false
}

// What a caller is told here of a key or user holds for the requests here, also
// where another process wrote it: that it is revoked, or disabled already, or that
// the user is as pushed.
func TestWhatIsToldHolds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		write func(b *bundle, k *store.Key) error // by another process
		ask   func(b *bundle, k *store.Key) error
		err   error
		told  policy.Reason
	}{
		{
			"Revoke of a revoked key",
			func(b *bundle, k *store.Key) error { k.RevokedAt = start; return b.mem.UpdateKey(b.t.Context(), k) },
			func(b *bundle, k *store.Key) error { return b.Revoke(b.t.Context(), plain, ref(k)) },
			store.ErrNotFound, policy.InvalidToken,
		},
		{
			"Get of a revoked key",
			func(b *bundle, k *store.Key) error { k.RevokedAt = start; return b.mem.UpdateKey(b.t.Context(), k) },
			func(b *bundle, k *store.Key) error { _, err := b.Get(b.t.Context(), ref(k)); return err },
			store.ErrNotFound, policy.InvalidToken,
		},
		{
			"Disable of a disabled key",
			func(b *bundle, k *store.Key) error { k.DisabledAt = start; return b.mem.UpdateKey(b.t.Context(), k) },
			func(b *bundle, k *store.Key) error { _, err := b.Disable(b.t.Context(), owner, ref(k)); return err },
			nil, policy.KeyDisabled,
		},
		{
			"PutUser of a suspended user",
			func(b *bundle, _ *store.Key) error {
				u, err := b.User(b.t.Context(), org, "ada")
				require.NoError(b.t, err)
				u.SuspendedAt = start
				return b.mem.PutUser(b.t.Context(), u)
			},
			func(b *bundle, _ *store.Key) error {
				u, err := b.User(b.t.Context(), org, "ada")
				require.NoError(b.t, err)
				return b.PutUser(b.t.Context(), u)
			},
			nil, policy.InvalidToken,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, &keys.Options{Cache: longTTL})
			secret, k := b.create()
			require.Equal(t, admitted, b.use(secret))
			require.NoError(t, tt.write(b, k))
			require.Equal(t, admitted, b.use(secret), "the test would show nothing otherwise")
			require.ErrorIs(t, tt.ask(b, k), tt.err)
			require.Equal(t, tt.told, b.use(secret))
		})
	}
}

// Property 10: what another process wrote is known here after the TTL, by the
// Manager's clock.
func TestOtherProcessesAreSeenAfterTheTTL(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{Cache: &store.CacheOptions{TTL: time.Minute}})
	secret, k := b.create()
	require.Equal(t, admitted, b.use(secret))
	other, err := keys.New(b.mem, &keys.Options{Now: b.clock.Now})
	require.NoError(t, err)
	require.NoError(t, other.Revoke(t.Context(), plain, ref(k)))
	b.clock.Add(time.Minute)
	require.Equal(t, admitted, b.use(secret))
	b.clock.Add(time.Microsecond)
	require.Equal(t, policy.InvalidToken, b.use(secret))
}

// The cache runs by the Manager's clock: with ServeStale it does not ask a store
// that failed again before a second of that clock has passed.
func TestCacheHasTheClock(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{Cache: &store.CacheOptions{TTL: time.Minute, ServeStale: time.Hour}})
	b.clock.Set(time.Date(2080, 3, 1, 12, 0, 0, 0, time.UTC)) // any second of it is far ahead
	secret, _ := b.create()
	require.Equal(t, admitted, b.use(secret))
	b.clock.Add(2 * time.Minute)
	var asked atomic.Int64
	b.hook.on(func(string) error { asked.Add(1); return errDown }, nil)
	for range 1000 {
		require.Equal(t, admitted, b.use(secret))
		runtime.Gosched() // to the asking, which goes on beside the requests
	}
	require.EqualValues(t, 1, asked.Load())
}

// A token that was tried before its key existed is admitted as soon as it does. Not
// parallel, since the randomness that foretells the token is the process's.
func TestNewKeyIsNotTakenForUnknown(t *testing.T) {
	b := setup(t, &keys.Options{Cache: longTTL})
	cryptotest.SetGlobalRandom(t, 1)
	foretold := token.Generate().Reveal()
	require.Equal(t, policy.InvalidToken, b.use(foretold))
	cryptotest.SetGlobalRandom(t, 1)
	secret, k := b.create()
	require.Equal(t, foretold, secret, "the test would show nothing otherwise")
	require.Equal(t, admitted, b.use(secret))

	cryptotest.SetGlobalRandom(t, 2)
	foretold = token.Generate().Reveal()
	require.Equal(t, policy.InvalidToken, b.use(foretold))
	cryptotest.SetGlobalRandom(t, 2)
	tok, _, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k)})
	require.NoError(t, err)
	require.Equal(t, foretold, tok.Reveal())
	require.Equal(t, admitted, b.use(foretold))
}

// S19, S33, property 10: after Revoke, Disable or a withdrawn grant has returned no
// request here is admitted, with the cache warm, lookups in flight and many keys.
func TestNeverAdmittedAfterwards(t *testing.T) {
	t.Parallel()
	acts := []struct {
		name string
		act  func(b *bundle, k *store.Key) error
	}{
		{"Revoke", func(b *bundle, k *store.Key) error { return b.Revoke(b.t.Context(), plain, ref(k)) }},
		{"Disable", func(b *bundle, k *store.Key) error {
			_, err := b.Disable(b.t.Context(), owner, ref(k))
			return err
		}},
		{"SetPermitted", func(b *bundle, k *store.Key) error {
			return b.SetPermitted(b.t.Context(), owner, org, k.User, false)
		}},
		{"Rotate", func(b *bundle, k *store.Key) error {
			_, _, err := b.Rotate(b.t.Context(), keys.RotateParams{Ref: ref(k)})
			return err
		}},
	}
	// A negative TTL has lookups in flight all the time; a long one keeps the cache
	// warm.
	for _, cache := range []*store.CacheOptions{longTTL, {TTL: -1}} {
		for _, a := range acts {
			t.Run(a.name, func(t *testing.T) {
				t.Parallel()
				var before, after, late atomic.Int64
				for range 10 {
					b := setup(t, &keys.Options{Cache: cache})
					b.permit("ada", true)
					b.set(func(s *policy.Settings) { s.RestrictUsers = true })
					b.hook.on(nil, func(op string) error {
						if op == "Lookup" {
							runtime.Gosched() // between the reading and the filling
						}
						return nil
					})
					secret, k := b.create()
					require.Equal(t, admitted, b.use(secret))

					var done, stop atomic.Bool
					var seen atomic.Int64
					var wg sync.WaitGroup
					for range 4 {
						wg.Go(func() {
							for !stop.Load() {
								wasDone := done.Load()
								r, err := b.tryUse(t.Context(), secret)
								if err != nil {
									continue // a failure admits nobody
								}
								switch {
								case r == admitted && wasDone:
									late.Add(1)
								case r == admitted:
									before.Add(1)
								case wasDone:
									after.Add(1)
								}
								seen.Add(1)
							}
						})
					}
					wait := func(n int64) {
						for from := seen.Load(); seen.Load() < from+n; {
							runtime.Gosched()
						}
					}
					wait(20)
					require.NoError(t, a.act(b, k))
					done.Store(true)
					wait(20)
					stop.Store(true)
					wg.Wait()
				}
				require.Zero(t, late.Load())
				require.GreaterOrEqual(t, before.Load(), int64(10*20))
				require.Positive(t, after.Load())
			})
		}
	}
}

// S76: where the store fails, so do the requests: nobody is let through, and nobody
// is told that the key is bad.
func TestStoreDown(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{Cache: &store.CacheOptions{TTL: -1}})
	secret, _ := b.create()
	b.hook.on(func(string) error { return errDown }, nil)
	r, err := b.tryUse(t.Context(), secret)
	require.ErrorIs(t, err, errDown)
	require.Equal(t, policy.StoreUnavailable, r)
	require.NotErrorIs(t, err, store.ErrNotFound)
}
