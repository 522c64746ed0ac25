package store

import (
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/token"
)

// An entry is what is kept of a key, in as little memory as goes. But for its
// mark it does not change; a newer answer is a new entry.
type entry struct {
	record Record
	mark   atomic.Uint64 // the number of the last invalidation before it was read; the lowest bit: used
	at     int64         // when the read began
	owner  *owner
}

// number is that of the last invalidation before e was read.
func (e *entry) number() uint64 { return e.mark.Load() >> 1 }

// use marks e as used, for the choice of those that make room. A hit writes
// nothing that others read, but for the first.
func (e *entry) use() {
	if e.mark.Load()&1 == 0 {
		e.mark.Or(1)
	}
}

// An owner is a user, shared by the entries of the user's keys.
type owner struct {
	user User
	cell *cell  // of the settings of the user's organization
	slot uint32 // for invalidations
}

// newEntry returns an entry of a record like r.
func (c *Cache) newEntry(r *Record, number uint64, at int64) *entry {
	var kept struct {
		key       Key
		principal policy.Principal
	}
	kept.key, kept.principal = *r.Key, *r.Principal
	k, p, o := &kept.key, &kept.principal, c.owner(r.User)

	// Strings that are equal are kept once, and those that only this key has in
	// one piece.
	text := k.ID + k.Name
	k.ID, k.Name = text[:len(k.ID)], text[len(k.ID):]
	k.Scopes = c.sharedScopes(k.Scopes)
	share(&k.Org, o.user.Org)
	share(&k.User, o.user.ID)
	share(&k.Family, k.ID)
	share(&p.Org, o.user.Org)
	share(&p.User, o.user.ID)
	share(&p.Tier, o.user.Tier)
	share(&p.KeyID, k.ID)
	share(&p.Quota, k.Family)
	p.Scopes = c.sharedScopes(p.Scopes)

	e := &entry{record: Record{Key: k, User: &o.user, Principal: p}, at: at, owner: o}
	e.mark.Store(number << 1)
	return e
}

// share replaces *s by t if they are equal.
func share(s *string, t string) {
	if *s == t {
		*s = t
	}
}

const maxShards = 64

// A shard holds a part of the keys. It is read without a lock.
type shard struct {
	table atomic.Pointer[table]
	_     [56]byte // readers are not disturbed by who locks

	mu     sync.Mutex // for writing the table, and all below
	count  int        // of entries in the table
	hand   int        // where the search for an entry that makes room goes on
	trips  map[token.Digest]*trip[*entry]
	owners []*owner
	_      [64]byte
}

// newShards returns so many shards that each has hundreds of keys when there are
// maxKeys: each can make room within itself then. (One without a key could not,
// and would add one to maxKeys.)
func newShards(maxKeys int) []shard {
	n := maxShards
	for n > 1 && maxKeys/n < 256 {
		n /= 2
	}
	shards := make([]shard, n)
	for i := range shards {
		shards[i].table.Store(newTable(16))
	}
	return shards
}

// A table is a hash table with linear probing. Its writer holds the lock of its
// shard. A reader who comes while entries are moved may miss one of them, and
// looks again with the lock, since it needs that for a trip; it never takes one
// entry for another, because it compares digests.
type table struct {
	tags  []atomic.Uint32 // a part of the digest; 0: empty. So that a probe is a look at one line
	slots []atomic.Pointer[entry]
}

func newTable(n int) *table {
	return &table{tags: make([]atomic.Uint32, n), slots: make([]atomic.Pointer[entry], n)}
}

// home is where the search for d begins.
func (t *table) home(d *token.Digest) int {
	i, _ := bits.Mul64(digestHome(d), uint64(len(t.tags)))
	return int(i)
}

// next is the slot after i.
func (t *table) next(i int) int {
	if i++; i == len(t.tags) {
		return 0
	}
	return i
}

// index returns the slot of the entry with digest d and that entry, or the empty
// slot where it would be and nil.
func (t *table) index(d *token.Digest) (int, *entry) {
	tag := digestTag(d)
	for i := t.home(d); ; i = t.next(i) {
		switch t.tags[i].Load() {
		case 0:
			return i, nil
		case tag:
			if e := t.slots[i].Load(); e != nil && e.record.Key.Digest.Equal(*d) {
				return i, e
			}
		}
	}
}

// find returns the entry with digest d, or nil.
func (t *table) find(d *token.Digest) *entry {
	_, e := t.index(d)
	return e
}

// set puts e into slot i. The tag comes last, so that readers find an entry
// behind it.
func (t *table) set(i int, e *entry) {
	t.slots[i].Store(e)
	t.tags[i].Store(digestTag(&e.record.Key.Digest))
}

// remove empties slot i and closes the gap, so that nothing is left of what was
// there: each entry behind it, up to the next gap, moves into the gap unless that
// is before its home.
func (t *table) remove(i int) {
	for j := t.next(i); ; j = t.next(j) {
		e := t.slots[j].Load()
		if e == nil {
			break
		}
		n := len(t.tags)
		home := t.home(&e.record.Key.Digest)
		if (j-home+n)%n >= (j-i+n)%n {
			t.set(i, e)
			i = j
		}
	}
	t.tags[i].Store(0)
	t.slots[i].Store(nil)
}

// keep puts e, which was read from the store, into s, whose lock is held.
func (c *Cache) keep(s *shard, e *entry) {
	d := &e.record.Key.Digest
	t := s.table.Load()
	if i, old := t.index(d); old != nil {
		e.use()
		t.set(i, e)
		return
	}
	if c.keys.Add(1) > c.maxKeys && s.makeRoom() {
		c.keys.Add(-1)
	}
	if 5*(s.count+1) > 4*len(t.tags) {
		t = s.grow()
	}
	i, _ := t.index(d)
	t.set(i, e)
	s.count++
}

// grow replaces the table of s by a larger one and returns that. Readers who
// still have the old one find entries that are valid as before, or not.
func (s *shard) grow() *table {
	old := s.table.Load()
	t := newTable(len(old.tags) * 3 / 2)
	for i := range old.slots {
		if e := old.slots[i].Load(); e != nil {
			j, _ := t.index(&e.record.Key.Digest)
			t.set(j, e)
		}
	}
	s.table.Store(t)
	s.hand = 0
	return t
}

// maxPassed bounds how many used entries are passed over in the search for one
// that makes room.
const maxPassed = 64

// makeRoom removes an entry that was not used since the search last came by (the
// clock algorithm), and reports whether there was any entry at all.
func (s *shard) makeRoom() bool {
	if s.count == 0 {
		return false
	}
	t := s.table.Load()
	for passed := 0; ; s.hand = t.next(s.hand) {
		e := t.slots[s.hand].Load()
		if e == nil {
			continue
		}
		if e.mark.Load()&1 != 0 && passed < maxPassed {
			e.mark.And(^uint64(1))
			passed++
			continue
		}
		t.remove(s.hand)
		s.count--
		return true
	}
}

// remove removes the entry with digest d, if there is one, from s, whose lock is
// held.
func (s *shard) remove(d *token.Digest) bool {
	t := s.table.Load()
	i, e := t.index(d)
	if e == nil {
		return false
	}
	t.remove(i)
	s.count--
	return true
}

// maxProbes bounds the search for an owner.
const maxProbes = 4

// owner returns the owner that stands for u: an equal one that is there, if it is
// found where it should be. Owners are looked for in a table without an order of
// its own, in which newcomers overwrite others: all that a miss costs is memory.
func (c *Cache) owner(u *User) *owner {
	h := c.userHash(u.Org, u.ID)
	s := &c.shards[int(h>>32)&(len(c.shards)-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := max(len(s.table.Load().tags)/4, maxProbes); n > len(s.owners) {
		old := s.owners
		s.owners = make([]*owner, n)
		for _, o := range old {
			if o != nil {
				*s.ownerSlot(c.userHash(o.user.Org, o.user.ID), &o.user) = o
			}
		}
	}
	p := s.ownerSlot(h, u)
	if *p == nil || (*p).user != *u {
		*p = c.newOwner(u, h)
	}
	return *p
}

// ownerSlot returns the slot for the owner that stands for u.
func (s *shard) ownerSlot(h uint64, u *User) **owner {
	home := uint32(h) % uint32(len(s.owners))
	for i := range uint32(maxProbes) {
		p := &s.owners[(home+i)%uint32(len(s.owners))]
		if *p == nil || (*p).user.ID == u.ID && (*p).user.Org == u.Org {
			return p
		}
	}
	return &s.owners[home]
}

func (c *Cache) newOwner(u *User, h uint64) *owner {
	o := &owner{user: *u, cell: c.cell(u.Org), slot: uint32(h % invalidationSlots)}
	share(&o.user.Org, o.cell.org)
	share(&o.user.Email, o.user.ID)
	return o
}

const scopeSlots = 256

// sharedScopes returns scopes, or an equal slice that is there.
func (c *Cache) sharedScopes(scopes []string) []string {
	if len(scopes) == 0 {
		return scopes
	}
	var h maphash.Hash
	h.SetSeed(c.seed)
	for _, s := range scopes {
		_, _ = h.WriteString(s)
	}
	p := &c.scopes[h.Sum64()%scopeSlots]
	if shared := p.Load(); shared != nil && slices.Equal(*shared, scopes) {
		return *shared
	}
	p.Store(&scopes)
	return scopes
}

const (
	absenceSets = 1 << 12
	absenceWays = 4
)

// An absence is what is kept of a digest that the store did not find.
type absence struct {
	digest token.Digest
	number uint64 // of the last invalidation before the read
	at     int64  // when the read began
}

// An absenceSet is where absences are kept whose digests have the same bits in
// some place.
type absenceSet [absenceWays]atomic.Pointer[absence]

// absent reports whether at now it is known that there is no key with digest d.
func (c *Cache) absent(d *token.Digest, now int64) bool {
	set := &c.absences[digestSet(d)]
	for i := range set {
		a := set[i].Load()
		if a != nil && a.digest == *d {
			return within(now, a.at, c.negativeTTL) && c.invalid.keyHolds(d, a.number)
		}
	}
	return false
}

// addAbsence remembers that there is no key with digest d, in place of what was
// known of it, or else of the oldest in its set.
func (c *Cache) addAbsence(d *token.Digest, number uint64, at int64) {
	if c.negativeTTL < 0 {
		return
	}
	set := &c.absences[digestSet(d)]
	oldest := &set[0]
	var oldestAt int64 = math.MaxInt64
	for i := range set {
		a := set[i].Load()
		if a == nil || a.digest == *d {
			oldest = &set[i]
			break
		}
		if a.at < oldestAt {
			oldest, oldestAt = &set[i], a.at
		}
	}
	oldest.Store(&absence{digest: *d, number: number, at: at})
}
