package policy_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go4.org/netipx"
)

// TestContains_D19_asIPSet compares lists of many ranges with netipx.IPSet, at
// every end of a range and on both sides of it.
func TestContains_D19_asIPSet(t *testing.T) {
	t.Parallel()
	const seed = 19
	random := rand.New(rand.NewPCG(seed, seed))
	addr4 := func() netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], random.Uint32())
		return netip.AddrFrom4(b)
	}
	addr6 := func() netip.Addr {
		b := [16]byte{0x20, 0x01, 0x0d, 0xb8}
		binary.BigEndian.PutUint64(b[4:], random.Uint64()>>random.IntN(64))
		binary.BigEndian.PutUint64(b[8:], random.Uint64()>>random.IntN(64))
		return netip.AddrFrom16(b)
	}
	for size := range 40 {
		var lines []string
		var set netipx.IPSetBuilder
		var ends []netip.Addr
		for range size {
			for _, random := range []func() netip.Addr{addr4, addr6} {
				first, last := random(), random()
				if last.Less(first) {
					first, last = last, first
				}
				prefix, err := last.Prefix(last.BitLen() - 4)
				require.NoError(t, err)
				lines = append(lines, prefix.String())
				set.AddPrefix(prefix)
				r := netipx.RangeOfPrefix(prefix)
				if size < 4 { // of more there would soon be nothing outside
					lines = append(lines, fmt.Sprintf("%s-%s", first, last))
					set.AddRange(netipx.IPRangeFrom(first, last))
				}
				ends = append(ends, first, last, r.From(), r.To())
			}
		}
		if size == 0 {
			lines = []string{"# nobody"}
		}
		l := mustList(t, strings.Join(lines, "\n"))
		want, err := set.IPSet()
		require.NoError(t, err)
		ends = append(ends, netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"),
			netip.IPv6Unspecified(), netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
		for _, end := range ends {
			for _, a := range []netip.Addr{end.Prev(), end, end.Next()} {
				require.Equal(t, want.Contains(a), l.Contains(a), "seed %d, %d ranges, %s", seed, size, a)
			}
		}
	}
}
