package oidcauth

import (
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// What makes a token unacceptable before its claims are looked at.
var (
	errBase64    = refused("part of the token is not base64url without padding")
	errHeader    = refused("header is not a JSON object with each name once")
	errAlgorithm = refused("alg is not RS256")
	errKID       = refused("kid is missing or not a string")
	errCritical  = refused("header has crit")
	errSignature = refused("signature is wrong")
	errPayload   = refused("payload is not a JSON object with each name once")
)

// decoder decodes the parts of tokens: base64url without padding, with nothing
// hidden in the last bits.
var decoder = jwt.NewParser(jwt.WithStrictDecoding())

// A signed token, split, of which only the header was looked at.
type signed struct {
	kid       string
	text      string // header and payload: what is signed
	payload   string // still encoded
	signature []byte
}

// parse takes a token with two dots apart. Of the header it uses alg and kid, which
// have to be there, and refuses crit, which would say that something must be
// understood that is not. It ignores the rest, above all jku, jwk, x5u and x5c, by
// which a token would choose the key that it is verified with (RFC 8725 3.10).
func parse(token string) (*signed, error) {
	if strings.ContainsAny(token, "\r\n") { // which encoding/base64 skips
		return nil, errBase64
	}
	header, rest, _ := strings.Cut(token, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	h, err := decoder.DecodeSegment(header)
	if err != nil {
		return nil, errBase64
	}
	members, ok := decodeObject(h)
	if !ok {
		return nil, errHeader
	}
	if members["alg"] != jwt.SigningMethodRS256.Name {
		return nil, errAlgorithm
	}
	kid, _ := members["kid"].(string)
	if kid == "" {
		return nil, errKID
	}
	if _, ok := members["crit"]; ok {
		return nil, errCritical
	}
	s := &signed{kid: kid, text: token[:len(header)+1+len(payload)], payload: payload}
	if s.signature, err = decoder.DecodeSegment(signature); err != nil {
		return nil, errBase64
	}
	return s, nil
}

// verify returns the claims if key signed them. The algorithm is fixed: it is
// neither the token's choice nor the key's.
func (s *signed) verify(key *key) (map[string]any, error) {
	if jwt.SigningMethodRS256.Verify(s.text, s.signature, key.public) != nil {
		return nil, errSignature
	}
	payload, err := decoder.DecodeSegment(s.payload)
	if err != nil {
		return nil, errBase64
	}
	claims, ok := decodeObject(payload)
	if !ok {
		return nil, errPayload
	}
	return claims, nil
}
