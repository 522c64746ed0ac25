package keys

import (
	"context"
	"fmt"
	"time"

	"github.com/keystile/keystile/store/audit"
)

// Purge deletes the keys of all organizations that have been revoked for longer
// than retention, and what is known of their use, and returns how many (D37). It
// deletes nothing else: expired and disabled keys can come back, and stay (S40).
// With a retention of 0 it deletes all revoked keys. A [FieldError] refuses a
// negative one.
//
// The cache need not forget the deleted keys: they were refused before, and an
// unknown key is refused with the same answer.
func (m *Manager) Purge(ctx context.Context, retention time.Duration) (int, error) {
	a := m.begin(audit.KeysPurge, Actor{Role: Operator}, "", "", "")
	n, err := m.purge(ctx, a, retention)
	a.end(ctx, err)
	return n, err
}

func (m *Manager) purge(ctx context.Context, a *act, retention time.Duration) (int, error) {
	if retention < 0 {
		return 0, &FieldError{Field: "Retention", Problem: "must not be negative"}
	}
	before := instant(m.now().Add(-retention))
	var cs changes
	cs.time("revoked_before", time.Time{}, before)
	if err := a.intend(ctx, cs); err != nil {
		return 0, err
	}
	n, err := m.store.PurgeKeys(ctx, before)
	cs.number("deleted", 0, int64(n))
	a.event.Changes = cs
	if err != nil {
		return n, fmt.Errorf("keys: purge: %w", err)
	}
	return n, nil
}
