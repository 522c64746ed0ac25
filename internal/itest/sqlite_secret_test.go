package itest

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// TestSQLiteKeepsNoSecret shows S16 and S71: no file of the database has a token,
// or the part of it that is not shown, whatever was done with its key.
func TestSQLiteKeepsNoSecret(t *testing.T) {
	t.Parallel()
	file := newFile(t)
	db := openFile(t, file)
	s := newStore(t, db, nil)
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	var tokens []token.Token
	for range 20 {
		tok := token.Generate()
		tokens = append(tokens, tok)
		k := testKey("u1", tok)
		require.NoError(t, s.InsertKey(t.Context(), k, nil, -1))
		_, err := s.Lookup(t.Context(), k.Digest)
		require.NoError(t, err)
		_, _, err = s.Add(t.Context(), k.Family, testDay, 1, 250)
		require.NoError(t, err)
		require.NoError(t, s.RecordUses(t.Context(), []store.Use{{KeyID: k.ID, UserAgent: "curl", First: testDay, Last: testDay, Count: 1}}))

		k.Version, k.RevokedAt = 1, testDay
		next := token.Generate()
		tokens = append(tokens, next)
		require.NoError(t, s.InsertKey(t.Context(), testKey("u1", next), k, -1))
	}
	_, err := s.PurgeKeys(t.Context(), testDay.AddDate(0, 0, 1))
	require.NoError(t, err)

	search := func(when string) {
		var all []byte
		for _, suffix := range []string{"", "-wal", "-shm"} {
			b, err := os.ReadFile(file + suffix)
			if suffix == "" {
				require.NoError(t, err)
			}
			all = append(all, b...)
		}
		lower := bytes.ToLower(all)
		for i, tok := range tokens {
			secret := strings.TrimPrefix(tok.Reveal(), tok.ID())
			require.Len(t, secret, 24)
			require.False(t, bytes.Contains(lower, []byte(secret)), "%s: %s is there", when, tok)
			if i%2 == 1 { // those that were not purged
				require.True(t, bytes.Contains(all, []byte(tok.ID())), "%s: the search finds what is there", when)
			}
		}
	}
	search("open")
	require.NoError(t, db.Close())
	search("closed")
}
