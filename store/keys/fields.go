package keys

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/keystile/keystile/store"
)

// Bounds of what people choose for a key.
const (
	maxNameRunes  = 100 // D30
	maxScopes     = 50
	maxScopeBytes = 100

	// maxLimit is the largest integer of a structured field (RFC 9651 section 3.3.1),
	// which the RateLimit fields of an answer are.
	maxLimit = 999_999_999_999_999
)

// The checks of this file return the problem with a value, or "" if there is none.

// checkText is for what the host chooses: any text but an empty one.
func checkText(s string) string {
	if s == "" {
		return "must not be empty"
	}
	return checkOptionalText(s)
}

// checkOptionalText refuses what a store would refuse, or could not index.
func checkOptionalText(s string) string {
	switch {
	case len(s) > store.MaxID:
		return "must be at most " + strconv.Itoa(store.MaxID) + " bytes long"
	case !utf8.ValidString(s):
		return "must be valid UTF-8"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "must not contain control characters"
	}
	return ""
}

// checkName checks a name of which the surrounding blanks were cut (D30).
func checkName(name string) string {
	switch n := utf8.RuneCountInString(name); {
	case !utf8.ValidString(name):
		return "must be valid UTF-8"
	case n == 0 || strings.Trim(name, joiners) == "":
		return "must not be empty"
	case n > maxNameRunes:
		return "must be at most " + strconv.Itoa(maxNameRunes) + " characters long"
	case strings.ContainsFunc(name, func(r rune) bool { return !printable(r) }):
		return "must consist of printable characters"
	}
	return ""
}

// joiners are the zero-width non-joiner and joiner.
const joiners = "\u200c\u200d"

// printable reports whether r may stand in a name: the letters, marks, digits,
// punctuation, symbols and spaces of every script. Of the format characters, which
// are invisible, only the joiners pass, which Persian, Indic scripts and emoji
// cannot be written without; those that turn the direction of the text around, and
// so could make a name look like another, do not.
func printable(r rune) bool {
	return unicode.IsGraphic(r) || strings.ContainsRune(joiners, r)
}

// checkScopes checks each scope against the scope-token of RFC 6749 section 3.3.
func checkScopes(scopes []string) string {
	if len(scopes) > maxScopes {
		return "must be at most " + strconv.Itoa(maxScopes)
	}
	seen := make(map[string]bool, len(scopes))
	for i, s := range scopes {
		nth := "scope " + strconv.Itoa(i+1) + " must "
		switch {
		case s == "":
			return nth + "not be empty"
		case len(s) > maxScopeBytes:
			return nth + "be at most " + strconv.Itoa(maxScopeBytes) + " bytes long"
		case strings.ContainsFunc(s, func(r rune) bool { return r < '!' || r > '~' || r == '"' || r == '\\' }):
			return nth + `be printable ASCII without blanks, " and \`
		case seen[s]:
			return nth + "not repeat another"
		}
		seen[s] = true
	}
	return ""
}

// checkGiven checks the scopes that a key of u is to have, beside those that it has,
// against what the host lets u give.
func (m *Manager) checkGiven(u *store.User, scopes, had []string, a Actor) string {
	if m.mayGiveScope == nil || a.Role == Operator {
		return ""
	}
	for i, s := range scopes {
		if !slices.Contains(had, s) && !m.mayGiveScope(u, s) {
			return "scope " + strconv.Itoa(i+1) + " is not one that the user may give"
		}
	}
	return ""
}

// checkDailyLimit checks a limit in its Go form, where 0 is the service's default
// and -1 unlimited (D6), against what the actor may set (D7).
func (m *Manager) checkDailyLimit(limit int64, a Actor) string {
	switch {
	case limit < -1:
		return "must be -1 (unlimited), 0 (the default) or more"
	case limit > maxLimit:
		return "must be at most " + strconv.FormatInt(maxLimit, 10)
	case a.Role.manages():
		return ""
	case limit == -1:
		return "only an owner may set it to unlimited"
	case m.maxDailyLimit != -1 && limit > m.maxDailyLimit:
		return "must be at most " + strconv.FormatInt(m.maxDailyLimit, 10) + " unless an owner sets it"
	}
	return ""
}

// checkNotAfter checks the end of a key, as it was given, which must lie after
// another instant; zero is none. One that would be stored as zero is not.
func checkNotAfter(t, after time.Time) string {
	switch {
	case t.IsZero():
		return ""
	case !instant(t).After(after):
		return "must lie in the future"
	case t.Year() > 9999:
		return "must not lie after the year 9999" // RFC 3339 cannot write it (D1)
	}
	return ""
}
