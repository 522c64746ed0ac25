package keys_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// S48, S49, D27, D28: the row of one key says what the table says of it; it is
// found within the Ref only, and not any more when it is revoked.
func TestRow(t *testing.T) {
	t.Parallel()
	uses := memstore.New()
	b := setup(t, &keys.Options{Uses: uses})
	ctx := t.Context()
	secret, k := b.create()
	b.set(func(s *policy.Settings) { s.MaxAge = 30 * day })

	row, err := b.Row(ctx, ref(k))
	require.NoError(t, err)
	table, _, err := b.Table(ctx, keys.TableQuery{Org: org})
	require.NoError(t, err)
	require.Equal(t, table[0], row)
	require.Equal(t, start.Add(30*day), row.Status.ExpiresAt)
	require.Equal(t, "ada@acme.example", row.User.Email)

	for _, r := range []keys.Ref{
		{}, {Org: org, ID: "csk_live_00000000"}, {Org: "other", ID: k.ID}, {Org: org, User: "bob", ID: k.ID}, {Org: org, ID: secret},
	} {
		_, err := b.Row(ctx, r)
		require.ErrorIs(t, err, store.ErrNotFound)
	}
	require.NoError(t, b.Revoke(ctx, plain, ref(k)))
	_, err = b.Row(ctx, ref(k))
	require.ErrorIs(t, err, store.ErrNotFound)
}

// S49: with what is known of its use.
func TestRowTellsUses(t *testing.T) {
	t.Parallel()
	mem := memstore.New()
	m, err := keys.New(mem, &keys.Options{Uses: mem})
	require.NoError(t, err)
	ctx := t.Context()
	require.NoError(t, m.PutUser(ctx, &store.User{Org: org, ID: "ada"}))
	_, k, err := m.Create(ctx, params("ada"))
	require.NoError(t, err)
	used := time.Now().UTC().Truncate(time.Microsecond)
	require.NoError(t, mem.RecordUses(ctx, []store.Use{{
		KeyID: k.ID, Addr: netip.MustParseAddr("192.0.2.1"), UserAgent: "curl", First: used, Last: used, Count: 1,
	}}))
	row, err := m.Row(ctx, ref(k))
	require.NoError(t, err)
	require.Equal(t, used, row.Uses.LastUsed)
	require.Len(t, row.Uses.Addrs, 1)
}

// D12: Update disables and enables in one step with what else it changes, for
// owners only.
func TestUpdateDisables(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	secret, k := b.create()
	limit := int64(1000)

	_, err := b.Update(ctx, keys.UpdateParams{Actor: plain, Ref: ref(k), Disabled: new(false)})
	require.ErrorIs(t, err, keys.ErrForbidden)

	got, err := b.Update(ctx, keys.UpdateParams{Actor: owner, Ref: ref(k), Disabled: new(true), DailyLimit: &limit})
	require.NoError(t, err)
	require.Equal(t, start, got.DisabledAt)
	require.Equal(t, limit, got.DailyLimit)
	require.Equal(t, int64(2), got.Version, "one write")
	require.Equal(t, policy.KeyDisabled, b.use(secret))

	b.clock.Add(time.Hour)
	got, err = b.Update(ctx, keys.UpdateParams{Actor: owner, Ref: ref(k), Disabled: new(true)})
	require.NoError(t, err)
	require.Equal(t, start, got.DisabledAt, "since when it is disabled stays")

	got, err = b.Update(ctx, keys.UpdateParams{Actor: owner, Ref: ref(k), Disabled: new(false)})
	require.NoError(t, err)
	require.Zero(t, got.DisabledAt)
	require.Equal(t, admitted, b.use(secret))
}
