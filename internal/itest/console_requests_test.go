package itest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// operations returns a function that reports whether the OpenAPI document of a
// service has an operation.
func operations(t *testing.T, s *service) func(method, path string) bool {
	t.Helper()
	var document struct {
		Paths map[string]map[string]any
	}
	require.NoError(t, json.Unmarshal([]byte(s.require(200, "GET", "/v1/openapi.json", "", nil).body), &document))
	require.NotEmpty(t, document.Paths)
	return func(method, path string) bool {
		for template, methods := range document.Paths {
			pattern := "^" + regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(regexp.QuoteMeta(template), `[^/]+`) + "$"
			if methods[strings.ToLower(method)] != nil && regexp.MustCompile(pattern).MatchString(path) {
				return true
			}
		}
		return false
	}
}

// requireDocumented requires of all that went over a wire that what the console
// changed it changed by operations of the API's document (S1), as JSON, and that
// everything else was a GET of a page of its own.
func requireDocumented(t *testing.T, s *service, w *wire) (calls int) {
	t.Helper()
	has := operations(t, s)
	for _, e := range w.since(0) {
		u, err := url.Parse(e.path)
		require.NoError(t, err)
		if api, ok := strings.CutPrefix(u.Path, "/console/api"); ok {
			require.True(t, has(e.method, api), "%s %s is not in the document", e.method, api)
			calls++
			continue
		}
		if strings.HasPrefix(u.Path, "/dev/") {
			continue // the sign-in, which is not the console's
		}
		require.Equal(t, http.MethodGet, e.method, e.path)
	}
	return calls
}
