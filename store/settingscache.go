package store

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/keystile/keystile/policy"
)

const (
	cellSets = 1 << 14
	cellWays = 4
)

// A cell holds the settings of an organization. The owners of keys point to
// theirs, so that a key that is cached is found together with its settings.
type cell struct {
	org     string
	slot    uint32 // for invalidations
	current atomic.Pointer[settingsEntry]

	mu   sync.Mutex
	trip *trip[*settingsEntry] // under way, or nil
}

// A settingsEntry is what was read for a cell. It does not change.
type settingsEntry struct {
	settings *policy.Settings
	number   uint64 // of the last invalidation before it was read
	at       int64  // when the read began
}

// A cellSet is where the cells of organizations are found by name, apart from
// keys. There are so many sets, and no more: organizations are not only known
// from keys, but also named by other credentials. A cell that had to make room
// here serves on the keys that point to it.
type cellSet [cellWays]atomic.Pointer[cell]

func (s *cellSet) find(org string) *cell {
	for i := range s {
		if cl := s[i].Load(); cl != nil && cl.org == org {
			return cl
		}
	}
	return nil
}

// cell returns the cell of org.
func (c *Cache) cell(org string) *cell {
	h := c.orgHash(org)
	set := &c.cells[(h>>32)%cellSets]
	if cl := set.find(org); cl != nil {
		return cl
	}
	c.cellMu.Lock()
	defer c.cellMu.Unlock()
	if cl := set.find(org); cl != nil {
		return cl
	}
	// Without settings, or with the oldest, it was not asked for lately; or it was
	// renewed by a Feed for the longest time, and is as good as any.
	oldest, oldestAt := &set[0], int64(math.MaxInt64)
	for i := range set {
		at := int64(math.MinInt64)
		if cl := set[i].Load(); cl != nil {
			if s := cl.current.Load(); s != nil {
				at = s.at
			}
		}
		if at < oldestAt {
			oldest, oldestAt = &set[i], at
		}
	}
	cl := &cell{org: strings.Clone(org), slot: uint32(h % invalidationSlots)}
	oldest.Store(cl)
	return cl
}

// settingsUsable reports whether s, which may be nil, can be given out at now.
func (c *Cache) settingsUsable(cl *cell, s *settingsEntry, now int64) bool {
	return s != nil && c.fresh(now, s.at, s.number, c.ttl) && c.invalid.settingsHold(cl, s.number)
}

// settings returns the settings of the organization of cl, and whether they are
// older than their TTL.
func (c *Cache) settings(ctx context.Context, p *patience, cl *cell, now int64) (*policy.Settings, bool, error) {
	s := cl.current.Load()
	if c.settingsUsable(cl, s, now) {
		return s.settings, false, nil
	}
	return c.fetchSettings(ctx, p, cl, now, s)
}

// fetchSettings does for settings what fetch does for keys.
func (c *Cache) fetchSettings(
	ctx context.Context, p *patience, cl *cell, now int64, old *settingsEntry,
) (*policy.Settings, bool, error) {
	s, stale, err := ask(ctx, c, p, now,
		func() bool {
			return old != nil && c.fresh(now, old.at, old.number, c.ttl+c.serveStale) && c.invalid.settingsHold(cl, old.number)
		},
		func() (*settingsEntry, *trip[*settingsEntry], error) { return c.joinSettings(ctx, cl, now) },
		func(t *trip[*settingsEntry]) bool { return c.invalid.settingsHold(cl, t.number) })
	switch {
	case err != nil:
		return nil, false, err
	case stale:
		return old.settings, true, nil
	}
	return s.settings, false, nil
}

// joinSettings does for settings what join does for keys.
func (c *Cache) joinSettings(ctx context.Context, cl *cell, now int64) (*settingsEntry, *trip[*settingsEntry], error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, lookupError(err)
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if s := cl.current.Load(); c.settingsUsable(cl, s, now) {
		return s, nil, nil
	}
	if t := cl.trip; t != nil && c.invalid.settingsHold(cl, t.number) {
		return nil, t, nil
	}
	t := newTrip[*settingsEntry](ctx, c, now)
	cl.trip = t
	go t.run(c.known, true,
		func(ctx context.Context) (*settingsEntry, error) { return c.readSettings(ctx, cl, t) },
		func() { c.fileSettings(cl, t) })
	return nil, t, nil
}

// readSettings reads the settings of the organization of cl. Every error is a
// failure: there is always an answer, since an organization without settings has
// zero ones.
func (c *Cache) readSettings(ctx context.Context, cl *cell, t *trip[*settingsEntry]) (*settingsEntry, error) {
	s, err := c.reader.Settings(ctx, cl.org)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, errors.New("store: settings: the reader found none")
	case err != nil:
		return nil, lookupError(err)
	case s == nil:
		return nil, errors.New("store: settings: the reader returned none and no error")
	case s.Org != cl.org:
		return nil, errors.New("store: settings: the reader returned those of another organization")
	}
	return &settingsEntry{settings: s, number: t.number, at: t.at}, nil
}

// fileSettings ends a trip for the settings of cl: its answer is kept if it
// holds.
func (c *Cache) fileSettings(cl *cell, t *trip[*settingsEntry]) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if t.err == nil && c.ttl > 0 && c.invalid.settingsHold(cl, t.number) {
		cl.current.Store(t.value)
	}
	if cl.trip == t {
		cl.trip = nil
	}
}
