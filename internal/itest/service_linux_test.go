package itest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestServiceBoundsPool: a burst of requests does not open a connection to SQLite for
// each of them.
func TestServiceBoundsPool(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys.db")
	s := startService(t, "-dev", "-store", "sqlite:"+file, "-bootstrap", writeBootstrap(t))
	token := s.key("ann").Token
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { _, _ = s.ping(token) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	most := 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		most = max(most, opened(t, s.cmd.Process.Pid, file))
	}
	require.Positive(t, most)
	require.LessOrEqual(t, most, 8)
}

// opened returns how often a process has a file open.
func opened(t *testing.T, pid int, file string) int {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && target == file {
			n++
		}
	}
	return n
}

// TestServiceReadOnly: nobody else may read the file of keys, and one that cannot be
// written is noticed at the start, and not by the first request.
func TestServiceReadOnly(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys.db")
	startService(t, "-dev", "-store", "sqlite:"+file).stop()
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	require.NoError(t, os.Chmod(file, 0o400))
	binary, err := buildService()
	require.NoError(t, err)
	program, args := binary, []string{"-dev", "-addr", "127.0.0.1:0", "-store", "sqlite:" + file}
	if os.Geteuid() == 0 { // who may write everything
		needTool(t, "setpriv")
		program, args = "setpriv", append([]string{"--bounding-set=-dac_override", binary}, args...)
	}
	code, out := refused(t, t.TempDir(), program, args...)
	require.Equal(t, 1, code)
	require.Contains(t, out, "service: -store: open "+file+": permission denied")
}
