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
