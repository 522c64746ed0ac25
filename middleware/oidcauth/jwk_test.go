package oidcauth_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware/oidcauth"
)

// modulus returns a number of that many bits, encoded, whose last byte is last.
func modulus(bits int, last byte) string {
	b := bytes.Repeat([]byte{0xa7}, (bits+7)/8)
	b[0] = 1 << ((bits - 1) % 8)
	b[len(b)-1] = last
	return base64.RawURLEncoding.EncodeToString(b)
}

// Section 5.2 (3): which keys of a set are used. One that is not costs only itself:
// beside each of them a good one is accepted. A key that is used answers "signature
// is wrong" here, since it signed nothing.
func TestKeySet_WhichKeys(t *testing.T) {
	t.Parallel()
	const used, unused = "signature is wrong", "kid is unknown"
	for _, tt := range []struct {
		name    string
		members map[string]any // of a key with kid "k", on top of a good one
		want    string
		problem string // for KeysFailed; empty: none
	}{
		{"good", map[string]any{"n": modulus(2048, 1)}, used, ""},
		{"use and alg absent", map[string]any{"n": modulus(2048, 1), "use": nil, "alg": nil}, used, ""},
		{"more members", map[string]any{"n": modulus(2048, 1), "x5c": []string{"x"}, "key_ops": []string{"verify"}}, used, ""},
		{"use enc", map[string]any{"use": "enc"}, unused, ""},
		{"use not a string", map[string]any{"use": []string{"sig"}}, unused, ""},
		{"alg RS512", map[string]any{"alg": "RS512"}, unused, ""},
		{"alg RSA-OAEP", map[string]any{"alg": "RSA-OAEP"}, unused, ""},
		{"alg null", map[string]any{"alg": json.RawMessage("null")}, unused, ""},
		{"kty EC", map[string]any{"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"}, unused, ""},
		{"kty oct", map[string]any{"kty": "oct", "k": "c2VjcmV0"}, unused, ""},
		{"kty absent", map[string]any{"kty": nil}, unused, ""},
		{"kty in lower case", map[string]any{"kty": "rsa"}, unused, ""},
		{"n absent", map[string]any{"n": nil}, unused, "a kid, a modulus"},
		{"n empty", map[string]any{"n": ""}, unused, "a kid, a modulus"},
		{"n a number", map[string]any{"n": 7}, unused, "a kid, a modulus"},
		{"n padded", map[string]any{"n": modulus(2048, 1) + "=="}, unused, "a kid, a modulus"},
		{"n in plain base64", map[string]any{"n": "+/" + modulus(2048, 1)[2:]}, unused, "a kid, a modulus"},
		{"e absent", map[string]any{"e": nil}, unused, "a kid, a modulus"},
		{"n of 1024 bits", map[string]any{"n": modulus(1024, 1)}, unused, "out of bounds"},
		{"n of 2047 bits", map[string]any{"n": modulus(2047, 1)}, unused, "out of bounds"},
		{"n of 2047 bits behind zeros", map[string]any{"n": zeros(2047)}, unused, "out of bounds"},
		{"n of 4096 bits", map[string]any{"n": modulus(4096, 1)}, used, ""},
		{"n of 8192 bits", map[string]any{"n": modulus(8192, 1)}, used, ""},
		{"n of 8193 bits", map[string]any{"n": modulus(8193, 1)}, unused, "out of bounds"},
		{"n even", map[string]any{"n": modulus(2048, 2)}, unused, "out of bounds"},
		{"e 3", map[string]any{"n": modulus(2048, 1), "e": "Aw"}, used, ""},
		{"e 0", map[string]any{"e": "AA"}, unused, "out of bounds"},
		{"e 1", map[string]any{"e": "AQ"}, unused, "out of bounds"},
		{"e 2", map[string]any{"e": "Ag"}, unused, "out of bounds"},
		{"e 65536", map[string]any{"e": "AQAA"}, unused, "out of bounds"},
		{"e 2^31-1", map[string]any{"n": modulus(2048, 1), "e": "f____w"}, used, ""},
		{"e 2^31+1", map[string]any{"e": "gAAAAQ"}, unused, "out of bounds"},
		{"e 2^64+3", map[string]any{"e": "AQAAAAAAAAAD"}, unused, "out of bounds"},
		{"private", map[string]any{"d": "AQAB"}, unused, "private part"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				members := map[string]any{"kid": "k"}
				maps.Copy(members, tt.members)
				requireUse(t, jwks(t, jwk(t, members), jwk(t, nil)), tt.want, tt.problem)
			})
		})
	}
}

// zeros returns a modulus of that many bits with octets of zero before it.
func zeros(bits int) string {
	b, _ := base64.RawURLEncoding.DecodeString(modulus(bits, 1))
	return base64.RawURLEncoding.EncodeToString(append(make([]byte, 3), b...))
}

// requireUse requires what becomes of a token of kid "k" under a set in which that
// kid is in question, and that the shared issuer's key in it is used.
func requireUse(t *testing.T, set, want, problem string) {
	t.Helper()
	problems := make(chan error, 10)
	a := open(t, shared(), oidcauth.Options{
		HTTPClient: always(200, set),
		KeysFailed: func(err error) { problems <- err },
	})
	synctest.Wait()
	refused(t, a, shared().Sign(map[string]any{"kid": "k"}, claimsOf("alice")), want)
	accepted(t, a, shared().AccessToken("alice", nil))
	if problem == "" {
		require.Empty(t, problems)
		return
	}
	err := <-problems
	require.ErrorContains(t, err, problem)
	require.ErrorContains(t, err, "key ")
}

// Keys that are broken in other ways than by a member, and keys that share a kid.
func TestKeySet_BrokenKeys(t *testing.T) {
	t.Parallel()
	good := jwk(t, nil)
	k := func(n string) map[string]any { return jwk(t, map[string]any{"kid": "k", "n": n}) }
	one, two := k(modulus(2048, 1)), k(modulus(2048, 3))
	const used, unused = "signature is wrong", "kid is unknown"
	for _, tt := range []struct {
		name    string
		set     string
		want    string
		problem string
	}{
		{"kid absent", jwks(t, jwk(t, map[string]any{"kid": nil}), good), unused, "a kid, a modulus"},
		{"kid empty", jwks(t, jwk(t, map[string]any{"kid": ""}), good), unused, "a kid, a modulus"},
		{"kid a number", jwks(t, jwk(t, map[string]any{"kid": 1}), good), unused, "a kid, a modulus"},
		{"not an object", jwks(t, 7, good), unused, "each named once"},
		{"null", jwks(t, nil, good), unused, "each named once"},
		{"a member twice", strings.Replace(jwks(t, one, good), `{"alg"`, `{"kid":"k","alg"`, 1), unused, "each named once"},
		{"one kid, two keys", jwks(t, one, two, good), unused, "share a kid"},
		{"one kid, three keys", jwks(t, one, two, one, good), unused, "share a kid"},
		{"one key twice", jwks(t, one, one, good), used, ""},
		{"one kid, one key of another kind", jwks(t, jwk(t, map[string]any{"kid": "k", "kty": "EC"}), one, good), used, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { requireUse(t, tt.set, tt.want, tt.problem) })
		})
	}
}

// A set without any key is an answer: it withdraws all.
func TestKeySet_Empty(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := open(t, shared(), oidcauth.Options{HTTPClient: always(200, `{"keys":[]}`)})
		refused(t, a, shared().AccessToken("alice", nil), "kid is unknown")
	})
}
