// Command reqtable prints the table of requirements of the repository in the
// working directory: each with the tests that cite its number, or what is still
// to come. REQUIREMENTS.md is its output.
//
// The sentences stand in internal/reqtable/requirements.tsv, with the state of each:
//
//	core  shown by tests
//	part  shown by tests as far as the packages that exist go; the rest is named
//	doc   shown by documentation, whose file is named and cites the number
//	open  not built yet; what will show it is named
//
// It exits with 1 if a state is not true: a test is missing, or has appeared.
package main

import (
	"fmt"
	"os"
)

func main() {
	text, problems, err := table(".")
	if err != nil {
		fmt.Fprintln(os.Stderr, "reqtable:", err)
		os.Exit(1)
	}
	fmt.Print(text)
	for _, p := range problems {
		fmt.Fprintln(os.Stderr, "reqtable:", p)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}
