package keys

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/keystile/keystile/store"
)

// Bounds of what a directory reads.
const (
	// maxSingleUsers is how many users are looked up one by one before the users of
	// the organization are read by pages.
	maxSingleUsers = maxPage / 10

	// maxUserPages bounds those pages. Users of a larger organization that are not
	// among them are looked up one by one.
	maxUserPages = 5
)

// A directory finds the users of one organization's keys, page by page of keys,
// with few trips to the store: it keeps whom it has found, and asks for many at
// once if many are missing. It lives as long as one call of a method.
type directory struct {
	m     *Manager
	org   string
	known map[string]*store.User // by ID; nil: there is none
	paged bool                   // the pages were read
}

func (m *Manager) directory(org string) *directory {
	return &directory{m: m, org: org, known: make(map[string]*store.User)}
}

// find makes the users of ks known.
func (d *directory) find(ctx context.Context, ks []*store.Key) error {
	if len(d.known) > 2*maxUserPages*maxPage {
		clear(d.known) // of a large organization no more than that is kept
		d.paged = false
	}
	missing := d.missing(ks)
	if len(missing) > maxSingleUsers && !d.paged {
		if err := d.readPages(ctx); err != nil {
			return err
		}
		missing = d.missing(ks)
	}
	for id := range missing {
		u, err := d.m.user(ctx, d.org, id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		d.known[id] = u
	}
	return nil
}

func (d *directory) missing(ks []*store.Key) map[string]bool {
	ids := make(map[string]bool)
	for _, k := range ks {
		if _, ok := d.known[k.User]; !ok {
			ids[k.User] = true
		}
	}
	return ids
}

func (d *directory) readPages(ctx context.Context) error {
	d.paged = true
	q := store.UserQuery{Org: d.org, Limit: maxPage}
	for range maxUserPages {
		page, err := d.m.store.Users(ctx, q)
		if err != nil {
			return err
		}
		for _, u := range page {
			d.known[u.ID], q.After = u, u.ID
		}
		if len(page) < q.Limit {
			return nil
		}
	}
	return nil
}

// record returns the record of a key whose user was looked for. A user whose row is
// gone amounts to a suspended one: the key is kept and refused (D17).
func (d *directory) record(k *store.Key) *store.Record {
	u := d.known[k.User]
	if u == nil {
		u = &store.User{Org: k.Org, ID: k.User, SuspendedAt: time.Unix(0, 0).UTC()}
	}
	return store.NewRecord(k, u)
}

// pages returns the keys that q asks for, from q.After on, in pages that are not
// empty: the first of at most q.Limit keys, which must be set, the others of at most
// maxPage. It ends after the last page and after an error.
func (m *Manager) pages(ctx context.Context, q store.Query) iter.Seq2[[]*store.Key, error] {
	return func(yield func([]*store.Key, error) bool) {
		for {
			page, err := m.store.Keys(ctx, q)
			if err != nil {
				yield(nil, err)
				return
			}
			if len(page) == 0 {
				return
			}
			// The page is the caller's from here on, who may leave keys out of it.
			more := len(page) >= q.Limit
			q.After, q.Limit = cursor(page[len(page)-1]), maxPage
			if !yield(page, nil) || !more {
				return
			}
		}
	}
}

// cursor returns the place of a key in the order of lists.
func cursor(k *store.Key) store.Cursor { return store.Cursor{CreatedAt: k.CreatedAt, ID: k.ID} }

// summaries returns what is known of the use of those keys, in their order.
func (m *Manager) summaries(ctx context.Context, org string, ids []string) ([]store.UseSummary, error) {
	if m.uses == nil {
		sums := make([]store.UseSummary, len(ids))
		for i, id := range ids {
			sums[i].KeyID = id
		}
		return sums, nil
	}
	if len(ids) == 0 {
		return nil, nil
	}
	sums, err := m.uses.Uses(ctx, org, ids)
	if err == nil && len(sums) != len(ids) {
		err = fmt.Errorf("%d summaries of %d keys", len(sums), len(ids))
	}
	return sums, err
}
