package middleware

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/keystile/keystile/policy"
)

// TrustedProxies are the proxies whose word about the client's address is
// believed (D18). The zero TrustedProxies trusts nobody: every source then gives
// the peer's own address and reads no header. It is immutable and safe for
// concurrent use.
//
// List the proxies themselves, as narrowly as they are known. Whoever has a
// trusted address, or can reach this server through a trusted proxy that passes
// the header on unchanged, chooses the address that the rules see. A list that
// contains everybody (0.0.0.0/0 and ::/0) gives that choice to everybody.
type TrustedProxies struct {
	list policy.IPList
	unix bool // peers on a unix socket
}

// ParseTrustedProxies reads a list of proxies in the syntax of
// [policy.ParseIPList] (D19): an address, CIDR prefix or first-last range a line,
// with comments. A line that says just
//
//	unix
//
// trusts every peer that is connected through a unix socket, which has no
// address to be listed by.
//
// One bad line refuses the whole text, and the error names its number. Text
// without any entry is an error too: a source that reads a header needs a proxy
// that sets it, and where there is none, [PeerIP] is the source to use.
func ParseTrustedProxies(text string) (TrustedProxies, error) {
	var p TrustedProxies
	entries := 0
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		entry, _, _ := strings.Cut(line, "#")
		switch strings.Trim(entry, " \t\r") {
		case "":
		case "unix":
			p.unix = true
			lines[i] = "#" + line // a comment to ParseIPList, which so numbers the lines of text
			entries++
		default:
			entries++
		}
	}
	if entries == 0 {
		return TrustedProxies{}, errors.New("middleware: trusted proxies: the text has no entry")
	}
	list, err := policy.ParseIPList(strings.Join(lines, "\n"))
	if err != nil {
		return TrustedProxies{}, fmt.Errorf("middleware: trusted proxies: %w", err)
	}
	p.list = list
	return p, nil
}

// trusts reports whether a is the address of a trusted proxy. The zero Addr,
// which stands for a hop or peer that nobody knows, never is.
func (p *TrustedProxies) trusts(a netip.Addr) bool { return p.list.Contains(a) }

// peer returns the address of r's peer, unknown on a unix socket, and whether
// the peer is a trusted proxy.
func (p *TrustedProxies) peer(r *http.Request) (addr netip.Addr, trusted bool) {
	if onUnixSocket(r) {
		return netip.Addr{}, p.unix
	}
	addr = remoteAddr(r)
	return addr, p.trusts(addr)
}
