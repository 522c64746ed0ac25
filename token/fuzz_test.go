package token_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keystile/keystile/token"
	"github.com/stretchr/testify/require"
)

// FuzzParse: Parse accepts what the published regular expression does and
// nothing else, gives it back unchanged, shows none of it, and its errors repeat
// no input (S53, D31, S75).
func FuzzParse(f *testing.F) {
	f.Add(sample)
	for _, m := range malformed {
		f.Add(m.s)
	}
	expr := regexp.MustCompile(`\Acsk_live_[0-9a-f]{32}\z`)
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := token.Parse(s)
		require.Equal(t, expr.MatchString(s), err == nil)
		if err != nil {
			require.ErrorIs(t, err, token.ErrMalformed)
			requireNoInput(t, err, s)
			require.Empty(t, tok.Reveal())
			return
		}
		require.Equal(t, s, tok.Reveal())
		require.Equal(t, s[:17], tok.ID())
		require.Equal(t, s[:17]+"…", tok.String())
	})
}

// FuzzDigest: whatever the format, Digest accepts what Parse accepts; the digest
// is that of crypto/sha256 or crypto/hmac; a Format that is not valid accepts
// nothing; and no error repeats the token or a pepper.
func FuzzDigest(f *testing.F) {
	f.Add("", []byte(nil), sample)
	f.Add("", pepper1, sample)
	f.Add("acme_", pepper2, "acme_"+sample[9:])
	f.Add("acme_", []byte("too short"), "acme_"+sample[9:])
	f.Add("no underscore", []byte(nil), sample)
	f.Add("_", pepper1, "_"+sample[9:])
	f.Add(strings.Repeat("x", 31)+"_", pepper1, strings.Repeat("x", 31)+"_"+sample[9:])
	f.Add(strings.Repeat("x", 32)+"_", pepper1, strings.Repeat("x", 32)+"_"+sample[9:])
	for _, m := range malformed {
		f.Add("", pepper1, m.s)
	}
	prefix := regexp.MustCompile(`\A[a-z0-9_]{1,31}_\z`)
	f.Fuzz(func(t *testing.T, pre string, pepper []byte, s string) {
		format := &token.Format{Prefix: pre}
		if len(pepper) > 0 {
			format.Peppers = [][]byte{pepper}
		}
		valid := (pre == "" || prefix.MatchString(pre)) && (len(pepper) == 0 || len(pepper) >= 16)
		invalid := format.Validate()
		require.Equal(t, valid, invalid == nil)

		d, err := format.Digest(s)
		tok, perr := format.Parse(s)
		require.Equal(t, perr == nil, err == nil)
		require.Empty(t, slices.Collect(format.EarlierDigests(s)))
		if !valid {
			require.EqualError(t, err, invalid.Error())
			require.NotErrorIs(t, err, token.ErrMalformed)
			if len(pepper) >= 4 && !strings.Contains("token: Format.Peppers[0]: has bytes, must have at least", string(pepper)) {
				require.NotContains(t, err.Error(), string(pepper))
			}
			return
		}
		if err != nil {
			require.ErrorIs(t, err, token.ErrMalformed)
			requireNoInput(t, err, s)
			require.Zero(t, d)
			return
		}
		require.Equal(t, s, tok.Reveal())
		require.True(t, format.Claims(s))
		want := token.Digest(sha256.Sum256([]byte(s)))
		if len(pepper) > 0 {
			m := hmac.New(sha256.New, pepper)
			m.Write([]byte(s))
			want = token.Digest(m.Sum(nil))
		}
		require.True(t, want.Equal(d))
	})
}
