package itest

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHeaderOfAMegabyte has credentials of about a megabyte, which is what net/http takes
// by default, sent to a server: up to there the Guard refuses them as any that are
// not valid, beyond it net/http has refused the request, and neither repeats them (S75).
func TestHeaderOfAMegabyte(t *testing.T) {
	t.Parallel()
	q := startQuickstart(t, t.TempDir())
	// What net/http takes: a megabyte, and a buffer of 4 KiB. Line ends and names count too.
	const taken = http.DefaultMaxHeaderBytes + 4<<10
	for _, tt := range []struct {
		name   string
		size   int // of the value
		status int
		reason string
	}{
		{"less than a megabyte", 1<<20 - 1, 401, "invalid_token"},
		{"a megabyte", 1 << 20, 401, "invalid_token"},
		{"a byte more", 1<<20 + 1, 401, "invalid_token"},
		{"as much as is taken", taken, 431, ""},
	} {
		for _, field := range []string{"Authorization: Bearer ", "x-api-user: demo@example.com\r\nx-api-token: "} {
			t.Run(tt.name+" in "+field, func(t *testing.T) {
				conn, err := net.Dial("tcp", q.addr)
				require.NoError(t, err)
				defer conn.Close()
				require.NoError(t, conn.SetDeadline(time.Now().Add(tooLong)))
				secret := strings.Repeat("f", tt.size)
				go func() {
					_, _ = io.WriteString(conn, "GET /v1/ping HTTP/1.1\r\nHost: "+q.addr+"\r\n"+field+secret+"\r\n\r\n")
				}()
				response, err := http.ReadResponse(bufio.NewReader(conn), nil)
				require.NoError(t, err)
				defer response.Body.Close()
				body, err := io.ReadAll(response.Body)
				require.NoError(t, err)
				require.Equal(t, tt.status, response.StatusCode, "%s", body)
				require.Contains(t, string(body), tt.reason)
				require.NotContains(t, string(body), secret[:17])
			})
		}
	}
	// A key is none the worse for it.
	status, _ := q.get("/v1/ping", q.token)
	require.Equal(t, 200, status)
	require.Zero(t, q.stop())
}
