package middleware

import (
	"encoding/binary"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// An AddrSource gives the address that a request came from; the zero
// [netip.Addr] is "unknown" and fails every list of addresses. A source is safe
// for concurrent use, changes nothing in the request, and never gives an
// IPv4-mapped or zoned address.
//
// Which source is right depends on what stands in front of the server, and a
// program cannot find that out by itself, because anybody can send any header.
// So the host names it: [PeerIP] if clients connect directly, otherwise the one
// source of [ForwardedFor], [Forwarded] and [HeaderIP] that reads the header
// that its own proxies set. All of them look at the peer first: a request that
// did not come from a trusted proxy has its peer's address, whatever its headers
// say (D18). A request that did, but does not say for whom, has none; it never
// falls back to the address of the proxy, which a list may well contain.
type AddrSource func(r *http.Request) netip.Addr

const (
	// maxHops is how many hops a header may list; one that lists more gives no
	// address. A walk that stopped in the middle could stop at a hop that a
	// client made up.
	maxHops = 128

	// maxHopsSize is how many bytes the lines of such a header may have.
	maxHopsSize = maxHops * 256
)

// PeerIP is the source that gives the address of the peer: of the client where
// clients connect directly, of the last proxy elsewhere. It reads
// http.Request.RemoteAddr, which may be "host:port" or a bare address, and no
// header. An IPv4 address in IPv6 form is given as IPv4, and a zone is dropped.
//
// The address of a peer on a unix socket is unknown. RemoteAddr is not asked
// there, since it is the name that the client's end of the socket is bound to:
// a local program may name its end "10.0.0.1:80".
func PeerIP(r *http.Request) netip.Addr {
	if onUnixSocket(r) {
		return netip.Addr{}
	}
	return remoteAddr(r)
}

// ForwardedFor returns the source that reads X-Forwarded-For. If the peer is
// trusted by p, all lines of the header are one list, which is walked from the
// right, where the nearest proxy wrote, to the first hop that is not trusted:
// that is the client. What is further left was sent by the client and means
// nothing. If every hop is trusted, the client is the leftmost.
//
// A hop is an address with or without a port; an IPv6 address may be in
// brackets, and must be where a port follows. Anything else that the walk meets,
// an empty hop or one with a zone included, makes the address unknown; so does a
// header that is absent, lists more than 128 hops, or is longer than 32 KiB.
//
// Absent means unknown because some proxies can be talked out of sending it by a
// client that lists X-Forwarded-For in its Connection header (CVE-2022-31813).
func ForwardedFor(p TrustedProxies) AddrSource {
	return func(r *http.Request) netip.Addr {
		peer, trusted := p.peer(r)
		if !trusted {
			return peer
		}
		return p.forwardedFor(r.Header["X-Forwarded-For"])
	}
}

// forwardedFor walks the lines of X-Forwarded-For.
func (p *TrustedProxies) forwardedFor(lines []string) netip.Addr {
	hops, size := len(lines), 0
	for _, line := range lines {
		hops += strings.Count(line, ",")
		size += len(line)
	}
	if hops > maxHops || size > maxHopsSize {
		return netip.Addr{}
	}
	var hop netip.Addr
	for _, line := range slices.Backward(lines) {
		for comma := len(line); comma >= 0; {
			line = line[:comma]
			comma = strings.LastIndexByte(line, ',')
			if hop = parseHop(trimBlanks(line[comma+1:])); !p.trusts(hop) {
				return hop
			}
		}
	}
	return hop
}

// HeaderIP returns the source that reads a header with exactly one address, such
// as X-Real-IP or CF-Connecting-IP. If the peer is trusted by p, the client is
// what the header says; if the header is absent, repeated, or anything but one
// bare address (no port, no brackets, no zone), it is unknown.
//
// Only a header that the proxy overwrites on every request is safe to name.
// Some products pass theirs through if the client sent it, at least unless told
// otherwise: True-Client-IP, X-Azure-ClientIP and Fastly-Client-IP are known for
// it.
//
// HeaderIP panics if name is not a valid name of a header, or is one of the
// lists X-Forwarded-For and Forwarded, which have sources of their own. The name
// is part of the program; nothing that arrives with a request makes it panic.
func HeaderIP(name string, p TrustedProxies) AddrSource {
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return c >= 0x80 || !isTokenChar(byte(c)) }) {
		panic("middleware: HeaderIP: " + strconv.Quote(name) + " is not the name of a header")
	}
	key := http.CanonicalHeaderKey(name)
	if key == "X-Forwarded-For" || key == "Forwarded" {
		panic("middleware: HeaderIP: " + key + " is a list of addresses, which ForwardedFor or Forwarded reads")
	}
	return func(r *http.Request) netip.Addr {
		peer, trusted := p.peer(r)
		if !trusted {
			return peer
		}
		lines := r.Header[key]
		if len(lines) != 1 {
			return netip.Addr{}
		}
		return parseAddr(trimBlanks(lines[0]))
	}
}

// onUnixSocket reports whether r came through a unix socket: by the address of
// the server's own end, which no client chooses, or in a request that was not
// made by an http.Server by the "@" that one writes for an unnamed peer.
func onUnixSocket(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && strings.HasPrefix(local.Network(), "unix") || r.RemoteAddr == "@"
}

// remoteAddr reads r.RemoteAddr.
func remoteAddr(r *http.Request) netip.Addr {
	if a, ok := parseIPv4Port(r.RemoteAddr); ok {
		return a
	}
	host, ok := cutPort(r.RemoteAddr)
	if !ok {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(host) // the zero Addr with any error
	return a.Unmap().WithZone("")
}

// parseIPv4Port reads "192.0.2.1:80", which is what nearly every request has, in
// half of the time that the general way takes. That decides about everything that
// is refused here, so that nothing is to be understood in two ways.
func parseIPv4Port(s string) (a netip.Addr, ok bool) {
	var addr uint32
	i := 0
	for n := range 4 {
		if i >= len(s)-1 {
			return a, false
		}
		octet, next := uint32(s[i])-'0', uint32(s[i+1])-'0'
		if octet > 9 {
			return a, false
		}
		i++
		for next <= 9 {
			octet = 10*octet + next
			if i++; i == len(s) || octet < 10 || octet > 255 { // less than 10: a leading zero
				return a, false
			}
			next = uint32(s[i]) - '0'
		}
		if s[i] != "...:"[n] {
			return a, false
		}
		i++
		addr = addr<<8 | octet
	}
	port := s[i:]
	for i := range len(port) {
		if port[i]-'0' > 9 {
			return a, false
		}
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], addr) // bytes put one by one are slow to read back as one word
	return netip.AddrFrom4(b), 1 <= len(port) && len(port) <= 5
}

// parseHop reads one hop of X-Forwarded-For.
func parseHop(s string) netip.Addr {
	host, ok := cutPort(s)
	if !ok {
		return netip.Addr{}
	}
	return parseAddr(host)
}

// parseAddr reads an address from a header. Zones are refused: they mean
// something on one machine only, and a header's came from another.
func parseAddr(s string) netip.Addr {
	if strings.IndexByte(s, '%') >= 0 {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(s) // the zero Addr with any error
	return a.Unmap()
}

// cutPort returns the host of "host", "host:port", "[host]" or "[host]:port".
// Brackets belong to IPv6, so that a host in brackets has a colon; one without
// brackets that has several is IPv6 without a port.
func cutPort(s string) (host string, ok bool) {
	if !strings.HasPrefix(s, "[") {
		host, port, found := strings.Cut(s, ":")
		if !found || strings.IndexByte(port, ':') >= 0 {
			return s, true
		}
		return host, isPort(port)
	}
	host, rest, ok := strings.Cut(s[1:], "]")
	if !ok || strings.IndexByte(host, ':') < 0 {
		return "", false
	}
	if rest == "" {
		return host, true
	}
	return host, rest[0] == ':' && isPort(rest[1:])
}

// isPort reports whether s is a node-port of RFC 7239 section 6: one to five
// digits, or an obfuscated port, which says nothing about the address before it.
func isPort(s string) bool {
	if obfuscated, ok := strings.CutPrefix(s, "_"); ok {
		const allowed = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._-"
		return obfuscated != "" && strings.Trim(obfuscated, allowed) == ""
	}
	for _, c := range []byte(s) {
		if c < '0' || '9' < c {
			return false
		}
	}
	return 1 <= len(s) && len(s) <= 5
}
