package itest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stall has a client send the beginning of a request, and returns when its handler
// waits for the rest. The client waits until the test is over.
func (s *service) stall() {
	s.tb.Helper()
	slow, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	require.NoError(s.tb, err)
	s.tb.Cleanup(func() { _ = slow.Close() })
	_, err = fmt.Fprintf(slow, "POST /v1/api-keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n", s.jwt("bob"))
	require.NoError(s.tb, err)
	line, err := bufio.NewReader(slow).ReadString('\n')
	require.NoError(s.tb, err)
	require.Equal(s.tb, "HTTP/1.1 100 Continue\r\n", line, "the handler waits for the body")
	_, err = slow.Write([]byte(`{"name":`))
	require.NoError(s.tb, err)
}

// TestServiceEnds: a client that never sends the rest of its request holds up the end
// of the service for a while, and decides nothing more: it needs no credential for that,
// so the exit code is 0, and the refusals that were left out are in the trail. That is so
// too when nobody reads any more what is printed, as behind a pipe that Ctrl-C ended.
func TestServiceEnds(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprintf("reader gone %v", gone), func(t *testing.T) {
			t.Parallel()
			trail := filepath.Join(t.TempDir(), "audit.log")
			s := startService(t, "-dev", "-bootstrap", writeBootstrap(t), "-audit", trail)

			s.stall()
			for range 130 { // within two minutes at most
				s.require(401, "GET", "/v1/ping", "csk_live_00000000000000000000000000000000", nil)
			}
			if gone {
				require.NoError(t, s.err.Close())
			}
			began := time.Now()
			require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
			<-s.done
			require.Zero(t, exitCode(t, s.cmd.Wait()), s.log.String())
			t.Log("ended in", time.Since(began))
			if !gone {
				require.Contains(t, s.log.String(), "service: cutting off connections")
			}
			text, err := os.ReadFile(trail)
			require.NoError(t, err)
			require.Contains(t, string(text), `"suppressed":`)
		})
	}
}

// TestServiceSecondInterrupt: who does not want to wait for that client presses Ctrl-C
// again.
func TestServiceSecondInterrupt(t *testing.T) {
	t.Parallel()
	s := startService(t, "-dev", "-bootstrap", writeBootstrap(t))
	s.stall()
	interruptAgain(t, s.cmd, s.done)
}

// TestServiceInterrupted: Ctrl-C while the database does not answer is no failure.
func TestServiceInterrupted(t *testing.T) {
	t.Parallel()
	binary, err := buildService()
	require.NoError(t, err)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	cmd := exec.CommandContext(t.Context(), binary, "-addr", "127.0.0.1:0", "-store", "postgres://test@"+silent.Addr().String()+"/test?sslmode=disable")
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	conn, err := silent.Accept()
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Zero(t, exitCode(t, cmd.Wait()))
}
