package itest

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/sqlitestore"
	"github.com/keystile/keystile/token"
)

// TestSQLiteLimitAcrossProcesses shows S61, S62 and D8: of 300 requests at once,
// 150 in each of two processes, a limit of 250 admits exactly 250.
func TestSQLiteLimitAcrossProcesses(t *testing.T) {
	t.Parallel()
	file := newFile(t)
	newStore(t, openFile(t, file), nil)
	requireLimit(t, together(t, 2, "sqlite add", file))
}

// TestSQLiteCapAcrossProcesses shows S12, S13 and F54: of 50 creations at once,
// 25 in each of two processes, a cap of 5 leaves exactly 5 keys.
func TestSQLiteCapAcrossProcesses(t *testing.T) {
	t.Parallel()
	file := newFile(t)
	s := newStore(t, openFile(t, file), nil)
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	requireCap(t, s, together(t, 2, "sqlite insert", file))
}

// TestSQLiteKill kills a process, without a warning, in the middle of creating
// keys, revoking them and counting. What it had acknowledged must be there, the
// count must be at least what was acknowledged and at most the limit, and the
// file must be sound.
func TestSQLiteKill(t *testing.T) {
	t.Parallel()
	for _, after := range []int{1, 50, 400} {
		t.Run(fmt.Sprintf("after %d writes", after), func(t *testing.T) {
			t.Parallel()
			file := newFile(t)
			s := newStore(t, openFile(t, file), nil)
			require.NoError(t, s.PutUser(t.Context(), testUser(1)))
			acknowledged := killed(t, start(t, "sqlite write", file), after)

			// As after a restart: with connections that have not seen the file before.
			db := openFile(t, file)
			s, err := sqlitestore.New(db, nil)
			require.NoError(t, err)
			require.NoError(t, s.Validate(t.Context()))
			var verdict string
			require.NoError(t, db.QueryRow("PRAGMA integrity_check").Scan(&verdict))
			require.Equal(t, "ok", verdict)
			requireKept(t, s, acknowledged)
			require.NoError(t, s.InsertKey(t.Context(), testKey("u1", token.Generate()), nil, -1), "it can be written on")
		})
	}
}

// TestQuickstartNodes has two processes of examples/quickstart on one file: a key that
// is made in a third works in both at once, and is soon refused by both when that one
// revokes it (S19, S46).
func TestQuickstartNodes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	nodes := []*quickstart{startQuickstart(t, dir), startQuickstart(t, dir)}
	s, err := sqlitestore.New(openFile(t, filepath.Join(dir, "keystile-quickstart.db")), nil)
	require.NoError(t, err)
	mgr, err := keys.New(s, nil)
	require.NoError(t, err)
	// Without a feed a cache would ask again after 5 seconds, and not before. A busy
	// machine is slow at times, so one revocation of five has to be known well below that.
	soon := false
	for try := 0; try < 5 && !soon; try++ {
		secret, k, err := mgr.Create(t.Context(), keys.CreateParams{Org: "demo", User: "demo-user", Name: "elsewhere"})
		require.NoError(t, err)
		for _, q := range nodes {
			status, _ := q.get("/v1/ping", secret.Reveal())
			require.Equal(t, 200, status)
		}
		require.NoError(t, mgr.Revoke(t.Context(), keys.Actor{}, keys.Ref{Org: k.Org, User: k.User, ID: k.ID}))
		began := time.Now()
		for _, q := range nodes {
			for status := 200; status != 401; status, _ = q.get("/v1/usage", secret.Reveal()) {
				require.Less(t, time.Since(began), tooLong, "the key still works")
			}
		}
		took := time.Since(began)
		t.Logf("refused by both after %v", took.Round(time.Millisecond))
		soon = took < 3*time.Second
	}
	require.True(t, soon, "no revocation was known before what is cached has to be asked for again")
	for _, q := range nodes {
		require.Zero(t, q.stop())
	}
}
