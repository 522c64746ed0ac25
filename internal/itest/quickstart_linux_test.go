package itest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestQuickstartReadOnly: a file that cannot be written is noticed at the start, and
// not by the first request.
func TestQuickstartReadOnly(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys.db")
	require.Zero(t, startQuickstart(t, t.TempDir(), "-db", file).stop())
	require.NoError(t, os.Chmod(file, 0o400))
	binary, err := buildQuickstart()
	require.NoError(t, err)
	program, args := binary, []string{"-addr", "127.0.0.1:0", "-db", file}
	if os.Geteuid() == 0 { // who may write everything
		needTool(t, "setpriv")
		program, args = "setpriv", append([]string{"--bounding-set=-dac_override", binary}, args...)
	}
	code, out := refused(t, t.TempDir(), program, args...)
	require.Equal(t, 1, code)
	require.Contains(t, out, "quickstart: -db: open "+file+": permission denied")
}
