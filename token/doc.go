// Package token makes and reads API tokens, the secrets that clients send.
//
// A token is a prefix, csk_live_ unless a [Format] says otherwise, and 32
// lower-case hexadecimal digits, which are 128 bits from crypto/rand (S53). Its
// prefix and first eight digits, such as csk_live_a1b2c3d4, are its ID: what
// people and URLs name it by (D27). The whole is a [Token], which shows itself
// only when asked by [Token.Reveal]. What is stored and looked up instead of it
// is its [Digest] (S71). A request's header is never made into a Token:
// [Format.Digest] checks the text and hashes it, in one step and without an
// allocation.
//
// Secret scanners find tokens of the default prefix by the regular expression
//
//	csk_live_[0-9a-f]{32}
//
// and those of another Format by its prefix in place of csk_live_.
//
// # What this package does not do
//
// It keeps nothing and looks nothing up: that is package store. It does not
// decide whether a token may be used: that is package policy. It accepts no
// image of a token, such as a digest, where a token is due. The format has no
// checksum: a mistyped token is refused because nobody ever stored its digest.
// It cannot take back what [Token.Reveal] gave out, nor erase memory.
//
// Numbers such as S53 and D27 are those of REQUIREMENTS.md in the repository.
package token
