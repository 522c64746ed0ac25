// Command apilist prints the exported API of all modules of the workspace in the
// working directory: a line for every exported constant, variable, function, type,
// field and method of their packages, in a stable order. Internal packages and
// programs are left out.
// The golden file api/keystile.txt is its output.
package main

import (
	"fmt"
	"os"
)

func main() {
	text, err := list(".")
	if err != nil {
		fmt.Fprintln(os.Stderr, "apilist:", err)
		os.Exit(1)
	}
	fmt.Print(text)
}
