package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	t.Parallel()
	const token, policy, store = module + "/token/token.go:", module + "/policy/policy.go:", module + "/store/cache.go:"
	const whole = token + "9.2,9.4 1 1\n" + policy + "9.2,9.4 1 1\n"
	tests := []struct {
		name    string
		profile string
		code    int
		want    []string
	}{
		{
			name:    "reached by one binary of two",
			profile: "mode: set\n" + token + "1.2,3.4 5 0\n" + token + "1.2,3.4 5 1\n" + whole,
			want:    []string{" 100.0 %  of     6 statements, at least 100 %  " + module + "/token\n"},
		},
		{
			name:    "token is held to every statement",
			profile: "mode: set\n" + token + "1.2,3.4 99 1\n" + token + "5.2,6.4 1 0\n" + policy + "9.2,9.4 1 1\n",
			code:    1,
			want:    []string{"  99.0 %", "not reached:\n            token.go:5.2,6.4\n"},
		},
		{
			name:    "others to nine of ten",
			profile: "mode: atomic\n" + store + "1.2,3.4 9 7\n" + store + "5.2,6.4 1 0\n" + whole,
			want:    []string{"  90.0 %"},
		},
		{
			name:    "but no less",
			profile: "mode: atomic\n" + store + "1.2,3.4 89 7\n" + store + "5.2,6.4 11 0\n" + whole,
			code:    1,
			want:    []string{"  89.0 %"},
		},
		{
			name:    "empty",
			profile: "mode: set\n",
			code:    1,
			want:    []string{"no statement of " + module + "/policy\n", "no statement of " + module + "/token\n"},
		},
		{
			name:    "without policy",
			profile: "mode: set\n" + token + "1.2,3.4 5 1\n" + store + "1.2,3.4 9 7\n",
			code:    1,
			want:    []string{"no statement of " + module + "/policy\n"},
		},
		{
			name:    "without token",
			profile: "mode: set\n" + policy + "1.2,3.4 5 1\n" + store + "1.2,3.4 9 7\n",
			code:    1,
			want:    []string{"no statement of " + module + "/token\n"},
		},
		{name: "not a profile", profile: "ok\n", code: 1},
		{name: "a line that is none", profile: "mode: set\nnonsense\n", code: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "profile")
			require.NoError(t, os.WriteFile(file, []byte(tt.profile), 0o600))
			var stdout, stderr bytes.Buffer
			require.Equal(t, tt.code, run(file, &stdout, &stderr), stdout.String())
			for _, want := range tt.want {
				require.Contains(t, stdout.String(), want)
			}
		})
	}
	require.Equal(t, 1, run(filepath.Join(t.TempDir(), "absent"), &bytes.Buffer{}, &bytes.Buffer{}))
}

func TestGate(t *testing.T) {
	t.Parallel()
	for pkg, want := range map[string]float64{
		module:                   90,
		module + "/token":        100,
		module + "/policy":       100,
		module + "/store":        90,
		module + "/policy/other": 90,
	} {
		require.InDelta(t, want, gate(pkg), 0, pkg)
	}
}
