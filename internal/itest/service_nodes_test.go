package itest

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// How long a test waits for another process, and how often it looks.
const (
	eventually = tooLong
	tick       = 20 * time.Millisecond
)

// postgresURL returns the form of a data source name that -store takes.
func postgresURL(dsn string) string {
	u := url.URL{Scheme: "postgres"}
	query := make(url.Values)
	for setting := range strings.FieldsSeq(dsn) {
		name, value, _ := strings.Cut(setting, "=")
		switch name {
		case "user":
			u.User = url.User(value)
		case "dbname":
			u.Path = "/" + value
		default:
			query.Set(name, value)
		}
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// TestServiceNodes: two processes on one store are one service. A key that is made at
// one works at the other at once; what is revoked, disabled, restricted or set at one
// is in effect at the other after a poll of the feed; the quota is one, and so is the
// cap.
func TestServiceNodes(t *testing.T) {
	t.Parallel()
	for name, newStore := range serviceStores {
		if name == "memory" {
			continue // is of one process
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore(t)
			a := startService(t, append([]string{"-dev"}, store.args...)...)
			b := startService(t, append([]string{"-dev"}, store.args...)...)
			owner, user := a.jwt("demo-owner"), a.jwt("demo-user")
			becomes := func(want, token string) {
				t.Helper()
				var last string // what it was when it was asked last
				defer func() { t.Log("then:", last) }()
				require.Eventually(t, func() bool {
					status, reason := b.ping(token)
					last = fmt.Sprint(status, " ", reason)
					return last == want
				}, eventually, tick, want)
			}

			token, prefix := a.create(user, map[string]any{"name": "x"})
			b.require(200, "GET", "/v1/ping", token, nil)
			// However often it is asked for what it has become.
			a.require(200, "PATCH", "/v1/org/api-keys/"+prefix, owner, map[string]any{"dailyLimit": -1})
			a.settings(owner, map[string]any{"restrictedAccessTokens": true})
			becomes("403 user_not_permitted", token)
			a.require(200, "PUT", "/v1/org/users/demo-user/token-permission", owner, nil)
			becomes("200 ", token)
			a.require(200, "PATCH", "/v1/org/api-keys/"+prefix, owner, map[string]any{"disabled": true})
			becomes("403 key_disabled", token)
			a.require(200, "PATCH", "/v1/org/api-keys/"+prefix, owner, map[string]any{"disabled": false})
			becomes("200 ", token)
			a.require(200, "DELETE", "/v1/api-keys/"+prefix, user, nil)
			becomes("401 invalid_token", token)
			status, _ := a.ping(token)
			require.Equal(t, 401, status)

			// D8: 40 requests at once, at both, against a limit of 25.
			token, _ = b.create(b.jwt("demo-user"), map[string]any{"name": "x", "dailyLimit": 25})
			counts := make(map[int]int)
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					status, _ := []*service{a, b}[i%2].ping(token)
					mu.Lock()
					counts[status]++
					mu.Unlock()
				})
			}
			wg.Wait()
			require.Equal(t, map[int]int{200: 25, 429: 15}, counts)
			usage := a.require(200, "GET", "/v1/usage", token, nil)
			require.EqualValues(t, 25, usage.data("used"))

			// S13: four more places, taken from both sides at once.
			clear(counts)
			users := []string{user, b.jwt("demo-user")}
			for i := range 20 {
				wg.Go(func() {
					got := []*service{a, b}[i%2].do("POST", "/v1/api-keys", users[i%2], map[string]any{"name": "x"})
					mu.Lock()
					counts[got.status]++
					mu.Unlock()
				})
			}
			wg.Wait()
			require.Equal(t, map[int]int{201: 4, 409: 16}, counts)
		})
	}
}
