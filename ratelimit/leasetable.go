package ratelimit

import (
	"hash/maphash"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// leaseShards is how many parts of a Leased can take new keys at a time.
const (
	leaseShards    = 1 << leaseShardBits
	leaseShardBits = 5
)

// A leaseShard holds the leases whose hashes begin alike.
type leaseShard struct {
	// table is never nil. Readers load it and need no lock; whoever replaces it or
	// puts leases into it holds mu.
	table atomic.Pointer[leaseTable]

	mu    sync.Mutex
	live  int // leases in table
	taken int // slots, those of leases that were dropped among them

	_ [64 - 32]byte // to the end of the cache line, so that shards do not share one
}

// A leaseTable is a hash table with open addressing, like a memoryTable. A lease
// that was dropped stays in its slot until another takes it or the table is
// replaced.
type leaseTable struct {
	slots []atomic.Pointer[lease] // a power of two of them, at least one empty
}

func newLeaseTable(size int) *leaseTable {
	return &leaseTable{make([]atomic.Pointer[lease], size)}
}

// find returns the lease of key and end, nil if there is none.
func (t *leaseTable) find(hash uint32, key string, end time.Time) *lease {
	return t.slot(hash, key, end).Load()
}

// slot returns the slot of key and end, or the empty one where they belong.
func (t *leaseTable) slot(hash uint32, key string, end time.Time) *atomic.Pointer[lease] {
	mask := len(t.slots) - 1
	for i := int(hash) & mask; ; i = (i + 1) & mask {
		e := t.slots[i].Load()
		if e == nil || e.hash == hash && e.key == key && e.end.Equal(end) {
			return &t.slots[i]
		}
	}
}

// hash returns the hash of a key and window. It is for the windows of one key that
// the end is in it: two at midnight.
func (b *Leased) hash(key string, end time.Time) uint32 {
	return uint32(maphash.String(b.seed, key)) ^ uint32(end.Unix())
}

func (b *Leased) shard(hash uint32) *leaseShard {
	return &b.shards[hash>>(32-leaseShardBits)]
}

// lease returns the lease of key and end, and whether it was made for this call.
// It makes one only if that is wanted, and none after Close.
func (b *Leased) lease(hash uint32, key string, end time.Time, want bool) (e *lease, made bool) {
	s := b.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e = s.table.Load().find(hash, key, end); e != nil && !e.gone {
		return e, false
	}
	if !want || !b.admit() {
		return nil, false
	}
	s.reserve()
	e = &lease{key: strings.Clone(key), end: end.Round(0), hash: hash, since: b.elapsed(), want: smallLoan}
	slot := s.table.Load().slot(hash, key, end)
	if slot.Load() == nil {
		s.taken++
	}
	slot.Store(e)
	s.live++
	return e, true
}

// reserve makes room for one more lease. The caller holds the lock.
func (s *leaseShard) reserve() {
	if 2*(s.taken+1) > len(s.table.Load().slots) {
		s.replace()
	}
}

// shrink takes room back that is not used any more, with the leases that were
// dropped there. The caller holds the lock.
func (s *leaseShard) shrink() {
	if size := len(s.table.Load().slots); size > minSlots && 8*s.live < size {
		s.replace()
	}
}

// replace replaces the table by one of which at least a quarter and at most a half
// of the slots are taken with one more lease, if that is not too small. The caller
// holds the lock.
func (s *leaseShard) replace() {
	size := minSlots
	for size < 2*(s.live+1) {
		size *= 2
	}
	next := newLeaseTable(size)
	for e := range s.leases() {
		if !e.gone {
			next.slot(e.hash, e.key, e.end).Store(e)
		}
	}
	s.taken = s.live
	s.table.Store(next)
}

// drop drops e, which is in the table. The caller holds both locks.
func (s *leaseShard) drop(e *lease) {
	e.gone = true
	s.live--
}

// leases are the leases in the table, with those that were dropped. The caller
// holds the lock.
func (s *leaseShard) leases() iter.Seq[*lease] {
	t := s.table.Load()
	return func(yield func(*lease) bool) {
		for i := range t.slots {
			if e := t.slots[i].Load(); e != nil && !yield(e) {
				return
			}
		}
	}
}
