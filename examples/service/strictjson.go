package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"time"
)

// decodeStrict decodes a JSON value into v, which consists of structs, slices,
// pointers and simple values. Unlike encoding/json it takes the names of members as
// they are written, each of them once, and an error names the place: a mistake in a
// file of settings must not be a setting that is silently left out.
func decodeStrict(text []byte, v reflect.Value, path string) error {
	at := func(problem string) error {
		if path == "" {
			return errors.New("the file " + problem)
		}
		return errors.New(path + " " + problem)
	}
	if bytes.Equal(text, []byte("null")) {
		return nil // as if it were not there
	}
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return decodeStrict(text, v.Elem(), path)
	case v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]():
		return decodeObject(text, v, path, at)
	case v.Kind() == reflect.Slice:
		var items []json.RawMessage
		if json.Unmarshal(text, &items) != nil {
			return at("must be an array")
		}
		v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
		for i, item := range items {
			if err := decodeStrict(item, v.Index(i), path+"["+strconv.Itoa(i)+"]"); err != nil {
				return err
			}
		}
		return nil
	}
	if err := json.Unmarshal(text, v.Addr().Interface()); err != nil {
		return at("must be " + kindName(v))
	}
	return nil
}

func kindName(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int64:
		return "a whole number"
	case reflect.Struct:
		return `a time, as "2026-01-31T12:00:00Z"`
	}
	return "a string"
}

func decodeObject(text []byte, v reflect.Value, path string, at func(string) error) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return at("must be a JSON object")
	}
	fields := make(map[string]reflect.Value)
	for i := range v.NumField() {
		fields[v.Type().Field(i).Tag.Get("json")] = v.Field(i)
	}
	seen := make(map[string]bool)
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return at(fmt.Sprintf("is no JSON: %v", err))
		}
		member, _ := name.(string)
		field, known := fields[member]
		switch {
		case !known:
			return at(fmt.Sprintf("has a member %q, which is not known", member))
		case seen[member]:
			return at(fmt.Sprintf("has the member %q twice", member))
		}
		seen[member] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return at(fmt.Sprintf("is no JSON: %v", err))
		}
		place := member
		if path != "" {
			place = path + "." + member
		}
		if err := decodeStrict(value, field, place); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return at(fmt.Sprintf("is no JSON: %v", err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return at("has something after the object")
	}
	return nil
}
