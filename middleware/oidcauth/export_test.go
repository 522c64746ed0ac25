package oidcauth

// For fuzzing: what they parse is reached otherwise only behind a good signature, or
// by a fetch.
var DecodeObject = decodeObject

// PublicKeys returns the usable keys of a set by kid: the bits of the modulus, and the exponent.
func PublicKeys(data []byte) (keys map[string][2]int, problems error) {
	set, problems := parseKeys(data)
	if set == nil {
		return nil, problems
	}
	keys = map[string][2]int{}
	for kid, k := range set {
		keys[kid] = [2]int{k.public.N.BitLen(), k.public.E}
	}
	return keys, problems
}
