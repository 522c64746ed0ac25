package api

import (
	_ "embed"
	"net/http"
)

//go:embed openapi.json
var document []byte

// serveDocument serves GET /v1/openapi.json, to everybody: what it says is no secret.
func serveDocument(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(document)
}
