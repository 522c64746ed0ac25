package policy_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/keystile/keystile/policy"
	"github.com/stretchr/testify/require"
)

// goodLists are texts that are accepted, with their normal form and addresses
// that are and are not in them.
var goodLists = []struct {
	name, text, want string
	in, out          []string
}{
	{"S44: single address", "192.0.2.7", "192.0.2.7", []string{"192.0.2.7"}, []string{"192.0.2.6", "192.0.2.8"}},
	{"S44: one entry per line", "192.0.2.7\n192.0.2.9", "192.0.2.7\n192.0.2.9", []string{"192.0.2.7", "192.0.2.9"}, []string{"192.0.2.8"}},
	{"S44: CRLF", "192.0.2.7\r\n192.0.2.9\r\n", "192.0.2.7\n192.0.2.9", []string{"192.0.2.7", "192.0.2.9"}, []string{"192.0.2.8"}},
	{"S44: line ends mixed", "192.0.2.7\r\n192.0.2.8\n192.0.2.9", "192.0.2.7\n192.0.2.8\n192.0.2.9", []string{"192.0.2.8"}, nil},
	{"S44: blanks and tabs", " \t192.0.2.7\t \n\t\n  \n", "192.0.2.7", []string{"192.0.2.7"}, nil},
	{"S44: IPv6", "2001:db8::1", "2001:db8::1", []string{"2001:db8::1"}, []string{"2001:db8::2", "32.1.13.184"}},
	{"S44: CIDR", "198.51.100.0/24", "198.51.100.0/24", []string{"198.51.100.0", "198.51.100.255"}, []string{"198.51.99.255", "198.51.101.0"}},
	{"S44: first-last", "203.0.113.10-203.0.113.19", "203.0.113.10-203.0.113.19", []string{"203.0.113.10", "203.0.113.19"}, []string{"203.0.113.9", "203.0.113.20"}},
	{"S44: first - last", "203.0.113.10 \t-  203.0.113.19", "203.0.113.10-203.0.113.19", []string{"203.0.113.15"}, nil},
	{"range of IPv6", "2001:db8::1-2001:db8::ff", "2001:db8::1-2001:db8::ff", []string{"2001:db8::80"}, []string{"2001:db8::100"}},
	{"range of one", "192.0.2.7-192.0.2.7", "192.0.2.7-192.0.2.7", []string{"192.0.2.7"}, []string{"192.0.2.8"}},
	{"range across prefixes", "192.0.2.255-192.0.3.1", "192.0.2.255-192.0.3.1", []string{"192.0.3.0"}, []string{"192.0.2.254", "192.0.3.2"}},
	{"everything", "0.0.0.0/0\n::/0", "0.0.0.0/0\n::/0", []string{"255.255.255.255", "ffff::", "::ffff:1.2.3.4"}, nil},
	{"IPv6 everything is not IPv4", "::/0", "::/0", []string{"::1"}, []string{"192.0.2.7", "::ffff:192.0.2.7"}},
	{"IPv4 everything is not IPv6", "0.0.0.0/0", "0.0.0.0/0", []string{"::ffff:192.0.2.7"}, []string{"::1", "::192.0.2.7"}},
	{"host prefixes", "192.0.2.7/32\n2001:db8::1/128", "192.0.2.7/32\n2001:db8::1/128", []string{"192.0.2.7", "2001:db8::1"}, []string{"192.0.2.6"}},
	{"overlaps", "10.0.0.0/8\n10.1.0.0/16\n10.1.2.3", "10.0.0.0/8\n10.1.0.0/16\n10.1.2.3", []string{"10.1.2.3", "10.255.0.0"}, []string{"11.0.0.0"}},
	{"twice", "::1\n::1", "::1\n::1", []string{"::1"}, nil},

	{"F13: host bits are masked", "10.0.0.5/24", "10.0.0.0/24", []string{"10.0.0.5", "10.0.0.0", "10.0.0.255"}, []string{"10.0.1.0"}},
	{"F13: host bits are masked, IPv6", "2001:db8::5/64", "2001:db8::/64", []string{"2001:db8::ffff"}, []string{"2001:db8:0:1::"}},
	{"F13: 1.2.3.4/0", "1.2.3.4/0", "0.0.0.0/0", []string{"9.9.9.9"}, nil},
	{"normal form of IPv6", "2001:0DB8:0000::0:1", "2001:db8::1", []string{"2001:db8::1"}, nil},
	{"normal form of IPv6 with IPv4 in it", "64:ff9b::192.0.2.1", "64:ff9b::c000:201", []string{"64:ff9b::192.0.2.1"}, []string{"192.0.2.1"}},

	{"F10: mapped address", "::ffff:192.0.2.7", "192.0.2.7", []string{"192.0.2.7", "::ffff:192.0.2.7"}, []string{"192.0.2.8", "::192.0.2.7"}},
	{"F10: mapped address in hex", "::FFFF:c000:207", "192.0.2.7", []string{"192.0.2.7"}, nil},
	{"F10: mapped prefix", "::ffff:10.0.0.0/104", "10.0.0.0/8", []string{"10.1.2.3", "::ffff:10.1.2.3"}, []string{"11.0.0.0"}},
	{"F10: mapped prefix with host bits", "::ffff:10.0.0.5/120", "10.0.0.0/24", []string{"10.0.0.200"}, []string{"10.0.1.0"}},
	{"F10: mapped prefix of everything", "::ffff:0:0/96", "0.0.0.0/0", []string{"192.0.2.7"}, []string{"::1"}},
	{"F10: mapped host prefix", "::ffff:192.0.2.7/128", "192.0.2.7/32", []string{"192.0.2.7"}, []string{"192.0.2.6"}},
	{"F10: mapped range", "::ffff:192.0.2.7-::ffff:192.0.2.9", "192.0.2.7-192.0.2.9", []string{"192.0.2.8"}, []string{"192.0.2.10"}},
	{"F10: range with one mapped end", "192.0.2.7-::ffff:192.0.2.9", "192.0.2.7-192.0.2.9", []string{"192.0.2.8"}, nil},
	{"F10: IPv6 around the mapped block", "::fffe:0:0-::1:0:0:0", "::fffe:0:0-::1:0:0:0", []string{"::fffe:1:1"}, []string{"192.0.2.7"}},

	{"comment after an entry", "192.0.2.7 # office", "192.0.2.7 # office", []string{"192.0.2.7"}, nil},
	{"comment after an entry, tight", "192.0.2.7#office", "192.0.2.7 # office", []string{"192.0.2.7"}, nil},
	{"comment line", "# office\n192.0.2.7", "# office\n192.0.2.7", []string{"192.0.2.7"}, nil},
	{"comment line, tight and indented", " \t#office \n192.0.2.7", "# office\n192.0.2.7", []string{"192.0.2.7"}, nil},
	{"empty comment after an entry", "192.0.2.7 #", "192.0.2.7", []string{"192.0.2.7"}, nil},
	{"empty comment line", "192.0.2.7\n#", "192.0.2.7\n#", []string{"192.0.2.7"}, nil},
	{"comment with #", "## a # b", "# # a # b", nil, []string{"192.0.2.7"}},
	{"comment in any script", "# Büro 東京 – №1 👩‍💻", "# Büro 東京 – №1 👩‍💻", nil, nil},
	{"comment with a tab", "#\ta\tb\t", "# a\tb", nil, nil},
	{"comment that hides an entry", "# 192.0.2.7", "# 192.0.2.7", nil, []string{"192.0.2.7"}},
	{"D19: only comments, nobody", "# nobody yet\r\n\r\n#", "# nobody yet\n#", nil, []string{"192.0.2.7", "::1"}},
	{"D19: one empty comment, nobody", "#", "#", nil, []string{"0.0.0.0"}},
}

// TestParseIPList_D19: what is accepted, what it contains, and that its normal
// form is the same list again.
func TestParseIPList_D19(t *testing.T) {
	t.Parallel()
	for _, tt := range goodLists {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := mustList(t, tt.text)
			again := mustList(t, l.String())
			require.Equal(t, l, again)
			for _, l := range []policy.IPList{l, again} {
				require.Equal(t, tt.want, l.String())
				require.Equal(t, strings.Split(tt.want, "\n"), l.Lines())
				require.True(t, l.Restricts())
				require.False(t, l.Contains(netip.Addr{}))
				for _, a := range tt.in {
					require.True(t, l.Contains(netip.MustParseAddr(a)), a)
				}
				for _, a := range tt.out {
					require.False(t, l.Contains(netip.MustParseAddr(a)), a)
				}
			}
		})
	}
}

// badLines are lines that are refused, with a part of the problem reported.
var badLines = []struct{ name, line, want string }{
	{"word", "office", "not an IP address"},
	{"name", "example.com", "not an IP address"},
	{"localhost", "localhost", "not an IP address"},
	{"all", "*", "not an IP address"},
	{"F11: leading zero", "010.0.0.1", "not an IP address"},
	{"F11: leading zero, last", "10.0.0.01", "not an IP address"},
	{"F11: leading zero, prefix", "010.0.0.0/8", "not a CIDR prefix"},
	{"F11: leading zero, bits", "10.0.0.0/08", "not a CIDR prefix"},
	{"F11: leading zero, range", "10.0.0.1-10.0.0.010", "not an IP address"},
	{"F11: leading zero, mapped", "::ffff:10.0.0.01", "not an IP address"},
	{"F11: octal", "0300.0.2.1", "not an IP address"},
	{"F11: hexadecimal", "0xc0.0.2.1", "not an IP address"},
	{"F11: one number", "3221225985", "not an IP address"},
	{"three parts", "10.0.1", "not an IP address"},
	{"five parts", "10.0.0.0.1", "not an IP address"},
	{"256", "10.0.0.256", "not an IP address"},
	{"wildcard", "10.0.0.*", "not an IP address"},
	{"dot at the end", "10.0.0.1.", "not an IP address"},
	{"port", "10.0.0.1:80", "not an IP address"},
	{"brackets", "[::1]", "not an IP address"},
	{"brackets and port", "[::1]:80", "not an IP address"},
	{"URL", "http://10.0.0.1", "not a CIDR prefix"},
	{"two on a line, blank", "10.0.0.1 10.0.0.2", "not an IP address"},
	{"two on a line, comma", "10.0.0.1, 10.0.0.2", "not an IP address"},
	{"two on a line, semicolon", "10.0.0.1;10.0.0.2", "not an IP address"},
	{"quoted", `"10.0.0.1"`, "not an IP address"},
	{"colon triple", ":::1", "not an IP address"},
	{"nine groups", "1:2:3:4:5:6:7:8:9", "not an IP address"},
	{"full-width digits", "１０.0.0.1", "not an IP address"},
	{"no-break space", "\u00a010.0.0.1", "not an IP address"},
	{"byte order mark", "\ufeff10.0.0.1", "not an IP address"},
	{"line separator", "10.0.0.1\u202810.0.0.2", "not an IP address"},
	{"dash of typographers", "10.0.0.1–10.0.0.2", "not an IP address"},
	{"// comment", "10.0.0.1 // office", "not a CIDR prefix"},
	{"; comment", "; office", "not an IP address"},

	{"F12: zone", "fe80::1%eth0", "zone"},
	{"F12: zone on a mapped address", "::ffff:10.0.0.1%eth0", "zone"},
	{"F12: zone on a prefix", "fe80::%eth0/64", "zone"},
	{"F12: zone on a range, which netipx drops", "fe80::1%eth0-fe80::2%eth0", "zone"},
	{"F12: zone with a dash", "fe80::1%eth-0", "zone"},
	{"F12: empty zone", "fe80::1%", "zone"},

	{"no bits", "10.0.0.0/", "not a CIDR prefix"},
	{"too many bits", "10.0.0.0/33", "not a CIDR prefix"},
	{"too many bits, IPv6", "::/129", "not a CIDR prefix"},
	{"negative bits", "10.0.0.0/-1", "not an IP address"},
	{"signed bits", "10.0.0.0/+8", "not a CIDR prefix"},
	{"mask", "10.0.0.0/255.0.0.0", "not a CIDR prefix"},
	{"two slashes", "10.0.0.0/8/8", "not a CIDR prefix"},
	{"blank before bits", "10.0.0.0/ 8", "not a CIDR prefix"},
	{"short prefix", "10/8", "not a CIDR prefix"},
	{"F10: mapped prefix of 95 bits", "::ffff:10.0.0.0/95", "at least 96 bits"},
	{"F10: mapped prefix of 0 bits", "::ffff:10.0.0.0/0", "at least 96 bits"},
	{"F15: mapped prefix with IPv4 bits", "::ffff:10.0.0.0/24", "at least 96 bits"},

	{"reversed", "10.0.0.2-10.0.0.1", "before the first"},
	{"reversed, IPv6", "::2-::1", "before the first"},
	{"reversed, as text it is not", "10.0.0.10-10.0.0.9", "before the first"},
	{"reversed, mapped", "::ffff:10.0.0.2-10.0.0.1", "before the first"},
	{"across families", "10.0.0.1-::1", "IPv4"},
	{"across families, reversed", "::1-10.0.0.1", "IPv4"},
	{"across families, into the mapped block", "::-::ffff:10.0.0.1", "IPv4"},
	{"short range", "10.0.0.1-9", "not an IP address"},
	{"no last", "10.0.0.1-", "not an IP address"},
	{"no first", "-10.0.0.1", "not an IP address"},
	{"dash alone", "-", "not an IP address"},
	{"three in a range", "10.0.0.1-10.0.0.2-10.0.0.3", "not an IP address"},
	{"range of prefixes", "10.0.0.0/24-10.0.1.0/24", "not an IP address"},

	{"F80: NUL", "10.0.0.1\x00", "control"},
	{"NUL in a comment", "10.0.0.1 # a\x00b", "control"},
	{"vertical tab", "\v10.0.0.1", "control"},
	{"form feed in a comment", "# \f", "control"},
	{"escape in a comment", "# \x1b[2J", "control"},
	{"delete", "10.0.0.1\x7f", "control"},
	{"next line", "# a\u0085b", "control"},
	{"lone CR", "10.0.0.1\r10.0.0.2", "control"},
	{"lone CR in a comment", "# a\rb", "control"},
	{"two CRs at the end", "10.0.0.1\r\r", "control"},
	{"not UTF-8", "10.0.0.1\xff", "UTF-8"},
	{"not UTF-8 in a comment", "# \xc3(", "UTF-8"},
	{"Latin-1 comment", "# B\xfcro", "UTF-8"},
	{"surrogate", "# \xed\xa0\x80", "UTF-8"},
}

// TestBadLines_D19: "one bad line refuses the whole text with its line number",
// and F14: it does not become an empty list. Nothing of the line is repeated.
func TestBadLines_D19(t *testing.T) {
	t.Parallel()
	for _, tt := range badLines {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, end := range []string{"\n", "\r\n"} {
				text := strings.Join([]string{"# office", "192.0.2.7", tt.line, "192.0.2.8", ""}, end)
				l, err := policy.ParseIPList(text)
				require.Equal(t, policy.IPList{}, l)
				require.Equal(t, []int{3}, badLineNumbers(t, err))
				require.True(t, strings.HasPrefix(err.Error(), "policy: line 3: "), err)
				require.ErrorContains(t, err, tt.want)
				require.Contains(t, fixedProblems, strings.TrimPrefix(err.Error(), "policy: line 3: "))
			}
		})
	}
}

// fixedProblems are all problems of one line: none has a place for input.
var fixedProblems = []string{
	"not valid UTF-8",
	"contains a control character",
	"zones are not accepted",
	"not an IP address; names, ports and leading zeros are not accepted",
	"not a CIDR prefix",
	"an IPv4-mapped prefix must have at least 96 bits",
	"the range has one IPv4 and one IPv6 address",
	"the last address of the range is before the first",
	"more than 10000 entries",
}

// badLineNumbers returns the lines that err, a joined error, reports.
func badLineNumbers(tb testing.TB, err error) (lines []int) {
	tb.Helper()
	require.Error(tb, err)
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(tb, ok)
	for _, err := range joined.Unwrap() {
		le, ok := errors.AsType[*policy.LineError](err)
		require.True(tb, ok)
		lines = append(lines, le.Line)
	}
	return lines
}

// TestAllBadLinesAtOnce: every bad line is reported, by the number that an
// editor shows.
func TestAllBadLinesAtOnce(t *testing.T) {
	t.Parallel()
	_, err := policy.ParseIPList("bad\r\n\r\n# comment\n10.0.0.1\nbad\n\t\n::1%a\n10.0.0.2\nbad")
	require.Equal(t, []int{1, 5, 7, 9}, badLineNumbers(t, err))
	require.EqualError(t, err, "policy: line 1: not an IP address; names, ports and leading zeros are not accepted\n"+
		"policy: line 5: not an IP address; names, ports and leading zeros are not accepted\n"+
		"policy: line 7: zones are not accepted\n"+
		"policy: line 9: not an IP address; names, ports and leading zeros are not accepted")

	// A CR that no LF follows is not a line end, on the last line either.
	_, err = policy.ParseIPList("10.0.0.1\n10.0.0.2\r")
	require.Equal(t, []int{2}, badLineNumbers(t, err))
	_, err = policy.ParseIPList("\r")
	require.Equal(t, []int{1}, badLineNumbers(t, err))
}

// TestThreeStates_F16: "empty and absent confused": off, list, and a list of
// nobody are three things, and keep being so through their normal form.
func TestThreeStates_F16(t *testing.T) {
	t.Parallel()
	a := netip.MustParseAddr("192.0.2.7")
	for _, text := range []string{"", "\n", " ", "\t", "\r\n\r\n", " \t\n\n \r\n"} {
		l := mustList(t, text)
		require.Equal(t, policy.IPList{}, l, "%q", text)
		require.False(t, l.Restricts())
		require.False(t, l.Contains(a))
		require.Empty(t, l.String())
		require.Empty(t, l.Lines())
	}
	for _, text := range []string{"#", "# a", "\n # a\n\n"} {
		l := mustList(t, mustList(t, text).String())
		require.True(t, l.Restricts(), "%q", text)
		require.False(t, l.Contains(a))
	}
	l := mustList(t, "192.0.2.7")
	require.True(t, l.Restricts())
	require.True(t, l.Contains(a))
}

// TestContains_F10_F12: the peer's side: IPv4 as IPv6, with a zone, and both.
func TestContains_F10_F12(t *testing.T) {
	t.Parallel()
	l := mustList(t, "10.0.0.0/8\nfe80::/10\n192.0.2.1-192.0.2.9")
	for addr, want := range map[string]bool{
		"10.1.2.3":                 true,
		"::ffff:10.1.2.3":          true,
		"::ffff:10.1.2.3%eth0":     true,
		"::ffff:0a01:0203":         true,
		"::10.1.2.3":               false, // IPv4-compatible is no IPv4
		"64:ff9b::10.1.2.3":        false, // nor is NAT64
		"fe80::1":                  true,
		"fe80::1%eth0":             true,
		"fe80::1%25eth0":           true,
		"fec0::1%eth0":             false,
		"11.0.0.0":                 false,
		"9.255.255.255":            false,
		"::ffff:11.0.0.0":          false,
		"192.0.2.0":                false,
		"192.0.2.9":                true,
		"192.0.2.10":               false,
		"::ffff:192.0.2.9":         true,
		"2002:a00:1::":             false,
		"::":                       false,
		"0.0.0.0":                  false,
		"255.255.255.255":          false,
		"ffff:ffff:ffff:ffff::":    false,
		"::fffe:10.1.2.3":          false,
		"::1:ffff:10.1.2.3":        false,
		"0:0:0:0:0:ffff:10.1.2.3":  true,
		"0:0:0:0:0:ffff:11.1.2.3":  false,
		"febf:ffff::1%a-b.c":       true,
		"fe7f:ffff::1%a-b.c":       false,
		"::ffff:192.0.2.10%eth0":   false,
		"::ffff:192.0.2.5%eth0.10": true,
	} {
		require.Equal(t, want, l.Contains(netip.MustParseAddr(addr)), addr)
	}
}

// TestMappedPrefixes_F9_F10: an IPv4-mapped prefix is the IPv4 prefix of 96 bits
// less, for every length: the constant is checked, not believed.
func TestMappedPrefixes_F9_F10(t *testing.T) {
	t.Parallel()
	for bits := range 129 {
		text := fmt.Sprintf("::ffff:203.0.113.77/%d", bits)
		if bits < 96 {
			_, err := policy.ParseIPList(text)
			require.Equal(t, []int{1}, badLineNumbers(t, err))
			continue
		}
		want := netip.PrefixFrom(netip.MustParseAddr("203.0.113.77"), bits-96).Masked()
		require.Equal(t, want.String(), mustList(t, text).String())
	}
}

// TestListBounds: 256 KiB of text, as given and in normal form, and 10 000
// entries.
func TestListBounds(t *testing.T) {
	t.Parallel()
	const size, count = 256 << 10, 10_000
	const tooLong = "policy: the list is longer than 262144 bytes"

	longest := "# " + strings.Repeat("a", size-2)
	require.Equal(t, longest, mustList(t, longest).String())
	_, err := policy.ParseIPList(longest + "a")
	require.EqualError(t, err, tooLong)
	_, err = policy.ParseIPList(strings.Repeat("\n", size+1))
	require.EqualError(t, err, tooLong)
	require.False(t, mustList(t, strings.Repeat("\n", size)).Restricts())

	// The normal form is longer than the text by a blank: it must parse too.
	_, err = policy.ParseIPList("#" + strings.Repeat("a", size-1))
	require.EqualError(t, err, tooLong)
	short := strings.Repeat("#a\n", 1000) + "#" + strings.Repeat("a", size-4002)
	require.Len(t, mustList(t, short).String(), size)
	require.Equal(t, mustList(t, short), mustList(t, mustList(t, short).String()))
	_, err = policy.ParseIPList(short + "a")
	require.EqualError(t, err, tooLong)

	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, "# %d\n10.%d.%d.1\n", i%10, i/256, i%256)
	}
	l := mustList(t, b.String())
	require.Len(t, l.Lines(), 2*count)
	require.True(t, l.Contains(netip.MustParseAddr("10.39.15.1")))
	require.False(t, l.Contains(netip.MustParseAddr("10.39.16.1")))
	_, err = policy.ParseIPList(b.String() + "# one more\n::1\n::2\n")
	require.EqualError(t, err, fmt.Sprintf("policy: line %d: more than 10000 entries", 2*count+2))

	// Bad lines are counted too, so that the error is bounded as well.
	_, err = policy.ParseIPList(strings.Repeat("x\n", size/2))
	require.Len(t, badLineNumbers(t, err), count+1)
}

// TestLinesAreCopied: a list is immutable and shared between requests.
func TestLinesAreCopied(t *testing.T) {
	t.Parallel()
	l := mustList(t, "192.0.2.7\n192.0.2.8")
	l.Lines()[0] = "changed"
	require.Equal(t, "192.0.2.7\n192.0.2.8", l.String())
	require.Equal(t, []string{"192.0.2.7", "192.0.2.8"}, l.Lines())
}
