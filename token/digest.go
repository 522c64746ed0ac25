package token

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"sync"
)

// A Digest is what is stored and looked up instead of a token: SHA-256 of the
// whole token, or HMAC-SHA-256 under a pepper (S71). It is not a credential: no
// function takes a digest where a token is due.
//
// Printed, logged or marshaled it shows nothing of itself, so that no log can be
// matched with a stolen database. That holds for a Digest by itself and in
// exported fields; fmt does not ask the methods of what stands in unexported
// ones.
type Digest [sha256.Size]byte

const redacted = "digest(redacted)"

// Equal reports whether d and e are the same, in a time that does not depend on
// where they differ (S71). It compares words: subtle.ConstantTimeCompare goes by
// bytes, and takes longer than the look-up that it would end.
func (d Digest) Equal(e Digest) bool {
	var differ uint64
	for i := 0; i < len(d); i += 8 {
		differ |= binary.LittleEndian.Uint64(d[i:]) ^ binary.LittleEndian.Uint64(e[i:])
	}
	return differ == 0
}

// String returns "digest(redacted)".
func (d Digest) String() string { return redacted }

// GoString returns what [Digest.String] does, for %#v.
func (d Digest) GoString() string { return redacted }

// Format writes what [Digest.String] returns, whatever the verb.
func (d Digest) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue returns what [Digest.String] does, for log/slog.
func (d Digest) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns what [Digest.String] does. Stores keep the bytes, d[:].
func (d Digest) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// A hasher computes digests. The zero hasher is plain SHA-256.
type hasher struct {
	macs *sync.Pool // of *mac, all under one pepper
}

// A mac is a keyed state, ready to be written to. It brings its own buffers
// along: what is passed to a hash.Hash escapes to the heap.
type mac struct {
	hash hash.Hash
	in   [maxToken]byte
	out  Digest
}

// newHMAC returns the hasher under a pepper, which it copies.
func newHMAC(pepper []byte) hasher {
	key := bytes.Clone(pepper)
	return hasher{&sync.Pool{New: func() any {
		return &mac{hash: hmac.New(sha256.New, key)}
	}}}
}

// sum sets d to the digest of s, which has at most maxToken bytes. Making an HMAC
// state hashes the pepper twice, which is half of the work: so states are kept,
// and reset between uses. A digest is written to its place: returned by value it
// would be copied at each call, which takes longer than finding its key.
func (h hasher) sum(s string, d *Digest) {
	if h.macs == nil {
		var in [maxToken]byte
		plain := sha256.New()
		plain.Write(in[:copy(in[:], s)])
		plain.Sum(d[:0])
		return
	}
	m := h.macs.Get().(*mac)
	m.hash.Reset()
	m.hash.Write(m.in[:copy(m.in[:], s)])
	m.hash.Sum(m.out[:0])
	*d = m.out
	h.macs.Put(m)
}
