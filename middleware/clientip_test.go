package middleware_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
)

// addrProxies are the trusted proxies of these tests: 10.0.0.0/8 and one IPv6
// network.
const addrProxies = "10.0.0.0/8\n2001:db8:ffff::/48\n"

func mustProxies(t testing.TB, text string) middleware.TrustedProxies {
	t.Helper()
	p, err := middleware.ParseTrustedProxies(text)
	require.NoError(t, err)
	return p
}

// addrRequest is a request from a peer with the lines of one header.
func addrRequest(remoteAddr, header string, lines ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = remoteAddr
	if len(lines) > 0 {
		r.Header[header] = lines
	}
	return r
}

// addrOnUnix makes r a request of a server that listens on a unix socket.
func addrOnUnix(r *http.Request) *http.Request {
	local := &net.UnixAddr{Name: "/run/app.sock", Net: "unix"}
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
}

// requireAddr compares with the text of an address, where "" is the zero Addr.
func requireAddr(t *testing.T, want string, got netip.Addr) {
	t.Helper()
	if want == "" {
		require.Equal(t, netip.Addr{}, got)
		return
	}
	require.Equal(t, netip.MustParseAddr(want), got)
}

// addrSources are the sources that read a header, each with a way to write a
// header of it that names one client.
var addrSources = []struct {
	name   string
	make   func(middleware.TrustedProxies) middleware.AddrSource
	header string
	write  func(client string) string
}{
	{"ForwardedFor", middleware.ForwardedFor, "X-Forwarded-For", func(c string) string { return c }},
	{"Forwarded", middleware.Forwarded, "Forwarded", func(c string) string { return `for="` + c + `"` }},
	{"HeaderIP", func(p middleware.TrustedProxies) middleware.AddrSource {
		return middleware.HeaderIP("X-Real-IP", p)
	}, "X-Real-Ip", func(c string) string { return c }},
}

// D18: the peer's own address, host:port or bare, unmapped (F10) and without
// its zone (F12).
func TestPeerIP_D18(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, remoteAddr, want string }{
		{"IPv4 with port", "192.0.2.1:1234", "192.0.2.1"},
		{"IPv4 bare", "192.0.2.1", "192.0.2.1"},
		{"IPv6 with port", "[2001:db8::1]:1234", "2001:db8::1"},
		{"IPv6 bare", "2001:db8::1", "2001:db8::1"},
		{"IPv6 in brackets", "[2001:db8::1]", "2001:db8::1"},
		{"mapped with port F10", "[::ffff:192.0.2.1]:1234", "192.0.2.1"},
		{"mapped bare F10", "::ffff:192.0.2.1", "192.0.2.1"},
		{"mapped in hex F10", "[::ffff:c000:201]:1", "192.0.2.1"},
		{"zone with port F12", "[fe80::1%eth0]:1234", "fe80::1"},
		{"zone bare F12", "fe80::1%eth0", "fe80::1"},
		{"mapped with zone F10 F12", "[::ffff:192.0.2.1%eth0]:80", "192.0.2.1"},

		{"empty", "", ""},
		{"unnamed unix socket", "@", ""},
		{"path", "/run/client.sock", ""},
		{"host name", "localhost:80", ""},
		{"leading zero F11", "192.0.2.01:80", ""},
		{"empty port", "192.0.2.1:", ""},
		{"word as port", "192.0.2.1:http", ""},
		{"no host", ":80", ""},
		{"IPv4 in brackets", "[192.0.2.1]:80", ""},
		{"open bracket", "[2001:db8::1", ""},
		{"text behind bracket", "[2001:db8::1]80", ""},
		{"two addresses", "192.0.2.1, 192.0.2.2", ""},
		{"blank", " 192.0.2.1:80", ""},
		{"colon for a digit", "192.0.2.::80", ""},
		{"colon for an octet", ":.0.2.1:80", ""},
		{"colon for a digit of the port", "192.0.2.1:8:", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			requireAddr(t, tt.want, middleware.PeerIP(addrRequest(tt.remoteAddr, "")))
		})
	}
}

// D18, F1, F3: no header is read that was not configured, whatever it is called.
func TestPeerIP_readsNoHeader_F1_F3(t *testing.T) {
	t.Parallel()
	r := addrRequest("192.0.2.1:1234", "")
	for _, name := range []string{
		"X-Forwarded-For", "Forwarded", "X-Real-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "X-Client-Ip", "X-Cluster-Client-Ip",
	} {
		r.Header[name] = []string{"10.0.0.1"}
	}
	requireAddr(t, "192.0.2.1", middleware.PeerIP(r))
}

// D18: trust is asked of the peer first (F4): the header of an untrusted peer is
// ignored, as is every header while nobody is trusted (F1, F6).
func TestSources_untrustedPeer_F1_F4_F6(t *testing.T) {
	t.Parallel()
	trusted := mustProxies(t, addrProxies)
	for _, tt := range []struct {
		name    string
		proxies middleware.TrustedProxies
		peer    string
		want    string
	}{
		{"outside the list", trusted, "192.0.2.1:1234", "192.0.2.1"},
		{"mapped, outside the list", trusted, "[::ffff:192.0.2.1]:1234", "192.0.2.1"},
		{"no address", trusted, "bad", ""},
		{"empty", trusted, "", ""},
		{"unix socket that was not declared", trusted, "@", ""},
		{"zero TrustedProxies F6", middleware.TrustedProxies{}, "10.0.0.1:1234", "10.0.0.1"},
		{"zero TrustedProxies, unix socket F6", middleware.TrustedProxies{}, "@", ""},
		{"unix alone, and a peer with an address", mustProxies(t, "unix"), "10.0.0.1:1234", "10.0.0.1"},
		{"unix alone, and no address without a socket", mustProxies(t, "unix"), "bad", ""},
	} {
		for _, s := range addrSources {
			t.Run(tt.name+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				source := s.make(tt.proxies)
				requireAddr(t, tt.want, source(addrRequest(tt.peer, s.header, s.write("203.0.113.9"))))
				requireAddr(t, tt.want, source(addrRequest(tt.peer, s.header)))
			})
		}
	}
}

// D18: with a trusted peer the configured header is believed, and only that one.
func TestSources_trustedPeer_D18(t *testing.T) {
	t.Parallel()
	proxies := mustProxies(t, addrProxies+"unix")
	for _, peer := range []string{"10.0.0.1:1234", "[::ffff:10.0.0.1]:1234", "[2001:db8:ffff::1%eth0]:1234", "10.0.0.1", "@"} {
		for _, s := range addrSources {
			t.Run(peer+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				source := s.make(proxies)
				r := addrRequest(peer, s.header, s.write("203.0.113.9"))
				for _, other := range addrSources {
					if other.header != s.header {
						r.Header[other.header] = []string{other.write("198.51.100.66")}
					}
				}
				requireAddr(t, "203.0.113.9", source(r))
			})
		}
	}
}

// F37: a header with another spelling than its name is another header.
func TestSources_otherSpelling_F37(t *testing.T) {
	t.Parallel()
	proxies := mustProxies(t, addrProxies)
	for _, s := range addrSources {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			r := addrRequest("10.0.0.1:1234", s.header, s.write("203.0.113.9"))
			r.Header.Set(strings.ReplaceAll("A-"+s.header, "-", "_"), "198.51.100.66")
			r.Header.Set(strings.ReplaceAll(s.header, "-", "_")+"_", "198.51.100.66")
			r.Header.Set(s.header+".", "198.51.100.66")
			requireAddr(t, "203.0.113.9", s.make(proxies)(r))
		})
	}
}

// A trusted peer that sends no header leaves the address unknown, since a client
// can make some proxies drop it (CVE-2022-31813), and the address of the proxy
// may well be in a list.
func TestSources_absentHeader_CVE_2022_31813(t *testing.T) {
	t.Parallel()
	proxies := mustProxies(t, addrProxies+"unix")
	for _, s := range addrSources {
		for _, peer := range []string{"10.0.0.1:1234", "@"} {
			t.Run(s.name+"/"+peer, func(t *testing.T) {
				t.Parallel()
				source := s.make(proxies)
				requireAddr(t, "", source(addrRequest(peer, s.header)))
				requireAddr(t, "", source(addrRequest(peer, s.header, "")))
				requireAddr(t, "", source(addrRequest(peer, s.header, " \t ")))
			})
		}
	}
}

// F8: an unknown address is in no list, not even in one of everybody.
func TestSources_unknownFailsEveryList_F8(t *testing.T) {
	t.Parallel()
	everybody, err := policy.ParseIPList("0.0.0.0/0\n::/0")
	require.NoError(t, err)
	for _, s := range addrSources {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			got := s.make(mustProxies(t, addrProxies))(addrRequest("10.0.0.1:1234", s.header, "garbage"))
			require.False(t, everybody.Contains(got))
		})
	}
}

// F3: neither RemoteAddr nor a header is changed.
func TestSources_requestUntouched_F3(t *testing.T) {
	t.Parallel()
	for _, s := range addrSources {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			r := addrRequest("[::ffff:10.0.0.1]:1234", s.header, s.write("203.0.113.9"))
			want := r.Header.Clone()
			requireAddr(t, "203.0.113.9", s.make(mustProxies(t, addrProxies))(r))
			require.Equal(t, "[::ffff:10.0.0.1]:1234", r.RemoteAddr)
			require.Equal(t, want, r.Header)
		})
	}
}

// D18: X-Forwarded-For is walked from the right, over all lines.
func TestForwardedFor_D18(t *testing.T) {
	t.Parallel()
	source := middleware.ForwardedFor(mustProxies(t, addrProxies))
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"one hop", []string{"203.0.113.9"}, "203.0.113.9"},
		{"proxies skipped", []string{"203.0.113.9, 10.0.0.3, 10.0.0.2"}, "203.0.113.9"},
		{"IPv6 proxies skipped", []string{"203.0.113.9, 2001:db8:ffff::3,10.0.0.2"}, "203.0.113.9"},
		{"mapped proxies skipped F10", []string{"203.0.113.9, ::ffff:10.0.0.2"}, "203.0.113.9"},
		{"spoofed left part F2", []string{"198.51.100.66, 203.0.113.9, 10.0.0.2"}, "203.0.113.9"},
		{"spoofed trusted left part F2", []string{"10.0.0.9, 203.0.113.9, 10.0.0.2"}, "203.0.113.9"},
		{"all trusted: the leftmost", []string{"10.0.0.9, 10.0.0.3, 10.0.0.2"}, "10.0.0.9"},
		{"one trusted", []string{"10.0.0.9"}, "10.0.0.9"},

		{"two lines F5", []string{"198.51.100.66", "203.0.113.9"}, "203.0.113.9"},
		{"two lines, proxies in the last F5", []string{"203.0.113.9", "10.0.0.3, 10.0.0.2"}, "203.0.113.9"},
		{"three lines F5", []string{"198.51.100.66, 10.0.0.9", "203.0.113.9, 10.0.0.3", "10.0.0.2"}, "203.0.113.9"},
		{"all trusted over lines F5", []string{"10.0.0.9", "10.0.0.3", "10.0.0.2"}, "10.0.0.9"},
		{"empty line on the left", []string{"", "203.0.113.9"}, "203.0.113.9"},
		{"empty line on the right", []string{"203.0.113.9", ""}, ""},
		{"empty line met", []string{"", "10.0.0.2"}, ""},

		{"port", []string{"203.0.113.9:1234, 10.0.0.2:80"}, "203.0.113.9"},
		{"IPv6", []string{"2001:db8::1"}, "2001:db8::1"},
		{"IPv6 in brackets", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"IPv6 with port", []string{"[2001:db8::1]:1234"}, "2001:db8::1"},
		{"mapped F10", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		{"blanks and tabs", []string{" \t203.0.113.9\t , \t10.0.0.2 "}, "203.0.113.9"},
		{"no blanks", []string{"203.0.113.9,10.0.0.2"}, "203.0.113.9"},

		{"garbage not met", []string{"garbage, , 203.0.113.9"}, "203.0.113.9"},
		{"garbage met F8", []string{"203.0.113.9, garbage, 10.0.0.2"}, ""},
		{"empty hop met", []string{"203.0.113.9, , 10.0.0.2"}, ""},
		{"trailing comma", []string{"203.0.113.9,"}, ""},
		{"leading comma met", []string{",10.0.0.2"}, ""},
		{"unknown met", []string{"203.0.113.9, unknown"}, ""},
		{"obfuscated met", []string{"203.0.113.9, _hidden"}, ""},
		{"zone F12", []string{"fe80::1%eth0"}, ""},
		{"zone in brackets F12", []string{"[fe80::1%eth0]:80"}, ""},
		{"zone of a proxy F12", []string{"203.0.113.9, 2001:db8:ffff::1%eth0"}, ""},
		{"mapped proxy with zone F10 F12", []string{"203.0.113.9, ::ffff:10.0.0.1%eth0"}, ""},
		{"leading zero F11", []string{"203.0.113.09"}, ""},
		{"octal proxy F11", []string{"203.0.113.9, 012.0.0.1"}, ""},
		{"short IPv4 F11", []string{"203.0.113.9, 10.1"}, ""},
		{"number F11", []string{"203.0.113.9, 167772161"}, ""},
		{"hex F11", []string{"203.0.113.9, 0x0a.0.0.1"}, ""},
		{"prefix", []string{"203.0.113.9, 10.0.0.0/8"}, ""},
		{"IPv4 in brackets", []string{"[203.0.113.9]"}, ""},
		{"open bracket", []string{"[2001:db8::1"}, ""},
		{"text behind bracket", []string{"[2001:db8::1]x"}, ""},
		{"empty brackets", []string{"[]"}, ""},
		{"empty port", []string{"203.0.113.9:"}, ""},
		{"port of six digits", []string{"203.0.113.9:123456"}, ""},
		{"signed port", []string{"203.0.113.9:+80"}, ""},
		{"quoted", []string{`"203.0.113.9"`}, ""},
		{"two addresses in one hop", []string{"203.0.113.9 10.0.0.2"}, ""},
		{"no-break space", []string{"203.0.113.9\u00a0"}, ""},
		{"carriage return", []string{"203.0.113.9\r"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			requireAddr(t, tt.want, source(addrRequest("10.0.0.1:1234", "X-Forwarded-For", tt.lines...)))
		})
	}
}

// D18: at least 100 hops are walked; a longer header gives no address, wherever
// the excess is: never the hop at which the walk would have to stop.
func TestSources_bounds_D18(t *testing.T) {
	t.Parallel()
	for _, s := range addrSources[:2] {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			source := s.make(mustProxies(t, addrProxies))
			get := func(lines ...string) netip.Addr {
				return source(addrRequest("10.0.0.1:1234", s.header, lines...))
			}
			client, proxy := s.write("203.0.113.9"), s.write("10.0.0.2")
			list := func(first string, n int, others string) []string {
				return append([]string{first}, slices.Repeat([]string{others}, n-1)...)
			}
			for _, n := range []int{2, 100, 128} {
				hops := list(client, n, proxy)
				requireAddr(t, "203.0.113.9", get(strings.Join(hops, ", ")))
				requireAddr(t, "203.0.113.9", get(hops...))
			}
			for _, n := range []int{129, 1000, 100_000} {
				for _, hops := range [][]string{
					list(client, n, proxy), // too far away
					list(proxy, n, proxy),
					append(list("garbage", n-1, "garbage"), client), // at hand, but the client wrote too much
				} {
					requireAddr(t, "", get(strings.Join(hops, ", ")))
					requireAddr(t, "", get(hops...))
				}
			}

			blanks := func(n int) string { return strings.Repeat(" ", n-len(client)) + client }
			requireAddr(t, "203.0.113.9", get(blanks(32<<10)))
			requireAddr(t, "", get(blanks(32<<10+1)))
			requireAddr(t, "203.0.113.9", get(blanks(16<<10), blanks(16<<10)))
			requireAddr(t, "", get(blanks(16<<10+1), blanks(16<<10)))
			requireAddr(t, "", get(blanks(1<<20)))
		})
	}
}

// D18, 1.3: a single-address header is believed only whole and only once.
func TestHeaderIP_D18(t *testing.T) {
	t.Parallel()
	proxies := mustProxies(t, addrProxies)
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"IPv4", []string{"203.0.113.9"}, "203.0.113.9"},
		{"IPv6", []string{"2001:db8::1"}, "2001:db8::1"},
		{"mapped F10", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		{"blanks around", []string{" \t203.0.113.9\t "}, "203.0.113.9"},
		{"a proxy", []string{"10.0.0.7"}, "10.0.0.7"},

		{"repeated line F5", []string{"203.0.113.9", "203.0.113.9"}, ""},
		{"repeated line, one empty F5", []string{"203.0.113.9", ""}, ""},
		{"list", []string{"203.0.113.9, 10.0.0.2"}, ""},
		{"with port", []string{"203.0.113.9:80"}, ""},
		{"IPv6 in brackets", []string{"[2001:db8::1]"}, ""},
		{"zone F12", []string{"fe80::1%eth0"}, ""},
		{"leading zero F11", []string{"203.0.113.09"}, ""},
		{"unknown", []string{"unknown"}, ""},
		{"prefix", []string{"203.0.113.9/32"}, ""},
		{"quoted", []string{`"203.0.113.9"`}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, name := range []string{"X-Real-IP", "x-real-ip", "X-REAL-IP"} {
				source := middleware.HeaderIP(name, proxies)
				requireAddr(t, tt.want, source(addrRequest("10.0.0.1:1234", "X-Real-Ip", tt.lines...)))
			}
		})
	}
}

// A name that can never be the name of such a header is a mistake in the
// program, which is told when it starts and not by requests without an address.
func TestHeaderIP_badName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, header, want string }{
		{"empty", "", `"" is not the name of a header`},
		{"blank inside", "X Real IP", `"X Real IP" is not the name of a header`},
		{"colon", "X-Real-IP:", `"X-Real-IP:" is not the name of a header`},
		{"line break", "X-Real-IP\r\n", `"X-Real-IP\r\n" is not the name of a header`},
		{"not ASCII", "X-Réal-IP", `"X-Réal-IP" is not the name of a header`},
		{"not ASCII, a letter in its low byte", "X-Real-\u0149P", `"X-Real-` + "\u0149" + `P" is not the name of a header`},
		{"not UTF-8", "X-Real-\xff", `"X-Real-\xff" is not the name of a header`},
		{"X-Forwarded-For", "x-forwarded-for", "X-Forwarded-For is a list"},
		{"Forwarded", "forwarded", "Forwarded is a list"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			defer func() { require.Contains(t, fmt.Sprint(recover()), "middleware: HeaderIP: "+tt.want) }()
			middleware.HeaderIP(tt.header, mustProxies(t, addrProxies))
		})
	}
}

// D18: over a real unix socket the peer has no address, whatever it calls
// itself, and is trusted only if it was declared.
//
// Not parallel: it changes the working directory, so that a socket can be bound
// to a name that reads like an address.
func TestSources_unixSocket_D18(t *testing.T) {
	t.Chdir(t.TempDir())
	listener, err := net.Listen("unix", "app.sock")
	require.NoError(t, err)
	declared, others := mustProxies(t, "10.0.0.0/8\nunix"), mustProxies(t, "10.0.0.0/8")
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "peer %s, undeclared %s, declared %s", middleware.PeerIP(r),
			middleware.ForwardedFor(others)(r), middleware.ForwardedFor(declared)(r))
	})}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	for _, own := range []string{"", "10.0.0.1:80", "203.0.113.7", "[2001:db8::1]:80"} {
		t.Run("named "+own, func(t *testing.T) {
			var name *net.UnixAddr
			if own != "" {
				name = &net.UnixAddr{Name: own, Net: "unix"}
			}
			c, err := net.DialUnix("unix", name, &net.UnixAddr{Name: "app.sock", Net: "unix"})
			require.NoError(t, err)
			defer c.Close()
			require.Equal(t, "peer invalid IP, undeclared invalid IP, declared 203.0.113.9",
				addrAsk(t, c, "X-Forwarded-For: 203.0.113.9"))
			require.Equal(t, "peer invalid IP, undeclared invalid IP, declared invalid IP",
				addrAsk(t, c, "X-Unrelated: 203.0.113.9"))
		})
	}
}

// F5: lines as net/http hands them over, among them a doubled one and one that
// is folded (RFC 9112 5.2), on a real connection.
func TestForwardedFor_wire_F5(t *testing.T) {
	t.Parallel()
	loopback := mustProxies(t, "127.0.0.0/8\n::1\n10.0.0.0/8")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", middleware.ForwardedFor(loopback)(r), middleware.Forwarded(loopback)(r))
	}))
	defer server.Close()
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, "203.0.113.9 invalid IP", addrAsk(t, c, "X-Forwarded-For: 198.51.100.66", "x-forwarded-for: 203.0.113.9, 10.0.0.2"))
	require.Equal(t, "203.0.113.9 invalid IP", addrAsk(t, c, "X-Forwarded-For: 198.51.100.66,", " 203.0.113.9"))
	require.Equal(t, "invalid IP 203.0.113.9", addrAsk(t, c, "Forwarded: for=198.51.100.66", "FORWARDED: For=203.0.113.9;proto=http"))
	require.Equal(t, "invalid IP invalid IP", addrAsk(t, c, "X-Forwarded-For:", "Forwarded:"))
}

// addrAsk sends a request with the header lines and returns the body of the
// answer.
func addrAsk(t *testing.T, c net.Conn, lines ...string) string {
	t.Helper()
	_, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: example.com\r\n%s\r\n\r\n", strings.Join(lines, "\r\n"))
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body)
}

// The sources are on the path of every request.
//
// Not parallel: testing.AllocsPerRun counts the allocations of all goroutines.
func TestSources_allocations(t *testing.T) {
	proxies := mustProxies(t, addrProxies+"unix")
	for _, tt := range addrBudgets(proxies) {
		t.Run(tt.name, func(t *testing.T) {
			require.True(t, tt.source(tt.request).IsValid())
			require.Zero(t, testing.AllocsPerRun(100, func() { tt.source(tt.request) }))
		})
	}
}

func BenchmarkAddrSource(b *testing.B) {
	for _, tt := range addrBudgets(mustProxies(b, addrProxies+"unix")) {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tt.source(tt.request)
			}
		})
	}
}

type addrBudget struct {
	name    string
	source  middleware.AddrSource
	request *http.Request
}

func addrBudgets(proxies middleware.TrustedProxies) []addrBudget {
	const peer = "10.0.0.1:1234"
	return []addrBudget{
		{"PeerIP/IPv4", middleware.PeerIP, addrRequest("203.0.113.9:1234", "")},
		{"PeerIP/IPv6", middleware.PeerIP, addrRequest("[2001:db8::1]:1234", "")},
		{"PeerIP/mapped", middleware.PeerIP, addrRequest("[::ffff:203.0.113.9]:1234", "")},
		{"PeerIP/bare", middleware.PeerIP, addrRequest("203.0.113.9", "")},
		{"ForwardedFor/untrusted", middleware.ForwardedFor(proxies), addrRequest("203.0.113.9:1234", "X-Forwarded-For", "198.51.100.66")},
		{"ForwardedFor/1", middleware.ForwardedFor(proxies), addrRequest(peer, "X-Forwarded-For", "203.0.113.9")},
		{"ForwardedFor/2", middleware.ForwardedFor(proxies), addrRequest(peer, "X-Forwarded-For", "203.0.113.9, 10.0.0.2")},
		{"ForwardedFor/2lines", middleware.ForwardedFor(proxies), addrRequest(peer, "X-Forwarded-For", "203.0.113.9", "10.0.0.2")},
		{"ForwardedFor/unix", middleware.ForwardedFor(proxies), addrOnUnix(addrRequest("@", "X-Forwarded-For", "203.0.113.9, 10.0.0.2"))},
		{"Forwarded/1", middleware.Forwarded(proxies), addrRequest(peer, "Forwarded", "for=203.0.113.9;proto=https;host=example.com")},
		{"Forwarded/2", middleware.Forwarded(proxies), addrRequest(peer, "Forwarded", `for="[2001:db8::1]:1234";proto=https, for=10.0.0.2`)},
		{"HeaderIP", middleware.HeaderIP("X-Real-IP", proxies), addrRequest(peer, "X-Real-Ip", "203.0.113.9")},
	}
}

// FuzzPeerIP compares what is read of "host:port" with net/netip and patterns: an
// address is read as what it says, unmapped and without its zone, or not at all; and
// what an http.Server writes for it is read as the same.
func FuzzPeerIP(f *testing.F) {
	for _, s := range []string{
		"192.0.2.1:1234", "192.0.2.1:99999", "192.0.2.1:123456", "192.0.2.1:_x", "192.0.2.1:", "192.0.2.01:1", "0.0.0.0:0",
		"255.255.255.255:65535", "256.0.2.1:1", "1.2.3:4", "1.2.3.4.5:6", "1..2.3:4", ".1.2.3:4", "1.2.3.:4", "1.2.3.4", "1.2.3.4:5:6",
		"00.2.3.4:1", "1.2.3.4294967297:1", "18446744073709551617.2.3.4:1", "1.2.3.4 :5", "1.2.3.4:+5", "1:2", "::1", ":",
		"[2001:db8::1]:80", "[2001:db8::1]", "2001:db8::1", "[::]:99999", "[::]:0", "[]:1", "[:]:1", "[::1]80", "[::1]:", "[::1]:_x", "[::1", "::1]:80",
		"[::ffff:192.0.2.1]:80", "::ffff:192.0.2.1", "[::ffff:c000:201]:80", "[192.0.2.1]:80", "[::192.0.2.1]:80", "1:2:3:4:5:6:7:8:80",
		"[fe80::1%eth0]:80", "fe80::1%eth0", "fe80::1%eth0:80", "[fe80::1%]:80", "[fe80::1%a]b]:80", "[::ffff:192.0.2.1%eth0]:80", "[[::1]]:80",
	} {
		f.Add(s)
	}
	const port = `[0-9]{1,5}|_[A-Za-z0-9._-]+`
	ip4 := regexp.MustCompile(`^([^:\[][^:]*)(?::(?:` + port + `))?$`)
	ip6 := regexp.MustCompile(`^\[([^\]]*:[^\]]*)\](?::(?:` + port + `))?$`)
	bare := regexp.MustCompile(`^([^:\[]*:[^:]*:.*)$`)
	plain := func(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
	f.Fuzz(func(t *testing.T, s string) {
		if s == "@" {
			return // a unix socket
		}
		got := middleware.PeerIP(addrRequest(s, ""))
		var want netip.Addr
		for _, syntax := range []*regexp.Regexp{ip4, ip6, bare} {
			if m := syntax.FindStringSubmatch(s); m != nil {
				a, _ := netip.ParseAddr(m[1])
				want = plain(a)
			}
		}
		require.Equal(t, want, got, "%q", s)

		// It takes a port of more than five digits, and a bracket in a zone, which nobody writes.
		p, err := netip.ParseAddrPort(s)
		if err == nil && len(s)-strings.LastIndexByte(s, ':') <= 6 && !strings.Contains(p.Addr().Zone(), "]") {
			require.Equal(t, plain(p.Addr()), got, "%q", s)
		}
		if got.IsValid() {
			require.False(t, got.Is4In6() || got.Zone() != "", "%q", s)
			written := net.TCPAddrFromAddrPort(netip.AddrPortFrom(got, 65535)).String()
			require.Equal(t, got, middleware.PeerIP(addrRequest(written, "")), "%q", written)
		}
	})
}

// FuzzForwardedFor compares with a walk over all the hops, which are split and
// matched by other means, and checks what must hold of every answer: an
// untrusted peer has its own address, and what a client sends to the left of the
// hop that was found changes nothing, except that a header may become too long
// to be read at all.
func FuzzForwardedFor(f *testing.F) {
	for _, lines := range []string{
		"", ",", " , ", "203.0.113.9", "203.0.113.9, 10.0.0.2", "203.0.113.9\n10.0.0.2", "10.0.0.3,10.0.0.2", "unknown", "_hidden",
		"203.0.113.9:80", "[2001:db8::1]:80", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1%eth0", "[fe80::1%25eth0]", "012.0.0.1",
		"203.0.113.9:_x-y.z", "[]:", "[:]", "[::]:99999", "::", `"203.0.113.9"`, "1.2.3.4\t, \t10.0.0.2 ", strings.Repeat("10.0.0.2,", 128) + "10.0.0.2",
	} {
		f.Add(lines, "10.0.0.1")
		f.Add(lines, `for="`)
		f.Add("203.0.113.9, 10.0.0.2", lines)
	}
	proxies, err := middleware.ParseTrustedProxies(addrProxies)
	require.NoError(f, err)
	fuzzed := addrFuzz{middleware.ForwardedFor(proxies), "X-Forwarded-For", proxies}
	f.Fuzz(func(t *testing.T, text, spoofed string) {
		lines := strings.Split(text, "\n")
		var hops []netip.Addr
		for _, line := range lines {
			for hop := range strings.SplitSeq(line, ",") {
				hop = strings.Trim(hop, " \t")
				a := modelNode(hop)
				if strings.Count(hop, ":") > 1 && !strings.Contains(hop, "[") {
					a = modelNode("[" + hop + "]")
				}
				hops = append(hops, a)
			}
		}
		got := fuzzed.check(t, lines, hops)

		if got.IsValid() && !fuzzed.trusts(got) {
			line := append([]string{spoofed}, lines...)
			part := append([]string{spoofed + "," + lines[0]}, lines[1:]...)
			for _, longer := range [][]string{line, part} {
				want := got
				if all := strings.Join(longer, ","); strings.Count(all, ",") >= 128 || len(all)-len(longer)+1 > 32<<10 {
					want = netip.Addr{}
				}
				require.Equal(t, want, fuzzed.get(longer), "%q", longer)
			}
		}
	})
}

// An addrFuzz is what the fuzz targets of the sources share.
type addrFuzz struct {
	source  middleware.AddrSource
	header  string
	proxies middleware.TrustedProxies
}

func (f *addrFuzz) get(lines []string) netip.Addr {
	return f.source(addrRequest("10.0.0.1:1234", f.header, lines...))
}

// trusts asks by way of a source: without a header, a peer that is not trusted
// has its own address, and one that is has none.
func (f *addrFuzz) trusts(a netip.Addr) bool {
	return !middleware.HeaderIP("X-Real-IP", f.proxies)(addrRequest(a.String(), "")).IsValid()
}

// check returns the answer to lines, which have these hops, after comparing it
// with what is right.
func (f *addrFuzz) check(t *testing.T, lines []string, hops []netip.Addr) netip.Addr {
	t.Helper()
	for _, peer := range []string{"192.0.2.1:80", "[::ffff:192.0.2.1]:80", "@", "bad"} {
		r := addrRequest(peer, f.header, lines...)
		require.Equal(t, middleware.PeerIP(r), f.source(r), "peer %s", peer)
	}

	var want netip.Addr
	if len(hops) <= 128 && len(strings.Join(lines, "")) <= 32<<10 {
		want = hops[0]
		for _, hop := range slices.Backward(hops) {
			if !hop.IsValid() || !f.trusts(hop) {
				want = hop
				break
			}
		}
	}
	got := f.get(lines)
	require.Equal(t, want, got, "%q", lines)
	require.False(t, got.Is4In6())
	require.Empty(t, got.Zone())
	if got.IsValid() && f.trusts(got) {
		for _, hop := range hops {
			require.True(t, f.trusts(hop), "%s is trusted, but not every hop", got)
		}
	}
	return got
}

var modelNodeSyntax = regexp.MustCompile(`^(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\])(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?$`)

// modelNode is a second reading of the nodes of RFC 7239.
func modelNode(s string) netip.Addr {
	m := modelNodeSyntax.FindStringSubmatch(s)
	if m == nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(m[1] + m[2])
	if err != nil || a.Is4() != (m[1] != "") {
		return netip.Addr{}
	}
	return a.Unmap()
}

func ExamplePeerIP() {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "[::ffff:203.0.113.9]:50042"
	r.Header.Set("X-Forwarded-For", "10.0.0.1") // anybody can say so

	fmt.Println(middleware.PeerIP(r))
	// Output: 203.0.113.9
}

func ExampleForwardedFor() {
	proxies, err := middleware.ParseTrustedProxies(`
		10.1.0.0/24 # load balancers
		unix        # nginx on this machine
	`)
	if err != nil {
		panic(err)
	}
	source := middleware.ForwardedFor(proxies) // for Options.ClientIP

	// The client sent a line of its own; the load balancer added what it saw.
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.1.0.7:50042"
	r.Header.Set("X-Forwarded-For", "192.0.2.10, 203.0.113.9")
	fmt.Println("through the load balancer:", source(r))

	// The same request, past the load balancer.
	r.RemoteAddr = "203.0.113.9:61234"
	r.Header.Set("X-Forwarded-For", "192.0.2.10")
	fmt.Println("directly:", source(r))
	// Output:
	// through the load balancer: 203.0.113.9
	// directly: 203.0.113.9
}

// What the left end of X-Forwarded-For says was written by the client. A source
// made by hand out of it lets everybody choose an address that is in the list.
func ExampleForwardedFor_incorrect() {
	var incorrect middleware.AddrSource = func(r *http.Request) netip.Addr {
		first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
		a, _ := netip.ParseAddr(first)
		return a
	}
	proxies, err := middleware.ParseTrustedProxies("10.1.0.0/24")
	if err != nil {
		panic(err)
	}
	correct := middleware.ForwardedFor(proxies)

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.1.0.7:50042"
	r.Header.Set("X-Forwarded-For", "192.0.2.10, 203.0.113.9") // the client really is 203.0.113.9
	fmt.Println("incorrect:", incorrect(r))
	fmt.Println("correct:", correct(r))
	// Output:
	// incorrect: 192.0.2.10
	// correct: 203.0.113.9
}

func ExampleHeaderIP() {
	proxies, err := middleware.ParseTrustedProxies("10.1.0.7")
	if err != nil {
		panic(err)
	}
	source := middleware.HeaderIP("X-Real-IP", proxies) // which 10.1.0.7 overwrites on every request

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.1.0.7:50042"
	r.Header.Set("X-Real-IP", "203.0.113.9")
	fmt.Println(source(r))

	r.Header.Add("X-Real-IP", "192.0.2.10") // one too many to know which is right
	fmt.Println("known:", source(r).IsValid())
	// Output:
	// 203.0.113.9
	// known: false
}
