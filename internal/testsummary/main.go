// Command testsummary runs go test and says at its end what was run.
//
// Its arguments are those of go test; those of a further run follow after "--".
// It prints one line for each package, the whole output of what failed, every
// skipped test with its reason, and as its last line the totals, in which each
// test, subtest, example and seed of a fuzz target counts as one:
//
//	N passed, N failed, N skipped
//
// What is skipped in one run and passes in another is not skipped: tests that
// count allocations have no meaning under the race detector and get a run
// without it.
//
// It exits with 1 if anything failed, if a package could not be built or ended
// without a result, or if no test ran at all. If the environment variable
// KEYSTILE_NO_SKIP is 1, a skipped test is a failure too.
package main

import (
	"cmp"
	"io"
	"os"
	"os/exec"
	"slices"
)

func main() {
	os.Exit(run(".", os.Args[1:], os.Getenv("KEYSTILE_NO_SKIP") == "1", os.Stdout, os.Stderr))
}

// run runs go test in dir, once for each part of args, and reports to stdout. It
// returns the exit code.
func run(dir string, args []string, noSkip bool, stdout, stderr io.Writer) int {
	r := newReport(stdout)
	for len(args) > 0 {
		part, rest := args, []string(nil)
		if i := slices.Index(args, "--"); i >= 0 {
			part, rest = args[:i], args[i+1:]
		}
		r.endRun(goTest(dir, part, r, stderr))
		args = rest
	}
	return r.finish(noSkip)
}

// goTest runs go test with args in dir and has r read what it says.
func goTest(dir string, args []string, r *report, stderr io.Writer) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := r.read(out)
	return cmp.Or(cmd.Wait(), readErr)
}
