package keys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/token"
)

func TestNew(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		opts *keys.Options
	}{
		{"nil options", nil},
		{"zero options", &keys.Options{}},
		{"no cap", &keys.Options{MaxPerUser: -1}},
		{"any daily limit", &keys.Options{MaxDailyLimit: -1}},
		{"tiers", &keys.Options{Tiers: []string{"Pro", "Team", "Enterprise"}}},
		{"another format", &keys.Options{Format: &token.Format{Prefix: "acme_", Peppers: [][]byte{make([]byte, 32)}}}},
		{"cache", &keys.Options{Cache: &store.CacheOptions{TTL: time.Second}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := keys.New(memstore.New(), tt.opts)
			require.NoError(t, err)
			require.NotNil(t, m.Verifier())
			require.Same(t, m.Verifier(), m.Verifier(), "a pepper has one home")
		})
	}
}

func TestNewReportsAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	pepper := []byte("short pepper")
	m, err := keys.New(nil, &keys.Options{
		Format:        &token.Format{Prefix: "BAD", Peppers: [][]byte{pepper}},
		MaxPerUser:    -2,
		MaxDailyLimit: -2,
		Tiers:         []string{"Pro", "", "a\x00b"},
		Cache:         &store.CacheOptions{TTL: time.Hour, MaxLookups: -1},
	})
	require.Nil(t, m)
	require.Error(t, err)
	for _, part := range []string{
		"Store: ", "Prefix", "Peppers", "MaxPerUser: ", "MaxDailyLimit: ", "Tiers[1]: ", "Tiers[2]: ", "TTL", "MaxLookups",
	} {
		require.ErrorContains(t, err, part)
	}
	require.NotContains(t, err.Error(), string(pepper))
}

func TestNewProblems(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		opts keys.Options
		want []string
	}{
		{"cap below none", keys.Options{MaxPerUser: -2}, []string{"MaxPerUser"}},
		{"limit below any", keys.Options{MaxDailyLimit: -2}, []string{"MaxDailyLimit"}},
		{"limit that no field can have", keys.Options{MaxDailyLimit: 1_000_000_000_000_000}, []string{"MaxDailyLimit"}},
		{"empty tier", keys.Options{Tiers: []string{""}}, []string{"Tiers[0]"}},
		{"two", keys.Options{MaxPerUser: -9, Tiers: []string{"a", ""}}, []string{"MaxPerUser", "Tiers[1]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := keys.New(memstore.New(), &tt.opts)
			require.Equal(t, tt.want, fields(err))
		})
	}
}

// The options are the caller's: New neither changes nor keeps them.
func TestNewCopiesOptions(t *testing.T) {
	t.Parallel()
	tiers, cache := []string{"Pro"}, store.CacheOptions{}
	m, err := keys.New(memstore.New(), &keys.Options{Tiers: tiers, Cache: &cache})
	require.NoError(t, err)
	require.Nil(t, cache.Now)
	tiers[0] = "Free"
	require.NoError(t, m.PutUser(t.Context(), &store.User{Org: org, ID: "ada", Tier: "Free"}))
	_, _, err = m.Create(t.Context(), params("ada"))
	require.ErrorIs(t, err, keys.ErrTier)
}
