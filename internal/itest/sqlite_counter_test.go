package itest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// TestSQLiteCountsAreBounded shows that nothing is kept for ever: of a key, the
// eight windows that were made last; of a family, nothing once its last key was
// purged (D37), and of a key's uses, nothing once that key was. A family of which a key is left keeps its count, since a rotated
// key must not begin anew (D39).
func TestSQLiteCountsAreBounded(t *testing.T) {
	t.Parallel()
	db := openFile(t, newFile(t))
	s := newStore(t, db, nil)
	rowsOf := func(table string) (n int) {
		t.Helper()
		require.NoError(t, db.QueryRow("SELECT count(*) FROM "+table).Scan(&n))
		return n
	}
	rows := func() int { t.Helper(); return rowsOf("keystile_counts") }
	uses := func() int { t.Helper(); return rowsOf("keystile_uses") }
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	var keys []*store.Key
	for range 4 {
		k := testKey("u1", token.Generate())
		require.NoError(t, s.InsertKey(t.Context(), k, nil, -1))
		k.Version = 1
		keys = append(keys, k)
		require.NoError(t, s.RecordUses(t.Context(), []store.Use{{KeyID: k.ID, First: testDay, Last: testDay, Count: 1}}))
	}
	left := keys[0]
	for _, k := range keys {
		for day := range 20 {
			_, ok, err := s.Add(t.Context(), k.Family, testDay.AddDate(0, 0, day), 1, 250)
			require.NoError(t, err)
			require.True(t, ok)
		}
	}
	require.Equal(t, 4*8, rows())
	require.Equal(t, 4, uses())

	// The first is rotated, and the others are revoked.
	left.RevokedAt = testDay
	next := testKey("u1", token.Generate())
	next.Family = left.Family
	require.NoError(t, s.InsertKey(t.Context(), next, left, -1))
	require.NoError(t, s.RecordUses(t.Context(), []store.Use{{KeyID: next.ID, First: testDay, Last: testDay, Count: 1}}))
	for _, k := range keys[1:] {
		k.RevokedAt = testDay
		require.NoError(t, s.UpdateKey(t.Context(), k))
	}
	n, err := s.PurgeKeys(t.Context(), testDay)
	require.NoError(t, err)
	require.Zero(t, n, "they are revoked at that time and not before it")
	require.Equal(t, 4*8, rows())

	n, err = s.PurgeKeys(t.Context(), testDay.AddDate(0, 0, 1))
	require.NoError(t, err)
	require.Equal(t, 4, n)
	require.Equal(t, 8, rows(), "those of the rotated family")
	require.Equal(t, 1, uses(), "those of the key that is left")
	count, _, err := s.Add(t.Context(), next.Family, testDay.AddDate(0, 0, 19), 0, 250)
	require.NoError(t, err)
	require.EqualValues(t, 1, count)

	next.Version, next.RevokedAt = 1, testDay
	require.NoError(t, s.UpdateKey(t.Context(), next))
	_, err = s.PurgeKeys(t.Context(), testDay.AddDate(0, 0, 1))
	require.NoError(t, err)
	require.Zero(t, rows())
	require.Zero(t, uses())
}

// TestSQLiteChangesAreBounded shows that the feed keeps its last 10 000 changes.
func TestSQLiteChangesAreBounded(t *testing.T) {
	t.Parallel()
	db := openFile(t, newFile(t))
	s := newStore(t, db, nil)
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	// As if many had been made before.
	mustExec(t, db, "UPDATE keystile_sequence SET last_seq = 30000")
	mustExec(t, db, `INSERT INTO keystile_changes
		WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) SELECT i, 3, zeroblob(32), '', '' FROM n`)
	require.NoError(t, s.PutUser(t.Context(), testUser(2)))
	var n, first int
	require.NoError(t, db.QueryRow("SELECT count(*), min(seq) FROM keystile_changes").Scan(&n, &first))
	require.Equal(t, 10_000, n)
	require.Equal(t, 20_002, first)

	changes, last, err := s.Changes(t.Context(), 20_001)
	require.NoError(t, err)
	require.Len(t, changes, 1000)
	require.EqualValues(t, 21_001, last)
	changes, last, err = s.Changes(t.Context(), 20_000)
	require.NoError(t, err)
	require.Equal(t, []store.Change{{Kind: store.ChangedAll}}, changes)
	require.EqualValues(t, 30_001, last)
}
