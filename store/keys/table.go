package keys

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keystile/keystile/store"
)

// maxScan bounds how many keys one call of Table reads.
const maxScan = 5 * maxPage

// A TableQuery selects rows of the table of an organization's keys. Its fields are
// all required to match; a zero field selects everything.
type TableQuery struct {
	Org  string // required
	User string // the ID of a user, whole: that user's own keys (S51)

	Name    string // a part of the key's name, ASCII letters in either case
	Creator string // a part of the user's e-mail or ID, ASCII letters in either case
	State   State  // as it is at the moment; [Revoked] includes revoked keys

	Revoked bool // also revoked keys, which is for owners (D12)

	After store.Cursor // where the page before ended
	Limit int          // at most that many rows; 0: 100, at most 1000
}

// A Row is a key as a table shows it (S47-S50).
type Row struct {
	Key    *store.Key
	User   *store.User // its creator; one whose row is gone has only Org and ID, and is suspended
	Status Status
	Uses   store.UseSummary // only the KeyID without [Options.Uses], and for a key that was never used
}

// Table returns a page of the table of an organization's keys, newest first, with
// the status of each key at the moment, under the settings in force (S48). Revoked
// keys are left out unless they are asked for; a key in the grace period of its
// rotation is not revoked yet.
//
// The next page is asked for with q.After set to next, which is zero after the
// last. A page may have fewer rows than q.Limit, even none, and a next all the
// same: since a status is stored nowhere, rows are chosen by reading keys, and one
// call reads at most a few thousand.
//
// The error is a joined [FieldError] for each bad field, or a failure of the store.
func (m *Manager) Table(ctx context.Context, q TableQuery) (rows []Row, next store.Cursor, err error) {
	var ps problems
	ps.check("Org", checkText(q.Org))
	ps.check("User", checkOptionalText(q.User))
	ps.check("Name", checkOptionalText(q.Name))
	ps.check("Creator", checkOptionalText(q.Creator))
	ps.check("State", checkState(q.State))
	ps.check("After", checkOptionalText(q.After.ID))
	ps.check("Limit", checkLimit(q.Limit))
	if err := ps.err(); err != nil {
		return nil, store.Cursor{}, err
	}
	if q.Limit == 0 {
		q.Limit = defaultPage
	}
	q.Creator = lower(q.Creator)
	q.Revoked = q.Revoked || q.State == Revoked

	rows, next, err = m.scan(ctx, q)
	if err == nil {
		err = m.addUses(ctx, q.Org, rows)
	}
	if err != nil {
		return nil, store.Cursor{}, fmt.Errorf("keys: table: %w", err)
	}
	return rows, next, nil
}

func checkState(s State) string {
	switch s {
	case "", Revoked, DisabledByOwner, Expired, Active:
		return ""
	}
	return "must be a state of keys"
}

// scan reads keys until it has one row more than asked for, by which it knows that
// there is another page, until there are no more keys, or until it has read enough.
func (m *Manager) scan(ctx context.Context, q TableQuery) (rows []Row, next store.Cursor, err error) {
	s, err := m.store.Settings(ctx, q.Org)
	if err != nil {
		return nil, next, err
	}
	now, d := m.now(), m.directory(q.Org)
	sq := store.Query{Org: q.Org, User: q.User, Name: q.Name, Revoked: true, After: q.After, Limit: q.Limit + 1}
	computed := q.State != "" || q.Creator != "" // and so unknown to the store
	if computed || sq.Limit > maxPage {
		sq.Limit = maxPage
	}
	read := 0
	for page, err := range m.pages(ctx, sq) {
		if err != nil {
			return nil, next, err
		}
		read += len(page)
		last := cursor(page[len(page)-1])
		if !q.Revoked {
			page = unrevoked(page, now)
		}
		if !computed {
			page = page[:min(len(page), q.Limit+1-len(rows))] // all of these are rows
		}
		if err := d.find(ctx, page); err != nil {
			return nil, next, err
		}
		for _, k := range page {
			r := d.record(k)
			row := Row{Key: k, User: r.User, Status: StatusOf(r, s, now)}
			if !q.selects(row) {
				continue
			}
			if len(rows) == q.Limit {
				return rows, cursor(rows[q.Limit-1].Key), nil
			}
			rows = append(rows, row)
		}
		if read >= maxScan {
			return rows, last, nil
		}
	}
	return rows, next, nil
}

// selects reports whether r, which the store has selected, is asked for.
func (q TableQuery) selects(r Row) bool {
	return (q.State == "" || q.State == r.Status.State) &&
		(strings.Contains(lower(r.User.Email), q.Creator) || strings.Contains(lower(r.User.ID), q.Creator))
}

// addUses fills in what is known of the use of each key.
func (m *Manager) addUses(ctx context.Context, org string, rows []Row) error {
	ids := make([]string, len(rows))
	for i, r := range rows {
		ids[i] = r.Key.ID
	}
	sums, err := m.summaries(ctx, org, ids)
	if err != nil {
		return err
	}
	for i := range rows {
		rows[i].Uses = sums[i]
	}
	return nil
}

// Row returns the row of one key: [store.ErrNotFound] if there is no such key or it
// is revoked.
func (m *Manager) Row(ctx context.Context, ref Ref) (Row, error) {
	r, err := m.row(ctx, ref)
	if err != nil {
		return Row{}, fmt.Errorf("keys: row: %w", err)
	}
	return r, nil
}

func (m *Manager) row(ctx context.Context, ref Ref) (Row, error) {
	now := m.now()
	k, err := m.key(ctx, ref, now)
	if err != nil {
		return Row{}, err
	}
	s, err := m.store.Settings(ctx, k.Org)
	if err != nil {
		return Row{}, err
	}
	d := m.directory(k.Org)
	if err := d.find(ctx, []*store.Key{k}); err != nil {
		return Row{}, err
	}
	r := d.record(k)
	rows := []Row{{Key: k, User: r.User, Status: StatusOf(r, s, now)}}
	err = m.addUses(ctx, k.Org, rows)
	return rows[0], err
}

// unrevoked returns those of ks that are not revoked at now.
func unrevoked(ks []*store.Key, now time.Time) []*store.Key {
	return slices.DeleteFunc(ks, func(k *store.Key) bool { return k.RevokedBy(now) })
}

// lower returns s with its ASCII letters in lower case, and the others as they are.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// Places is how much of the cap a user has taken (S12).
type Places struct {
	Limit  int      // the cap in force, [Options.MaxPerUser]; -1: none
	KeyIDs []string // the keys that count, newest first: expired and disabled ones too (D10)
}

// Places returns which keys of a user count toward the cap: all but those that are
// revoked or were rotated away. With as many as the Limit no more can be made.
func (m *Manager) Places(ctx context.Context, org, user string) (Places, error) {
	var ps problems
	ps.check("Org", checkText(org))
	ps.check("User", checkText(user))
	if err := ps.err(); err != nil {
		return Places{}, err
	}
	p := Places{Limit: m.maxPerUser}
	for page, err := range m.pages(ctx, store.Query{Org: org, User: user, Limit: maxPage}) {
		if err != nil {
			return Places{}, fmt.Errorf("keys: places: %w", err)
		}
		for _, k := range page {
			p.KeyIDs = append(p.KeyIDs, k.ID)
		}
	}
	return p, nil
}
