package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

const module = "github.com/keystile/keystile"

// gates are the least shares of statements, in percent, that tests must reach, by
// package; all others have that of the empty name.
var gates = map[string]float64{
	"":       90,
	"policy": 100,
	"token":  100,
}

// gate returns the gate of the package.
func gate(pkg string) float64 {
	if g, ok := gates[strings.TrimPrefix(pkg, module+"/")]; ok {
		return g
	}
	return gates[""]
}

// A block is a run of statements as a profile names it.
type block struct {
	place      string // file and lines
	statements int
	reached    bool
}

// read returns the blocks of a profile by package.
func read(r io.Reader) (map[string][]block, error) {
	type key struct{ pkg, place string }
	blocks := map[key]block{}
	lines := bufio.NewScanner(r)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "mode: ") {
		return nil, errors.New("not a coverage profile")
	}
	for lines.Scan() {
		var statements, count int
		place, numbers, _ := strings.Cut(lines.Text(), " ")
		if _, err := fmt.Sscanf(numbers, "%d %d", &statements, &count); err != nil {
			return nil, fmt.Errorf("not a line of a coverage profile: %q", lines.Text())
		}
		k := key{path.Dir(place), place}
		blocks[k] = block{path.Base(place), statements, count > 0 || blocks[k].reached}
	}
	packages := map[string][]block{}
	for k, b := range blocks {
		packages[k.pkg] = append(packages[k.pkg], b)
	}
	return packages, lines.Err()
}

// report writes a line for each package and reports whether all are at their
// gates. One that has a gate of its own must be there: a profile without it is not
// of all the tests.
func report(w io.Writer, packages map[string][]block) bool {
	ok := true
	for _, name := range slices.Sorted(maps.Keys(gates)) {
		if name != "" && len(packages[module+"/"+name]) == 0 {
			ok = false
			fmt.Fprintf(w, "the profile has no statement of %s/%s\n", module, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		var all, reached int
		var missed []string
		for _, b := range packages[name] {
			all += b.statements
			if b.reached {
				reached += b.statements
			} else {
				missed = append(missed, b.place)
			}
		}
		share := 100 * float64(reached) / float64(max(all, 1))
		if all == 0 {
			share = 100
		}
		need := gate(name)
		fmt.Fprintf(w, "%6.1f %%  of %5d statements, at least %3.0f %%  %s\n", share, all, need, name)
		if share < need {
			ok = false
			slices.Sort(missed)
			fmt.Fprintf(w, "          below its gate; not reached:\n            %s\n", strings.Join(missed, "\n            "))
		}
	}
	return ok
}
