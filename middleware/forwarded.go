package middleware

import (
	"net/http"
	"net/netip"
	"strings"
)

// Forwarded returns the source that reads the Forwarded header of RFC 7239. If
// the peer is trusted by p, the elements of all its lines are one list of hops,
// which is walked like that of [ForwardedFor], and within the same bounds.
//
// The hop of an element is the value of its parameter "for": an IPv4 address, or
// in quotes an IPv4 address with a port or an IPv6 address in brackets with or
// without one. Every other hop makes the address unknown if the walk meets it:
// "unknown", an obfuscated name, text that is no address, and an element without
// "for".
//
// A line that does not follow the grammar is not guessed at: it is one hop that
// nobody knows, to its very end, because a client may leave a quote open so that
// what the proxy appends to the line lands inside of it. Repeating "for" in
// one element breaks a line, too. Blanks around semicolons, which the grammar
// does not have but proxies write, are taken.
func Forwarded(p TrustedProxies) AddrSource {
	return func(r *http.Request) netip.Addr {
		peer, trusted := p.peer(r)
		if !trusted {
			return peer
		}
		return p.forwarded(r.Header["Forwarded"])
	}
}

// forwarded finds the first hop from the right that is not trusted. It must read
// from the left, because where an element begins depends on the quotes before
// it; so the answer is the last such hop, or the first one of all.
func (p *TrustedProxies) forwarded(lines []string) netip.Addr {
	var client netip.Addr
	hops, size := 0, 0
	for _, line := range lines {
		size += len(line)
		if size > maxHopsSize {
			return netip.Addr{}
		}
		for more := true; more; {
			var hop netip.Addr
			hop, line, more = cutElement(line)
			if hops == 0 || !p.trusts(hop) {
				client = hop
			}
			if hops++; hops > maxHops {
				return netip.Addr{}
			}
		}
	}
	return client
}

// cutElement reads the first element of a line of Forwarded. It returns the
// element's hop, what follows its comma, and whether there is a comma. From a
// line that breaks the grammar it returns an unknown hop and no more.
func cutElement(line string) (hop netip.Addr, rest string, more bool) {
	seen := false // the parameter "for"
	for {
		line = strings.TrimLeft(line, " \t")
		if line != "" && line[0] != ';' && line[0] != ',' {
			name, value, after, ok := cutParameter(line)
			if ok && strings.EqualFold(name, "for") {
				ok = !seen
				seen = true
				hop = parseNode(unescape(value))
			}
			if !ok {
				return netip.Addr{}, "", false
			}
			line = strings.TrimLeft(after, " \t")
		}
		if line == "" {
			return hop, "", false
		}
		separator := line[0]
		line = line[1:]
		switch separator {
		case ',':
			return hop, line, true
		case ';':
		default:
			return netip.Addr{}, "", false
		}
	}
}

// cutParameter reads name "=" value from the start of s, where the value is a
// token or a quoted-string. A quoted value is returned without its quotes, but
// with its escapes.
func cutParameter(s string) (name, value, rest string, ok bool) {
	name, s = cutToken(s)
	if name == "" || !strings.HasPrefix(s, "=") {
		return "", "", "", false
	}
	s = s[1:]
	if strings.HasPrefix(s, `"`) {
		value, rest, ok = cutQuoted(s[1:])
		return name, value, rest, ok
	}
	value, rest = cutToken(s)
	return name, value, rest, value != ""
}

// cutToken reads a token of RFC 9110 5.6.2 from the start of s.
func cutToken(s string) (token, rest string) {
	i := 0
	for i < len(s) && isTokenChar(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

// cutQuoted reads a quoted-string of RFC 9110 5.6.4 of which s begins behind the
// opening quote. It returns what is between the quotes and what follows them.
func cutQuoted(s string) (text, rest string, ok bool) {
	escaped := false
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' && c != '\t', c == 0x7f:
			return "", "", false
		case escaped:
			escaped = false
		case c == '\\':
			escaped = true
		case c == '"':
			return s[:i], s[i+1:], true
		}
	}
	return "", "", false
}

// unescape resolves the escapes in what cutQuoted returned, where something
// follows every backslash. Only a text with an escape is copied.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

// parseNode reads a node of RFC 7239 section 6. That is a hop of X-Forwarded-For,
// but for IPv6 without brackets.
func parseNode(s string) netip.Addr {
	if !strings.HasPrefix(s, "[") && strings.Count(s, ":") > 1 {
		return netip.Addr{}
	}
	return parseHop(s)
}
