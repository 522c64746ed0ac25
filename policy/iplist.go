package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go4.org/netipx"
)

// Bounds of a list, so that one organization's text cannot take the memory and
// time of all. The text is what is given to [ParseIPList] and what
// [IPList.String] returns.
const (
	maxListBytes   = 256 << 10
	maxListEntries = 10_000
)

// An IPList is a list of addresses, as people write it: one address, CIDR
// prefix or first-last range a line (D19). It has three states: the zero IPList
// is no restriction; a list has entries; and a list of nothing but comments
// contains nobody. It is immutable and safe for concurrent use.
type IPList struct {
	ranges *ipRanges // nil: no restriction
	lines  []string  // the normal form
}

// A LineError is one bad line of a list. Its text may be shown to people: it
// contains no part of the line.
type LineError struct {
	Line    int    // counted from 1
	Problem string // what is wrong with it
}

// Error returns "policy: line ", the number and the problem.
func (e *LineError) Error() string { return fmt.Sprintf("policy: line %d: %s", e.Line, e.Problem) }

// ParseIPList reads a list from text, as D19 says:
//
//	# our offices
//	192.0.2.7
//	198.51.100.0/24 # Vienna
//	203.0.113.10 - 203.0.113.19
//	2001:db8::/32
//
// Each line is one address, CIDR prefix or range of addresses, the first and the
// last joined by "-" with or without blanks around it. A "#" begins a comment,
// which is kept. Lines end in LF or CRLF; blanks and tabs around them are
// dropped, and so are blank lines. Blank text is no restriction; text with only
// comments restricts to nobody.
//
// Host bits of a prefix are masked: 10.0.0.5/24 is 10.0.0.0/24. IPv4 addresses
// written as IPv6, in whatever kind of entry, are taken as IPv4. An IPv6 prefix
// or range otherwise contains no IPv4 address, not even ::/0.
//
// Refused are zones, leading zeros, ranges whose last address is before the first
// or of the other family, IPv4-mapped prefixes shorter than /96, whose IPv4 part
// would be everything, control characters, a CR that does not end a line, and
// text that is not UTF-8. One bad line refuses the whole text; the error joins a
// *[LineError] for every one of them. A text of more than 256 KiB, as given or in
// its normal form, or more than 10 000 lines with entries is refused as well.
func ParseIPList(text string) (IPList, error) {
	if len(text) > maxListBytes {
		return IPList{}, errTooLong
	}
	var (
		b       netipx.IPSetBuilder
		lines   []string
		errs    []error
		n       int // of the line
		entries int // good and bad ones, which also bounds the errors
		size    int // of the normal form
	)
	for line := range strings.Lines(text) {
		n++
		r, normal, problem := parseLine(line)
		if r.IsValid() || problem != "" {
			entries++
		}
		if entries > maxListEntries {
			errs = append(errs, &LineError{n, fmt.Sprintf("more than %d entries", maxListEntries)})
			break
		}
		if problem != "" {
			errs = append(errs, &LineError{n, problem})
			continue
		}
		if r.IsValid() {
			b.AddRange(r)
		}
		if normal != "" {
			lines = append(lines, normal)
			size += len(normal) + len("\n")
		}
	}
	switch {
	case len(errs) > 0:
		return IPList{}, errors.Join(errs...)
	case len(lines) == 0:
		return IPList{}, nil
	case size-len("\n") > maxListBytes:
		return IPList{}, errTooLong
	}
	set, err := b.IPSet()
	return IPList{newIPRanges(set), lines}, err
}

var errTooLong = fmt.Errorf("policy: the list is longer than %d bytes", maxListBytes)

// parseLine reads one line with its end. The range is valid if the line has an
// entry; normal is empty if the line is blank. A problem is never empty but for
// a good line, and contains no part of it.
func parseLine(line string) (r netipx.IPRange, normal, problem string) {
	if body, ended := strings.CutSuffix(line, "\n"); ended {
		line = strings.TrimSuffix(body, "\r")
	}
	if !utf8.ValidString(line) {
		return r, "", "not valid UTF-8"
	}
	if strings.ContainsFunc(line, isControl) {
		return r, "", "contains a control character"
	}
	entry, comment, commented := strings.Cut(line, "#")
	entry, comment = trim(entry), trim(comment)
	if entry != "" {
		if r, normal, problem = parseEntry(entry); problem != "" {
			return netipx.IPRange{}, "", problem
		}
	}
	switch {
	case !commented:
		return r, normal, ""
	case comment != "":
		comment = "# " + comment
	case entry == "": // kept: a list of it alone restricts to nobody
		comment = "#"
	}
	return r, trim(normal + " " + comment), ""
}

// trim drops what D19 calls blanks.
func trim(s string) string { return strings.Trim(s, " \t") }

// isControl reports whether c must not be in a list; a tab is a blank.
func isControl(c rune) bool { return c != '\t' && unicode.IsControl(c) }

// parseEntry reads an address, prefix or range and returns its normal form.
func parseEntry(s string) (r netipx.IPRange, normal, problem string) {
	if strings.Contains(s, "%") {
		return r, "", "zones are not accepted"
	}
	if first, last, ok := strings.Cut(s, "-"); ok {
		return parseRange(trim(first), trim(last))
	}
	if strings.Contains(s, "/") {
		return parsePrefix(s)
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return r, "", badAddr
	}
	a = a.Unmap()
	return netipx.IPRangeFrom(a, a), a.String(), ""
}

const badAddr = "not an IP address; names, ports and leading zeros are not accepted"

func parsePrefix(s string) (r netipx.IPRange, normal, problem string) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return r, "", "not a CIDR prefix"
	}
	if p.Addr().Is4In6() {
		const mapped = 96 // bits before the IPv4 part
		if p.Bits() < mapped {
			return r, "", "an IPv4-mapped prefix must have at least 96 bits"
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	p = p.Masked()
	return netipx.RangeOfPrefix(p), p.String(), ""
}

func parseRange(first, last string) (r netipx.IPRange, normal, problem string) {
	from, err := netip.ParseAddr(first)
	to, err2 := netip.ParseAddr(last)
	if err != nil || err2 != nil {
		return r, "", badAddr
	}
	from, to = from.Unmap(), to.Unmap()
	if from.BitLen() != to.BitLen() {
		return r, "", "the range has one IPv4 and one IPv6 address"
	}
	if to.Less(from) {
		return r, "", "the last address of the range is before the first"
	}
	return netipx.IPRangeFrom(from, to), from.String() + "-" + to.String(), ""
}

// Contains reports whether a is in the list. An IPv4 address written as IPv6 is
// taken as IPv4, and a zone is ignored. The zero Addr is in no list. The zero
// IPList contains nothing; ask [IPList.Restricts] first where that means "not
// restricted".
func (l IPList) Contains(a netip.Addr) bool {
	return l.ranges != nil && l.ranges.contains(a)
}

// Restricts reports whether the list restricts at all: false only for the zero
// IPList and one parsed from blank text.
func (l IPList) Restricts() bool { return l.ranges != nil }

// String returns the normal form of the list, one entry or comment a line, with
// no LF at the end; parsing it gives the same list again.
func (l IPList) String() string { return strings.Join(l.lines, "\n") }

// Lines returns a copy of the lines of the normal form.
func (l IPList) Lines() []string { return slices.Clone(l.lines) }
