package token_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/keystile/keystile/token"
)

func ExampleGenerate() {
	t := token.Generate()
	fmt.Println(len(t.ID()), len(t.Reveal()))
	// Output: 17 41
}

func ExampleParse() {
	t, err := token.Parse("csk_live_0123456789abcdef0123456789abcdef")
	fmt.Println(t, err)

	_, err = token.Parse("csk_live_0123456789ABCDEF0123456789ABCDEF")
	fmt.Println(errors.Is(err, token.ErrMalformed), err)
	// Output:
	// csk_live_01234567… <nil>
	// true token: malformed: not lower-case hexadecimal digits
}

func ExampleToken() {
	t, _ := token.Parse("csk_live_0123456789abcdef0123456789abcdef")
	type answer struct {
		key token.Token // unexported: fmt does not ask its methods
		ID  string
	}
	fmt.Printf("%s %x\n", t, t)
	log := slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	log.Info("key created", "token", t, "answer", answer{t, t.ID()})
	// Output:
	// csk_live_01234567… csk_live_01234567…
	// {"level":"INFO","msg":"key created","token":"csk_live_01234567…","answer":{"ID":"csk_live_01234567"}}
}

// A token is shown by Reveal, to the person who asked for it, and by nothing
// else: what String returns is for people to recognize a key by.
func ExampleToken_String_incorrect() {
	t, _ := token.Parse("csk_live_0123456789abcdef0123456789abcdef")

	_, err := token.Parse(t.String()) // incorrect: use t.Reveal()
	fmt.Println(err)
	// Output: token: malformed: wrong length
}

func ExampleFormat() {
	f := &token.Format{
		Prefix: "acme_",
		Peppers: [][]byte{
			[]byte("this year's pepper, from a vault"), // current
			[]byte("last year's pepper, from a vault"), // still accepted
		},
	}
	if err := f.Validate(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(f.Generate().Reveal()))
	// Output: 37
}

// A new pepper goes before the old one. In its place it makes every key that was
// stored under the old one unknown, at once and for good.
func ExampleFormat_incorrect() {
	const presented = "csk_live_0123456789abcdef0123456789abcdef"
	last := &token.Format{Peppers: [][]byte{[]byte("last year's pepper, from a vault")}}
	stored, _ := last.Digest(presented)

	known := func(f *token.Format) bool {
		d, _ := f.Digest(presented)
		found := d.Equal(stored)
		for d := range f.EarlierDigests(presented) {
			found = found || d.Equal(stored)
		}
		return found
	}
	fmt.Println("in its place:", known(&token.Format{Peppers: [][]byte{
		[]byte("this year's pepper, from a vault"), // incorrect: the old one is gone
	}}))
	fmt.Println("before it:", known(&token.Format{Peppers: [][]byte{
		[]byte("this year's pepper, from a vault"),
		[]byte("last year's pepper, from a vault"),
	}}))
	// Output:
	// in its place: false
	// before it: true
}

func ExampleFormat_Validate() {
	f := &token.Format{Prefix: "Acme", Peppers: [][]byte{[]byte("secret")}}
	fmt.Println(f.Validate())
	// Output:
	// token: Format.Prefix: must end in "_"
	// token: Format.Prefix: must consist of lower-case letters, digits and "_"
	// token: Format.Peppers[0]: has 6 bytes, must have at least 16
}

func ExampleFormat_Claims() {
	var f token.Format
	fmt.Println(f.Claims("csk_live_mistyped"), f.Claims("eyJhbGciOiJSUzI1NiJ9.e30.c2ln"))
	// Output: true false
}

func ExampleFormat_Digest() {
	var f token.Format
	d, err := f.Digest("csk_live_0123456789abcdef0123456789abcdef")
	fmt.Println(d, err)
	fmt.Printf("%x\n", d[:4]) // the bytes are for stores
	// Output:
	// digest(redacted) <nil>
	// 581231b2
}

func ExampleFormat_EarlierDigests() {
	f := &token.Format{
		Peppers:          [][]byte{[]byte("a pepper of 16 b")},
		AcceptUnpeppered: true, // keys from before the pepper are still known
	}
	for d := range f.EarlierDigests("csk_live_0123456789abcdef0123456789abcdef") {
		fmt.Printf("%x\n", d[:4])
	}
	// Output: 581231b2
}

func ExampleDigest_Equal() {
	var f token.Format
	a, _ := f.Digest("csk_live_0123456789abcdef0123456789abcdef")
	b, _ := f.Digest("csk_live_0123456789abcdef0123456789abcdee")
	fmt.Println(a.Equal(a), a.Equal(b))
	// Output: true false
}
