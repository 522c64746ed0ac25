package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestHelloIsPasted: the lines that the development mode prints say to a shell what
// they look like, whatever people are called.
func TestHelloIsPasted(t *testing.T) {
	t.Parallel()
	const base = "http://127.0.0.1:8080"
	b := &bootstrap{Orgs: []bootstrapOrg{{Name: "o'neill $(touch ran)", Users: []bootstrapUser{
		{ID: "a&touch ran;'`touch ran`$(touch ran)", Email: "o'brien@x'$(touch ran)'", Role: roleOwner, Keys: []bootstrapKey{{Ref: "k", Name: "k"}}},
	}}}}
	var hello bytes.Buffer
	newDevIssuer(base).hello(&hello, base, b, map[string]string{"k": "csk_live_x"})
	script := "curl() { printf '%s\\n' curl \"$@\"; }\n"
	for line := range strings.Lines(hello.String()) {
		if strings.HasPrefix(line, "curl ") || strings.HasPrefix(line, "#") {
			script += line
		}
	}
	sh := exec.CommandContext(t.Context(), "sh", "-c", script)
	sh.Dir = t.TempDir()
	out, err := sh.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(sh.Dir, "ran")); err == nil {
		t.Error("the name of somebody was a command")
	}
	said := strings.Split(string(out), "\n")
	for want, times := range map[string]int{
		"curl":                                9,
		"Authorization: Bearer csk_live_x":    2,
		"x-api-user: o'brien@x'$(touch ran)'": 2,
		"x-api-token: csk_live_x":             2,
		base + "/v1/ping":                     2,
		base + "/dev/token/a&touch%20ran%3B%27%60touch%20ran%60$%28touch%20ran%29": 1,
	} {
		got := len(slices.DeleteFunc(slices.Clone(said), func(line string) bool { return line != want }))
		if got != times {
			t.Errorf("%q is there %d times, not %d:\n%s", want, got, times, out)
		}
	}
}
