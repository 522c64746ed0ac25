package api_test

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware/api"
)

// TestStrictJSON: what a body must not be. Nothing is done, and nothing of it is
// repeated.
func TestStrictJSON(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, body, reason string }{
		{"nothing", "", "malformed_body"},
		{"blank", " \n", "malformed_body"},
		{"null", "null", "malformed_body"},
		{"array", `[{"name":"x"}]`, "malformed_body"},
		{"string", `"name"`, "malformed_body"},
		{"number", `1`, "malformed_body"},
		{"not closed", `{"name":"x"`, "malformed_body"},
		{"closed twice", `{"name":"x"}}`, "malformed_body"},
		{"text after it", `{"name":"x"} x`, "malformed_body"},
		{"a second object", `{"name":"x"}{"name":"y"}`, "malformed_body"},
		{"NUL after it", "{\"name\":\"x\"}\x00", "malformed_body"},
		{"byte order mark", "\ufeff" + `{"name":"x"}`, "malformed_body"},
		{"comment", `{"name":"x"/**/}`, "malformed_body"},
		{"trailing comma", `{"name":"x",}`, "malformed_body"},
		{"single quotes", `{'name':'x'}`, "malformed_body"},
		{"bare name", `{name:"x"}`, "malformed_body"},
		{"NaN", `{"name":"x","dailyLimit":NaN}`, "malformed_body"},
		{"leading zero", `{"name":"x","dailyLimit":010}`, "malformed_body"},
		{"plus", `{"name":"x","dailyLimit":+1}`, "malformed_body"},
		{"not UTF-8", "{\"name\":\"x\xff\"}", "malformed_body"},
		{"surrogates in UTF-8", "{\"name\":\"\xed\xa0\x80\"}", "malformed_body"},
		{"UTF-16", "{\x00\"\x00n\x00a\x00m\x00e\x00", "malformed_body"},
		{"line break in a string", "{\"name\":\"a\nb\"}", "malformed_body"},
		{"high surrogate alone", `{"name":"\ud83d"}`, "malformed_body"},
		{"high surrogate before a letter", `{"name":"\ud83dx"}`, "malformed_body"},
		{"two high surrogates", `{"name":"\ud83d\ud83d"}`, "malformed_body"},
		{"low surrogate alone", `{"name":"\uDE00"}`, "malformed_body"},
		{"surrogates in turn", `{"name":"\ude00\ud83d"}`, "malformed_body"},
		{"half a pair in a name", `{"name":"x","\ud83d":1}`, "malformed_body"},
		{"deep", `{"name":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, "malformed_body"},

		{"unknown member", `{"name":"x","extra":1}`, "invalid_fields"},
		{"unknown member without name", `{"name":"x","":1}`, "invalid_fields"},
		{"member in another case", `{"Name":"x"}`, "invalid_fields"},
		{"member in another case beside it", `{"name":"x","NAME":"y"}`, "invalid_fields"},
		{"member with a folded letter", `{"name":"x","\u212aey":"y"}`, "invalid_fields"},
		{"a member twice", `{"name":"x","name":"x"}`, "invalid_fields"},
		{"a member twice, once escaped", `{"name":"x","n\u0061me":"x"}`, "invalid_fields"},
		{"a prototype", `{"name":"x","__proto__":{}}`, "invalid_fields"},
		{"nested", `{"name":{"name":"x"}}`, "invalid_fields"},
		{"nested and twice", `{"name":{"a":1,"a":2}}`, "invalid_fields"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			before := w.dump()
			got := w.do("POST", "/v1/api-keys", request{as: "ann", body: test.body})
			code := map[string]string{"malformed_body": "InvalidRequest", "invalid_fields": "ValidationError"}[test.reason]
			got.refused(400, code, test.reason)
			require.Equal(t, before, w.dump())
		})
	}
	w := newWorld(t)
	for body, name := range map[string]string{
		" {\n\t\"name\" : \"x\" }\r\n ":                        "x",
		`{"n\u0061me":"\ud83d\ude00\\ud83d\/"}`:                `😀\ud83d/`,
		`{"name":"\uFFFD\uD83D\uDE00"}`:                        "\ufffd😀",
		`{"name":"` + "\ufffd" + `"}`:                          "\ufffd",
		`{"name":"x","dailyLimit": 7 ,"scopes":[ "a" , "b" ]}`: "x",
	} {
		require.Equal(t, name, w.do("POST", "/v1/api-keys", request{as: "ann", body: body}).data(201)["name"], body)
	}
}

// TestMediaTypes: application/json in UTF-8, declared once and without a coding.
func TestMediaTypes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := `{"name":"x"}`
	for _, good := range []string{"application/json", "Application/JSON", "application/json; charset=utf-8", `application/json;charset="UTF-8"`} {
		_, prefix := w.create("ann")
		w.do("PATCH", "/v1/api-keys/"+prefix, request{as: "ann", body: body, headers: map[string]string{"Content-Type": good}}).data(200)
		w.do("DELETE", "/v1/api-keys/"+prefix, request{as: "ann"}).data(200)
	}
	before := w.dump()
	for _, bad := range []string{
		"", "text/json", "application/jsonx", "application/json5", "application/problem+json", "application/merge-patch+json", "application/*", "*/*",
		"application/json; charset=latin1", "application/json; charset=utf-16", "application/json; version=1", "application/json, text/plain", "application/json;",
	} {
		got := w.do("POST", "/v1/api-keys", request{as: "ann", body: body, headers: map[string]string{"Content-Type": bad}})
		if bad == "application/json;" {
			got.data(201) // an empty parameter is none
			before = w.dump()
			continue
		}
		got.refused(415, "InvalidRequest", "unsupported_media_type")
	}
	w.do("POST", "/v1/api-keys", request{as: "ann", body: body, headers: map[string]string{"Content-Encoding": "gzip"}}).
		refused(415, "InvalidRequest", "unsupported_media_type")
	require.Equal(t, before, w.dump())
}

// TestBodySize: 64 KiB are read, and not one byte more.
func TestBodySize(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const most = 64 << 10
	body := `{"name":"x"}`
	w.do("POST", "/v1/api-keys", request{as: "ann", body: body + strings.Repeat(" ", most-len(body))}).data(201)
	w.do("POST", "/v1/api-keys", request{as: "ann", body: body + strings.Repeat(" ", most-len(body)+1)}).
		refused(413, "InvalidRequest", "body_too_large")
}

// TestManyProblems: an answer repeats at most 100 problems, however many there are.
func TestManyProblems(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	lines := make([]string, 5000)
	for i := range lines {
		lines[i] = "x"
	}
	f := w.do("PATCH", "/v1/org/token-settings", request{
		as: "olga", body: object{"apiAllowedIPs": lines}, headers: map[string]string{"If-Match": "*"},
	}).refused(400, "ValidationError", "invalid_fields")
	require.Len(t, f.Error.Fields, 100)
	f = w.do("GET", "/v1/api-keys?"+strings.Repeat("a=1&b=1&", 3)+manyNames(300), request{as: "ann"}).refused(400, "ValidationError", "invalid_fields")
	require.Len(t, f.Error.Fields, 100)
}

func manyNames(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat("z", i%20+1) + string(rune('a'+i%26)) + string(rune('a'+i/26)) + "=1&")
	}
	return b.String()
}

// TestQueries: unknown parameters, repeated ones and bad values are refused.
func TestQueries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for query, field := range map[string]string{
		"limit=0": "limit", "limit=101": "limit", "limit=-1": "limit", "limit=": "limit", "limit=1.0": "limit", "limit=%2B1": "limit", "limit=01": "limit",
		"limit=99999999999999999999": "limit", "limit=1&limit=1": "limit", "LIMIT=1": "LIMIT", "Cursor=x": "Cursor", "page=2": "page",
		"csk_live_00000000000000000000000000000000=1": "",
		"cursor=": "cursor", "cursor=%20": "cursor", "cursor=AA==": "cursor", "cursor=____": "cursor", "cursor=A": "cursor",
		"cursor=MQ": "cursor", "cursor=MSA": "cursor", "cursor=eCB4": "cursor", // "1", "1 ", "x x"
		"cursor=OTIyMzM3MjAzNjg1NDc3NTgwNyB4":   "cursor", // the year 294247
		"cursor=LTkyMjMzNzIwMzY4NTQ3NzU4MDggeA": "cursor", // and that before the year 1
		"cursor=MSAA":                           "cursor", // an ID that nobody has
	} {
		w.do("GET", "/v1/api-keys?"+query, request{as: "ann"}).invalid(field)
		if field == "limit" || field == "page" {
			w.do("GET", "/v1/org/users?"+query, request{as: "olga"}).invalid(field)
			w.do("GET", "/v1/org/api-keys?"+query, request{as: "olga"}).invalid(field)
		}
	}
	for query, field := range map[string]string{
		"status=": "status", "status=ACTIVE": "status", "status=disabled": "status", "revoked=1": "revoked", "revoked=": "revoked",
		"name=%00": "name", "creator=%0A": "creator", "creator=" + strings.Repeat("a", 600): "creator",
	} {
		w.do("GET", "/v1/org/api-keys?"+query, request{as: "olga"}).invalid(field)
	}
	w.do("GET", "/v1/org/users?cursor=AA", request{as: "olga"}).invalid("cursor")
	w.do("GET", "/v1/usage?x=1", request{as: "ann"}).invalid("x")
	for _, query := range []string{"limit=%zz", "a;b", "limit=1;cursor=x"} {
		w.do("GET", "/v1/api-keys?"+query, request{as: "ann"}).refused(400, "InvalidRequest", "malformed_query")
	}
	// A cursor that was made up says only where to go on in the own list.
	w.create("bob")
	w.do("GET", "/v1/api-keys?cursor=OTk5OTk5OTk5OTk5OTk5OSB4", request{as: "ann"}).data(200)
}

// FuzzStrictJSON: what is taken is also taken by encoding/json, told to refuse
// unknown members, and means the same to it; no name is there twice, and
// re-encoding what was read and reading it again gives the same.
func FuzzStrictJSON(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"s":"x","n":1,"b":true,"l":["a","b"]}`, ` { "s" : "\u00e9\ud83d\ude00" } `, `{"n":-9223372036854775808}`, `{"n":1e3}`, `{"n":1.0}`,
		`{"s":"a","s":"b"}`, `{"s":"a","\u0073":"b"}`, `{"S":"a"}`, `{"s":null}`, `{"l":[null]}`, `{"l":null}`, `{"b":null}`, `{"s":"\ud800"}`, `{"x":{"a":1,"a":2}}`,
		`{"s":"a"} {}`, `[]`, `null`, "{\"s\":\"\xff\"}", `{"ſ":"x"}`, `{"s":"\\ud800"}`, `{"l":[" "]}`, `{"n":00}`, `{"s":"` + "\u2028" + `"}`,
	} {
		f.Add([]byte(seed))
	}
	type object struct {
		S *string   `json:"s,omitempty"`
		N *int64    `json:"n,omitempty"`
		B *bool     `json:"b,omitempty"`
		L *[]string `json:"l,omitempty"`
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, n, b, l, problems, ok := api.Decode(data)
		if !ok || len(problems) > 0 {
			for _, p := range problems {
				require.LessOrEqual(t, len(p.Field), 30)
			}
			return
		}
		got := object{s, n, b, l}
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		var want object
		require.NoError(t, d.Decode(&want))
		require.Equal(t, want, got)
		_, err := d.Token()
		require.ErrorIs(t, err, io.EOF, "nothing follows")

		d = json.NewDecoder(bytes.NewReader(data))
		seen := map[json.Token]bool{}
		depth := 0
		for name := true; ; {
			token, err := d.Token()
			if err != nil {
				break
			}
			switch token {
			case json.Delim('{'), json.Delim('['):
				depth++
				continue
			case json.Delim('}'), json.Delim(']'):
				depth--
				name = true
				continue
			}
			if depth == 1 {
				if name {
					require.False(t, seen[token], "a name twice")
					seen[token] = true
				}
				name = !name
			}
		}
		again, err := json.Marshal(got)
		require.NoError(t, err)
		s, n, b, l, problems, ok = api.Decode(again)
		require.True(t, ok)
		require.Empty(t, problems)
		require.Equal(t, object{s, n, b, l}, got)
	})
}

// TestUnknownParameters: an operation takes the parameters of its document and no
// others, each once; whoever may not call it at all is told that first.
func TestUnknownParameters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, prefix := w.create("olga")
	before := w.dump()
	for _, op := range operations(t) {
		if op.name() == "GET /v1/openapi.json" {
			continue
		}
		path := strings.NewReplacer("{prefix}", prefix, "{user}", "ann").Replace(op.path)
		r := request{as: "olga", headers: map[string]string{"If-Match": "*"}}
		if op.body() {
			r.body = sample(op.name())
		}
		w.do(op.method, path+"?unknown=1", r).invalid("unknown")
		if strings.HasPrefix(op.path, "/v1/org/") {
			r.as = "ann"
			w.do(op.method, path+"?unknown=1", r).refused(403, "Forbidden", "owner_required")
		}
	}
	require.Equal(t, before, w.dump())
}
