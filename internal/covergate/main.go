// Command covergate prints the statement coverage of each package in a profile
// of go test -coverprofile, in which a block may stand several times, once for
// each test binary. It exits with 1 if a package is below its gate, and then
// lists the blocks of it that no test reaches.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: covergate PROFILE")
		os.Exit(2)
	}
	os.Exit(run(os.Args[1], os.Stdout, os.Stderr))
}

// run reports on the profile in file and returns the exit code.
func run(file string, stdout, stderr io.Writer) int {
	f, err := os.Open(file)
	if err != nil {
		fmt.Fprintln(stderr, "covergate:", err)
		return 1
	}
	defer f.Close()
	packages, err := read(f)
	if err != nil {
		fmt.Fprintln(stderr, "covergate:", err)
		return 1
	}
	if !report(stdout, packages) {
		return 1
	}
	return 0
}
