package keys

import (
	"context"
	"fmt"
	"time"

	"github.com/keystile/keystile/store"
)

// A Ref names a key. With a User the key is found only among that user's keys
// (D27); without one, among those of the whole organization, which is for owners.
// So a caller that takes User from a signed-in person must refuse an empty one.
//
// A Ref with an empty Org or ID, or with a whole token for an ID (D28), names no
// key.
type Ref struct{ Org, User, ID string }

// Get returns a key that is not revoked: [store.ErrNotFound] if there is none. A
// key in the grace period of its rotation, whose RevokedAt lies ahead, is found.
func (m *Manager) Get(ctx context.Context, ref Ref) (*store.Key, error) {
	k, err := m.key(ctx, ref, m.now())
	if err != nil {
		return nil, fmt.Errorf("keys: get key: %w", err)
	}
	return k, nil
}

// List returns the keys of an organization that q asks for, newest first; q.Org is
// required. Revoked keys are left out unless q.Revoked is set, which is for owners
// (D12). A key in the grace period of its rotation works until its RevokedAt, and
// is listed until then.
//
// The next page is asked for with q.After set to the CreatedAt and ID of the last
// key of this one; a page shorter than q.Limit is the last. To leave revoked keys
// out List reads over them, so an organization that is never purged makes its
// lists slower: see [Manager.Purge].
func (m *Manager) List(ctx context.Context, q store.Query) ([]*store.Key, error) {
	var ps problems
	ps.check("Org", checkText(q.Org))
	ps.check("User", checkOptionalText(q.User))
	ps.check("ID", checkOptionalText(q.ID))
	ps.check("Name", checkOptionalText(q.Name))
	ps.check("After", checkOptionalText(q.After.ID))
	ps.check("Limit", checkLimit(q.Limit))
	if err := ps.err(); err != nil {
		return nil, err
	}

	now, all, limit := m.now(), q.Revoked, q.Limit
	if limit == 0 {
		limit = defaultPage
	}
	// The store can leave out what has RevokedAt set, but not only what is revoked
	// by now.
	q.Revoked, q.Limit = true, max(limit, defaultPage)
	var found []*store.Key
	for page, err := range m.pages(ctx, q) {
		if err != nil {
			return nil, fmt.Errorf("keys: list keys: %w", err)
		}
		if !all {
			page = unrevoked(page, now)
		}
		if found = append(found, page...); len(found) >= limit {
			return found[:limit:limit], nil
		}
	}
	return found, nil
}

// Bounds of a page, which are those of [store.Query] and [store.UserQuery].
const (
	defaultPage = 100
	maxPage     = 1000
)

func checkLimit(n int) string {
	if n < 0 || n > maxPage {
		return fmt.Sprintf("must be 0 (%d) to %d", defaultPage, maxPage)
	}
	return ""
}

// key reads a key that is not revoked from the store.
func (m *Manager) key(ctx context.Context, ref Ref, now time.Time) (*store.Key, error) {
	k, err := m.anyKey(ctx, ref)
	switch {
	case err != nil:
		return nil, err
	case k.RevokedBy(now):
		m.forget(k) // perhaps by another process, which the caller is told here
		return nil, store.ErrNotFound
	}
	return k, nil
}

// anyKey reads a key from the store, revoked or not.
func (m *Manager) anyKey(ctx context.Context, ref Ref) (*store.Key, error) {
	// An empty field of a Query selects everything, where one of a Ref must select
	// nothing; and a whole token must not reach the logs of a database.
	if checkText(ref.Org) != "" || checkOptionalText(ref.User) != "" || checkText(ref.ID) != "" {
		return nil, store.ErrNotFound
	}
	if _, err := m.format.Digest(ref.ID); err == nil {
		return nil, store.ErrNotFound
	}
	ks, err := m.store.Keys(ctx, store.Query{Org: ref.Org, User: ref.User, ID: ref.ID, Revoked: true, Limit: 1})
	switch {
	case err != nil:
		return nil, err
	case len(ks) == 0:
		return nil, store.ErrNotFound
	}
	return ks[0], nil
}
