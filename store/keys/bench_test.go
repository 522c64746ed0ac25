package keys_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// big returns a Manager over an organization of 10 000 keys of 2 000 users, each
// used from one address.
func big(tb testing.TB) *keys.Manager {
	tb.Helper()
	mem := memstore.New()
	now := start
	mgr, err := keys.New(mem, &keys.Options{Uses: mem, Now: func() time.Time { return now }})
	require.NoError(tb, err)
	ctx := tb.Context()
	for i := range 2000 {
		user := fmt.Sprintf("u%04d", i)
		require.NoError(tb, mgr.PutUser(ctx, &store.User{Org: org, ID: user, Email: user + "@acme.example"}))
		for range 5 {
			now = now.Add(time.Second)
			_, k, err := mgr.Create(ctx, params(user))
			require.NoError(tb, err)
			require.NoError(tb, mem.RecordUses(ctx, []store.Use{{
				KeyID: k.ID, Addr: addr("192.0.2.1"), First: now, Last: now, Count: 1,
			}}))
		}
	}
	return mgr
}

// The table of an organization with 10 000 keys: one page, and what it costs to
// look for what is not there.
func BenchmarkTable(b *testing.B) {
	mgr := big(b)
	for _, bb := range []struct {
		name string
		q    keys.TableQuery
	}{
		{"first", keys.TableQuery{Org: org}},
		{"own", keys.TableQuery{Org: org, User: "u1000"}},
		{"active", keys.TableQuery{Org: org, State: keys.Active}},
		{"expired", keys.TableQuery{Org: org, State: keys.Expired}},
		{"creator", keys.TableQuery{Org: org, Creator: "u0001@"}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				mgr.Table(b.Context(), bb.q)
			}
		})
	}
}

// What an owner waits for before 10 000 keys are restricted.
func BenchmarkPreview(b *testing.B) {
	mgr := big(b)
	list, err := policy.ParseIPList("198.51.100.0/24")
	require.NoError(b, err)
	proposed := &policy.Settings{Org: org, RestrictUsers: true, AllowedIPs: list}
	b.ReportAllocs()
	for b.Loop() {
		mgr.Preview(b.Context(), proposed, 0)
	}
}
