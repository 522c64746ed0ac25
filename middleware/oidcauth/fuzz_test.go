package oidcauth_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/oidcauth"
)

// fuzzTime is the time of the fuzz targets, so that their corpus stays what it is.
var fuzzTime = time.Unix(1_900_000_000, 0)

// A verdict compares what an Authenticator says of tokens with golang-jwt, told to be
// as strict as it can.
type verdict struct {
	a      *oidcauth.Authenticator
	key    *rsa.PrivateKey
	parser *jwt.Parser
}

const fuzzKID = "a+b/c="

func newVerdict(f *testing.F) *verdict {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(f, err)
	n := base64.RawURLEncoding.EncodeToString(key.N.Bytes())
	now := func() time.Time { return fuzzTime }
	return &verdict{
		a: open(f, nil, oidcauth.Options{
			HTTPClient: always(http.StatusOK, jwks(f, map[string]any{"kty": "RSA", "kid": fuzzKID, "n": n, "e": "AQAB"})),
			Now:        now,
		}),
		key: key,
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{"RS256"}), jwt.WithStrictDecoding(), jwt.WithIssuer(issuerURL),
			jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(30*time.Second), jwt.WithTimeFunc(now),
		),
	}
}

// sign returns a token of that header and payload, well signed.
func (v *verdict) sign(t testing.TB, header, payload []byte) string {
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	signature, err := jwt.SigningMethodRS256.Sign(text, v.key)
	require.NoError(t, err)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// check requires that a token is refused as bad, or that golang-jwt accepts it too
// and reads from it what was read here.
func (v *verdict) check(t *testing.T, token string) {
	p, err := v.a.Authenticate(&http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}})
	if err != nil {
		require.Nil(t, p)
		require.True(t, errors.Is(err, middleware.ErrInvalidCredential) || errors.Is(err, middleware.ErrNoCredential), err)
		for part := range strings.SplitSeq(token, ".") {
			if len(part) > 20 {
				require.NotContains(t, err.Error(), part)
			}
		}
		return
	}
	claims := jwt.MapClaims{}
	parsed, err := v.parser.ParseWithClaims(strings.TrimLeft(token, " "), claims, func(*jwt.Token) (any, error) { return &v.key.PublicKey, nil })
	require.NoError(t, err)
	require.Equal(t, fuzzKID, parsed.Header["kid"])
	require.NotContains(t, parsed.Header, "crit")
	require.Equal(t, "access", claims["token_use"])
	require.Contains(t, []any{clientID, "another"}, claims["client_id"])
	require.NotEmpty(t, p.User)
	require.Equal(t, claims["sub"], p.User)
	exp, err := claims.GetExpirationTime()
	require.NoError(t, err)
	require.True(t, p.NotAfter.Equal(exp.Add(30*time.Second)))
	if tier, ok := claims["custom:tier"]; ok && tier != nil {
		require.Equal(t, tier, p.Tier)
	}
}

const (
	fuzzHeader  = `{"alg":"RS256","kid":"a+b/c="}`
	fuzzPayload = `{"iss":"` + issuerURL + `","sub":"alice","client_id":"client-1","token_use":"access","exp":1900003600,` +
		`"iat":1900000000,"scope":"openid","custom:tier":"Pro"}`
)

// Whatever the header and the claims of a well signed token are: Authenticate does not
// panic, and accepts only what golang-jwt accepts with its strict options.
func FuzzClaims(f *testing.F) {
	v := newVerdict(f)
	for _, header := range []string{
		fuzzHeader, `{"alg":"none","kid":"a+b/c="}`, `{"alg":"RS256","alg":"none","kid":"a+b/c="}`, `{"alg":"RS256"}`,
		`{"alg":"RS256","kid":"a+b/c=","crit":null}`, ` {"alg" : "RS256" , "kid" : "a+b/c\u003d" } `, `12`, `"x"`, ``, `{`, `null`,
	} {
		f.Add([]byte(header), []byte(fuzzPayload))
	}
	for _, payload := range []string{
		`12`, `null`, `[]`, `{}`, ` {} `, `{"":""}`,
		strings.Replace(fuzzPayload, `"sub"`, `"sub":"mallory","sub"`, 1),
		strings.Replace(fuzzPayload, `"sub"`, `"\u0073ub":"mallory","sub"`, 1),
		strings.Replace(fuzzPayload, `"alice"`, `"\ud800"`, 1),
		strings.Replace(fuzzPayload, `"sub"`, `"SUB"`, 1),
		strings.Replace(fuzzPayload, `"custom:tier"`, `"custom:TIER":"Enterprise","custom:tier"`, 1),
		strings.Replace(fuzzPayload, `1900003600`, `1e400`, 1),
		strings.Replace(fuzzPayload, `1900003600`, `1.9000036e9`, 1),
		strings.Replace(fuzzPayload, `1900003600`, `1900003600.5`, 1),
		strings.Replace(fuzzPayload, `1900003600`, `1899999970.9`, 1),
		strings.Replace(fuzzPayload, `1900003600`, `-0`, 1),
		strings.Replace(fuzzPayload, `1900003600`, `"1900003600"`, 1),
		strings.Replace(fuzzPayload, `"openid"`, `{"a":[1,-2.5e+3,true,false,null,{"b":"\"\\"}]}`, 1),
		fuzzPayload + "\xff", fuzzPayload + "{}",
	} {
		f.Add([]byte(fuzzHeader), []byte(payload))
	}
	f.Fuzz(func(t *testing.T, header, payload []byte) { v.check(t, v.sign(t, header, payload)) })
}

// The same for tokens as they come.
func FuzzAuthenticate(f *testing.F) {
	v := newVerdict(f)
	good := v.sign(f, []byte(fuzzHeader), []byte(fuzzPayload))
	for _, token := range []string{good, good + "=", good + "\n", good[:20] + "\r\n" + good[20:], good[:len(good)-1], "..", "a.b.c", ".a.", " " + good} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) { v.check(t, token) })
}

// decodeObject accepts what encoding/json accepts, if it is one object in UTF-8
// without a name twice, and decodes it alike.
func FuzzDecodeObject(f *testing.F) {
	for _, s := range []string{
		fuzzPayload, `{}`, ` { } `, `{"a":1,"a":1}`, `{"a":{"b":1,"b":2}}`, `{"a":[{"b":1,"b":2}]}`, `{"a":1,"\u0061":2}`,
		`{"a":"\"","b":"\\","c":"\u00e9\ud83d\ude00","d":"\ud800"}`, `{"a":[],"b":[[]],"c":{}}`, "{\"a\"\t:\r\n1 ,\"b\":2\n}",
		`{"a":-0.1e-7}`, `[{"a":1}]`, `1`, `"a"`, `null`, `{"a":1}{}`, `{"a":1,}`, "{\"\xff\":1}", `{"\ud800":1,"\ud801":2}`,
		strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := oidcauth.DecodeObject(bytes.Clone(data))
		var want map[string]any
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		valid := json.Valid(data) && d.Decode(&want) == nil && want != nil
		if !ok {
			require.Nil(t, got)
			return
		}
		require.True(t, valid)
		require.Equal(t, want, got)
		// A name twice would have got lost: as many names come out as went in.
		require.Equal(t, countNames(t, data), countMembers(got))
	})
}

// countNames returns how many members the objects in data have, by other means.
func countNames(t *testing.T, data []byte) int {
	d := json.NewDecoder(bytes.NewReader(data))
	colons := 0
	var walk func()
	walk = func() {
		tok, err := d.Token()
		require.NoError(t, err)
		delim, ok := tok.(json.Delim)
		if !ok {
			return
		}
		for d.More() {
			if delim == '{' {
				_, err := d.Token()
				require.NoError(t, err)
				colons++
			}
			walk()
		}
		_, err = d.Token()
		require.NoError(t, err)
	}
	walk()
	return colons
}

func countMembers(v any) (n int) {
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			n += 1 + countMembers(e)
		}
	case []any:
		for _, e := range v {
			n += countMembers(e)
		}
	}
	return n
}

// Whatever an issuer publishes: no panic, and no key out of bounds.
func FuzzKeySet(f *testing.F) {
	good := jwks(f, jwk(f, nil))
	for _, s := range []string{
		good, `{}`, `{"keys":[]}`, `{"keys":null}`, `{"keys":[null,1,"",[],{}]}`, `[]`, ``, `{"keys":[{"kty":"RSA","kid":"k","n":"AQAB","e":"AQAB"}]}`,
		strings.Replace(good, `"e":"AQAB"`, `"e":"AAAAAQAB"`, 1), strings.Replace(good, `"e":"AQAB"`, `"e":"_______-"`, 1),
		good[:len(good)-2] + "," + good[len(`{"keys":[`):],
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, problems := oidcauth.PublicKeys(data)
		if keys == nil {
			require.Error(t, problems)
		}
		for kid, k := range keys {
			require.NotEmpty(t, kid)
			require.True(t, 2048 <= k[0] && k[0] <= 8192, k[0])
			require.True(t, 3 <= k[1] && k[1] <= math.MaxInt32 && k[1]%2 == 1, k[1])
		}
	})
}
