package token_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keystile/keystile/token"
	"github.com/stretchr/testify/require"
)

func mustDigest(tb testing.TB, f *token.Format, s string) token.Digest {
	tb.Helper()
	d, err := f.Digest(s)
	require.NoError(tb, err)
	return d
}

func fromHex(tb testing.TB, s string) (d token.Digest) {
	tb.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(tb, err)
	require.Len(tb, b, len(d))
	copy(d[:], b)
	return d
}

// TestDigest_S71: "only a hash is stored; lookup by hash of the whole token".
// The values were computed by sha256sum and openssl.
func TestDigest_S71(t *testing.T) {
	t.Parallel()
	const (
		plain = "581231b2b43377c83a5d39767a2b7411f674eb03bc91cfc3cdb2e475399a7e84"
		hmac1 = "27636bf753dbf680262fd1d099f91f81930308a2c40a83746a74b80ecf6389ff"
		hmac2 = "37b89fa5137666fc8d4abd8250afe96a3e31a1d426c219e22fce0e002ead6470"
	)
	for _, tt := range []struct {
		name    string
		f       *token.Format
		want    string
		earlier []string
	}{
		{"plain", &token.Format{}, plain, nil},
		{"pepper", &token.Format{Peppers: [][]byte{pepper1}}, hmac1, nil},
		{"long pepper", &token.Format{Peppers: [][]byte{pepper2}}, hmac2, nil},
		{"two peppers", &token.Format{Peppers: [][]byte{pepper2, pepper1}}, hmac2, []string{hmac1}},
		{"pepper and plain", &token.Format{Peppers: [][]byte{pepper1}, AcceptUnpeppered: true}, hmac1, []string{plain}},
		{"two peppers and plain", &token.Format{Peppers: [][]byte{pepper1, pepper2}, AcceptUnpeppered: true}, hmac1, []string{hmac2, plain}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for range 3 { // a state from the pool gives what a new one does
				require.Equal(t, fromHex(t, tt.want), mustDigest(t, tt.f, sample))
				var earlier []string
				for d := range tt.f.EarlierDigests(sample) {
					earlier = append(earlier, hex.EncodeToString(d[:]))
				}
				require.Equal(t, tt.earlier, earlier)
			}
		})
	}
}

// TestDigestIsOfTheWholeToken_S71: "unknown token of known prefix is refused":
// every digit counts.
func TestDigestIsOfTheWholeToken_S71(t *testing.T) {
	t.Parallel()
	for _, f := range []*token.Format{{}, {Peppers: [][]byte{pepper1}}} {
		seen := map[token.Digest]bool{mustDigest(t, f, sample): true}
		for i := len(token.DefaultPrefix); i < len(sample); i++ {
			b := []byte(sample)
			b[i] = "1032547698badcfe"[strings.IndexByte("0123456789abcdef", b[i])]
			seen[mustDigest(t, f, string(b))] = true
		}
		require.Len(t, seen, 33)
	}
}

// TestLongestToken: 64 bytes fit the buffers, and so does what is one block of
// SHA-256 with no room for its padding.
func TestLongestToken(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 31; n++ {
		f := &token.Format{Prefix: strings.Repeat("p", n) + "_"}
		s := f.Generate().Reveal()
		require.Equal(t, token.Digest(sha256.Sum256([]byte(s))), mustDigest(t, f, s))

		f = &token.Format{Prefix: f.Prefix, Peppers: [][]byte{pepper1}}
		m := hmac.New(sha256.New, pepper1)
		m.Write([]byte(s))
		require.Equal(t, token.Digest(m.Sum(nil)), mustDigest(t, f, s))
	}
}

// TestEarlierDigestsStops: no digest is computed, or given, after the caller has
// found what it looked for.
func TestEarlierDigestsStops(t *testing.T) {
	t.Parallel()
	f := &token.Format{Peppers: [][]byte{pepper1, pepper2, pepper3}, AcceptUnpeppered: true}
	all := slices.Collect(f.EarlierDigests(sample))
	require.Len(t, all, 3)
	for want := 1; want <= len(all); want++ {
		got := 0
		for d := range f.EarlierDigests(sample) {
			require.Equal(t, all[got], d)
			if got++; got == want {
				break
			}
		}
		require.Equal(t, want, got)
	}
}

// TestDigestEqual_S71: "compare in constant time". That it is constant is by looking
// at all words before the answer; here, that it compares every bit, as
// subtle.ConstantTimeCompare does.
func TestDigestEqual_S71(t *testing.T) {
	t.Parallel()
	d := mustDigest(t, nil, sample)
	e := d
	require.True(t, d.Equal(e))
	for i := range d {
		for bit := range 8 {
			e = d
			e[i] ^= 1 << bit
			require.False(t, d.Equal(e), "byte %d, bit %d", i, bit)
			require.Zero(t, subtle.ConstantTimeCompare(d[:], e[:]))
		}
	}
	require.False(t, d.Equal(token.Digest{}))
	require.True(t, token.Digest{}.Equal(token.Digest{}))
}

// TestDigestRedaction: a log must not be matched with a stolen database.
func TestDigestRedaction(t *testing.T) {
	t.Parallel()
	type holder struct{ Digest token.Digest }
	d := mustDigest(t, nil, sample)
	const want = "digest(redacted)"
	require.Equal(t, want, d.String())
	require.Equal(t, want, d.GoString())
	require.Equal(t, want, d.LogValue().String())
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%b", "%c", "%o", "%U", "%20v"} {
		require.Equal(t, want, fmt.Sprintf(verb, d), verb)
		require.Equal(t, want, fmt.Sprintf(verb, &d), verb)
		for _, v := range []any{holder{d}, &holder{d}, []token.Digest{d}, []*token.Digest{&d}[0], map[string]token.Digest{"k": d}, map[token.Digest]int{d: 1}, []any{d}} {
			requireNoDigest(t, d, fmt.Sprintf(verb, v))
		}
	}
	var out strings.Builder
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("looked up", "digest", d, "holder", holder{d}, "pointer", &d, "slice", []token.Digest{d})
	}
	require.Contains(t, out.String(), want)
	requireNoDigest(t, d, out.String())
	for _, v := range []any{d, &d, holder{d}, []token.Digest{d}, map[token.Digest]token.Digest{d: d}} {
		j, err := json.Marshal(v)
		require.NoError(t, err)
		require.Contains(t, string(j), want)
		requireNoDigest(t, d, string(j))
	}
	requireNoDigest(t, d, fmt.Errorf("lookup of %v", d).Error())
}

func requireNoDigest(tb testing.TB, d token.Digest, out string) {
	tb.Helper()
	for i := range len(d) - 4 {
		part := d[i : i+4]
		for _, leak := range []string{
			string(part),
			fmt.Sprintf("%x", part), fmt.Sprintf("%X", part), fmt.Sprintf("% x", part),
			strings.Trim(fmt.Sprint(part), "[]"), base64.StdEncoding.EncodeToString(part[:3]),
		} {
			require.NotContains(tb, out, leak)
		}
	}
}

// TestConcurrentDigest: one Format, used by many for the first time and after:
// every digest is right, as a count (run it with -race).
func TestConcurrentDigest(t *testing.T) {
	t.Parallel()
	const callers, rounds = 64, 200
	f := &token.Format{Peppers: [][]byte{pepper1, pepper2}, AcceptUnpeppered: true}
	reference := &token.Format{Peppers: f.Peppers, AcceptUnpeppered: true}
	var right atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range callers {
		s := token.Generate().Reveal()
		want := append([]token.Digest{mustDigest(t, reference, s)}, slices.Collect(reference.EarlierDigests(s))...)
		wg.Go(func() {
			<-start
			for range rounds {
				d, err := f.Digest(s)
				got := append([]token.Digest{d}, slices.Collect(f.EarlierDigests(s))...)
				if err == nil && slices.Equal(want, got) {
					right.Add(1)
				}
			}
		})
	}
	close(start)
	wg.Wait()
	require.EqualValues(t, callers*rounds, right.Load())
}

// TestAllocs: the path of a request allocates nothing, admitted or refused. Not
// parallel: allocations are counted for the whole process.
func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector changes what is allocated")
	}
	plain := &token.Format{}
	peppered := &token.Format{Peppers: [][]byte{pepper1, pepper2}, AcceptUnpeppered: true}
	good, digits, long := sample, sample[:40]+"G", strings.Repeat("a", 1<<20)
	var d, e token.Digest
	for _, tt := range []struct {
		name string
		f    func()
	}{
		{"plain", func() { d, _ = plain.Digest(good) }},
		{"peppered", func() { d, _ = peppered.Digest(good) }},
		{"no earlier", func() {
			for d = range plain.EarlierDigests(good) {
			}
		}},
		{"earlier", func() {
			for d = range peppered.EarlierDigests(good) {
			}
		}},
		{"malformed length", func() { d, _ = plain.Digest(long) }},
		{"malformed digits", func() { d, _ = peppered.Digest(digits) }},
		{"malformed parse", func() { _, _ = plain.Parse(long) }},
		{"claims", func() { plain.Claims(good) }},
		{"equal", func() { d.Equal(e) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Zero(t, testing.AllocsPerRun(1000, tt.f))
		})
	}
}
