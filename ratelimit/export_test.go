package ratelimit

import "time"

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
