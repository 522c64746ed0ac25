package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Keys returns how many keys m keeps: how tests see that it forgets.
func (m *Memory) Keys() int {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += s.keys
		s.mu.Unlock()
	}
	return n
}

// Accounts returns how many accounts of Lend m keeps.
func (m *Memory) Accounts() int {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for _, accounts := range s.accounts {
			n += len(accounts)
		}
		s.mu.Unlock()
	}
	return n
}

// Hold finds key as an Add does, and returns the rest of what an Add does to it
// before it counts: it reports whether it still may.
func (m *Memory) Hold(key string) (touch func() bool) {
	for i := range m.shards {
		slots := m.shards[i].table.Load().slots
		for j := range slots {
			if e := slots[j].Load(); e != nil && e.key == key {
				return func() bool { return e.touch(m.epoch.Load()) }
			}
		}
	}
	return nil
}

// FindAmong puts keys into a table that takes their hashes for equal, and
// returns the key that is found for key, "" if there is none.
func FindAmong(keys []string, key string) string {
	t := newMemoryTable(minSlots)
	for _, k := range keys {
		t.insert(newMemoryKey(minSlots-1, k, time.Time{}))
	}
	if e := t.find(minSlots-1, key); e != nil {
		return e.key
	}
	return ""
}

// Pause lets d pass for b alone, as if its process had been stopped.
func (b *Leased) Pause(d time.Duration) { b.start = b.start.Add(-d) }

// Leases returns how many leases b has.
func (b *Leased) Leases() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leases
}

// Slots returns how many leases b has room for.
func (b *Leased) Slots() int {
	n := 0
	for i := range b.shards {
		n += len(b.shards[i].table.Load().slots)
	}
	return n
}

// FindLease puts leases of keys and ends into a table that takes their hashes for
// equal, and returns the one that is found for key and end, "" if there is none.
func FindLease(keys []string, ends []time.Time, key string, end time.Time) string {
	t := newLeaseTable(64)
	for _, k := range keys {
		for _, e := range ends {
			t.slot(0, k, e).Store(&lease{key: k, end: e})
		}
	}
	if e := t.find(0, key, end); e != nil {
		return fmt.Sprint(e.key, e.end)
	}
	return ""
}

// Spender returns what an Add does that has found the loan of key: it takes a unit
// of it, and reports whether it may.
func (b *Leased) Spender(key string, end time.Time) func() bool {
	hash := b.hash(key, end)
	l := b.shard(hash).table.Load().find(hash, key, end).loan.Load()
	return func() bool { return l.left.Add(-1) >= 0 }
}

// Adder returns what an Add of one unit does that has found the lease of key, and
// is late: it reports whether it looks for another.
func (b *Leased) Adder(ctx context.Context, key string, end time.Time, max int64) func() (again bool) {
	hash := b.hash(key, end)
	e := b.shard(hash).table.Load().find(hash, key, end)
	return func() bool {
		_, _, err := b.addTo(ctx, &leasePatience{timeout: b.timeout}, e, 1, max)
		return errors.Is(err, errLeaseGone)
	}
}

// Renewer returns what an Add does that has taken the unit of a loan of key at
// which the next one is to be borrowed.
func (b *Leased) Renewer(key string, end time.Time, max int64) func() {
	hash := b.hash(key, end)
	e := b.shard(hash).table.Load().find(hash, key, end)
	return func() { b.renew(context.Background(), e, max) }
}
