// Package row holds the rules of package store that every store of this module
// applies to a row, so that they are written once: which rows are refused, and
// what becomes of a row that is kept. It knows nothing of where rows are kept.
package row

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// The sizes of a page of keys or users, and the most changes that a feed
// returns at once.
const (
	defaultLimit = 100
	maxLimit     = 1000

	MaxChanges = 1000
)

// Time returns t in UTC, cut off to a microsecond toward the past.
func Time(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// Key returns a deep copy of k as stores keep it, or an error that says what
// cannot be kept. The version is left alone.
func Key(k *store.Key) (*store.Key, error) {
	c := *k
	var p problems
	p.id("ID", k.ID)
	p.id("User", k.User)
	p.id("Org", k.Org)
	p.text("Family", k.Family, store.MaxID)
	if k.Digest == (token.Digest{}) {
		p.add("Digest", "is zero")
	}
	p.time("CreatedAt", &c.CreatedAt)
	p.mutable(&c)
	return &c, p.err("key")
}

// Update is [Key] for a key of which only the fields are looked at that an
// update writes.
func Update(k *store.Key) (*store.Key, error) {
	c := *k
	var p problems
	p.mutable(&c)
	return &c, p.err("key")
}

// Rotation is [Key] for the two keys of a rotation: k, which is to replace old.
func Rotation(k, old *store.Key) (newKey, oldKey *store.Key, err error) {
	newKey, err = Key(k)
	oldKey, oldErr := Key(old)
	var p problems
	if old.RevokedAt.IsZero() {
		p.add("RevokedAt", "is not set")
	}
	if old.Org != k.Org || old.User != k.User {
		p.add("User", "is another than that of the new key")
	}
	return newKey, oldKey, errors.Join(err, oldErr, p.err("key to be replaced"))
}

// User returns a copy of u as stores keep it, or an error that says what cannot
// be kept.
func User(u *store.User) (*store.User, error) {
	c := *u
	var p problems
	p.id("Org", u.Org)
	p.id("ID", u.ID)
	p.text("Email", u.Email, store.MaxText)
	p.text("Tier", u.Tier, store.MaxText)
	p.time("SuspendedAt", &c.SuspendedAt)
	return &c, p.err("user")
}

// Settings returns a copy of s, or an error that says what cannot be kept.
func Settings(s *policy.Settings) (*policy.Settings, error) {
	c := *s
	var p problems
	p.id("Org", s.Org)
	return &c, errors.Join(p.err("settings"), s.Validate())
}

// Query returns q with its Limit and its After as stores use them. It is not ok
// if q can select nothing, since no row has the strings that it asks for: a
// store need not know what its medium makes of them.
func Query(q store.Query) (_ store.Query, ok bool) {
	q.Limit = limit(q.Limit)
	q.After.CreatedAt = Time(q.After.CreatedAt)
	return q, kept(q.Org, q.User, q.ID, q.Name, q.After.ID)
}

// UserQuery is [Query] for users.
func UserQuery(q store.UserQuery) (_ store.UserQuery, ok bool) {
	q.Limit = limit(q.Limit)
	return q, kept(q.Org, q.ID, q.After)
}

// Text reports whether a store can keep s, whatever its length.
func Text(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

func kept(texts ...string) bool {
	for _, s := range texts {
		if !Text(s) {
			return false
		}
	}
	return true
}

func limit(n int) int {
	if n <= 0 {
		return defaultLimit
	}
	return min(n, maxLimit)
}

// Problems are what is wrong with a row. They name fields and never repeat what
// is in them.
type problems []error

func (p *problems) add(field, what string) {
	*p = append(*p, fmt.Errorf("%s %s", field, what))
}

func (p *problems) id(field, s string) {
	if s == "" {
		p.add(field, "is empty")
	}
	p.text(field, s, store.MaxID)
}

func (p *problems) text(field, s string, most int) {
	switch {
	case len(s) > most:
		p.add(field, "is too long")
	case !Text(s):
		p.add(field, "has a NUL or is not valid UTF-8")
	}
}

// time cuts t off as it checks it.
func (p *problems) time(field string, t *time.Time) {
	*t = Time(*t)
	if y := t.Year(); y < 1 || y > 9999 {
		p.add(field, "is outside of the years 1 to 9999")
	}
}

// mutable checks the fields of c that an update writes, cuts off its times, and
// makes its scopes its own.
func (p *problems) mutable(c *store.Key) {
	p.text("Name", c.Name, store.MaxText)
	c.Scopes = slices.Clone(c.Scopes)
	room := store.MaxText
	for _, s := range c.Scopes {
		p.text("Scopes", s, room)
		room -= len(s)
	}
	p.time("NotAfter", &c.NotAfter)
	p.time("DisabledAt", &c.DisabledAt)
	p.time("RevokedAt", &c.RevokedAt)
	if c.Revoked && c.RevokedAt.IsZero() {
		p.add("RevokedAt", "is not set, and the key is revoked")
	}
}

func (p *problems) err(row string) error {
	if len(*p) == 0 {
		return nil
	}
	return fmt.Errorf("store: %s: %w", row, errors.Join(*p...))
}
