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

var null = []byte("null")

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
	if path != "" && bytes.Equal(text, null) {
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
			place := path + "[" + strconv.Itoa(i) + "]"
			if bytes.Equal(item, null) {
				return errors.New(place + " is null")
			}
			if err := decodeStrict(item, v.Index(i), place); err != nil {
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
	fields := make(map[string]reflect.Value)
	for i := range v.NumField() {
		fields[v.Type().Field(i).Tag.Get("json")] = v.Field(i)
	}
	return eachMember(text, func(name string, value json.RawMessage) error {
		field, known := fields[name]
		if !known {
			return at(fmt.Sprintf("has a member %q, which is not known", name))
		}
		place := name
		if path != "" {
			place = path + "." + name
		}
		return decodeStrict(value, field, place)
	}, at)
}

// eachMember calls each with every member of the JSON object that text is, in order,
// and stops at an error. Its own errors, such as that a member is there twice, are
// made by at.
func eachMember(text []byte, each func(name string, value json.RawMessage) error, at func(string) error) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return at("must be a JSON object")
	}
	seen := make(map[string]bool)
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return at(fmt.Sprintf("is no JSON: %v", err))
		}
		name, _ := token.(string)
		if seen[name] {
			return at(fmt.Sprintf("has the member %q twice", name))
		}
		seen[name] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return at(fmt.Sprintf("is no JSON: %v", err))
		}
		if err := each(name, value); err != nil {
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
