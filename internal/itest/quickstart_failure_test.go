package itest

import (
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestQuickstartCounterFails: while the counter gives no answer, each route answers 503
// as D1 has it, to be tried again (D13, S76) and kept by nobody (D40), and the program
// prints why.
func TestQuickstartCounterFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := startQuickstart(t, dir)
	mustExec(t, openFile(t, filepath.Join(dir, "keystile-quickstart.db")), "ALTER TABLE keystile_counts RENAME TO moved")
	for _, path := range []string{"/v1/ping", "/v1/usage"} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+q.addr+path, nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+q.token)
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer response.Body.Close()
		require.Equal(t, 503, response.StatusCode, path)
		require.Equal(t, "application/json; charset=utf-8", response.Header.Get("Content-Type"), path)
		require.Equal(t, "no-store", response.Header.Get("Cache-Control"), path)
		require.Equal(t, "1", response.Header.Get("Retry-After"), path)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		var answer struct {
			Success bool
			Status  int
			Error   struct{ Code, Reason, Message string }
		}
		require.NoError(t, json.Unmarshal(body, &answer), path)
		require.False(t, answer.Success)
		require.Equal(t, 503, answer.Status)
		require.Equal(t, "Unavailable", answer.Error.Code)
		require.Equal(t, "store_unavailable", answer.Error.Reason)
		require.NotEmpty(t, answer.Error.Message)
	}
	require.Zero(t, q.stop())
	require.Regexp(t, "quickstart: unavailable: .*keystile_counts", q.log.String())
	require.Regexp(t, "quickstart: usage: .*keystile_counts", q.log.String())
}
