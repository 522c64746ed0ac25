package memstore

import (
	"context"
	"slices"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/internal/row"
)

// RecordUses implements [store.Uses].
func (s *Store) RecordUses(ctx context.Context, uses []store.Use) error {
	if err := alive(ctx, "record uses"); err != nil {
		return err
	}
	uses, err := row.Uses(uses)
	if err != nil {
		return err
	}
	byKey := make(map[string][]store.Use)
	for _, u := range uses {
		byKey[u.KeyID] = append(byKey[u.KeyID], u)
	}

	bounds := s.retention.Bounds()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, batch := range byKey {
		if k, ok := s.keys[id]; ok {
			bounds.Add(&k.uses, batch...)
		}
	}
	if _, ok := s.rounds.Next(bounds, ""); ok {
		for _, k := range s.keys {
			bounds.Apply(&k.uses)
		}
		s.rounds.Reached(bounds, "", "")
	}
	return nil
}

// Uses implements [store.Uses].
func (s *Store) Uses(ctx context.Context, org string, keyIDs []string) ([]store.UseSummary, error) {
	if err := alive(ctx, "uses"); err != nil {
		return nil, err
	}
	bounds := s.retention.Bounds()
	s.mu.RLock()
	defer s.mu.RUnlock()
	sums := make([]store.UseSummary, len(keyIDs))
	for i, id := range keyIDs {
		if k, ok := s.keys[id]; ok && k.key().Org == org {
			sums[i] = k.uses
			sums[i].Addrs = slices.Clone(k.uses.Addrs)
			sums[i].Days = slices.Clone(k.uses.Days)
			bounds.Apply(&sums[i])
		}
		sums[i].KeyID = id
	}
	return sums, nil
}
