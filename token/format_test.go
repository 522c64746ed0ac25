package token_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"

	"github.com/keystile/keystile/token"
	"github.com/stretchr/testify/require"
)

var (
	pepper1 = []byte("the first pepper")
	pepper2 = []byte("the second pepper, which is longer than one block of SHA-256, so that it is hashed")
	pepper3 = []byte("the third pepper")
)

// TestGenerate_S53: "csk_live_ plus 32 hex characters (lower case, 128 random
// bits); regular expression; 10^6 keys without repetition". Each of the 128 bits
// is set in half of the tokens, within ten standard deviations.
func TestGenerate_S53(t *testing.T) {
	t.Parallel()
	const n = 1_000_000
	expr := regexp.MustCompile(`^csk_live_[0-9a-f]{32}$`)
	seen := make(map[[16]byte]struct{}, n)
	var ones [128]int
	for i := range n {
		s := token.Generate().Reveal()
		if i < 1000 {
			require.Regexp(t, expr, s)
		}
		var b [16]byte
		if c, err := hex.Decode(b[:], []byte(strings.TrimPrefix(s, token.DefaultPrefix))); c != len(b) || err != nil {
			require.Fail(t, "not 16 bytes in hex")
		}
		seen[b] = struct{}{}
		for j := range ones {
			ones[j] += int(b[j/8] >> (j % 8) & 1)
		}
	}
	require.Len(t, seen, n, "a token was made twice")
	for j, c := range ones {
		require.InDelta(t, n/2, c, 5000, "bit %d", j)
	}
}

// TestGenerateGolden_S53: "only crypto/rand": with its source fixed, the whole
// token is. Not parallel: the source belongs to the process.
func TestGenerateGolden_S53(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	require.Equal(t, []string{
		"csk_live_6ae6783f4fbde91b6eb88b73a48ed247",
		"csk_live_dbe5882e2579683432c1bfc525454add",
		"acme_0cd87274d67084caaf0e0d36c8496db7",
	}, []string{
		token.Generate().Reveal(),
		new(token.Format).Generate().Reveal(),
		(&token.Format{Prefix: "acme_", Peppers: [][]byte{pepper1}}).Generate().Reveal(),
	})
}

// malformed is what differs from a token in one way, with the error that it
// gets.
var malformed = []struct{ name, s, want string }{
	{"empty", "", "wrong length"},
	{"prefix only", "csk_live_", "wrong length"},
	{"ID only, D28", sampleID, "wrong length"},
	{"a digit short, D31", sample[:len(sample)-1], "wrong length"},
	{"a digit long, D31", sample + "0", "wrong length"},
	{"no prefix", sample[9:], "wrong length"},
	{"blank before, D31", " " + sample, "wrong length"},
	{"blank after, D31", sample + " ", "wrong length"},
	{"line end after, D31", sample + "\n", "wrong length"},
	{"NUL after, F80", sample + "\x00", "wrong length"},
	{"quoted", `"` + sample + `"`, "wrong length"},
	{"scheme before, F21", "Bearer " + sample, "wrong length"},
	{"twice", sample + sample, "wrong length"},
	{"a megabyte, D41", strings.Repeat("a", 1<<20), "wrong length"},
	{"dots, F28", strings.Repeat(".", 1<<16), "wrong length"},
	{"JWT, D33", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln", "wrong prefix"},
	{"digest in hex, S71", "581231b2b43377c83a5d39767a2b7411f674eb03bc91cfc3cdb2e475399a7e84", "wrong length"},
	{"ID and digits of a digest, S71", "581231b2b43377c83a5d39767a2b7411f674eb03b", "wrong prefix"},
	{"full-width digit, D31", sample[:len(sample)-3] + "０", "hexadecimal"},
	{"other prefix", "csk_test_" + sample[9:], "wrong prefix"},
	{"upper-case prefix, D31", "CSK_live_" + sample[9:], "wrong prefix"},
	{"no underscore", "csk_live-" + sample[9:], "wrong prefix"},
	{"blank for prefix", " sk_live_" + sample[9:], "wrong prefix"},
	{"only digits", strings.Repeat("0", 41), "wrong prefix"},
	{"upper-case digits, D31", "csk_live_" + strings.ToUpper(sample[9:]), "hexadecimal"},
	{"one upper-case digit first, D31", "csk_live_A" + sample[10:], "hexadecimal"},
	{"one upper-case digit last, D31", sample[:40] + "F", "hexadecimal"},
	{"g", sample[:40] + "g", "hexadecimal"},
	{"blank inside, D31", sample[:20] + " " + sample[21:], "hexadecimal"},
	{"NUL inside, F80", sample[:20] + "\x00" + sample[21:], "hexadecimal"},
	{"NUL last, F80", sample[:40] + "\x00", "hexadecimal"},
	{"0x", "csk_live_0x" + sample[11:], "hexadecimal"},
	{"percent", sample[:38] + "%30", "hexadecimal"},
	{"byte 0xff", sample[:40] + "\xff", "hexadecimal"},
	{"beyond 0", sample[:40] + "/", "hexadecimal"},
	{"beyond 9", sample[:40] + ":", "hexadecimal"},
	{"beyond a", sample[:40] + "`", "hexadecimal"},
}

// TestMalformed_D31: nothing is normalized, by Parse and by Digest alike, and no
// error repeats what it was given (S75, F32).
func TestMalformed_D31(t *testing.T) {
	t.Parallel()
	f := &token.Format{Peppers: [][]byte{pepper1, pepper2}, AcceptUnpeppered: true}
	for _, tt := range malformed {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, perr := token.Parse(tt.s)
			_, derr := new(token.Format).Digest(tt.s)
			d, herr := f.Digest(tt.s)
			for _, err := range []error{perr, derr, herr} {
				require.ErrorIs(t, err, token.ErrMalformed)
				require.ErrorContains(t, err, tt.want)
				requireNoInput(t, err, tt.s)
			}
			require.Zero(t, d)
			require.Empty(t, slices.Collect(f.EarlierDigests(tt.s)))
		})
	}
}

// requireNoInput fails if err repeats any four bytes of s, words of the errors
// of this package aside.
func requireNoInput(tb testing.TB, err error, s string) {
	tb.Helper()
	fixed := []string{
		"token: malformed: wrong length",
		"token: malformed: wrong prefix",
		"token: malformed: not lower-case hexadecimal digits",
	}
	if slices.Contains(fixed, err.Error()) {
		return // the same for every input
	}
	for i := range max(0, len(s)-3) {
		require.NotContains(tb, err.Error(), s[i:i+4])
	}
}

// TestEveryByte_D31 tries every byte at every place of a token: accepted are the
// prefix's own bytes and, after it, the sixteen digits.
func TestEveryByte_D31(t *testing.T) {
	t.Parallel()
	var f token.Format
	for i := range len(sample) {
		for c := range 256 {
			b := []byte(sample)
			b[i] = byte(c)
			_, err := f.Digest(string(b))
			want := b[i] == sample[i]
			if i >= len(token.DefaultPrefix) {
				want = strings.ContainsRune("0123456789abcdef", rune(c))
			}
			require.Equal(t, want, err == nil, "byte %#x at %d", c, i)
		}
	}
}

// TestParse: what was generated is read again, by its own format only.
func TestParse(t *testing.T) {
	t.Parallel()
	formats := []*token.Format{nil, {}, {Prefix: "acme_"}, {Prefix: "a_"}, {Prefix: "__"}, {Prefix: strings.Repeat("x", 31) + "_"}, {Prefix: "csk_live_2_"}}
	for i, f := range formats {
		tok := f.Generate()
		got, err := f.Parse(tok.Reveal())
		require.NoError(t, err)
		require.Equal(t, tok.Reveal(), got.Reveal())
		require.Equal(t, tok.ID(), got.ID())
		for j, other := range formats {
			_, err := other.Parse(tok.Reveal())
			if i == j || i+j == 1 { // the first two are the same
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, token.ErrMalformed)
			}
		}
	}
}

// TestClaims_D33: "a known key prefix = key", whatever follows, and nothing
// else.
func TestClaims_D33(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, prefix, s string
		want            bool
	}{
		{"token", "", sample, true},
		{"prefix alone", "", "csk_live_", true},
		{"malformed rest", "", "csk_live_.a.b", true},
		{"upper case", "", "CSK_LIVE_" + sample[9:], false},
		{"blank before", "", " " + sample, false},
		{"part of the prefix", "", "csk_live", false},
		{"empty", "", "", false},
		{"JWT", "", "eyJhbGciOiJSUzI1NiJ9.e30.c2ln", false},
		{"other format", "acme_", sample, false},
		{"own prefix", "acme_", "acme_x", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, (&token.Format{Prefix: tt.prefix}).Claims(tt.s))
		})
	}
	var none *token.Format
	require.True(t, none.Claims(sample))
}

// TestValidate: all problems at once, by field, and never a pepper.
func TestValidate(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-hunter2-hunter2"
	for _, tt := range []struct {
		name string
		f    *token.Format
		want []string // one for each line of the error
	}{
		{"nil", nil, nil},
		{"zero", &token.Format{}, nil},
		{"prefix", &token.Format{Prefix: "acme_test_2_"}, nil},
		{"shortest prefix", &token.Format{Prefix: "a_"}, nil},
		{"longest prefix", &token.Format{Prefix: strings.Repeat("a", 31) + "_"}, nil},
		{"peppers", &token.Format{Peppers: [][]byte{pepper1, pepper2}, AcceptUnpeppered: true}, nil},
		{"no peppers", &token.Format{Peppers: [][]byte{}}, nil},
		{"underscore alone", &token.Format{Prefix: "_"}, []string{"Format.Prefix: has 1 bytes"}},
		{"long prefix", &token.Format{Prefix: strings.Repeat("a", 32) + "_"}, []string{"Format.Prefix: has 33 bytes"}},
		{"no underscore", &token.Format{Prefix: "acme"}, []string{`Format.Prefix: must end in "_"`}},
		{"dash", &token.Format{Prefix: "acme-test_"}, []string{"Format.Prefix: must consist"}},
		{"upper case", &token.Format{Prefix: "Acme_"}, []string{"Format.Prefix: must consist"}},
		{"upper case inside", &token.Format{Prefix: "acMe_"}, []string{"Format.Prefix: must consist"}},
		{"blank", &token.Format{Prefix: "acme _"}, []string{"Format.Prefix: must consist"}},
		{"dots of a JWT", &token.Format{Prefix: "a.b_"}, []string{"Format.Prefix: must consist"}},
		{"letters of other scripts", &token.Format{Prefix: "аcme_"}, []string{"Format.Prefix: must consist"}},
		{"NUL", &token.Format{Prefix: "a\x00_"}, []string{"Format.Prefix: must consist"}},
		{"short pepper", &token.Format{Peppers: [][]byte{[]byte(secret[:15])}}, []string{"Format.Peppers[0]: has 15 bytes"}},
		{"nil pepper", &token.Format{Peppers: [][]byte{nil}}, []string{"Format.Peppers[0]: has 0 bytes"}},
		{"same pepper", &token.Format{Peppers: [][]byte{[]byte(secret), pepper1, []byte(secret)}}, []string{"Format.Peppers[2]: is the same as Peppers[0]"}},
		{"unpeppered alone", &token.Format{AcceptUnpeppered: true}, []string{"Format.AcceptUnpeppered: needs Peppers"}},
		{
			"all at once",
			&token.Format{Prefix: "B" + strings.Repeat("a", 40), Peppers: [][]byte{[]byte(secret[:3]), []byte(secret[:3])}},
			[]string{"Prefix: has 41", "Prefix: must end", "Prefix: must consist", "Peppers[0]: has 3", "Peppers[1]: has 3", "Peppers[1]: is the same"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tt.f.Validate()
			if tt.want == nil {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			lines := strings.Split(err.Error(), "\n")
			require.Len(t, lines, len(tt.want))
			for i, line := range lines {
				require.True(t, strings.HasPrefix(line, "token: Format."), line)
				require.Contains(t, line, tt.want[i])
			}
			require.NotContains(t, err.Error(), secret[:3])
		})
	}
}

// TestInvalidFormatFailsClosed: a Format that was never validated makes and
// accepts nothing; above all it does not fall back to plain digests. Its error
// is not ErrMalformed, which would be the caller's fault (S76, F27).
func TestInvalidFormatFailsClosed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		f    *token.Format
	}{
		{"short pepper", &token.Format{Peppers: [][]byte{[]byte("short")}}},
		{"empty pepper", &token.Format{Peppers: [][]byte{{}}}},
		{"second pepper short", &token.Format{Peppers: [][]byte{pepper1, []byte("short")}}},
		{"short pepper, unpeppered accepted", &token.Format{Peppers: [][]byte{[]byte("short")}, AcceptUnpeppered: true}},
		{"unpeppered alone", &token.Format{AcceptUnpeppered: true}},
		{"bad prefix", &token.Format{Prefix: "acme"}},
		{"prefix longer than any buffer", &token.Format{Prefix: strings.Repeat("a", 100)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			invalid := tt.f.Validate()
			require.Error(t, invalid)
			s := tt.f.Prefix + sample[9:]
			if tt.f.Prefix == "" {
				s = sample
			}
			for range 2 { // the first use and those after it
				d, err := tt.f.Digest(s)
				require.EqualError(t, err, invalid.Error())
				require.NotErrorIs(t, err, token.ErrMalformed)
				require.Zero(t, d)
				tok, err := tt.f.Parse(s)
				require.EqualError(t, err, invalid.Error())
				require.Empty(t, tok.Reveal())
				require.Empty(t, slices.Collect(tt.f.EarlierDigests(s)))
				require.PanicsWithError(t, invalid.Error(), func() { tt.f.Generate() })
			}
		})
	}
}

// TestNilFormat: a nil *Format is the zero one.
func TestNilFormat(t *testing.T) {
	t.Parallel()
	var f *token.Format
	want, err := new(token.Format).Digest(sample)
	require.NoError(t, err)
	got, err := f.Digest(sample)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Empty(t, slices.Collect(f.EarlierDigests(sample)))
	require.True(t, strings.HasPrefix(f.Generate().ID(), token.DefaultPrefix))
	tok, err := f.Parse(sample)
	require.NoError(t, err)
	require.Equal(t, sampleID, tok.ID())
}

// TestPeppersAreCopied: what the caller does with its slices after the first use
// changes no digest.
func TestPeppersAreCopied(t *testing.T) {
	t.Parallel()
	pepper := bytes.Clone(pepper1)
	f := &token.Format{Peppers: [][]byte{pepper}}
	want := mustDigest(t, f, sample)
	clear(pepper)
	f.Peppers[0] = nil
	for range 3 {
		require.Equal(t, want, mustDigest(t, f, sample))
		runtime.GC() // after two of them the pool is empty: a state is made anew
	}
}

// TestPepperIsNotPrinted: a pepper is worth as much as what it protects; neither
// errors nor a printed configuration show it.
func TestPepperIsNotPrinted(t *testing.T) {
	t.Parallel()
	type options struct{ Format *token.Format }
	f := &token.Format{Peppers: [][]byte{pepper1, pepper2}}
	var none *token.Format
	const want = `token.Format("csk_live_", 2 peppers)`
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		require.Equal(t, want, fmt.Sprintf(verb, f))
		require.Equal(t, `token.Format("csk_live_", 0 peppers)`, fmt.Sprintf(verb, none))
		fmt.Fprintf(&out, verb, options{f})
		fmt.Fprintf(&out, verb, []*token.Format{f})
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("starting", "format", f, "options", options{f}, "none", none)
	}
	j, err := json.Marshal(options{f})
	require.NoError(t, err)
	out.Write(j)
	f = &token.Format{Peppers: [][]byte{pepper1}, Prefix: "BAD"}
	_, err = f.Digest("BAD" + sample[9:])
	require.Error(t, err)
	fmt.Fprintf(&out, "%+v", err)
	for _, pepper := range [][]byte{pepper1, pepper2} {
		for _, leak := range []string{
			string(pepper[:4]), fmt.Sprintf("%x", pepper[:4]), fmt.Sprintf("%X", pepper[:4]),
			strings.Trim(fmt.Sprint(pepper[:4]), "[]"), base64.StdEncoding.EncodeToString(pepper[:3]),
		} {
			require.NotContains(t, out.String(), leak)
		}
	}
}
