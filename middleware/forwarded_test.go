package middleware_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
)

// D18, RFC 7239: Forwarded is walked from the right, over all lines.
func TestForwarded_D18(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"one hop", []string{"for=203.0.113.9"}, "203.0.113.9"},
		{"name in any case", []string{"FOR=203.0.113.9"}, "203.0.113.9"},
		{"other parameters", []string{"by=10.0.0.1;for=203.0.113.9;proto=https;host=example.com"}, "203.0.113.9"},
		{"extension parameter", []string{`secret=abc;for=203.0.113.9;x!#$%&'*+-.^_|~=1`}, "203.0.113.9"},
		{"proxies skipped", []string{"for=203.0.113.9, for=10.0.0.3, for=10.0.0.2"}, "203.0.113.9"},
		{"spoofed left part F2", []string{"for=198.51.100.66, for=203.0.113.9, for=10.0.0.2"}, "203.0.113.9"},
		{"spoofed trusted left part F2", []string{"for=10.0.0.9, for=203.0.113.9"}, "203.0.113.9"},
		{"all trusted: the leftmost", []string{"for=10.0.0.9, for=10.0.0.3, for=10.0.0.2"}, "10.0.0.9"},
		{"two lines F5", []string{"for=198.51.100.66", "for=203.0.113.9"}, "203.0.113.9"},
		{"three lines F5", []string{"for=198.51.100.66,for=10.0.0.9", "for=203.0.113.9,for=10.0.0.3", "for=10.0.0.2"}, "203.0.113.9"},
		{"all trusted over lines F5", []string{"for=10.0.0.9", "for=10.0.0.2"}, "10.0.0.9"},
		{"proxies by IPv6", []string{`for=203.0.113.9, for="[2001:db8:ffff::1]"`}, "203.0.113.9"},
		{"proxies by mapped IPv6 F10", []string{`for=203.0.113.9, for="[::ffff:10.0.0.2]:80"`}, "203.0.113.9"},

		{"quoted IPv4", []string{`for="203.0.113.9"`}, "203.0.113.9"},
		{"quoted IPv4 with port", []string{`for="203.0.113.9:47011"`}, "203.0.113.9"},
		{"quoted IPv4 with obfuscated port", []string{`for="203.0.113.9:_a.b-c_d0"`}, "203.0.113.9"},
		{"quoted IPv6", []string{`for="[2001:db8:cafe::17]"`}, "2001:db8:cafe::17"},
		{"quoted IPv6 with port", []string{`For="[2001:db8:cafe::17]:4711"`}, "2001:db8:cafe::17"},
		{"mapped F10", []string{`for="[::ffff:203.0.113.9]"`}, "203.0.113.9"},
		{"escapes", []string{`for="\[2001:db8::\1]"`}, "2001:db8::1"},
		{"separators inside quotes", []string{`host="a,b;for=10.0.0.9";for=203.0.113.9`}, "203.0.113.9"},
		{"escaped quote inside quotes", []string{`host="a\",for=10.0.0.9";for=203.0.113.9`}, "203.0.113.9"},
		{"escaped backslash inside quotes", []string{`host="a\\", for=203.0.113.9`}, "203.0.113.9"},
		{"tab and obs-text inside quotes", []string{"host=\"\t\x80\xff\\\x80\";for=203.0.113.9"}, "203.0.113.9"},
		{"blanks and tabs", []string{" \tfor=203.0.113.9 ;\tproto=http\t, for=10.0.0.2 \t"}, "203.0.113.9"},
		{"empty parameters", []string{";;for=203.0.113.9;;"}, "203.0.113.9"},

		{"unknown met", []string{"for=203.0.113.9, for=unknown, for=10.0.0.2"}, ""},
		{"unknown not met", []string{"for=unknown, for=203.0.113.9"}, "203.0.113.9"},
		{"obfuscated met", []string{"for=203.0.113.9, for=_gazonk"}, ""},
		{"quoted obfuscated met", []string{`for=203.0.113.9, for="_gazonk"`}, ""},
		{"no for met", []string{"for=203.0.113.9, proto=https, for=10.0.0.2"}, ""},
		{"no for not met", []string{"proto=https, for=203.0.113.9"}, "203.0.113.9"},
		{"empty element met", []string{"for=203.0.113.9, , for=10.0.0.2"}, ""},
		{"trailing comma", []string{"for=203.0.113.9,"}, ""},
		{"leading comma not met", []string{",for=203.0.113.9"}, "203.0.113.9"},
		{"empty line met", []string{"for=203.0.113.9", ""}, ""},
		{"text that is no address", []string{"for=203.0.113.9, for=example.com"}, ""},
		{"empty quotes", []string{`for=203.0.113.9, for=""`}, ""},
		{"similar names", []string{"forx=203.0.113.9;x-for=203.0.113.9;fo=203.0.113.9"}, ""},
		{"zone F12", []string{`for="[fe80::1%eth0]"`}, ""},
		{"escaped zone F12", []string{`for="[fe80::1\%eth0]"`}, ""},
		{"zone of a proxy F12", []string{`for=203.0.113.9, for="[2001:db8:ffff::1%25eth0]"`}, ""},
		{"leading zero F11", []string{"for=203.0.113.9, for=010.0.0.1"}, ""},
		{"quoted IPv6 without brackets", []string{`for="2001:db8::1"`}, ""},
		{"quoted IPv4 in brackets", []string{`for="[203.0.113.9]"`}, ""},
		{"empty port", []string{`for="203.0.113.9:"`}, ""},
		{"port of six digits", []string{`for="203.0.113.9:123456"`}, ""},
		{"empty obfuscated port", []string{`for="203.0.113.9:_"`}, ""},
		{"bad obfuscated port", []string{`for="203.0.113.9:_a b"`}, ""},
		{"blank inside quotes", []string{`for=" 203.0.113.9"`}, ""},
		{"X-Forwarded-For syntax", []string{"203.0.113.9"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			source := middleware.Forwarded(mustProxies(t, addrProxies))
			requireAddr(t, tt.want, source(addrRequest("10.0.0.1:1234", "Forwarded", tt.lines...)))
		})
	}
}

// F7: a line that breaks the grammar is an unknown hop as a whole, whatever
// follows in it; lines to its right are not concerned, and it is not met if they
// have the client.
func TestForwarded_malformedLine_F7(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, line string }{
		{"client leaves a quote open", `for="10.0.0.9, for=203.0.113.9`},
		{"client leaves a quote open, proxy quotes", `for=10.0.0.9;x=", for="[2001:db8::1]:80"`},
		{"client leaves a quote open, proxy quotes another parameter", `for=10.0.0.9;x=", for=203.0.113.9;proto="https"`},
		{"client ends in a backslash", `for="10.0.0.9\, for="203.0.113.9"`},
		{"quote that only opens", `for="`},
		{"backslash at the end", `for="10.0.0.9\`},
		{"escaped closing quote", `for="10.0.0.9\"`},
		{"for twice", "for=10.0.0.9;for=203.0.113.9"},
		{"for twice in another case", "for=10.0.0.9;proto=http;FOR=10.0.0.9"},
		{"for twice, the first is empty", `for="";for=203.0.113.9`},
		{"unquoted IPv6", "for=[2001:db8::1]"},
		{"unquoted bare IPv6", "for=2001:db8::1"},
		{"unquoted port", "for=203.0.113.9:80"},
		{"blank before the equals sign", "for =203.0.113.9"},
		{"blank behind the equals sign", "for= 203.0.113.9"},
		{"no equals sign", "for"},
		{"no value", "for="},
		{"no value, more follows", "for=;proto=http"},
		{"no value of another parameter", "proto=;for=203.0.113.9"},
		{"no name", "=203.0.113.9"},
		{"no name of another parameter", "=http;for=203.0.113.9"},
		{"quoted name", `"for"=203.0.113.9`},
		{"two values", "for=203.0.113.9 203.0.113.9"},
		{"text behind the quotes", `for="203.0.113.9"x`},
		{"quotes behind the quotes", `for="203.0.113.9""x"`},
		{"quote inside a token", `for=203.0.113.9"`},
		{"second equals sign", "for=203.0.113.9=x"},
		{"single quotes", "for='[2001:db8::1]'"},
		{"control character in quotes", "for=203.0.113.9;x=\"\x01\""},
		{"escaped control character", "for=203.0.113.9;x=\"\\\x00\""},
		{"DEL in quotes", "for=203.0.113.9;x=\"\x7f\""},
		{"control character", "for=203.0.113.9\v"},
		{"not ASCII", "for=203.0.113.9;é=1"},
		{"broken element on the left", "for=[, for=203.0.113.9"},
		{"broken element on the right", "for=203.0.113.9, for=["},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			source := middleware.Forwarded(mustProxies(t, addrProxies))
			get := func(lines ...string) netip.Addr {
				return source(addrRequest("10.0.0.1:1234", "Forwarded", lines...))
			}
			requireAddr(t, "", get(tt.line))
			requireAddr(t, "", get("for=198.51.100.66", tt.line))
			requireAddr(t, "", get("for=198.51.100.66", tt.line, "for=10.0.0.2"))
			requireAddr(t, "203.0.113.9", get(tt.line, "for=203.0.113.9"))
			requireAddr(t, "203.0.113.9", get(tt.line, "for=203.0.113.9, for=10.0.0.2"))
			requireAddr(t, "", get(tt.line+",for=10.0.0.2"))
		})
	}
}

// FuzzForwarded compares with a second reading of RFC 7239, by regular
// expressions, and checks what FuzzForwardedFor checks. What a client sends in
// front of a proxy's element in one line may break the line (F7), but can never
// lead to another address.
func FuzzForwarded(f *testing.F) {
	for _, lines := range []string{
		"", ",", ";", "for=203.0.113.9", "for=203.0.113.9, for=10.0.0.2", "for=203.0.113.9\nfor=10.0.0.2", "for=10.0.0.3,for=10.0.0.2",
		`For="[2001:db8:cafe::17]:4711"`, "for=192.0.2.60;proto=http;by=203.0.113.43", "for=unknown", "for=_gazonk", "proto=https",
		`for="`, `for="10.0.0.9`, `x="`, `x="\`, `for=10.0.0.9;x="`, `for="10.0.0.9\"`, `for="\1.2.3.4"`, "for=1.2.3.4;FOR=1.2.3.4", "for=[2001:db8::1]",
		`for="2001:db8::1"`, `for="[fe80::1%eth0]"`, "for=1.2.3.4:80", "for =1.2.3.4", "for=1.2.3.4 ; by=x\t", `for="1.2.3.4:_x"`,
		"for=1.2.3.4;a=\"\x01\"", strings.Repeat("for=10.0.0.2,", 128) + "for=10.0.0.2",
	} {
		f.Add(lines, "for=10.0.0.1")
		f.Add(lines, `for="`)
		f.Add(`for=203.0.113.9;proto="https", for="[2001:db8:ffff::1]"`, lines)
	}
	proxies, err := middleware.ParseTrustedProxies(addrProxies)
	require.NoError(f, err)
	fuzzed := addrFuzz{middleware.Forwarded(proxies), "Forwarded", proxies}
	f.Fuzz(func(t *testing.T, text, spoofed string) {
		lines := strings.Split(text, "\n")
		var hops []netip.Addr
		for _, line := range lines {
			hops = append(hops, modelLine(line)...)
		}
		got := fuzzed.check(t, lines, hops)

		found := func(a netip.Addr) bool { return a.IsValid() && !fuzzed.trusts(a) }
		if !found(got) {
			return
		}
		after := fuzzed.get(append([]string{spoofed}, lines...))
		if after != got {
			require.Equal(t, netip.Addr{}, after)
			require.True(t, len(hops)+len(modelLine(spoofed)) > 128 || len(text)+len(spoofed)-len(lines)+1 > 32<<10, "changed by a line")
		}
		longer := append([]string{spoofed + ", " + lines[0]}, lines[1:]...)
		after = fuzzed.get(longer)
		if after != got {
			require.Equal(t, netip.Addr{}, after, "%q", longer)
		}
		if after != got && len(lines) > 1 && found(fuzzed.get(lines[1:])) {
			all := strings.Join(longer, "")
			require.True(t, strings.Count(all, ",")+len(lines) > 128 || len(all) > 32<<10, "changed by the text of another line")
		}
	})
}

// The grammar of RFC 7239 section 4 for a line, with blanks around semicolons.
const (
	modelToken     = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
	modelQuoted    = `"(?:[^\x00-\x08\x0a-\x1f\x7f"\\]|\\[^\x00-\x08\x0a-\x1f\x7f])*"`
	modelParameter = "(?:" + modelToken + "=(?:" + modelToken + "|" + modelQuoted + "))"
	modelElement   = "[ \t]*" + modelParameter + "?(?:[ \t]*;[ \t]*" + modelParameter + "?)*[ \t]*"
)

var (
	modelLineSyntax = regexp.MustCompile("(?s)^" + modelElement + "(?:," + modelElement + ")*$")
	modelPart       = regexp.MustCompile("(?s)(" + modelToken + ")=(?:(" + modelToken + ")|(" + modelQuoted + "))|(,)")
	modelEscape     = regexp.MustCompile(`(?s)\\(.)`)
)

// modelLine returns the hops of a line of Forwarded; one unknown hop if it
// breaks the grammar. Bytes are read as Latin-1, since regular expressions are
// about characters.
func modelLine(line string) []netip.Addr {
	latin1 := make([]rune, 0, len(line))
	for _, c := range []byte(line) {
		latin1 = append(latin1, rune(c))
	}
	line = string(latin1)
	if !modelLineSyntax.MatchString(line) {
		return []netip.Addr{{}}
	}
	hops := []netip.Addr{{}}
	seen := false
	for _, m := range modelPart.FindAllStringSubmatch(line, -1) {
		switch {
		case m[4] != "":
			hops, seen = append(hops, netip.Addr{}), false
		case strings.EqualFold(m[1], "for"):
			if seen {
				return []netip.Addr{{}}
			}
			seen = true
			hops[len(hops)-1] = modelNode(m[2] + modelEscape.ReplaceAllString(strings.Trim(m[3], `"`), "$1"))
		}
	}
	return hops
}

func ExampleForwarded() {
	proxies, err := middleware.ParseTrustedProxies("10.1.0.0/24\n2001:db8:ffff::/48")
	if err != nil {
		panic(err)
	}
	source := middleware.Forwarded(proxies) // for Options.ClientIP

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.1.0.7:50042"
	r.Header.Add("Forwarded", "for=192.0.2.10") // by the client
	r.Header.Add("Forwarded", `for="[2001:db8::9]:61234";proto=https, for="[2001:db8:ffff::7]"`)
	fmt.Println(source(r))

	r.Header.Add("Forwarded", "for=_hidden")
	fmt.Println("known:", source(r).IsValid())
	// Output:
	// 2001:db8::9
	// known: false
}
