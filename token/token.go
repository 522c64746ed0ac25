package token

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// A Token is a secret that a client sends with each request.
//
// A Token shows its [Token.ID] and an ellipsis wherever it is printed, logged
// or marshaled; only [Token.Reveal] gives the secret away. The text is held by
// a closure, because fmt and log/slog print the unexported fields of a struct
// without asking their methods, and printers that walk memory follow pointers
// but look into no function.
//
// Tokens cannot be compared; compare a [Digest] instead. The zero Token stands
// for no token: its ID and its secret are empty. A Token is immutable and safe
// for concurrent use.
type Token struct {
	reveal func() string // nil in the zero Token
	id     string
}

// newToken returns the token that text spells, whose ID is the first idLen bytes.
// The ID is a copy: it is kept for as long as the key, and a part of text would
// keep the whole secret in memory with it.
func newToken(text string, idLen int) Token {
	return Token{
		reveal: func() string { return text },
		id:     strings.Clone(text[:idLen]),
	}
}

// ID returns the public part of the token: its prefix and the first eight
// digits (D27), such as "csk_live_a1b2c3d4". It identifies a key to people and
// in URLs, and authenticates nobody.
func (t Token) ID() string { return t.id }

// Reveal returns the whole secret. Show it once, to the person who asked for
// the token, and keep it nowhere (S16).
func (t Token) Reveal() string {
	if t.reveal == nil {
		return ""
	}
	return t.reveal()
}

// String returns the ID and an ellipsis; nothing for the zero Token.
func (t Token) String() string {
	if t.reveal == nil {
		return ""
	}
	return t.id + "…"
}

// GoString returns what [Token.String] does, for %#v.
func (t Token) GoString() string { return t.String() }

// Format writes what [Token.String] returns, whatever the verb.
func (t Token) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, t.String()) }

// LogValue returns what [Token.String] does, for log/slog.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText returns what [Token.String] does. A marshaled token cannot be
// read back.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// MarshalJSON returns what [Token.String] does, as a JSON string. A marshaled
// token cannot be read back.
func (t Token) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }
