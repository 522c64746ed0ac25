package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReport feeds events as go test writes them.
func TestReport(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		events string
		noSkip bool
		err    error
		code   int
		want   []string // parts of the output
		last   string
	}{
		{
			name: "all pass",
			events: `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Elapsed":1.5}
`,
			want: []string{"ok    p  1.50s  1 tests"},
			last: "1 passed, 0 failed, 0 skipped",
		},
		{
			name: "a failure is shown whole and named again",
			events: `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/sub"}
{"Action":"output","Package":"p","Test":"TestA/sub","Output":"want 1, got 2\n"}
{"Action":"fail","Package":"p","Test":"TestA/sub"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"-test.shuffle 42\n"}
{"Action":"fail","Package":"p"}
`,
			err:  errors.New("exit status 1"),
			code: 1,
			want: []string{"want 1, got 2", "-test.shuffle 42", "Failed:\n  p TestA\n  p TestA/sub\n"},
			last: "0 passed, 2 failed, 0 skipped",
		},
		{
			name: "a skipped test is listed with its reason",
			events: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: curl is not installed\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p"}
`,
			want: []string{"Skipped:\n  p TestA: a_test.go:7: curl is not installed\n"},
			last: "1 passed, 0 failed, 1 skipped",
		},
		{
			name: "a skipped test is a failure where that is asked for",
			events: `{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p"}
`,
			noSkip: true,
			code:   1,
			want:   []string{"TestA: no reason given", "KEYSTILE_NO_SKIP forbids it"},
			last:   "1 passed, 0 failed, 1 skipped",
		},
		{
			name: "what does not build",
			events: `{"Action":"build-output","ImportPath":"q","Output":"q.go:1: undefined: x\n"}
{"Action":"build-fail","ImportPath":"q"}
{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p","FailedBuild":"q"}
`,
			err:  errors.New("exit status 1"),
			code: 1,
			want: []string{"q.go:1: undefined: x", "p: failed outside of its tests"},
			last: "0 passed, 1 failed, 0 skipped",
		},
		{
			name: "a test without a result, in a package that passes",
			events: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"half way\n"}
{"Action":"pass","Package":"p"}
`,
			code: 1,
			want: []string{"half way", "p TestA: ended without a result"},
			last: "0 passed, 1 failed, 0 skipped",
		},
		{
			name: "a package without a result",
			events: `{"Action":"start","Package":"p"}
{"Action":"pass","Package":"p","Test":"TestA"}
`,
			code: 1,
			want: []string{"p: ended without a result"},
			last: "1 passed, 1 failed, 0 skipped",
		},
		{
			name:   "no test at all",
			events: `{"Action":"skip","Package":"p"}` + "\n" + `{"Action":"pass","Package":"q"}` + "\n",
			code:   1,
			want:   []string{"p  no test files", "q  no test ran", "No test ran"},
			last:   "0 passed, 0 failed, 0 skipped",
		},
		{
			name:   "go test itself fails",
			events: "no such package\n",
			err:    errors.New("exit status 2"),
			code:   1,
			want:   []string{"no such package\n", "go test: exit status 2"},
			last:   "0 passed, 1 failed, 0 skipped",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			r := newReport(&out)
			require.NoError(t, r.read(strings.NewReader(tt.events)))
			r.endRun(tt.err)
			require.Equal(t, tt.code, r.finish(tt.noSkip))
			for _, want := range tt.want {
				require.Contains(t, out.String(), want)
			}
			require.True(t, strings.HasSuffix(out.String(), "\n"+tt.last+"\n"), out.String())
		})
	}
}

// TestRuns: a test counts once, by the worst of its results, and is skipped only if
// no run has had another.
func TestRuns(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := newReport(&out)
	for _, events := range []string{
		`{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p","Test":"TestC"}
{"Action":"pass","Package":"p"}
`,
		`{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}
{"Action":"pass","Package":"q"}
`,
		`{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p","Test":"TestC"}
{"Action":"fail","Package":"p"}
`,
	} {
		require.NoError(t, r.read(strings.NewReader(events)))
		r.endRun(nil)
	}
	require.Equal(t, 1, r.finish(false))
	require.Contains(t, out.String(), "Skipped:\n  p TestB: no reason given\n\nFailed:\n  p TestC\n\n1 passed, 1 failed, 1 skipped\n")
	require.NotContains(t, out.String(), "q", "a further run is of few packages")
}

// TestRun runs go test on a module made for it, so that the format of the
// events is that of the installed go.
func TestRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("go.mod", "module m\n\ngo 1.26.0\n")
	write("good/a_test.go", "package good\n\nimport \"testing\"\n\n"+
		"func TestGood(t *testing.T) { t.Run(\"sub\", func(t *testing.T) {}) }\n"+
		"func TestSkipped(t *testing.T) { t.Skip(\"for a reason\") }\n")
	write("bad/a_test.go", "package bad\n\nimport \"testing\"\n\n"+
		"func TestPanics(t *testing.T) { panic(\"the panic's text\") }\n")
	write("broken/a.go", "package broken\n\nvar x int = \"no number\"\n")
	write("broken/a_test.go", "package broken\n\nimport \"testing\"\n\nfunc TestX(t *testing.T) {}\n")

	var stdout, stderr bytes.Buffer
	code := run(dir, []string{"./good"}, false, &stdout, &stderr)
	require.Equal(t, 0, code, stdout.String())
	require.Contains(t, stdout.String(), "TestSkipped: a_test.go:6: for a reason")
	require.True(t, strings.HasSuffix(stdout.String(), "\n2 passed, 0 failed, 1 skipped\n"), stdout.String())

	stdout.Reset()
	code = run(dir, []string{"./..."}, false, &stdout, &stderr)
	require.Equal(t, 1, code, stdout.String())
	require.Contains(t, stdout.String(), "the panic's text")
	require.Contains(t, stdout.String(), "no number")
	require.True(t, strings.HasSuffix(stdout.String(), "\n2 passed, 2 failed, 1 skipped\n"), stdout.String())

	stdout.Reset()
	require.Equal(t, 0, run(dir, []string{"-run=Good", "./good", "--", "-run=Skipped", "./good"}, false, &stdout, &stderr))
	require.True(t, strings.HasSuffix(stdout.String(), "\n2 passed, 0 failed, 1 skipped\n"), stdout.String())

	require.Equal(t, 1, run(dir, []string{"./absent"}, false, &stdout, &stderr))
}
