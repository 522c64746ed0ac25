package itest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// TestConsoleScreenshots takes the pictures of the README, of the demo people as a
// newcomer sees them. It writes them to the directory that the environment names,
// which make screenshots does, and else to the artefacts.
func TestConsoleScreenshots(t *testing.T) {
	t.Parallel()
	requireBrowser(t)
	dir := os.Getenv("KEYSTILE_SCREENSHOTS")
	if dir == "" {
		dir = artefacts()
	}
	require.NoError(t, os.MkdirAll(dir, 0o755))
	s := startService(t, append([]string{"-dev"}, serviceStores["sqlite"](t).args...)...)
	b := openTab(t, s.base)
	b.size(1120, 760)
	shoot := func(name string) {
		t.Helper()
		png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		require.NoError(t, err)
		require.Less(t, len(png), 150_000, "bytes of %s", name)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), png, 0o644))
	}
	b.signIn("demo-owner")
	b.sees("SIEM export", "Monthly reports")
	b.until(`document.readyState === "complete"`)
	shoot("console-keys.png")

	b.scheme("dark")
	b.settings()
	b.click("Only chosen people may create and use API keys")
	b.choose("Keys expire after", "90 days")
	b.fill("Keys may be used from", "198.51.100.7/24 # office")
	b.review()
	shoot("console-settings.png")
}
