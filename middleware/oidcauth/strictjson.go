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
	// Valid holds data to the grammar, which Token does not in every place.
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	v, ok := decodeValue(d)
	object, isObject := v.(map[string]any)
	return object, ok && isObject
}

// decodeValue decodes the next value of d, and reports whether it names nothing
// twice. The input is known to be valid.
func decodeValue(d *json.Decoder) (any, bool) {
	t, err := d.Token()
	if err != nil {
		return nil, false
	}
	switch t {
	case json.Delim('{'):
		object := map[string]any{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, false
			}
			s, _ := name.(string)
			if _, twice := object[s]; twice {
				return nil, false
			}
			v, ok := decodeValue(d)
			if !ok {
				return nil, false
			}
			object[s] = v
		}
		_, err := d.Token()
		return object, err == nil
	case json.Delim('['):
		array := []any{}
		for d.More() {
			v, ok := decodeValue(d)
			if !ok {
				return nil, false
			}
			array = append(array, v)
		}
		_, err := d.Token()
		return array, err == nil
	}
	return t, true
}
