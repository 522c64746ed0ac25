package store

import (
	"context"
	"errors"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/token"
)

// A Verifier finds what a presented token stands for: a [Cache] with the
// [token.Format] of the tokens in it, so that a pepper has one home. It decides
// nothing: revoked, disabled and expired keys are found like others. It is safe
// for concurrent use. The zero Verifier, and a nil *Verifier, claims every token and
// fails every call.
type Verifier struct {
	cache   *Cache
	format  *token.Format
	earlier bool // the format has other digests than the current one
}

var errZeroVerifier = errors.New("store: the Verifier was not made by NewVerifier")

// NewVerifier returns a verifier of tokens of format f whose records c has. A nil
// f is the zero Format. The error reports everything that is wrong, joined. f must
// not be changed any more.
func NewVerifier(c *Cache, f *token.Format) (*Verifier, error) {
	if f == nil {
		f = new(token.Format)
	}
	err := f.Validate()
	if c == nil || c.reader == nil {
		err = errors.Join(errors.New("store: NewVerifier: nil Cache, or one not made by NewCache"), err)
	}
	if err != nil {
		return nil, err
	}
	return &Verifier{
		cache:   c,
		format:  f,
		earlier: len(f.Peppers) > 1 || f.AcceptUnpeppered,
	}, nil
}

// Claims reports whether presented is to be judged as one of v's tokens, and so
// of nothing else (D33). A Verifier that was not made by [NewVerifier] claims
// everything: what it cannot judge must not be taken for unknown (S76).
func (v *Verifier) Claims(presented string) bool {
	return v == nil || v.cache == nil || v.format.Claims(presented)
}

// A Verified is the answer of [Verifier.Verify].
type Verified struct {
	// Record is that of the key. It is shared: nothing it points to may be
	// changed.
	Record *Record

	// Settings are those of the key's organization, shared like Record.
	Settings *policy.Settings

	// Stale reports whether one of them is older than its TTL, because the store
	// fails and [CacheOptions.ServeStale] allows it.
	Stale bool
}

// Verify returns what presented stands for at now, the time of the request by the
// clock of [CacheOptions.Now]. For a key that is cached no clock is read and
// nothing is allocated.
//
// The error wraps [token.ErrMalformed] or [ErrNotFound] if there is no such key;
// every other error is a failure, [ErrBusy] among them, after which nothing is
// known. It never contains any part of presented.
//
// If the format has several peppers, the digest under each is looked up in turn
// until one is found; one that is cached is found first, so that a key under an
// earlier pepper does without the store as long as others do.
func (v *Verifier) Verify(ctx context.Context, presented string, now time.Time) (Verified, error) {
	if v == nil || v.cache == nil {
		return Verified{}, errZeroVerifier
	}
	d, err := v.format.Digest(presented)
	if err != nil {
		return Verified{}, err
	}
	// What is cached and holds is answered here, without the calls that verify makes.
	// The record is looked at after the settings: else one that was disabled in between
	// could be answered with settings that came later.
	c, at := v.cache, v.cache.instant(now)
	e := c.shard(&d).table.Load().find(&d)
	switch {
	case e == nil:
		if !v.earlier && c.absent(&d, at) {
			return Verified{}, ErrNotFound
		}
	default:
		if s := e.owner.cell.current.Load(); c.settingsUsable(e.owner.cell, s, at) && c.usable(e, at) {
			e.use()
			return Verified{Record: &e.record, Settings: s.settings}, nil
		}
	}
	return v.verify(ctx, presented, &d, at)
}

// verify is Verify of a token with digest current that the cache cannot answer at
// once.
func (v *Verifier) verify(ctx context.Context, presented string, current *token.Digest, at int64) (Verified, error) {
	c := v.cache
	var p patience
	for range maxTrips {
		var e *entry
		var stale bool
		var err error
		if v.earlier {
			e, stale, err = v.find(ctx, &p, current, presented, at)
		} else {
			e, stale, err = c.lookup(ctx, &p, current, at)
		}
		if err != nil {
			return Verified{}, err
		}
		s, staleSettings, err := c.settings(ctx, &p, e.owner.cell, at)
		if err != nil {
			return Verified{}, err
		}
		// The settings may have taken a trip: a revocation meanwhile counts.
		if c.invalid.holds(e) {
			return Verified{Record: &e.record, Settings: s, Stale: stale || staleSettings}, nil
		}
	}
	return Verified{}, errUnsettled
}

// find looks up the key with digest current, or one of the earlier digests of
// presented.
func (v *Verifier) find(ctx context.Context, p *patience, current *token.Digest, presented string, at int64,
) (*entry, bool, error) {
	c := v.cache
	if !c.has(current) {
		for d := range v.format.EarlierDigests(presented) {
			if !c.has(&d) {
				continue
			}
			if e, stale, err := c.lookup(ctx, p, &d, at); !errors.Is(err, ErrNotFound) {
				return e, stale, err
			}
		}
	}
	e, stale, err := c.lookup(ctx, p, current, at)
	if errors.Is(err, ErrNotFound) {
		for d := range v.format.EarlierDigests(presented) {
			if e, stale, err = c.lookup(ctx, p, &d, at); !errors.Is(err, ErrNotFound) {
				break
			}
		}
	}
	return e, stale, err
}

// Settings returns the settings of org at now, for callers that were authenticated
// by something else than a key. Every error is a failure.
func (v *Verifier) Settings(ctx context.Context, org string, now time.Time) (*policy.Settings, error) {
	if v == nil || v.cache == nil {
		return nil, errZeroVerifier
	}
	s, _, err := v.cache.settings(ctx, new(patience), v.cache.cell(org), v.cache.instant(now))
	return s, err
}
