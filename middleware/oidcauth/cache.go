package oidcauth

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/keystile/keystile/policy"
)

// cacheFor is how long a verified token is remembered at most.
const cacheFor = time.Minute

// evictions is how many entries are looked at to find one to drop.
const evictions = 8

// A digest is the SHA-256 of a whole token, signature included.
type digest = [sha256.Size]byte

// sum returns the digest of token. The copy, which for tokens of a usual length is on
// the stack, is cheaper than one that has to be collected.
func sum(token string) digest {
	var buf [2 << 10]byte
	return sha256.Sum256(append(buf[:0], token...))
}

// An entry is what a token was found to be.
type entry struct {
	key       *key // that verified it: the entry holds as long as the key is in the set
	principal *policy.Principal
	until     time.Time
}

// A cache remembers tokens that were verified, and never one that was refused: only
// the issuer can fill it.
type cache struct {
	size    int // at most; -1: nothing is remembered
	mu      sync.RWMutex
	entries map[digest]entry
}

func newCache(size int) *cache { return &cache{size: size, entries: map[digest]entry{}} }

// get returns the entry of d if it has not ended.
func (c *cache) get(d digest, now time.Time) (entry, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e, ok := c.entries[d]
	return e, ok && now.Before(e.until)
}

// put remembers e unless it has ended. A full cache drops something for it: the
// ended ones among a few, else one of those, which is as good as at random.
func (c *cache) put(d digest, e entry, now time.Time) {
	if c.size < 0 || !now.Before(e.until) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.entries[d]; !known && len(c.entries) >= c.size {
		var last digest
		looked := 0
		for d, e := range c.entries {
			if !now.Before(e.until) {
				delete(c.entries, d)
			}
			last = d
			if looked++; looked == evictions {
				break
			}
		}
		if len(c.entries) >= c.size {
			delete(c.entries, last)
		}
	}
	c.entries[d] = e
}
