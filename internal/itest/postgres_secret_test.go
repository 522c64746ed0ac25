package itest

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// TestPostgresKeepsNoSecret shows S16 and S71: neither a dump of the database nor
// any file of the server, its log of writes included, has a token, or the part of
// it that is not shown, whatever was done with its key.
func TestPostgresKeepsNoSecret(t *testing.T) {
	t.Parallel()
	p := postgres(t)
	began := time.Now().Add(-time.Second) // of what the clock of files can tell apart
	dsn, name := newSchema(t)
	db := openPool(t, dsn)
	s := newPostgres(t, db, nil)
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
	mustExec(t, db, "CHECKPOINT")

	dump, err := p.Program("pg_dump", "--schema="+name).Output()
	require.NoError(t, err)
	found := make([]bool, len(tokens))
	requireNone := func(where string, text []byte) {
		for i, tok := range tokens {
			secret := strings.TrimPrefix(tok.Reveal(), tok.ID())
			require.Len(t, secret, 24)
			for _, form := range []string{secret, strings.ToUpper(secret)} {
				require.False(t, bytes.Contains(text, []byte(form)), "%s: %s is there", where, tok)
			}
			found[i] = found[i] || bytes.Contains(text, []byte(tok.ID()))
		}
	}
	requireNone("dump", dump)
	for i := range tokens {
		require.Equal(t, i%2 == 1, found[i], "the dump has those keys that were not purged")
	}
	clear(found)
	require.NoError(t, filepath.WalkDir(p.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // Other tests make and drop tables meanwhile.
		}
		if info, err := d.Info(); err != nil || info.ModTime().Before(began) {
			return nil
		}
		if text, err := os.ReadFile(path); err == nil {
			requireNone(path, text)
		}
		return nil
	}))
	require.NotContains(t, found, false, "the search finds what is there")
}
