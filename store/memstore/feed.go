package memstore

import (
	"context"
	"slices"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/internal/row"
)

// keptChanges is how many changes are kept at least.
const keptChanges = 10_000

// A feed is the end of the list of all changes. The place of a change is its
// number, from 1.
type feed struct {
	gone    int64 // how many changes are kept no more
	changes []store.Change
}

func (f *feed) end() int64 { return f.gone + int64(len(f.changes)) }

// add forgets old changes by the half of what is there, so that each change is
// moved once on average.
func (f *feed) add(c store.Change) {
	if len(f.changes) == 2*keptChanges {
		f.gone += keptChanges
		f.changes = slices.Clone(f.changes[keptChanges:])
	}
	f.changes = append(f.changes, c)
}

func changeOf(k *store.Key) store.Change {
	return store.Change{Kind: store.ChangedKey, Digest: k.Digest, Org: k.Org, User: k.User}
}

// Changes implements [store.Feed]. It keeps at least the last 10 000 changes.
// After a place that it cannot go on from it returns a single change of
// ChangedAll and its end, since that change covers everything up to there.
func (s *Store) Changes(ctx context.Context, after int64) (changes []store.Change, last int64, err error) {
	if err := alive(ctx, "changes"); err != nil {
		return nil, 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	f := &s.feed
	switch {
	case after < 0:
		return nil, f.end(), nil
	case after < f.gone || after > f.end():
		return []store.Change{{Kind: store.ChangedAll}}, f.end(), nil
	}
	changes = f.changes[after-f.gone:]
	changes = slices.Clone(changes[:min(len(changes), row.MaxChanges)])
	return changes, after + int64(len(changes)), nil
}
