package oidctest

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"iter"
	"strings"
)

// Spoiled returns access tokens of a user, each with one fault and by the name of
// that fault. An Authenticator that accepts this issuer, its client and access
// tokens alone has to refuse each of them: a handler behind it answers 401 to all,
// and to all alike. Except for the fault they are good: signed by the current key,
// if the fault is not the signature.
//
// Two of them have a kid that no key has, so that they make a verifier fetch the
// keys once more.
func (i *Issuer) Spoiled(sub string) iter.Seq2[string, string] {
	return func(yield func(fault, token string) bool) {
		s := &spoiler{i, sub, i.current(), newSigner()}
		for _, tokens := range []func() []spoiled{s.shapes, s.headers, s.signatures, s.payloads, s.claims, s.times} {
			for _, t := range tokens() {
				if !yield(t.fault, t.token) {
					return
				}
			}
		}
	}
}

type spoiled struct{ fault, token string }

// A spoiler makes faulty tokens.
type spoiler struct {
	issuer   *Issuer
	sub      string
	key      *signer
	stranger *signer // whose key is served nowhere
}

// header returns a good header, encoded, with members on top.
func (s *spoiler) header(members map[string]any) string {
	return encode(s.issuer.header(s.key, members))
}

// payload returns good claims as JSON, with more on top.
func (s *spoiler) payload(more map[string]any) []byte {
	return marshal(s.issuer.accessClaims(s.sub, more))
}

// token returns a token with these members and claims on top of good ones.
func (s *spoiler) token(members, claims map[string]any) string {
	return s.key.sign(s.header(members) + "." + raw(s.payload(claims)))
}

// with returns a token with these claims on top of good ones.
func (s *spoiler) with(claims map[string]any) string { return s.token(nil, claims) }

// of returns a token with that payload.
func (s *spoiler) of(payload []byte) string { return s.key.sign(s.header(nil) + "." + raw(payload)) }

func raw(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// first returns a JSON object with one more member at its beginning.
func first(member string, object []byte) []byte {
	return append([]byte("{"+member+","), object[1:]...)
}

// until returns a payload whose encoding has something, by making it longer.
func (s *spoiler) until(enc *base64.Encoding, has func(encoded string) bool) string {
	for n := 0; ; n++ {
		if encoded := enc.EncodeToString(s.payload(map[string]any{"filler": strings.Repeat("?", n)})); has(encoded) {
			return encoded
		}
	}
}

func (s *spoiler) shapes() []spoiled {
	good := s.with(nil)
	padded := s.until(base64.URLEncoding, func(e string) bool { return strings.HasSuffix(e, "=") })
	otherAlphabet := s.until(base64.RawStdEncoding, func(e string) bool { return strings.ContainsAny(e, "+/") })
	hidden := s.until(base64.RawURLEncoding, func(e string) bool { return len(e)%4 != 0 })
	return []spoiled{
		{"longer than 16 KiB", s.with(map[string]any{"filler": strings.Repeat("x", 16<<10)})},
		{"two parts", good[:strings.LastIndexByte(good, '.')]},
		{"four parts", good + ".e30"},
		{"padded", s.key.sign(s.header(nil) + "." + padded)},
		{"alphabet of plain base64", s.key.sign(s.header(nil) + "." + otherAlphabet)},
		{"bits hidden behind the payload", s.key.sign(s.header(nil) + "." + hideBit(hidden))},
		{"bits hidden behind the signature", hideBit(good)},
	}
}

// hideBit sets a bit in the last digit of base64 that most decoders ignore.
func hideBit(encoded string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(encoded) - 1
	return encoded[:last] + digits[strings.IndexByte(digits, encoded[last])|1:][:1]
}

func (s *spoiler) headers() []spoiled {
	payload := "." + raw(s.payload(nil))
	header := marshal(s.issuer.header(s.key, nil))
	return []spoiled{
		{"header that is not JSON", s.key.sign(raw([]byte("alg=RS256")) + payload)},
		{"header with text after it", s.key.sign(raw(append(header, "{}"...)) + payload)},
		{"alg twice", s.key.sign(raw(first(`"alg":"none"`, header)) + payload)},
		{"kid twice", s.key.sign(raw(first(`"kid":"`+s.stranger.kid+`"`, header)) + payload)},
		{"alg missing", s.token(map[string]any{"alg": nil}, nil)},
		{"alg in lower case", s.token(map[string]any{"alg": "rs256"}, nil)},
		{"alg a list", s.token(map[string]any{"alg": []string{"RS256"}}, nil)},
		{"Alg for alg", s.token(map[string]any{"alg": nil, "Alg": "RS256"}, nil)},
		{"kid missing", s.token(map[string]any{"kid": nil}, nil)},
		{"kid empty", s.token(map[string]any{"kid": ""}, nil)},
		{"kid a number", s.token(map[string]any{"kid": 1}, nil)},
		{"kid unknown", s.token(map[string]any{"kid": s.stranger.kid}, nil)},
		{"crit", s.token(map[string]any{"crit": []string{"exp"}}, nil)},
		{"crit unknown", s.token(map[string]any{"crit": []string{"b64"}, "b64": true}, nil)},
		{"crit null", s.token(map[string]any{"crit": json.RawMessage("null")}, nil)},
	}
}

func (s *spoiler) signatures() []spoiled {
	text := func(alg string) string { return s.header(map[string]any{"alg": alg}) + "." + raw(s.payload(nil)) }
	der, err := x509.MarshalPKIXPublicKey(&s.key.private.PublicKey)
	if err != nil {
		panic("oidctest: " + err.Error())
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	good, other := s.with(nil), s.with(nil)
	dot := strings.LastIndexByte(good, '.')
	flipped := []byte(good)
	flipped[dot+1] = 'A'
	if good[dot+1] == 'A' {
		flipped[dot+1] = 'B'
	}
	stranger := map[string]any{
		"kid": s.key.kid,
		"jku": s.issuer.url + "/keys", "x5u": s.issuer.url + "/certificate", "x5c": []string{base64.StdEncoding.EncodeToString(der)},
		"jwk": map[string]any{
			"kty": "RSA", "kid": s.key.kid,
			"n": raw(s.stranger.private.N.Bytes()), "e": "AQAB",
		},
	}
	return []spoiled{
		{"alg none", text("none") + "."},
		{"alg none, signed", s.key.sign(text("none"))},
		{"alg HS256 by the public key", text("HS256") + "." + raw(hs256(text("HS256"), secret))},
		{"alg RS256 by HS256", text("RS256") + "." + raw(hs256(text("RS256"), secret))},
		{"alg RS384", s.key.other(text("RS384"), crypto.SHA384, false)},
		{"alg RS512", s.key.other(text("RS512"), crypto.SHA512, false)},
		{"alg PS256", s.key.other(text("PS256"), crypto.SHA256, true)},
		{"alg RS256 by PS256", s.key.other(text("RS256"), crypto.SHA256, true)},
		{"signature missing", good[:dot+1]},
		{"signature of another token", good[:dot] + other[strings.LastIndexByte(other, '.'):]},
		{"signature changed", string(flipped)},
		{"signature cut", good[:len(good)-2]},
		{"signature of a stranger", s.stranger.sign(s.header(nil) + "." + raw(s.payload(nil)))},
		{"signature by a key that the header brings", s.stranger.sign(s.header(stranger) + "." + raw(s.payload(nil)))},
		{"signature by a key of its own kid", s.stranger.sign(encode(s.issuer.header(s.stranger, nil)) + "." + raw(s.payload(nil)))},
		{"claims changed", s.header(nil) + "." + raw(s.payload(map[string]any{"custom:tier": "Enterprise"})) + good[dot:]},
	}
}

// hs256 returns the HMAC of text.
func hs256(text string, secret []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// other returns text with a signature of another algorithm than RS256.
func (s *signer) other(text string, hash crypto.Hash, pss bool) string {
	h := hash.New()
	h.Write([]byte(text))
	sign := rsa.SignPKCS1v15
	if pss {
		sign = func(_ io.Reader, private *rsa.PrivateKey, hash crypto.Hash, sum []byte) ([]byte, error) {
			return rsa.SignPSS(rand.Reader, private, hash, sum, nil)
		}
	}
	signature, err := sign(rand.Reader, s.private, hash, h.Sum(nil))
	if err != nil {
		panic("oidctest: " + err.Error())
	}
	return text + "." + raw(signature)
}

func (s *spoiler) payloads() []spoiled {
	good := s.payload(nil)
	return []spoiled{
		{"payload that is not JSON", s.of([]byte("sub=alice"))},
		{"payload a list", s.of([]byte("[" + string(good) + "]"))},
		{"payload with text after it", s.of(append(bytes.Clone(good), "{}"...))},
		{"payload in bad UTF-8", s.of(first("\"filler\":\"\xff\"", good))},
		{"sub twice", s.of(first(`"sub":"mallory"`, good))},
		{"exp twice", s.of(first(`"exp":1`, good))},
		{"sub twice, once in disguise", s.of(first(`"\u0073ub":"mallory"`, good))},
		{"name twice within a claim", s.of(first(`"address":[{"city":"A","city":"B"}]`, good))},
	}
}

func (s *spoiler) claims() []spoiled {
	return []spoiled{
		{"iss missing", s.with(map[string]any{"iss": nil})},
		{"iss another", s.with(map[string]any{"iss": "https://issuer.invalid"})},
		{"iss with a slash more", s.with(map[string]any{"iss": s.issuer.url + "/"})},
		{"iss a list", s.with(map[string]any{"iss": []string{s.issuer.url}})},
		{"Iss for iss", s.with(map[string]any{"iss": nil, "Iss": s.issuer.url})},
		{"token_use missing", s.with(map[string]any{"token_use": nil})},
		{"token_use empty", s.with(map[string]any{"token_use": ""})},
		{"token_use refresh", s.with(map[string]any{"token_use": "refresh"})},
		{"token_use a list", s.with(map[string]any{"token_use": []string{"access"}})},
		{"ID token", s.issuer.IDToken(s.sub, nil)},
		{"client_id missing", s.with(map[string]any{"client_id": nil})},
		{"client_id another", s.with(map[string]any{"client_id": "client of mallory"})},
		{"client_id a list", s.with(map[string]any{"client_id": []string{s.issuer.clientID}})},
		{"client_id in aud", s.with(map[string]any{"client_id": nil, "aud": s.issuer.clientID})},
		{"sub missing", s.with(map[string]any{"sub": nil})},
		{"sub empty", s.with(map[string]any{"sub": ""})},
		{"sub a number", s.with(map[string]any{"sub": 7})},
		{"sub with a line break", s.with(map[string]any{"sub": s.sub + "\n"})},
		{"sub too long", s.with(map[string]any{"sub": strings.Repeat("x", 2000)})},
		{"Sub for sub", s.with(map[string]any{"sub": nil, "Sub": s.sub})},
		{"scope a list", s.with(map[string]any{"scope": []string{"openid"}})},
	}
}

func (s *spoiler) times() []spoiled {
	now := s.issuer.opts.Now().Unix()
	const hour = 3600
	tokens := []spoiled{
		{"exp missing", s.with(map[string]any{"exp": nil})},
		{"Exp for exp", s.with(map[string]any{"exp": nil, "Exp": now + hour})},
		{"exp passed", s.with(map[string]any{"iat": now - 2*hour, "exp": now - hour})},
		{"exp zero", s.with(map[string]any{"exp": 0})},
		{"nbf ahead", s.with(map[string]any{"nbf": now + hour})},
		{"iat ahead", s.with(map[string]any{"iat": now + hour, "exp": now + 2*hour})},
	}
	for _, claim := range []string{"exp", "nbf", "iat"} {
		for _, value := range []string{`-1`, `1e300`, `1e400`, `true`, `[1]`, fmt.Sprintf(`"%d"`, now+hour)} {
			kind := value
			if value[0] == '"' {
				kind = "a string"
			}
			tokens = append(tokens, spoiled{claim + " " + kind, s.with(map[string]any{claim: json.RawMessage(value)})})
		}
	}
	return tokens
}
