package itest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestServiceBehindProxy: -trusted-proxies and -client-ip-header say whose address
// the rules, the table and the trail are about (D18): the client's, as the proxy has
// written it, and nobody's if the proxy has not.
func TestServiceBehindProxy(t *testing.T) {
	t.Parallel()
	for header, written := range map[string]func(addr string) string{
		"X-Forwarded-For": func(addr string) string { return "192.0.2.1, " + addr },
		"Forwarded":       func(addr string) string { return "for=192.0.2.1, for=" + addr },
		"x-real-ip":       func(addr string) string { return addr },
	} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			trail := filepath.Join(t.TempDir(), "audit.log")
			s := startService(t, "-dev", "-bootstrap", writeBootstrap(t), "-audit", trail,
				"-trusted-proxies", "127.0.0.0/8,::1", "-client-ip-header", header)
			token := s.key("zoe").Token // whose organization allows 10.0.0.0/8
			s.require(200, "GET", "/v1/ping", token, nil, header, written("10.1.2.3"))
			s.require(403, "GET", "/v1/ping", token, nil, header, written("198.51.100.7"))
			s.require(403, "GET", "/v1/ping", token, nil, header, "nonsense")
			s.require(403, "GET", "/v1/ping", token, nil)

			zoe := s.jwt("zoe")
			got := s.require(200, "GET", "/v1/org/token-settings", zoe, nil, header, written("198.51.100.7"))
			require.Contains(t, got.body, "own_address_not_allowed", "D20: the owner is warned, and not locked out")
			require.Eventually(t, func() bool { // uses are written in batches
				return strings.Contains(s.do("GET", "/v1/org/api-keys", zoe, nil).body, `"address":"10.1.2.3"`)
			}, eventually, tick)
			s.stop()

			text, err := os.ReadFile(trail)
			require.NoError(t, err)
			var refused []string
			for line := range strings.Lines(string(text)) {
				var e struct {
					Event  struct{ Reason string }
					Source struct{ IP string }
				}
				require.NoError(t, json.Unmarshal([]byte(line), &e))
				if e.Event.Reason == "address_not_allowed" {
					refused = append(refused, e.Source.IP)
				}
			}
			require.Equal(t, []string{"198.51.100.7", "", ""}, refused)
		})
	}
}
