package console

import (
	"html/template"
	"slices"
	"strconv"
	"strings"
	"time"
)

// funcs are what templates call.
var funcs = template.FuncMap{
	"dict":     dict,
	"duration": duration,
	"exact":    func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
	"instant":  func(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04 UTC") },
	"lines":    func(lines []string) string { return strings.Join(lines, "\n") },
	"number":   grouped,
	"plural":   plural,
	"reason":   reasonText,
	"status":   statusText,
}

// dict makes a map of names and values, for templates that take more than one.
func dict(pairs ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1]
	}
	return m
}

// statusText is what a status is called (S48).
func statusText(status string) string {
	switch status {
	case "active":
		return "Active"
	case "expired":
		return "Expired"
	case "disabled_by_owner":
		return "Disabled by owner"
	case "revoked":
		return "Deleted"
	}
	return status
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// grouped writes a number that is not negative with commas between its thousands.
func grouped(n int64) string {
	s := number(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural writes a number of things.
func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(n) + " " + many
}

// An age is a period as people write it.
type age struct {
	Number int64
	Unit   int64 // in seconds
}

// A unit is one of periods.
type unit struct {
	Seconds   int64
	One, Text string
}

var units = []unit{{86400, "day", "days"}, {3600, "hour", "hours"}, {60, "minute", "minutes"}, {1, "second", "seconds"}}

// newAge returns the age of whole units, the largest that there are.
func newAge(seconds int64) age {
	u := units[slices.IndexFunc(units, func(u unit) bool { return seconds%u.Seconds == 0 })]
	return age{seconds / u.Seconds, u.Seconds}
}

// duration writes a number of seconds.
func duration(seconds int64) string {
	a := newAge(seconds)
	u := units[slices.IndexFunc(units, func(u unit) bool { return u.Seconds == a.Unit })]
	return plural(a.Number, u.One, u.Text)
}

// presetDays are the periods that are offered (S36, D21).
var presetDays = []int64{30, 60, 90, 180, 365}

// A preset is a period to choose.
type preset struct {
	Seconds int64
	Text    string
	Chosen  bool
}

// presets returns the periods to choose of, for an organization whose period is
// chosen, and whether it is another one.
func presets(chosen int64) (ps []preset, custom bool) {
	ps, custom = []preset{{0, "Never", chosen == 0}}, chosen != 0
	for _, days := range presetDays {
		s := days * 86400
		ps = append(ps, preset{s, duration(s), chosen == s})
		custom = custom && chosen != s
	}
	return ps, custom
}

// A period is an end for a new key to choose.
type period struct {
	Days int64
	Text string
}

// periods returns those that are before the end that the organization sets, which is
// given in seconds.
func periods(maxAge int64) (ps []period) {
	for _, days := range []int64{7, 30, 60, 90, 180, 365} {
		if s := days * 86400; maxAge == 0 || s < maxAge {
			ps = append(ps, period{days, duration(s)})
		}
	}
	return ps
}
