package api

import (
	"net/http"

	"github.com/keystile/keystile/middleware"
)

// Routes returns the method and path of every operation of a handler.
func Routes(h http.Handler) (routes [][2]string) {
	for _, r := range h.(*api).routes() {
		routes = append(routes, [2]string{r.method, r.path})
	}
	return routes
}

// Decode reads data like the body of a request with the members s, a string, n, an
// integer, b, a boolean, and l, an array of strings.
func Decode(data []byte) (s *string, n *int64, b *bool, l *[]string, problems []middleware.FieldProblem, ok bool) {
	problems, ok = decodeObject(data, members{
		"s": text(&s), "n": integer(&n, func(int64) string { return "" }), "b": boolean(&b), "l": texts(&l),
	})
	return s, n, b, l, problems, ok
}
