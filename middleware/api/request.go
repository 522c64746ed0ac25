package api

import (
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/store"
)

// maxBody is how long the body of a request may be. It has room for an allowlist of
// thousands of lines.
const maxBody = 64 << 10

// optionalBody is body for operations all of whose members are optional: nothing at
// all stands for an empty object, also from clients that declare JSON with whatever
// they send (S5).
func (c *call) optionalBody(known members) error {
	if c.r.ContentLength == 0 && (len(c.r.Header["Content-Type"]) == 0 || isJSON(c.r.Header)) {
		return nil
	}
	return c.body(known)
}

// body reads the body of c, which has to be one JSON object with none but the known
// members.
func (c *call) body(known members) error {
	if !isJSON(c.r.Header) {
		return invalidRequest(http.StatusUnsupportedMediaType, "unsupported_media_type",
			"The body must be application/json in UTF-8, without a content coding.")
	}
	data, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return invalidRequest(http.StatusRequestEntityTooLarge, "body_too_large", "The body must be at most 64 KiB long.")
		}
		return invalidRequest(http.StatusBadRequest, "malformed_body", "The body cannot be read.")
	}
	problems, isObject := decodeObject(data, known)
	switch {
	case !isObject:
		return invalidRequest(http.StatusBadRequest, "malformed_body", "The body must be one JSON object and nothing else.")
	case len(problems) > 0:
		return invalidFields(problems)
	}
	return nil
}

// isJSON reports whether a body is declared as JSON in UTF-8 and as nothing else.
// Forms of web pages cannot send that media type, which is a second wall against
// requests from other sites.
func isJSON(h http.Header) bool {
	if len(h["Content-Type"]) != 1 || len(h["Content-Encoding"]) > 0 {
		return false
	}
	media, params, err := mime.ParseMediaType(h["Content-Type"][0])
	if err != nil || media != "application/json" {
		return false
	}
	for name, value := range params {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return false
		}
	}
	return true
}

// query returns the parameters of c, of which each may be there once, or not at all.
// Unknown ones are refused: a filter with a mistake in its name would show
// everything.
func (c *call) query(known ...string) (map[string]string, error) {
	values, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return nil, invalidRequest(http.StatusBadRequest, "malformed_query", "The query of the address cannot be read.")
	}
	var problems []middleware.FieldProblem
	params := make(map[string]string, len(values))
	for name, vs := range values {
		switch {
		case !slices.Contains(known, name):
			problems = append(problems, middleware.FieldProblem{Field: speakable(name), Message: "is not a parameter of this request"})
		case len(vs) > 1:
			problems = append(problems, middleware.FieldProblem{Field: name, Message: "is there more than once"})
		default:
			params[name] = vs[0]
		}
	}
	if problems != nil {
		slices.SortFunc(problems, func(a, b middleware.FieldProblem) int { return strings.Compare(a.Field, b.Field) })
		return nil, invalidFields(problems[:min(len(problems), maxProblems)])
	}
	return params, nil
}

// maxPage is how long a page of a list may be, and is by default.
const maxPage = 100

// readNumber reads a parameter that is a number from 1 to most, which it is if it is
// not there.
func readNumber(params map[string]string, name string, most int) (int, error) {
	text, there := params[name]
	if !there {
		return most, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most || text != strconv.Itoa(n) {
		return 0, invalidField(name, "must be a number from 1 to "+strconv.Itoa(most))
	}
	return n, nil
}

// Cursors name the place in a list that a page ends at. What is in them is the
// client's to see and to change: it says where to go on, and never in whose list.
// They are opaque so that they can change.

func writeCursor(text string) *string {
	return new(base64.RawURLEncoding.EncodeToString([]byte(text)))
}

// readCursor returns what is in the parameter cursor; nothing if it is not there.
func readCursor(params map[string]string) (string, error) {
	param, there := params["cursor"]
	if !there {
		return "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(param)
	if err != nil || len(text) == 0 {
		return "", errCursor
	}
	return string(text), nil
}

var errCursor = invalidField("cursor", "must be the nextCursor of a page")

// keyCursor writes the cursor of a list of keys; nil after the last page.
func keyCursor(next store.Cursor) *string {
	if next == (store.Cursor{}) {
		return nil
	}
	return writeCursor(strconv.FormatInt(next.CreatedAt.UnixMicro(), 10) + " " + next.ID)
}

// readKeyCursor reads what keyCursor wrote. The bounds are those of a store's times.
func readKeyCursor(params map[string]string) (store.Cursor, error) {
	text, err := readCursor(params)
	if err != nil || text == "" {
		return store.Cursor{}, err
	}
	micros, id, _ := strings.Cut(text, " ")
	n, err := strconv.ParseInt(micros, 10, 64)
	at := time.UnixMicro(n).UTC()
	if err != nil || at.Year() < 1 || at.Year() > 9999 || id == "" {
		return store.Cursor{}, errCursor
	}
	return store.Cursor{CreatedAt: at, ID: id}, nil
}
