package middleware_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
)

// D18: trusted proxies are given in the syntax of D19, and "unix".
func TestParseTrustedProxies_D18(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		text      string
		trusted   []string
		untrusted []string
	}{
		{"address", "10.0.0.1", []string{"10.0.0.1", "::ffff:10.0.0.1"}, []string{"10.0.0.2", "::a00:1", "@", "bad", ""}},
		{"prefix with host bits F13", "10.0.0.5/24", []string{"10.0.0.0", "10.0.0.255"}, []string{"10.0.1.0"}},
		{"range", "10.0.0.5-10.0.0.6", []string{"10.0.0.5", "10.0.0.6"}, []string{"10.0.0.4", "10.0.0.7"}},
		{"IPv6", "2001:db8::/32", []string{"2001:db8::1", "2001:db8::1%eth0"}, []string{"2001:db9::1"}},
		{"mapped entry F10", "::ffff:10.0.0.0/104", []string{"10.0.0.1"}, []string{"11.0.0.1", "::1"}},
		{"several", "10.0.0.1\n10.0.0.2", []string{"10.0.0.1", "10.0.0.2"}, []string{"10.0.0.3"}},
		{"comments, blank lines, CRLF", "# proxies\r\n\r\n10.0.0.1 # first\r\n", []string{"10.0.0.1"}, []string{"10.0.0.2"}},
		{"unix", "unix", []string{"@"}, []string{"10.0.0.1", "::1", "bad", ""}},
		{"unix with blanks, comment and CRLF", "\r\n\t unix \t# nginx\r\n", []string{"@"}, []string{"10.0.0.1", ""}},
		{"unix and addresses", "10.0.0.1\nunix\n10.0.0.2", []string{"@", "10.0.0.1", "10.0.0.2"}, []string{"10.0.0.3", "bad"}},
		{"unix twice", "unix\nunix", []string{"@"}, nil},
		{"unix in a comment", "10.0.0.1\n# unix", []string{"10.0.0.1"}, []string{"@"}},
		{"everybody, which has no unix peers", "0.0.0.0/0\n::/0", []string{"192.0.2.1", "2001:db8::1"}, []string{"@", "bad", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			source := middleware.HeaderIP("X-Real-IP", mustProxies(t, tt.text))
			for _, peer := range tt.trusted {
				requireAddr(t, "203.0.113.9", source(addrRequest(peer, "X-Real-Ip", "203.0.113.9")))
			}
			for _, peer := range tt.untrusted {
				r := addrRequest(peer, "X-Real-Ip", "203.0.113.9")
				require.Equal(t, middleware.PeerIP(r), source(r), peer)
			}
		})
	}
}

// D18: one bad entry is a configuration error (F14, F15), and so is text without
// an entry, which must not come to mean everybody or nobody (F6, F16).
func TestParseTrustedProxies_errors_D18(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		text string
		line int // 0: not about a line
	}{
		{"empty F16", "", 0},
		{"blank F16", " \t\r\n\n", 0},
		{"comments only F16", "# 10.0.0.1\n  # unix\n", 0},
		{"host name F15", "proxy.example.com", 1},
		{"one bad line among good ones F14", "10.0.0.1\n10.0.0.2\n10.0.0.300\n10.0.0.4", 3},
		{"bad line behind unix F14", "unix\n\n10.0.0.300", 3},
		{"zone F12", "10.0.0.1\nfe80::1%eth0", 2},
		{"leading zero F11", "010.0.0.1", 1},
		{"reversed range F15", "10.0.0.9-10.0.0.1", 1},
		{"mapped prefix that is everything F10", "::ffff:0.0.0.0/90", 1},
		{"several in one line", "10.0.0.1, 10.0.0.2", 1},
		{"Unix", "Unix", 1},
		{"unix with a path", "unix:/run/app.sock", 1},
		{"unix and more in one line", "unix 10.0.0.1", 1},
		{"control character in the comment of unix", "10.0.0.1\nunix # \x00", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := middleware.ParseTrustedProxies(tt.text)
			require.ErrorContains(t, err, "middleware: trusted proxies: ")
			require.NotContains(t, err.Error(), "300", "no part of the text")
			if tt.line != 0 {
				line, ok := errors.AsType[*policy.LineError](err)
				require.True(t, ok)
				require.Equal(t, tt.line, line.Line)
			}
			source := middleware.HeaderIP("X-Real-IP", p) // of the zero TrustedProxies
			requireAddr(t, "10.0.0.1", source(addrRequest("10.0.0.1:1234", "X-Real-Ip", "203.0.113.9")))
			requireAddr(t, "", source(addrRequest("@", "X-Real-Ip", "203.0.113.9")))
		})
	}
}

func ExampleParseTrustedProxies() {
	_, err := middleware.ParseTrustedProxies(strings.Join([]string{
		"10.1.0.0/24   # load balancers",
		"10.2.0.1 - 10.2.0.9",
		"unix          # nginx on this machine",
		"proxy.internal",
	}, "\n"))
	if bad, ok := errors.AsType[*policy.LineError](err); ok {
		fmt.Println("bad line:", bad.Line)
	}
	// Output: bad line: 4
}

// A list of everybody trusts clients as well: every hop is trusted, so that the
// walk ends at the leftmost one, which the client wrote.
func ExampleParseTrustedProxies_incorrect() {
	everybody, err := middleware.ParseTrustedProxies("0.0.0.0/0\n::/0")
	if err != nil {
		panic(err)
	}
	proxies, err := middleware.ParseTrustedProxies("10.1.0.0/24")
	if err != nil {
		panic(err)
	}
	address := func(p middleware.TrustedProxies, peer, header string) netip.Addr {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = peer
		r.Header.Set("X-Forwarded-For", header)
		return middleware.ForwardedFor(p)(r)
	}

	fmt.Println("incorrect:", address(everybody, "10.1.0.7:50042", "192.0.2.10, 203.0.113.9"))
	fmt.Println("incorrect:", address(everybody, "203.0.113.9:61234", "192.0.2.10"))
	fmt.Println("correct:", address(proxies, "10.1.0.7:50042", "192.0.2.10, 203.0.113.9"))
	fmt.Println("correct:", address(proxies, "203.0.113.9:61234", "192.0.2.10"))
	// Output:
	// incorrect: 192.0.2.10
	// incorrect: 192.0.2.10
	// correct: 203.0.113.9
	// correct: 203.0.113.9
}
