package oidcauth

import (
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
)

// Bounds of the keys that are used.
const (
	minModulus  = 2048 // bits (RFC 7518 3.3)
	maxModulus  = 8192 // bits: beyond, a verification costs too much
	maxExponent = math.MaxInt32
)

// A key verifies the tokens whose kid names it. A key that stays in the set from
// one fetch to the next stays the same pointer.
type key struct {
	kid    string
	public *rsa.PublicKey
}

var (
	errNotASet   = errors.New("oidcauth: not a JSON object with an array of keys")
	errBadKey    = errors.New("oidcauth: not a JSON object with a kid, a modulus and an exponent, each named once")
	errWeakKey   = errors.New("oidcauth: key has a modulus or an exponent out of bounds")
	errPrivate   = errors.New("oidcauth: key is published with its private part")
	errSameKeyID = errors.New("oidcauth: keys share a kid, and none of them is used")
)

// parseKeys returns the usable keys of a JWK Set by kid. Keys for other purposes
// are passed over. A key that should be usable and is not costs only itself: what
// is wrong with such keys is returned joined, beside the good ones. The set is nil
// if there is none.
func parseKeys(data []byte) (set map[string]*key, problems error) {
	var object map[string]json.RawMessage // a struct would take KEYS for keys
	var list []json.RawMessage
	if json.Unmarshal(data, &object) != nil || json.Unmarshal(object["keys"], &list) != nil || list == nil {
		return nil, errNotASet
	}
	set = map[string]*key{}
	shared := map[string]bool{}
	for i, raw := range list {
		members, ok := decodeObject(raw)
		if ok && !verifiesRS256(members) {
			continue
		}
		k, err := parseKey(members)
		if err == nil && set[k.kid] != nil && !set[k.kid].public.Equal(k.public) {
			err, shared[k.kid] = errSameKeyID, true
		}
		if err != nil {
			problems = errors.Join(problems, fmt.Errorf("key %d of %d: %w", i+1, len(list), err))
			continue
		}
		set[k.kid] = k
	}
	for kid := range shared {
		delete(set, kid)
	}
	return set, problems
}

// verifiesRS256 reports whether a JWK is for what we do: kty RSA, use absent or
// sig, alg absent or RS256.
func verifiesRS256(members map[string]any) bool {
	use, hasUse := members["use"]
	alg, hasAlg := members["alg"]
	return members["kty"] == "RSA" && (!hasUse || use == "sig") && (!hasAlg || alg == "RS256")
}

// parseKey returns the public key of a JWK of kty RSA.
func parseKey(members map[string]any) (*key, error) {
	kid, _ := members["kid"].(string)
	n, okN := number(members["n"])
	e, okE := number(members["e"])
	if kid == "" || !okN || !okE {
		return nil, errBadKey
	}
	if _, ok := members["d"]; ok {
		return nil, errPrivate
	}
	// Neither can be even: then it belongs to no RSA key.
	if n.BitLen() < minModulus || n.BitLen() > maxModulus || n.Bit(0) == 0 ||
		!e.IsInt64() || e.Int64() < 3 || e.Int64() > maxExponent || e.Bit(0) == 0 {
		return nil, errWeakKey
	}
	return &key{kid, &rsa.PublicKey{N: n, E: int(e.Int64())}}, nil
}

// number returns the number of a member, base64url of its octets (RFC 7518 2).
func number(member any) (*big.Int, bool) {
	s, _ := member.(string)
	octets, err := decoder.DecodeSegment(s)
	if err != nil || len(octets) == 0 {
		return nil, false
	}
	return new(big.Int).SetBytes(octets), true
}
