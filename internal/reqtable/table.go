package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A requirement is a line of requirements.tsv.
type requirement struct{ number, state, sentence, note string }

const intro = `# Requirements

Each sentence that this library is held to, the tests that cite its number, and what is still to come. S-numbers are the
contract, D-numbers decide what the contract leaves open. Comments in the code cite the same numbers.

This file is written by ` + "`make requirements`" + `, from the tests and internal/reqtable/requirements.tsv. A test fails if it is
out of date, if a sentence that is built has no test, or if one that is called open has got one.

`

// shown is how many places are named for one requirement.
const shown = 4

// table returns the text of the table for the repository at root, and what is
// wrong with the states in requirements.tsv.
func table(root string) (text string, problems []string, err error) {
	data, err := os.ReadFile(filepath.Join(root, "internal/reqtable/requirements.tsv"))
	if err != nil {
		return "", nil, err
	}
	reqs, err := parse(string(data))
	if err != nil {
		return "", nil, err
	}
	cited, err := cite(root)
	if err != nil {
		return "", nil, err
	}
	counts := map[string]int{}
	known := map[string]bool{}
	var rows strings.Builder
	rows.WriteString("| No. | Requirement | Shown by | Still open |\n|---|---|---|---|\n")
	for _, r := range reqs {
		known[r.number] = true
		counts[r.state]++
		if r.state == "open" {
			// A test of a whole chapter cites it by its first and last number.
			cited[r.number] = slices.DeleteFunc(cited[r.number], func(c citation) bool { return c.loose })
		}
		by, open := places(cited[r.number]), r.note
		if r.state == "doc" {
			by, open = fmt.Sprintf("[%s](%s)", r.note, r.note), ""
		}
		fmt.Fprintf(&rows, "| %s | %s | %s | %s |\n", r.number, r.sentence, by, open)
		if p := judge(root, r, cited[r.number]); p != "" {
			problems = append(problems, r.number+": "+p)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(cited)) {
		if !known[n] {
			problems = append(problems, fmt.Sprintf("%s: cited by %s, and there is no such requirement", n, places(cited[n])))
		}
	}
	summary := fmt.Sprintf("Of %d sentences %d are shown by tests, %d by documentation, %d in part, and %d are open.\n\n",
		len(reqs), counts["core"], counts["doc"], counts["part"], counts["open"])
	return intro + summary + rows.String(), problems, nil
}

// parse reads requirements.tsv.
func parse(data string) (reqs []requirement, err error) {
	for line := range strings.Lines(data) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) == 3 {
			f = append(f, "")
		}
		if len(f) != 4 || (f[1] == "core") != (f[3] == "") || !slices.Contains([]string{"core", "part", "doc", "open"}, f[1]) {
			return nil, fmt.Errorf("requirements.tsv: not number, state, sentence and, unless core, note: %q", line)
		}
		reqs = append(reqs, requirement{f[0], f[1], f[2], f[3]})
	}
	return reqs, nil
}

// judge says what is wrong with the state of r; empty if nothing is.
func judge(root string, r requirement, by []citation) string {
	switch {
	case r.state == "doc":
		text, err := os.ReadFile(filepath.Join(root, r.note))
		if err != nil {
			return err.Error()
		}
		if !slices.Contains(numbers(string(text)), r.number) {
			return r.note + " does not cite it"
		}
	case r.state == "open" && len(by) > 0:
		return "called open, but cited by " + places(by)
	case r.state != "open" && len(by) == 0:
		return "cited by no test"
	}
	return ""
}

// places names the first few places, those that are about the requirement before
// those that mention it.
func places(by []citation) string {
	best := map[citation]bool{} // by file and test, whether one is a head
	for _, c := range by {
		id := citation{file: c.file, test: c.test}
		best[id] = best[id] || c.head
	}
	ids := slices.SortedFunc(maps.Keys(best), func(a, b citation) int {
		if best[a] != best[b] {
			if best[a] {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.test, b.test))
	})
	var names []string
	for _, c := range ids[:min(shown, len(ids))] {
		name := path.Base(path.Dir(c.file)) + "." + cmp.Or(c.test, path.Base(c.file))
		names = append(names, fmt.Sprintf("[%s](%s)", name, c.file))
	}
	if more := len(ids) - shown; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
