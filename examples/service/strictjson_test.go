package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// FuzzDecodeStrict: what is taken is what encoding/json takes with unknown members
// refused, and means the same; what is not taken is an error that names a place.
func FuzzDecodeStrict(f *testing.F) {
	for _, text := range []string{
		`{"orgs":[{"name":"x","settings":{"apiTokenMaxAge":60,"apiAllowedIPs":["10.0.0.0/8"]},"users":[{"id":"u","role":"user","permitted":true,` +
			`"keys":[{"ref":"1","name":"1","createdAt":"2026-01-02T03:04:05Z","dailyLimit":-1,"scopes":["a"],"revoked":true}]}]}]}`,
		`{"orgs":null}`, `{"orgs":[null,{"settings":null}]}`, `{"orgs":[{"name":"a","name":"b"}]}`, `{"Orgs":[]}`, `{} {}`, `null`, ``, `{"orgs":[{"name":1}]}`,
		`{"orgs":[{"users":[{"keys":[{"dailyLimit":1e2}]}]}]}`, `{"orgs":[],}`, " {\n} ",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var strict, lenient bootstrap
		if err := decodeStrict([]byte(text), reflect.ValueOf(&strict).Elem(), ""); err != nil {
			if !strings.HasPrefix(err.Error(), "the file ") && !strings.HasPrefix(err.Error(), "orgs") {
				t.Fatalf("an error without a place: %v", err)
			}
			return
		}
		d := json.NewDecoder(bytes.NewReader([]byte(text)))
		d.DisallowUnknownFields()
		if err := d.Decode(&lenient); err != nil {
			t.Fatalf("taken, but not by encoding/json: %v", err)
		}
		if !reflect.DeepEqual(strict, lenient) {
			t.Fatalf("%+v is not %+v", strict, lenient)
		}
	})
}
