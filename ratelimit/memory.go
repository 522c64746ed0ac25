package ratelimit

import (
	"context"
	"errors"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// memoryShards is how many parts of a Memory can take new keys at a time.
	memoryShards    = 1 << memoryShardBits
	memoryShardBits = 6

	// minSlots is the size of a shard's first table.
	minSlots = 8

	// keptWindows is how many windows of a key are kept, the newest made.
	keptWindows = 8

	// epochLength is the least length of an epoch, and keptEpochs the number of
	// whole epochs that a key outlives its last use. Together they are the two days
	// of the Counter contract, and two hours to spare for a goroutine that is
	// suspended between reading the epoch and using it.
	epochLength = 25 * time.Hour
	keptEpochs  = 2
)

var (
	errNoMemory  = errors.New("ratelimit: Memory not made by NewMemory")
	errNegativeN = errors.New("ratelimit: Add of a negative number")
)

// A Memory is a [Counter] in the memory of this process. It is per process: two
// processes count apart and together admit twice the limit, and a restart
// starts every count at 0 (D8). Where that is too much, use a Counter that is
// shared and durable.
//
// An Add to a count that exists takes no lock, reads no clock and allocates
// nothing. A key that was not touched for two days of monotonic time is
// forgotten when new keys come, a window of a key when eight others were made
// after it. So the memory in use follows the keys in use: about 85 bytes and the
// key itself for a key of one day, and 32 bytes for each further day of the
// eight. Nothing else bounds it: keys must be those of callers that have been
// authenticated.
//
// Use [NewMemory]; the zero Memory answers every Add with an error.
type Memory struct {
	seed   maphash.Seed
	shards *[memoryShards]memoryShard

	// The epoch is the clock of forgetting. It is a number that every Add puts on
	// the key it touches, and that the arrival of a new key advances by one when
	// the present epoch has lasted epochLength. An idle Memory stays in its epoch
	// however long it idles, so a number that lies back says for sure that the key
	// was not touched for the epochs that began since.
	epoch atomic.Uint32
	began atomic.Int64 // when the present epoch did, since made
	made  time.Time
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	m := &Memory{
		seed:   maphash.MakeSeed(),
		shards: new([memoryShards]memoryShard),
		made:   time.Now(),
	}
	m.epoch.Store(1)
	for i := range m.shards {
		m.shards[i].table.Store(newMemoryTable(minSlots))
	}
	return m
}

// Add implements [Counter].
func (m *Memory) Add(ctx context.Context, key string, end time.Time, n, max int64) (count int64, ok bool, err error) {
	if m == nil || m.shards == nil {
		return 0, false, errNoMemory
	}
	if n < 0 {
		return 0, false, errNegativeN
	}
	if ctx.Err() != nil {
		return 0, false, ended(ctx)
	}
	hash := maphash.String(m.seed, key)
	shard := &m.shards[hash>>(64-memoryShardBits)]
	e := shard.table.Load().find(uint32(hash), key)
	if e != nil && e.touch(m.epoch.Load()) {
		if w := e.window(end); w != nil {
			count, ok = w.add(n, max)
			return count, ok, nil
		}
	}
	if n == 0 || n > max {
		return 0, n == 0, nil
	}
	count, ok = m.addSlow(shard, uint32(hash), key, end, n, max)
	return count, ok, nil
}

// addSlow is Add where there is no count yet, or was none a moment ago.
func (m *Memory) addSlow(s *memoryShard, hash uint32, key string, end time.Time, n, max int64) (count int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.makeCount(s, hash, key, end).add(n, max)
}

// makeCount returns the count of a window, and makes it if there is none. The
// caller holds the lock of s.
func (m *Memory) makeCount(s *memoryShard, hash uint32, key string, end time.Time) *memoryWindow {
	t := s.table.Load()
	e := t.find(hash, key)
	if e == nil {
		epoch := m.advance()
		t = s.reserve(epoch)
		e = newMemoryKey(hash, key, end)
		e.stamp.Store(epoch)
		t.insert(e)
		s.keys++
	}
	// Keys are forgotten under the lock and leave the table: e lives, and whoever
	// found it here for want of a window has touched it.
	w := e.window(end)
	if w == nil {
		var dropped *memoryWindow
		w, dropped = e.makeWindow(end)
		delete(s.accounts, dropped)
	}
	return w
}

// advance begins a new epoch if the present one has lasted long enough, and
// returns the present one.
func (m *Memory) advance() uint32 {
	now := time.Since(m.made) // monotonic: setting the clock forgets nothing
	began := m.began.Load()
	if now-time.Duration(began) >= epochLength && m.began.CompareAndSwap(began, int64(now)) {
		m.epoch.Add(1)
	}
	return m.epoch.Load()
}

// A memoryShard holds the keys whose hashes begin alike.
type memoryShard struct {
	// table is never nil. Readers load it and need no lock; whoever replaces it or
	// puts keys into it holds mu.
	table atomic.Pointer[memoryTable]

	mu    sync.Mutex
	keys  int    // in table
	swept uint32 // the epoch in which idle keys were last dropped

	accounts map[*memoryWindow]map[string]memoryLoan // of Lend, by name

	_ [64 - 40]byte // to the end of the cache line, so that shards do not share one
}

// reserve returns the table with room for one more key, and without the keys
// that were not touched in the epochs to keep. Once an epoch it looks for those.
func (s *memoryShard) reserve(epoch uint32) *memoryTable {
	t := s.table.Load()
	if s.swept == epoch && 2*(s.keys+1) <= len(t.slots) {
		return t
	}
	var live []*memoryKey
	for i := range t.slots {
		e := t.slots[i].Load()
		switch {
		case e == nil:
		case !e.die(epoch):
			live = append(live, e)
		case len(s.accounts) > 0:
			for w := e.windows.Load(); w != nil; w = w.older.Load() {
				delete(s.accounts, w)
			}
		}
	}
	// At least a quarter and at most a half of the slots are taken.
	size := minSlots
	for size < 2*(len(live)+1) {
		size *= 2
	}
	t = newMemoryTable(size)
	for _, e := range live {
		t.insert(e)
	}
	s.keys, s.swept = len(live), epoch
	s.table.Store(t)
	return t
}

// A memoryTable is a hash table with open addressing. Keys are added and never
// moved or removed, so that a reader needs no lock: it finds a key that was
// added before it came. The keys are shared with the table that replaces it.
type memoryTable struct {
	slots []atomic.Pointer[memoryKey] // a power of two of them, at least one empty
}

func newMemoryTable(size int) *memoryTable {
	return &memoryTable{make([]atomic.Pointer[memoryKey], size)}
}

func (t *memoryTable) find(hash uint32, key string) *memoryKey {
	mask := len(t.slots) - 1
	for i := int(hash) & mask; ; i = (i + 1) & mask {
		e := t.slots[i].Load()
		if e == nil || e.hash == hash && e.key == key {
			return e
		}
	}
}

func (t *memoryTable) insert(e *memoryKey) {
	mask := len(t.slots) - 1
	i := int(e.hash) & mask
	for t.slots[i].Load() != nil {
		i = (i + 1) & mask
	}
	t.slots[i].Store(e)
}

// A memoryKey is what is kept of a key: on 64-bit machines one cache line.
type memoryKey struct {
	key     string
	hash    uint32
	stamp   atomic.Uint32 // the epoch of the last touch; dead when forgotten
	windows atomic.Pointer[memoryWindow]
	first   memoryWindow // the first one made, kept here to save an allocation
}

// dead stamps a key that was forgotten. Epochs begin at 1.
const dead = 0

// newMemoryKey returns a key with one window.
func newMemoryKey(hash uint32, key string, end time.Time) *memoryKey {
	e := &memoryKey{key: strings.Clone(key), hash: hash} // the clone pins no larger string
	e.first.name(end)
	e.windows.Store(&e.first)
	return e
}

// touch keeps e for the epochs to come. It reports false if e was forgotten and
// must be made anew. While it reports true nothing that is added to e is lost:
// stamp is the one thing that touch and die compete for.
func (e *memoryKey) touch(epoch uint32) bool {
	for {
		switch stamp := e.stamp.Load(); {
		case stamp >= epoch: // the usual case, without a write to shared memory
			return true
		case stamp == dead:
			return false
		case e.stamp.CompareAndSwap(stamp, epoch):
			return true
		}
	}
}

// die forgets e, and reports true, unless it was touched in the epochs to keep.
func (e *memoryKey) die(epoch uint32) bool {
	stamp := e.stamp.Load()
	return stamp+keptEpochs < epoch && e.stamp.CompareAndSwap(stamp, dead)
}

// window returns the window that ends at end, nil if there is none. The newest
// made is first: nearly always the present one.
func (e *memoryKey) window(end time.Time) *memoryWindow {
	sec, nsec := end.Unix(), int64(end.Nanosecond())
	w := e.windows.Load()
	for w != nil && (w.sec != sec || w.nsec != nsec) {
		w = w.older.Load()
	}
	return w
}

// makeWindow adds a window to e and drops those beyond the ones to keep: one, or
// none. The caller holds the lock of e's shard. An Add that found a dropped window
// before goes on counting in it: that counts as having happened before the drop.
func (e *memoryKey) makeWindow(end time.Time) (made, dropped *memoryWindow) {
	w := new(memoryWindow)
	w.name(end)
	w.older.Store(e.windows.Load())
	last := w
	for range keptWindows - 1 {
		if last = last.older.Load(); last == nil {
			break
		}
	}
	if last != nil {
		dropped = last.older.Swap(nil)
	}
	e.windows.Store(w)
	return w, dropped
}

// A memoryWindow is one count.
type memoryWindow struct {
	sec, nsec int64 // of the end; never change
	count     atomic.Int64
	older     atomic.Pointer[memoryWindow]
}

func (w *memoryWindow) name(end time.Time) {
	w.sec, w.nsec = end.Unix(), int64(end.Nanosecond())
}

// add adds n unless the count would exceed max. It compares and swaps: to add
// first and take back what is too much would refuse others meanwhile.
func (w *memoryWindow) add(n, max int64) (count int64, ok bool) {
	for {
		count = w.count.Load()
		switch {
		case n == 0:
			return count, true
		case count > max || n > max-count: // in this order nothing overflows
			return count, false
		case w.count.CompareAndSwap(count, count+n):
			return count + n, true
		}
	}
}
