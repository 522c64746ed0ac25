package token

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
)

// DefaultPrefix begins every token of the zero [Format] (S53).
const DefaultPrefix = "csk_live_"

const (
	secretBytes = 16              // 128 bits of entropy (S53)
	secretHex   = 2 * secretBytes // as they are written
	idHex       = 8               // hex digits shown in an ID (D27)

	maxPrefix = 32 // bytes, the last "_" included
	maxToken  = maxPrefix + secretHex
	minPepper = 16 // bytes
)

// ErrMalformed is wrapped by the errors of [Parse], [Format.Parse] and
// [Format.Digest] that mean that the string does not have the shape of a token.
// They say whether it is the length, the prefix or the digits, and never contain
// any part of the string.
var ErrMalformed = errors.New("token: malformed")

// The errors of check are made once: refusing garbage allocates nothing.
var (
	errLength = fmt.Errorf("%w: wrong length", ErrMalformed)
	errPrefix = fmt.Errorf("%w: wrong prefix", ErrMalformed)
	errDigits = fmt.Errorf("%w: not lower-case hexadecimal digits", ErrMalformed)
)

// A Format describes tokens of another prefix, or digests under a secret key
// (a pepper) that is kept outside the database. The zero Format, and a nil
// *Format, is that of [Generate] and [Parse] with plain SHA-256 digests.
//
// A Format must be neither changed nor copied after its first use; its methods
// are safe for concurrent use. One that [Format.Validate] finds fault with makes
// and accepts no token: we fail closed here because the alternative, to go on
// without a bad pepper, would look up digests that were meant to be keyed.
type Format struct {
	// Prefix begins every token. It must end in "_" and otherwise consist of
	// 1 to 31 lower-case letters, digits and "_".
	// Defaults to [DefaultPrefix].
	Prefix string

	// Peppers key the digests by HMAC-SHA-256, so that a stolen database holds
	// nothing that a guessed token could be checked against. The first is the
	// current one: new keys are stored under it. The others are still accepted;
	// a key keeps its pepper until it is rotated, and every further pepper costs
	// one more lookup for keys that are not under the first, also for unknown
	// ones. Each has at least 16 bytes, and no two are equal. They are copied at
	// the first use.
	// Defaults to none: plain SHA-256, which 128 random bits do not need more
	// than (NIST SP 800-63B 5.1.2.2).
	Peppers [][]byte

	// AcceptUnpeppered also accepts digests that were stored before the first
	// pepper was introduced, at the price of one more lookup. It is an error
	// without Peppers.
	// Defaults to false.
	AcceptUnpeppered bool

	once    sync.Once // guards the making of hashers and invalid
	hashers []hasher  // the current one first; never empty in a valid Format
	invalid error     // what Validate returned
}

// zero stands in for a nil *Format.
var zero Format

// ready returns f with its unexported fields made, and the error of Validate.
func (f *Format) ready() (*Format, error) {
	if f == nil {
		f = &zero
	}
	f.once.Do(f.prepare)
	return f, f.invalid
}

// prepare makes the hashers of f, once.
func (f *Format) prepare() {
	if f.invalid = f.Validate(); f.invalid != nil {
		return
	}
	for _, p := range f.Peppers {
		f.hashers = append(f.hashers, newHMAC(p))
	}
	if len(f.Peppers) == 0 || f.AcceptUnpeppered {
		f.hashers = append(f.hashers, hasher{})
	}
}

// prefix returns the prefix of the tokens of f, which may be nil.
func (f *Format) prefix() string {
	if f == nil || f.Prefix == "" {
		return DefaultPrefix
	}
	return f.Prefix
}

// Validate reports everything that is wrong with the fields of f, joined; nil
// if f can be used. The error names the field and never contains a pepper.
func (f *Format) Validate() error {
	if f == nil {
		return nil
	}
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("token: Format."+format, args...))
	}
	p := f.prefix()
	if len(p) < 2 || len(p) > maxPrefix {
		bad("Prefix: has %d bytes, must have 2 to %d", len(p), maxPrefix)
	}
	if !strings.HasSuffix(p, "_") {
		bad("Prefix: must end in %q", "_")
	}
	if strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		bad("Prefix: must consist of lower-case letters, digits and %q", "_")
	}
	for i, a := range f.Peppers {
		if len(a) < minPepper {
			bad("Peppers[%d]: has %d bytes, must have at least %d", i, len(a), minPepper)
		}
		for j, b := range f.Peppers[:i] {
			if bytes.Equal(a, b) {
				bad("Peppers[%d]: is the same as Peppers[%d]", i, j)
			}
		}
	}
	if f.AcceptUnpeppered && len(f.Peppers) == 0 {
		bad("AcceptUnpeppered: needs Peppers")
	}
	return errors.Join(errs...)
}

// Format writes the prefix and the number of peppers, whatever the verb, so that
// printing a configuration with a *Format in it shows no pepper. A Format that is
// itself a field of what is printed fmt prints as any struct, peppers included:
// keep a pointer. It implements [fmt.Formatter].
func (f *Format) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, f.describe()) }

// MarshalText returns what [Format.Format] writes, for log/slog and
// encoding/json. It cannot be read back.
func (f *Format) MarshalText() ([]byte, error) { return []byte(f.describe()), nil }

func (f *Format) describe() string {
	peppers := 0
	if f != nil {
		peppers = len(f.Peppers)
	}
	return fmt.Sprintf("token.Format(%q, %d peppers)", f.prefix(), peppers)
}

// Generate returns a new token of the zero [Format]: [DefaultPrefix] and 32
// lower-case hexadecimal digits, 128 bits from crypto/rand (S53).
func Generate() Token { return zero.Generate() }

// Generate returns a new token: the prefix and 128 random bits. It panics if f
// is not valid; call [Format.Validate] at start-up.
func (f *Format) Generate() Token {
	f, err := f.ready()
	if err != nil {
		panic(err)
	}
	var b [secretBytes]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	prefix := f.prefix()
	return newToken(prefix+hex.EncodeToString(b[:]), len(prefix)+idHex)
}

// Parse returns the token that s spells in the zero [Format]. Nothing is
// normalized: blanks, upper-case digits and any other length are refused (D31).
// The error wraps [ErrMalformed] and never contains any part of s.
func Parse(s string) (Token, error) { return zero.Parse(s) }

// Parse returns the token that s spells. See [Parse]. If f is not valid, the
// error is that of [Format.Validate] and does not wrap [ErrMalformed].
func (f *Format) Parse(s string) (Token, error) {
	f, err := f.ready()
	if err != nil {
		return Token{}, err
	}
	prefix := f.prefix()
	if err := check(s, prefix); err != nil {
		return Token{}, err
	}
	return newToken(s, len(prefix)+idHex), nil
}

// Claims reports whether s begins with the prefix of the format, and so is to
// be judged as a token of this format and of nothing else (D33).
func (f *Format) Claims(s string) bool { return strings.HasPrefix(s, f.prefix()) }

// Digest checks that s has the exact shape of a token and returns its digest
// under the current pepper. It allocates nothing: this is the path of a
// request, where the header's text is never made into a [Token]. What is
// malformed is refused before any hashing (D41), with an error that wraps
// [ErrMalformed]. If f is not valid, the error is that of [Format.Validate] and
// does not: the service cannot answer then, and that is not the caller's fault.
func (f *Format) Digest(s string) (Digest, error) {
	var d Digest
	err := f.digest(s, &d)
	return d, err
}

// digest is Digest, which is no more than this call so that it is inlined.
func (f *Format) digest(s string, d *Digest) error {
	f, err := f.ready()
	if err != nil {
		return err
	}
	if err := check(s, f.prefix()); err != nil {
		return err
	}
	f.hashers[0].sum(s, d)
	return nil
}

// EarlierDigests yields the digests of s under the earlier peppers, in their
// order, then, with AcceptUnpeppered, the plain one. They are computed one by
// one as they are asked for. It yields nothing if s is malformed or f is not
// valid.
func (f *Format) EarlierDigests(s string) iter.Seq[Digest] {
	// The body is elsewhere so that this is inlined and the function is not
	// allocated: every unknown token comes here.
	return func(yield func(Digest) bool) { f.yieldEarlier(s, yield) }
}

func (f *Format) yieldEarlier(s string, yield func(Digest) bool) {
	f, err := f.ready()
	if err != nil || len(f.hashers) == 1 || check(s, f.prefix()) != nil {
		return
	}
	for _, h := range f.hashers[1:] {
		var d Digest
		h.sum(s, &d)
		if !yield(d) {
			return
		}
	}
}

// check reports how s differs from the shape of a token. The length comes
// first: whatever its length, a wrong string costs the same.
func check(s, prefix string) error {
	switch {
	case len(s) != len(prefix)+secretHex:
		return errLength
	case s[:len(prefix)] != prefix:
		return errPrefix
	}
	if !isHex(s[len(prefix):]) {
		return errDigits
	}
	return nil
}

// isHex reports whether s, of secretHex bytes, consists of lower-case hexadecimal
// digits. It looks at eight bytes at a time: this is done for every request, and
// byte by byte it takes a fifth of the time that the digest does.
func isHex(s string) bool {
	s = s[:secretHex] // so that the compiler drops the bounds checks below
	return notHex(s[0:8])|notHex(s[8:16])|notHex(s[16:24])|notHex(s[24:32]) == 0
}

// notHex returns a word in which the highest bit of each byte says that the byte of
// s, of eight bytes, is no such digit.
//
// Adding 0x80-c sets the highest bit of each byte that is c or more, without a
// carry into the next as long as no byte is above 0x7f.
func notHex(s string) uint64 {
	const each = 0x0101010101010101
	x := binary.LittleEndian.Uint64([]byte(s))
	digit := (x + (0x80-'0')*each) &^ (x + (0x80-'9'-1)*each)
	letter := (x + (0x80-'a')*each) &^ (x + (0x80-'f'-1)*each)
	return (x | ^(digit | letter)) & (0x80 * each)
}
