package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// An event is one line of the output of go test -json (go doc test2json), or
// of go build -json where something does not build.
type event struct {
	Action     string
	Package    string
	ImportPath string // instead of Package, in build-output and build-fail
	Test       string
	Elapsed    float64
	Output     string
}

// A report collects the events of one or more runs and writes what people want
// to read of them.
type report struct {
	w       io.Writer
	runs    int               // that have ended
	results map[string]result // of all runs, by package and test
	reasons map[string]string // of skipped tests, likewise

	packages map[string]*pkg // of this run
	order    []string        // in which they began
}

// A result is how a test ended. That of several runs is the greatest.
type result int

const (
	skipped result = iota + 1
	passed
	failed
)

// A pkg is a package under test.
type pkg struct {
	tests  map[string]*strings.Builder // the output of those without a result
	output strings.Builder             // not of a test
	broken []string                    // the output of failed tests
	ran    int
	ended  bool
}

func newReport(w io.Writer) *report {
	return &report{w: w, results: map[string]result{}, reasons: map[string]string{}, packages: map[string]*pkg{}}
}

// set notes the result of a test, or of what else has a name.
func (r *report) set(name string, res result) {
	r.results[name] = max(r.results[name], res)
}

// read takes in the output of go test -json. What is not an event is passed on
// as it is: go writes such lines for mistakes in its arguments.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				r.take(e)
			} else if _, err := r.w.Write(line); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) take(e event) {
	switch {
	case e.Action == "build-output":
		r.printf("%s", e.Output)
	case e.Action == "build-fail":
		// The packages that cannot be built for it fail by themselves.
	case e.Package == "":
		r.printf("%s", e.Output)
	case e.Test == "":
		r.takePackage(e)
	default:
		r.takeTest(e)
	}
}

func (r *report) pkg(name string) *pkg {
	p := r.packages[name]
	if p == nil {
		p = &pkg{tests: map[string]*strings.Builder{}}
		r.packages[name] = p
		r.order = append(r.order, name)
	}
	return p
}

func (r *report) takeTest(e event) {
	p := r.pkg(e.Package)
	out := p.tests[e.Test]
	if out == nil {
		out = &strings.Builder{}
		p.tests[e.Test] = out
	}
	name := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		out.WriteString(e.Output)
		return
	case "pass":
		r.set(name, passed)
	case "fail":
		r.set(name, failed)
		p.broken = append(p.broken, out.String())
	case "skip":
		r.set(name, skipped)
		r.reasons[name] = reason(out.String())
	default: // run, pause, cont
		return
	}
	p.ran++
	delete(p.tests, e.Test)
}

func (r *report) takePackage(e event) {
	p := r.pkg(e.Package)
	switch e.Action {
	case "output":
		p.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		r.end(e, p)
	}
}

// end is called when go test has said how a package ended.
func (r *report) end(e event, p *pkg) {
	p.ended = true
	unfinished := p.unfinished()
	if e.Action != "fail" && len(unfinished) == 0 {
		switch {
		case p.ran > 0:
			r.printf("ok    %s  %.2fs  %d tests\n", e.Package, e.Elapsed, p.ran)
		case r.runs > 0: // a further run is of few tests
		case e.Action == "skip":
			r.printf("-     %s  no test files\n", e.Package)
		default:
			r.printf("-     %s  no test ran\n", e.Package)
		}
		return
	}
	r.printf("FAIL  %s  %.2fs\n", e.Package, e.Elapsed)
	for _, output := range p.broken {
		r.printf("%s", output)
	}
	for _, name := range unfinished {
		r.set(e.Package+" "+name+": ended without a result", failed)
		r.printf("%s", p.tests[name].String())
	}
	r.printf("%s", p.output.String())
	if len(p.broken) == 0 && len(unfinished) == 0 {
		r.set(e.Package+": failed outside of its tests", failed)
	}
}

// unfinished returns the tests that began and have no result.
func (p *pkg) unfinished() []string {
	names := make([]string, 0, len(p.tests))
	for name := range p.tests {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// endRun is called when go test has ended, with what it returned.
func (r *report) endRun(err error) {
	for _, name := range r.order {
		if p := r.packages[name]; !p.ended {
			r.printf("FAIL  %s\n%s", name, p.output.String())
			r.set(name+": ended without a result", failed)
		}
	}
	if err != nil && len(r.names(failed)) == 0 {
		r.set("go test: "+err.Error(), failed)
	}
	r.runs++
	r.packages, r.order = map[string]*pkg{}, nil
}

// names returns what ended so, in order.
func (r *report) names(res result) (names []string) {
	for name, got := range r.results {
		if got == res {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// finish writes the end of the report and returns the exit code.
func (r *report) finish(noSkip bool) int {
	nPassed, failures, skips := len(r.names(passed)), r.names(failed), r.names(skipped)
	for i, name := range skips {
		skips[i] = name + ": " + r.reasons[name]
	}
	r.list("Skipped", skips)
	r.list("Failed", failures)
	code := 0
	if len(failures) > 0 {
		code = 1
	}
	if nPassed+len(failures) == 0 {
		r.printf("\nNo test ran: that is a failure.\n")
		code = 1
	}
	if noSkip && len(skips) > 0 {
		r.printf("\nA test was skipped, and KEYSTILE_NO_SKIP forbids it: that is a failure.\n")
		code = 1
	}
	r.printf("\n%d passed, %d failed, %d skipped\n", nPassed, len(failures), len(skips))
	return code
}

func (r *report) list(title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	r.printf("\n%s:\n", title)
	for _, line := range lines {
		r.printf("  %s\n", line)
	}
}

func (r *report) printf(format string, args ...any) {
	// Nothing can be said about an output that takes nothing more.
	_, _ = fmt.Fprintf(r.w, format, args...)
}

// reason returns what a skipped test said: its output without the lines that
// the test runner adds.
func reason(output string) string {
	var said []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		said = append(said, line)
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}
