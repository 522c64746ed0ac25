package itest

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A wire stands between a browser and a service and keeps all that goes through it,
// byte for byte.
type wire struct {
	base string // http://host:port, where the browser finds the service

	mu        sync.Mutex
	exchanges []exchange
}

// An exchange is a request and its answer, with their headers and bodies.
type exchange struct {
	method, path      string
	status            int
	request, response string
}

// tap makes a wire to a service. The service sees the Host that the browser sees.
func tap(t testing.TB, target string) *wire {
	t.Helper()
	to, err := url.Parse(target)
	require.NoError(t, err)
	w := &wire{}
	type sentKey struct{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(response *http.Response) error {
			got, err := httputil.DumpResponse(response, true)
			if err != nil {
				return err
			}
			r := response.Request
			w.mu.Lock()
			defer w.mu.Unlock()
			w.exchanges = append(w.exchanges, exchange{
				r.Method, r.URL.RequestURI(), response.StatusCode, r.Context().Value(sentKey{}).(string), string(got),
			})
			return nil
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		sent, err := io.ReadAll(r.Body)
		if err != nil {
			return // the browser has changed its mind
		}
		r.Body = io.NopCloser(bytes.NewReader(sent))
		dump, _ := httputil.DumpRequest(r, true)
		r.Body = io.NopCloser(bytes.NewReader(sent))
		proxy.ServeHTTP(rw, r.WithContext(context.WithValue(r.Context(), sentKey{}, string(dump))))
	}))
	t.Cleanup(server.Close)
	w.base = server.URL
	return w
}

// since returns the exchanges from the n-th on.
func (w *wire) since(n int) []exchange {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]exchange(nil), w.exchanges[n:]...)
}
