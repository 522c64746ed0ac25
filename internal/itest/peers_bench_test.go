package itest_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	echomiddleware "github.com/labstack/echo/v4/middleware"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/token"
)

// BenchmarkPeers compares a Guard that has every rule on (restriction by user, expiry,
// a list of ten prefixes, a counted limit) with what people have without it: a guard
// of twenty lines, and the key middleware of echo with its rate limiter, neither of
// which has any rule. Each lets one of 1000 keys through to a handler that does
// nothing, with the caller in a context.
func BenchmarkPeers(b *testing.B) {
	const n = 1000
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	serve := func(b *testing.B, h http.Handler, secret string) {
		r := httptest.NewRequest(http.MethodGet, "/v1/ping", nil)
		r.Header.Set("Authorization", "Bearer "+secret)
		w := &discard{header: make(http.Header)}
		h.ServeHTTP(w, r)
		require.Zero(b, w.status, "not let through")
		b.ReportAllocs()
		for b.Loop() {
			h.ServeHTTP(w, r)
		}
		require.Zero(b, w.status)
	}

	b.Run("keystile", func(b *testing.B) {
		mgr, err := keys.New(memstore.New(), &keys.Options{MaxPerUser: -1, Cache: &store.CacheOptions{TTL: 5 * time.Minute}})
		require.NoError(b, err)
		operator := keys.Actor{Role: keys.Operator}
		list, err := policy.ParseIPList(tenPrefixes())
		require.NoError(b, err)
		_, err = mgr.UpdateSettings(b.Context(), operator, &policy.Settings{
			Org: "acme", MaxAge: 30 * 24 * time.Hour, AllowedIPs: list, RestrictUsers: true,
		})
		require.NoError(b, err)
		require.NoError(b, mgr.PutUser(b.Context(), &store.User{Org: "acme", ID: "u1", Permitted: true}))
		var secret token.Token
		for range n {
			secret, _, err = mgr.Create(b.Context(), keys.CreateParams{
				Actor: operator, Org: "acme", User: "u1", Name: "bench", DailyLimit: 1 << 40,
			})
			require.NoError(b, err)
		}
		g, err := middleware.New(mgr.Verifier(), &middleware.Options{OmitRateLimitFields: true})
		require.NoError(b, err)
		serve(b, g.Wrap(nothing), secret.Reveal())
	})

	secrets := make([]string, n)
	for i := range secrets {
		secrets[i] = token.Generate().Reveal()
	}
	b.Run("by hand", func(b *testing.B) { serve(b, newHandMade(secrets).wrap(nothing), secrets[n/2]) })
	b.Run("echo", func(b *testing.B) { serve(b, newEcho(secrets), secrets[n/2]) })
}

// tenPrefixes is a list with the address of an httptest.Request at its end.
func tenPrefixes() string {
	var list strings.Builder
	for i := range 9 {
		fmt.Fprintf(&list, "203.0.113.%d/28\n", 16*i)
	}
	list.WriteString("192.0.2.0/24\n")
	return list.String()
}

// A handMade guard is what one writes without a library: a map by the hexadecimal
// SHA-256, and a rate.Limiter for each key.
type handMade struct {
	mu   sync.RWMutex
	keys map[string]*handMadeKey
}

type handMadeKey struct {
	user    string
	limiter *rate.Limiter
}

type handMadeContextKey struct{}

func newHandMade(secrets []string) *handMade {
	g := &handMade{keys: make(map[string]*handMadeKey)}
	for _, s := range secrets {
		g.keys[hashed(s)] = &handMadeKey{"u1", rate.NewLimiter(1e9, 1e9)}
	}
	return g
}

func hashed(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func (g *handMade) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		g.mu.RLock()
		key := g.keys[hashed(secret)]
		g.mu.RUnlock()
		if key == nil {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		if !key.limiter.Allow() {
			http.Error(w, "too many requests", http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), handMadeContextKey{}, key)))
	})
}

// newEcho is an echo server with its key middleware, whose validator looks into the
// same map, and its limiter in memory, by the user.
func newEcho(secrets []string) http.Handler {
	g := newHandMade(secrets)
	e := echo.New()
	e.Use(echomiddleware.KeyAuth(func(secret string, c echo.Context) (bool, error) {
		g.mu.RLock()
		key := g.keys[hashed(secret)]
		g.mu.RUnlock()
		if key == nil {
			return false, nil
		}
		c.Set("user", key.user)
		return true, nil
	}))
	e.Use(echomiddleware.RateLimiterWithConfig(echomiddleware.RateLimiterConfig{
		Store: echomiddleware.NewRateLimiterMemoryStore(1e9),
		IdentifierExtractor: func(c echo.Context) (string, error) {
			user, _ := c.Get("user").(string)
			return user, nil
		},
	}))
	e.GET("/v1/ping", func(echo.Context) error { return nil })
	return e
}

// discard is a ResponseWriter whose body goes nowhere.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }
