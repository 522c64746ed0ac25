package token_test

import (
	"strings"
	"testing"

	"github.com/keystile/keystile/token"
)

// BenchmarkDigest is the path of an admitted request: shape and SHA-256.
func BenchmarkDigest(b *testing.B) {
	s := token.Generate().Reveal()
	var f token.Format
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Digest(s); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDigestPeppered is the same under a pepper; compare with BenchmarkDigest.
func BenchmarkDigestPeppered(b *testing.B) {
	s := token.Generate().Reveal()
	f := token.Format{Peppers: [][]byte{[]byte("0123456789abcdef")}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Digest(s); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseMalformed is the cost of garbage, by what is wrong with it.
func BenchmarkParseMalformed(b *testing.B) {
	good := token.Generate().Reveal()
	for _, bc := range []struct{ name, s string }{
		{"length", good + "0"},
		{"prefix", "x" + good[1:]},
		{"first digit", token.DefaultPrefix + "G" + good[len(token.DefaultPrefix)+1:]},
		{"last digit", good[:len(good)-1] + "G"},
		{"megabyte", strings.Repeat("a", 1<<20)},
	} {
		b.Run(bc.name, func(b *testing.B) {
			var f token.Format
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Digest(bc.s); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

// BenchmarkGenerate is the cost of a new token.
func BenchmarkGenerate(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		token.Generate()
	}
}
