// Command testsummary runs go test and says at its end what was run.
//
// Its arguments are those of go test. It prints one line for each package, the
// whole output of what failed, every skipped test with its reason, and as its
// last line the totals, in which each test, subtest, example and seed of a fuzz
// target counts as one:
//
//	N passed, N failed, N skipped
//
// It exits with 1 if anything failed, if a package could not be built or ended
// without a result, or if no test ran at all. If the environment variable
// KEYSTILE_NO_SKIP is 1, a skipped test is a failure too.
package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	os.Exit(run(".", os.Args[1:], os.Getenv("KEYSTILE_NO_SKIP") == "1", os.Stdout, os.Stderr))
}

// run runs go test with args in dir and reports to stdout. It returns the exit
// code.
func run(dir string, args []string, noSkip bool, stdout, stderr io.Writer) int {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(stderr, "testsummary:", err)
		return 1
	}
	r := newReport(stdout)
	readErr := r.read(out)
	waitErr := cmd.Wait()
	return r.finish(noSkip, cmp.Or(waitErr, readErr))
}
