package api_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware/api"
)

// An operation is one of the OpenAPI document.
type operation struct {
	method, path string
	spec         map[string]any
}

func (o operation) name() string { return o.method + " " + o.path }

func (o operation) body() bool { return o.spec["requestBody"] != nil }

// operations returns those of the document as it is served.
func operations(t *testing.T) (ops []operation) {
	t.Helper()
	for path, item := range document(t)["paths"].(map[string]any) {
		for method, spec := range item.(map[string]any) {
			if method != "parameters" {
				ops = append(ops, operation{strings.ToUpper(method), path, spec.(map[string]any)})
			}
		}
	}
	require.NotEmpty(t, ops)
	slices.SortFunc(ops, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return ops
}

func document(t *testing.T) map[string]any {
	t.Helper()
	text, err := os.ReadFile("openapi.json")
	require.NoError(t, err)
	var doc map[string]any
	require.NoError(t, json.Unmarshal(text, &doc))
	return doc
}

// TestDocument: what is served without credentials is the document, and it has the
// operations that there are, and no others.
func TestDocument(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := w.do("GET", "/v1/openapi.json", request{})
	require.Equal(t, 200, got.Code)
	text, err := os.ReadFile("openapi.json")
	require.NoError(t, err)
	require.Equal(t, text, got.Body.Bytes())
	require.Equal(t, "3.1.0", document(t)["openapi"])

	var documented, served []string
	for _, op := range operations(t) {
		documented = append(documented, op.name())
	}
	for _, r := range api.Routes(w.h) {
		served = append(served, r[0]+" "+r[1])
	}
	slices.Sort(served)
	slices.Sort(documented)
	require.Equal(t, served, documented)
}

// TestDocumentIsWhole: every reference leads somewhere, every component is used, every
// operation has a name of its own, says who may call it and what it refuses.
func TestDocumentIsWhole(t *testing.T) {
	t.Parallel()
	doc := document(t)
	text, err := json.Marshal(doc)
	require.NoError(t, err)
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`"\$ref":"#/components/(\w+)/([\w-]+)"`).FindAllSubmatch(text, -1) {
		require.NotNil(t, doc["components"].(map[string]any)[string(m[1])].(map[string]any)[string(m[2])], string(m[0]))
		used[string(m[1])+"/"+string(m[2])] = true
	}
	for kind, components := range doc["components"].(map[string]any) {
		for name := range components.(map[string]any) {
			require.True(t, kind == "securitySchemes" || used[kind+"/"+name], "%s/%s is not used", kind, name)
		}
	}
	ids := map[string]bool{}
	for _, op := range operations(t) {
		id := op.spec["operationId"].(string)
		require.False(t, ids[id], id)
		ids[id] = true
		require.NotEmpty(t, op.spec["summary"])
		responses := op.spec["responses"].(map[string]any)
		if op.path == "/v1/openapi.json" {
			require.Empty(t, op.spec["security"])
			continue
		}
		require.NotEmpty(t, op.spec["security"])
		for _, status := range []string{"400", "401", "403", "503"} {
			require.Contains(t, responses, status, id)
		}
		require.Equal(t, op.body(), responses["415"] != nil, id)
		require.Equal(t, op.body(), responses["413"] != nil, id)
		require.Equal(t, strings.Contains(op.path, "{"), responses["404"] != nil, id)
		require.NotContains(t, responses, "429", "no operation spends (D5)")
	}
}
