package api

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keystile/keystile/middleware"
)

// members are the members that an object may have, each with what reads its
// value. The name must match exactly: encoding/json takes "Name" for "name".
type members map[string]reader

// A reader reads the value of a member, which is valid JSON, and returns what is
// wrong with it; the decoder adds the name of the member.
type reader func(raw json.RawMessage) []middleware.FieldProblem

// decodeObject reads data as one JSON object whose members are all known and none
// of which is there twice. It returns false if data is not such an object at all:
// not JSON, not UTF-8, something else than an object, or more than one. The
// problems are those with single members; there are at most [maxProblems].
//
// encoding/json is lenient in places where two readers of one body may disagree on
// what it says: it lets the last of equal names win, matches names in any case,
// drops unknown ones, takes null for "leave as it is", and replaces what is not
// Unicode. So it only finds the ends of the values here.
func decodeObject(data []byte, known members) (problems []middleware.FieldProblem, ok bool) {
	if !utf8.Valid(data) || !json.Valid(data) || loneSurrogate(data) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, false
	}
	seen := make(map[string]bool, len(known))
	for d.More() {
		token, _ := d.Token() // a name: data is valid
		name, _ := token.(string)
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, false
		}
		read := known[name]
		var found []middleware.FieldProblem
		switch {
		case read == nil:
			found = problem("is not a member of this object")
		case seen[name]:
			found = problem("is there more than once")
		default:
			found = read(raw)
		}
		seen[name] = true
		for _, p := range found {
			if len(problems) == maxProblems {
				break
			}
			p.Field = speakable(name)
			problems = append(problems, p)
		}
	}
	return problems, true
}

// maxProblems bounds an answer: a list of addresses can have thousands of bad
// lines.
const maxProblems = 100

// problem is what a reader returns that found one thing wrong with the whole value.
func problem(message string) []middleware.FieldProblem {
	return []middleware.FieldProblem{{Message: message}}
}

// speakable returns the name of a member if it may be repeated in an answer: it
// could be anything, a misplaced token too (S75). No token is so short, or has
// only letters and digits.
func speakable(name string) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if len(name) > 30 || strings.Trim(name, letters) != "" {
		return ""
	}
	return name
}

// loneSurrogate reports whether data, which is valid JSON, escapes half of a pair
// of surrogates, which no text can contain (RFC 8259 8.2).
func loneSurrogate(data []byte) bool {
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		i++
		if data[i] != 'u' {
			continue
		}
		unit := data[i+1 : i+5]
		i += 4
		switch {
		case lowSurrogate(unit):
			return true
		case !surrogate(unit):
		case i+6 < len(data) && data[i+1] == '\\' && data[i+2] == 'u' && lowSurrogate(data[i+3:i+7]):
			i += 6
		default:
			return true
		}
	}
	return false
}

// surrogate reports whether four hexadecimal digits are from D800 to DFFF.
func surrogate(hex []byte) bool { return hex[0]|0x20 == 'd' && hex[1] >= '8' }

// lowSurrogate reports whether they are from DC00 on.
func lowSurrogate(hex []byte) bool {
	return surrogate(hex) && hex[1] > 'B' && hex[1] != 'a' && hex[1] != 'b'
}

// The readers. Each leaves *to nil, or as it was, unless the value is good. Null is
// no value of any type: orNull says where it means something.

func text(to **string) reader {
	return func(raw json.RawMessage) []middleware.FieldProblem {
		s, ok := asText(raw)
		if !ok {
			return problem("must be a string")
		}
		*to = &s
		return nil
	}
}

func asText(raw json.RawMessage) (s string, ok bool) {
	return s, raw[0] == '"' && json.Unmarshal(raw, &s) == nil
}

func boolean(to **bool) reader {
	return func(raw json.RawMessage) []middleware.FieldProblem {
		switch string(raw) {
		case "true":
			*to = new(true)
		case "false":
			*to = new(false)
		default:
			return problem("must be true or false")
		}
		return nil
	}
}

// integer reads a number without fraction and exponent: 1.0 and 1e3 are spellings
// that readers of JSON disagree about. Check returns what is wrong with the
// number.
func integer(to **int64, check func(n int64) string) reader {
	return func(raw json.RawMessage) []middleware.FieldProblem {
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil { // out of range included
			return problem("must be an integer")
		}
		if wrong := check(n); wrong != "" {
			return problem(wrong)
		}
		*to = &n
		return nil
	}
}

// instant reads a time as RFC 3339 writes it. The shape is checked here, because
// time.Parse and Time.UnmarshalText take more than that, such as a comma.
func instant(to **time.Time) reader {
	return func(raw json.RawMessage) []middleware.FieldProblem {
		s, _ := asText(raw)
		t, err := time.Parse(time.RFC3339, s)
		if err != nil || !rfc3339.MatchString(s) {
			return problem("must be a time as in RFC 3339, such as 2030-01-31T00:00:00Z")
		}
		*to = new(t.UTC())
		return nil
	}
}

var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

func texts(to **[]string) reader {
	return func(raw json.RawMessage) []middleware.FieldProblem {
		var items []json.RawMessage
		if raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
			return problem("must be an array of strings")
		}
		list := make([]string, len(items))
		var problems []middleware.FieldProblem
		for i, item := range items {
			var ok bool
			if list[i], ok = asText(item); !ok {
				problems = append(problems, middleware.FieldProblem{Line: i + 1, Message: "must be a string"})
			}
		}
		if problems == nil {
			*to = &list
		}
		return problems
	}
}

// orNull reads null as the value that zero sets, and everything else by read.
func orNull(zero func(), read reader) reader {
	return func(raw json.RawMessage) []middleware.FieldProblem {
		if string(raw) == "null" {
			zero()
			return nil
		}
		return read(raw)
	}
}
