package oidcauth_test

import (
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"net/http"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware/oidcauth"
)

// The three benchmarks are to be compared within one run: BenchmarkSeen has to be at
// most 0.05 of BenchmarkGolangJWT, and BenchmarkFirst at most 1.25.

// bench are requests with tokens as Cognito issues them.
func bench(n int) []*http.Request {
	requests := make([]*http.Request, n)
	for i := range requests {
		requests[i] = bearer(shared().AccessToken("alice", map[string]any{
			"custom:tier": "Pro", "custom:teamId": "acme", "cognito:groups": []string{"owners", "staff"},
			"device_key": "eu-west-1_a1b2c3d4-e5f6-7890-abcd-ef1234567890",
		}))
	}
	return requests
}

func BenchmarkSeen(b *testing.B) {
	a := open(b, shared(), oidcauth.Options{})
	r := bench(1)[0]
	_, err := a.Authenticate(r)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		a.Authenticate(r)
	}
}

func BenchmarkSeenParallel(b *testing.B) {
	a := open(b, shared(), oidcauth.Options{})
	requests := bench(64)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			a.Authenticate(requests[i%len(requests)])
		}
	})
}

// The cache has room for one of the tokens, so that each is met for the first time.
func BenchmarkFirst(b *testing.B) {
	a := open(b, shared(), oidcauth.Options{CacheSize: 1})
	requests := bench(64)
	_, err := a.Authenticate(requests[0])
	require.NoError(b, err)
	b.ReportAllocs()
	for i := 1; b.Loop(); i++ {
		a.Authenticate(requests[i%len(requests)])
	}
}

// What golang-jwt takes for a token, with the algorithm fixed and nothing else asked.
func BenchmarkGolangJWT(b *testing.B) {
	token := bench(1)[0].Header.Get("Authorization")[len("Bearer "):]
	members := jwk(b, nil)
	n, err := base64.RawURLEncoding.DecodeString(members["n"].(string))
	require.NoError(b, err)
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}))
	find := func(*jwt.Token) (any, error) { return key, nil }
	_, err = parser.ParseWithClaims(token, jwt.MapClaims{}, find)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		parser.ParseWithClaims(token, jwt.MapClaims{}, find)
	}
}
