package itest

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
)

// TestConsoleSize prints how long the owner's table takes with 10 000 keys of 2 000
// people on SQLite: the API's answer, the console's page, and the page in a browser
// until its script has run.
func TestConsoleSize(t *testing.T) {
	// Not parallel: it measures.
	requireBrowser(t)
	file := filepath.Join(t.TempDir(), "size.db")
	fill(t, file, 2000, 5)
	s := startService(t, "-dev", "-bootstrap", writeBootstrap(t), "-store", "sqlite:"+file)
	ann := s.jwt("ann")

	const times = 15
	for _, path := range []string{
		"/v1/org/api-keys", "/v1/org/api-keys?name=key+4&creator=user17", "/v1/org/api-keys?status=disabled_by_owner",
		"/console/org/keys", "/console/org/settings", "/console/org/people",
	} {
		var took []time.Duration
		for range times {
			start := time.Now()
			s.require(200, "GET", path, ann, nil)
			took = append(took, time.Since(start))
		}
		t.Logf("%-45s median %6.1f ms, slowest %6.1f ms", path, ms(median(took)), ms(slices.Max(took)))
	}

	b := openTab(t, s.base)
	b.signIn("ann")
	var took []time.Duration
	for range times {
		b.open("/console/org/keys")
		require.Equal(t, 50, eval[int](b, `document.querySelectorAll('tbody tr').length`))
		took = append(took, time.Duration(eval[float64](b, `performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd`)*float64(time.Millisecond)))
	}
	t.Logf("first page interactive in the browser         median %6.1f ms, slowest %6.1f ms", ms(median(took)), ms(slices.Max(took)))
	b.screenshot("10000-keys")
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// fill makes people with keys in the database of a file, of which the newest were
// used. It writes the rows by itself: ten thousand transactions of a store take a
// minute under the race detector.
func fill(t *testing.T, file string, people, each int) {
	t.Helper()
	db := openFile(t, file)
	s := newStore(t, db, nil)
	now := time.Now().UTC().Truncate(time.Second)
	mustExec(t, db, `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $1)
		INSERT INTO keystile_users (org, id, email, tier, owner, permitted, version)
		SELECT 'acme', 'user' || i, 'user' || i || '@acme.example', 'Pro', 0, 0, 1 FROM n`, people)
	mustExec(t, db, `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $1 * $2)
		INSERT INTO keystile_keys (id, digest, org, user_id, name, scopes, daily_limit, created_at, revoked, family, version)
		SELECT printf('csk_live_%08x', i), randomblob(32), 'acme', 'user' || (i / $2), 'key ' || (i % $2), '[]', 0,
			$3 - i * 60000000, 0, printf('csk_live_%08x', i), 1 FROM n`, people, each, now.UnixMicro())
	var made int
	require.NoError(t, db.QueryRowContext(t.Context(), `SELECT count(*) FROM keystile_keys`).Scan(&made))
	require.Equal(t, people*each, made)
	var uses []store.Use
	for i := range min(500, people*each) {
		uses = append(uses, store.Use{
			KeyID: fmt.Sprintf("csk_live_%08x", i), Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}),
			UserAgent: "export/1.0", First: now, Last: now, Count: 7,
		})
	}
	require.NoError(t, s.RecordUses(t.Context(), uses))
}
