package itest

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
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
	var first string
	for _, path := range []string{
		"/v1/org/api-keys", "/v1/org/api-keys?name=key+4&creator=user17", "/v1/org/api-keys?status=disabled_by_owner",
		"/console/org/keys", "/console/org/settings", "/console/org/people",
	} {
		var took []time.Duration
		for range times {
			start := time.Now()
			r := s.require(200, "GET", path, ann, nil)
			took = append(took, time.Since(start))
			first = r.body
		}
		require.NotEmpty(t, first)
		t.Logf("%-45s median %6.1f ms, slowest %6.1f ms", path, ms(median(took)), ms(slices.Max(took)))
	}

	b := openTab(t, s.base)
	b.signIn("ann")
	var took []time.Duration
	for range times {
		b.open("/console/org/keys")
		b.until(`document.readyState === 'complete'`)
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

// fill makes people with keys in the database of a file, one key of each of whom was used.
func fill(t *testing.T, file string, people, each int) {
	t.Helper()
	db := openFile(t, file)
	s := newStore(t, db, nil)
	now := time.Now().UTC().Truncate(time.Second)
	var uses []store.Use
	for p := range people {
		u := testUser(p)
		u.ID, u.Email = fmt.Sprintf("user%d", p), fmt.Sprintf("user%d@acme.example", p)
		require.NoError(t, s.PutUser(t.Context(), u))
		for i := range each {
			k := testKey(u.ID, token.Generate())
			k.Name, k.CreatedAt = fmt.Sprintf("key %d", i), now.Add(-time.Duration(p*each+i)*time.Minute)
			require.NoError(t, s.InsertKey(t.Context(), k, nil, -1))
			if i == 0 {
				uses = append(uses, store.Use{KeyID: k.ID, UserAgent: "export/1.0", First: k.CreatedAt, Last: now, Count: 7})
			}
		}
	}
	for batch := range slices.Chunk(uses, 500) {
		require.NoError(t, s.RecordUses(t.Context(), batch))
	}
}
