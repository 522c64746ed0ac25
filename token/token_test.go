package token_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"text/template"
	"unsafe"

	"github.com/keystile/keystile/token"
	"github.com/stretchr/testify/require"
)

const (
	sample   = "csk_live_0123456789abcdef0123456789abcdef"
	sampleID = "csk_live_01234567"
)

func mustParse(tb testing.TB, s string) token.Token {
	tb.Helper()
	t, err := token.Parse(s)
	require.NoError(tb, err)
	return t
}

// requireNoSecret fails if any eight digits of the secret of t that its ID does
// not show are in out, as they are or in one of the encodings of fmt and
// encoding/json.
func requireNoSecret(tb testing.TB, t token.Token, out string) {
	tb.Helper()
	const window = 8
	secret := strings.TrimPrefix(t.Reveal(), t.ID())
	require.GreaterOrEqual(tb, len(secret), window)
	for i := range len(secret) - window + 1 {
		part := []byte(secret[i : i+window])
		for form, leak := range map[string]string{
			"plain":      string(part),
			"upper case": strings.ToUpper(string(part)),
			"%x":         hex.EncodeToString(part),
			"%X":         fmt.Sprintf("%X", part),
			"% x":        fmt.Sprintf("% x", part),
			"%d":         strings.Trim(fmt.Sprint(part), "[]"),
			"%#v":        strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}"),
			"base64":     base64.StdEncoding.EncodeToString(part[:6]), // finds it at one place in three
		} {
			if strings.Contains(out, leak) {
				require.Failf(tb, "secret", "leaks as %s", form)
			}
		}
	}
}

// TestRequireNoSecret shows that the search of the tests below finds what it is
// meant to find.
func TestRequireNoSecret(t *testing.T) {
	t.Parallel()
	tok := token.Generate()
	secret := tok.Reveal()
	for _, tt := range []struct{ name, out string }{
		{"plain", secret},
		{"part", "x" + secret[20:30] + "y"},
		{"upper case", strings.ToUpper(secret)},
		{"hex", fmt.Sprintf("%x", secret)},
		{"upper hex", fmt.Sprintf("%X", secret)},
		{"spaced hex", fmt.Sprintf("% x", secret)},
		{"decimal", fmt.Sprint([]byte(secret))},
		{"go syntax", fmt.Sprintf("%#v", []byte(secret))},
		{"base64", base64.StdEncoding.EncodeToString([]byte(secret))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			probe := &recorder{TB: t}
			func() {
				defer func() { _ = recover() }()
				requireNoSecret(probe, tok, tt.out)
			}()
			require.True(t, probe.failed)
		})
	}
}

// recorder is a testing.TB that only notes that a check failed.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) FailNow()              { panic("failed") }
func (r *recorder) Helper()               {}

type exported struct{ Token token.Token }

type unexported struct{ token token.Token }

type unexportedPointer struct{ token *token.Token }

type nested struct{ inner []unexported }

// holders are the places where a Token may be when something is printed.
func holders(tok token.Token) map[string]any {
	return map[string]any{
		"token":                              tok,
		"pointer":                            &tok,
		"exported field":                     exported{tok},
		"pointer to exported field":          &exported{tok},
		"unexported field":                   unexported{tok},
		"pointer to unexported field":        &unexported{tok},
		"pointer in unexported field":        unexportedPointer{&tok},
		"slice":                              []token.Token{tok},
		"slice of pointers":                  []*token.Token{&tok},
		"array":                              [1]token.Token{tok},
		"map":                                map[string]token.Token{"k": tok},
		"slice of structs":                   []exported{{tok}},
		"slice of structs, unexported field": nested{[]unexported{{tok}}},
		"slice of interfaces":                []any{tok},
		"error that holds it":                fmt.Errorf("creating: %v", tok),
		"joined errors that hold it":         errors.Join(fmt.Errorf("%+v", tok), fmt.Errorf("%#v", &tok)),
	}
}

// TestTokenRedaction_S16 is about "shown once, and never again anywhere": every
// way of printing, from every place where a Token may be. S75.
func TestTokenRedaction_S16(t *testing.T) {
	t.Parallel()
	verbs := []string{"%v", "%+v", "%#v", "%s", "%+s", "%q", "%+q", "%x", "%X", "% x", "%#x", "%d", "%b", "%c", "%o", "%U", "%e", "%t", "%p", "%w", "%z", "%T", "%10s", "%-60v", "%.3s"}
	tok := token.Generate()
	for place, v := range holders(tok) {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			for _, verb := range verbs {
				requireNoSecret(t, tok, fmt.Sprintf(verb, v))
			}
			requireNoSecret(t, tok, fmt.Sprint(v))
			requireNoSecret(t, tok, fmt.Sprintln(v))
			requireNoSecret(t, tok, fmt.Errorf("%v: %w", v, token.ErrMalformed).Error())

			var out bytes.Buffer
			for _, h := range []slog.Handler{
				slog.NewTextHandler(&out, nil),
				slog.NewJSONHandler(&out, nil),
			} {
				l := slog.New(h)
				l.Info("made", "token", v)
				l.With("token", v).WithGroup("g").Info("made", slog.Group("h", slog.Any("token", v)))
			}
			require.Contains(t, out.String(), "made")
			requireNoSecret(t, tok, out.String())

			j, err := json.Marshal(v)
			require.NoError(t, err)
			requireNoSecret(t, tok, string(j))

			// These cannot encode every holder; then their error is what is seen.
			x, err := xml.Marshal(v)
			requireNoSecret(t, tok, fmt.Sprint(string(x), err))
			var g bytes.Buffer
			err = gob.NewEncoder(&g).Encode(v)
			requireNoSecret(t, tok, fmt.Sprint(g.String(), err))

			var page strings.Builder
			require.NoError(t, template.Must(template.New("").Parse("{{.}}")).Execute(&page, v))
			requireNoSecret(t, tok, page.String())

			requireNoSecret(t, tok, walk(reflect.ValueOf(v)))
		})
	}
}

// walk returns all text that is reachable from v through fields of any kind,
// pointers, slices, maps and interfaces, as printers that walk memory find it.
func walk(v reflect.Value) string {
	var b strings.Builder
	switch v.Kind() {
	case reflect.String:
		b.WriteString(v.String())
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			b.WriteString(walk(v.Elem()))
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			b.WriteString(walk(field) + "\n")
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			b.WriteString(walk(v.Index(i)) + "\n")
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			b.WriteString(walk(k) + walk(v.MapIndex(k)) + "\n")
		}
	}
	return b.String()
}

// TestTokenString_D27: what is printed is the prefix, eight digits and an
// ellipsis, by every method.
func TestTokenString_D27(t *testing.T) {
	t.Parallel()
	const want = sampleID + "…"
	tok := mustParse(t, sample)
	require.Equal(t, want, tok.String())
	require.Equal(t, want, tok.GoString())
	require.Equal(t, want, fmt.Sprintf("%v", tok))
	require.Equal(t, want, fmt.Sprintf("%#v", tok))
	require.Equal(t, want, fmt.Sprintf("%x", tok))
	require.Equal(t, want, fmt.Sprintf("%d", &tok))
	require.Equal(t, want, tok.LogValue().String())
	text, err := tok.MarshalText()
	require.NoError(t, err)
	require.Equal(t, want, string(text))
	j, err := json.Marshal(exported{tok})
	require.NoError(t, err)
	require.Equal(t, `{"Token":"`+want+`"}`, string(j))
}

// TestTokenID_D27: "the first 17 characters (csk_live_ and 8 hex)".
func TestTokenID_D27(t *testing.T) {
	t.Parallel()
	tok := mustParse(t, sample)
	require.Equal(t, sampleID, tok.ID())
	require.Equal(t, sample, tok.Reveal())
	require.Len(t, token.Generate().ID(), 17)

	f := &token.Format{Prefix: "acme_test_2_"}
	other := f.Generate()
	require.Regexp(t, `^acme_test_2_[0-9a-f]{8}$`, other.ID())
	require.True(t, strings.HasPrefix(other.Reveal(), other.ID()))
}

// TestTokenIDHoldsNoSecret: an ID is kept for as long as its key; it must not be
// a part of the secret's memory, or the secret would be kept with it (S71).
func TestTokenIDHoldsNoSecret(t *testing.T) {
	t.Parallel()
	tok := mustParse(t, strings.Clone(sample))
	require.NotSame(t, unsafe.StringData(tok.Reveal()), unsafe.StringData(tok.ID()))
}

// TestZeroToken: it stands for no token, and nothing panics.
func TestZeroToken(t *testing.T) {
	t.Parallel()
	var tok token.Token
	require.Empty(t, tok.ID())
	require.Empty(t, tok.Reveal())
	require.Empty(t, tok.String())
	require.Empty(t, fmt.Sprintf("%v%#v%x", tok, tok, &tok))
	j, err := json.Marshal(tok)
	require.NoError(t, err)
	require.Equal(t, `""`, string(j))
	_, err = token.Parse(tok.Reveal())
	require.ErrorIs(t, err, token.ErrMalformed)
}

// TestTokenCannotBeCompared: == on secrets takes time that depends on them
// (F82); the compiler refuses it, and so do maps.
func TestTokenCannotBeCompared(t *testing.T) {
	t.Parallel()
	require.False(t, reflect.TypeFor[token.Token]().Comparable())
}

// TestTokenCannotBeReadBack: a marshaled token is not one.
func TestTokenCannotBeReadBack(t *testing.T) {
	t.Parallel()
	j, err := json.Marshal(exported{mustParse(t, sample)})
	require.NoError(t, err)
	var v exported
	require.Error(t, json.Unmarshal(j, &v))
	require.Empty(t, v.Token.Reveal())
	_, err = token.Parse(mustParse(t, sample).String())
	require.ErrorIs(t, err, token.ErrMalformed)
}
