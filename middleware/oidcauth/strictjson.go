package oidcauth

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// decodeObject decodes data, which has to be one JSON object in UTF-8 and nothing
// else, in which no object has two members of one name, at any level. Numbers are
// json.Number.
//
// encoding/json lets the last of equal names win, and takes a name in another case
// for a field of a struct: a token could be Free to its issuer and Enterprise to
// us. So nothing is decoded into structs here, and names are compared as they are.
func decodeObject(data []byte) (map[string]any, bool) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, false
	}
	r := reader{rest: data}
	if r.peek() != '{' {
		return nil, false
	}
	object, _ := r.value().(map[string]any)
	if r.twice {
		return nil, false
	}
	return object, true
}

// A reader takes the values off the front of JSON that is known to be valid, so that
// it need not look at what stands between them. That is what makes it cheap: a
// json.Decoder that hands out tokens takes as long as a third of a signature.
type reader struct {
	rest  []byte
	twice bool // an object had two members of one name
}

// value takes the next value.
func (r *reader) value() any {
	switch r.peek() {
	case '{':
		r.rest = r.rest[1:]
		object := map[string]any{}
		for r.peek() != '}' {
			name := r.text()
			if _, ok := object[name]; ok {
				r.twice = true
			}
			object[name] = r.value()
		}
		r.rest = r.rest[1:]
		return object
	case '[':
		r.rest = r.rest[1:]
		array := []any{}
		for r.peek() != ']' {
			array = append(array, r.value())
		}
		r.rest = r.rest[1:]
		return array
	case '"':
		return r.text()
	}
	end := bytes.IndexAny(r.rest, " \t\r\n,]}")
	literal := r.rest[:end] // an object or array is around it, so that something ends it
	r.rest = r.rest[end:]
	switch string(literal) {
	case "true":
		return true
	case "false":
		return false
	case "null":
		return nil
	}
	return json.Number(literal)
}

// peek returns the first byte of the next value, or the bracket that ends this one.
func (r *reader) peek() byte {
	for {
		switch c := r.rest[0]; c {
		case ' ', '\t', '\r', '\n', ',', ':':
			r.rest = r.rest[1:]
		default:
			return c
		}
	}
}

// text takes a string.
func (r *reader) text() string {
	r.peek()
	plain := true
	for i := 1; ; i++ {
		switch r.rest[i] {
		case '\\':
			plain = false
			i++ // also over a quote
		case '"':
			quoted := r.rest[:i+1]
			r.rest = r.rest[i+1:]
			if plain {
				return string(quoted[1:i])
			}
			var s string
			_ = json.Unmarshal(quoted, &s) // cannot fail: the string is valid
			return s
		}
	}
}
