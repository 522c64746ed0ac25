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

// A report collects events and writes what people want to read of them.
type report struct {
	w        io.Writer
	packages map[string]*pkg
	order    []string // of packages, as they began

	passed, failed, skipped int

	failures []string // tests and packages
	skips    []string // tests with their reason
}

// A pkg is a package under test that has not ended yet.
type pkg struct {
	tests  map[string]*strings.Builder // the output of those without a result
	output strings.Builder             // not of a test
	broken []brokenTest
	ran    int
	ended  bool
}

type brokenTest struct{ name, output string }

func newReport(w io.Writer) *report {
	return &report{w: w, packages: map[string]*pkg{}}
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
		r.passed++
	case "fail":
		r.failed++
		r.failures = append(r.failures, name)
		p.broken = append(p.broken, brokenTest{e.Test, out.String()})
	case "skip":
		r.skipped++
		r.skips = append(r.skips, name+": "+reason(out.String()))
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
	switch {
	case e.Action == "fail" || len(unfinished) > 0:
		r.printf("FAIL  %s  %.2fs\n", e.Package, e.Elapsed)
	case e.Action == "skip":
		r.printf("-     %s  no test files\n", e.Package)
		return
	case p.ran == 0:
		r.printf("-     %s  no test ran\n", e.Package)
		return
	default:
		r.printf("ok    %s  %.2fs  %d tests\n", e.Package, e.Elapsed, p.ran)
		return
	}
	for _, t := range p.broken {
		r.printf("%s", t.output)
	}
	for _, name := range unfinished {
		r.failed++
		r.failures = append(r.failures, e.Package+" "+name+": ended without a result")
		r.printf("%s", p.tests[name].String())
	}
	r.printf("%s", p.output.String())
	if len(p.broken) == 0 && len(unfinished) == 0 {
		r.failed++
		r.failures = append(r.failures, e.Package+": failed outside of its tests")
	}
}

func (p *pkg) unfinished() []string {
	names := make([]string, 0, len(p.tests))
	for name := range p.tests {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// finish writes the end of the report and returns the exit code. Its argument
// err is how go test itself ended.
func (r *report) finish(noSkip bool, err error) int {
	for _, name := range r.order {
		if p := r.packages[name]; !p.ended {
			r.printf("FAIL  %s\n%s", name, p.output.String())
			r.failed++
			r.failures = append(r.failures, name+": ended without a result")
		}
	}
	if err != nil && r.failed == 0 {
		r.failed++
		r.failures = append(r.failures, "go test: "+err.Error())
	}
	r.list("Skipped", r.skips)
	r.list("Failed", r.failures)
	code := 0
	if r.failed > 0 {
		code = 1
	}
	if r.passed+r.failed == 0 {
		r.printf("\nNo test ran: that is a failure.\n")
		code = 1
	}
	if noSkip && r.skipped > 0 {
		r.printf("\nA test was skipped, and KEYSTILE_NO_SKIP forbids it: that is a failure.\n")
		code = 1
	}
	r.printf("\n%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return code
}

func (r *report) list(title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	slices.Sort(lines)
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
