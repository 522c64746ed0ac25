package keys

import (
	"context"
	"fmt"
	"time"
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
	if retention < 0 {
		return 0, &FieldError{Field: "Retention", Problem: "must not be negative"}
	}
	n, err := m.store.PurgeKeys(ctx, instant(m.now().Add(-retention)))
	if err != nil {
		return n, fmt.Errorf("keys: purge: %w", err)
	}
	return n, nil
}
