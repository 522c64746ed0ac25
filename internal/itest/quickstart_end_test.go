package itest

import (
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

// stall has a client send the beginning of a request with a body, and returns when the
// request is counted, which is before the server waits for the rest. The client waits
// until the test is over. The result is how many requests were answered meanwhile.
func (q *quickstart) stall() (answered int64) {
	q.tb.Helper()
	conn, err := net.Dial("tcp", q.addr)
	require.NoError(q.tb, err)
	q.tb.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "POST /v1/ping HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\nabc", q.addr, q.token)
	require.NoError(q.tb, err)
	require.Eventually(q.tb, func() bool {
		answered++
		return q.used(q.token) == 1
	}, 30*time.Second, time.Millisecond)
	return answered
}

// TestQuickstartStalledClient: a client that never sends the rest of its request does
// not decide how Ctrl-C ends: the last uses are written and the exit code is 0 (S49).
func TestQuickstartStalledClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := startQuickstart(t, dir)
	answered := q.stall()
	require.Zero(t, q.stop(), q.log.String())
	require.Contains(t, q.log.String(), "quickstart: cutting off connections")
	require.Equal(t, answered+1, usesIn(t, filepath.Join(dir, "keystile-quickstart.db"), q.token))
}

// TestQuickstartEnds: the last uses are written (S49) also if it is a service manager that
// ends the program, and if what reads its output has ended first, as by Ctrl-C in
// "quickstart | tee log".
func TestQuickstartEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, q *quickstart) int{
		"SIGTERM": func(t *testing.T, q *quickstart) int {
			require.NoError(t, q.cmd.Process.Signal(syscall.SIGTERM))
			<-q.done
			return exitCode(t, q.cmd.Wait())
		},
		"reader gone": func(t *testing.T, q *quickstart) int {
			require.NoError(t, q.out.Close())
			return q.stop()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			q := startQuickstart(t, dir)
			for range 3 {
				status, _ := q.get("/v1/ping", q.token)
				require.Equal(t, 200, status)
			}
			require.Zero(t, end(t, q), q.log.String())
			require.EqualValues(t, 3, usesIn(t, filepath.Join(dir, "keystile-quickstart.db"), q.token))
		})
	}
}

// TestQuickstartSecondInterrupt: who does not want to wait for a stalled client presses
// Ctrl-C again.
func TestQuickstartSecondInterrupt(t *testing.T) {
	t.Parallel()
	q := startQuickstart(t, t.TempDir())
	q.stall()
	interruptAgain(t, q.cmd, q.done)
}

// interruptAgain presses Ctrl-C until a program ends, which must be by the signal.
func interruptAgain(t *testing.T, cmd *exec.Cmd, done chan struct{}) {
	t.Helper()
	require.Eventually(t, func() bool {
		select {
		case <-done:
			return true
		default:
			_ = cmd.Process.Signal(os.Interrupt)
			return false
		}
	}, 30*time.Second, time.Millisecond)
	require.Equal(t, -1, exitCode(t, cmd.Wait()))
}

// TestQuickstartUsesLost: uses that cannot be written are named, and at the end they are
// a failure.
func TestQuickstartUsesLost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := startQuickstart(t, dir)
	status, _ := q.get("/v1/ping", q.token)
	require.Equal(t, 200, status)
	mustExec(t, openFile(t, filepath.Join(dir, "keystile-quickstart.db")), "ALTER TABLE keystile_uses RENAME TO moved")
	require.Eventually(t, func() bool { return strings.Contains(q.log.String(), "quickstart: uses: ") }, tooLong, tick)
	require.Equal(t, 1, q.stop())
	require.Contains(t, q.log.String(), "quickstart: writing the last uses: ")
}

// TestPostgresExampleInterrupted: Ctrl-C while the database does not answer is no
// failure either.
func TestPostgresExampleInterrupted(t *testing.T) {
	t.Parallel()
	binary, err := buildPostgres()
	require.NoError(t, err)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	_, port, err := net.SplitHostPort(silent.Addr().String())
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), binary, "-addr", "127.0.0.1:0", "-dsn", "sslmode=disable user=test host=127.0.0.1 port="+port)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	conn, err := silent.Accept()
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Zero(t, exitCode(t, cmd.Wait()))
}
