package servers

import (
	"fmt"
	"os/exec"
)

// FindChromium returns where Chromium is, or one of its relatives. Tests start it by
// themselves, since what drives a browser starts it too.
func FindChromium() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("chromium: %w", ErrMissing)
}
