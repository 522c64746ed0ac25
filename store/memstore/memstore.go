package memstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/internal/row"
	"github.com/keystile/keystile/token"
)

var (
	_ store.Store       = (*Store)(nil)
	_ store.Uses        = (*Store)(nil)
	_ store.Feed        = (*Store)(nil)
	_ ratelimit.Counter = (*Store)(nil)
)

// A Store is a [store.Store], [store.Uses], [store.Feed] and
// [ratelimit.Counter] in memory. Use [New] to make one. It is safe for
// concurrent use.
type Store struct {
	counter *ratelimit.Memory

	// One lock over everything makes every method atomic. It is enough, since a
	// store.Cache stands in front, and readers do not exclude each other.
	mu       sync.RWMutex
	keys     map[string]*keyRow // by ID
	digests  map[token.Digest]*keyRow
	users    map[userID]*userRow
	settings map[string]*policy.Settings // by Org
	feed     feed

	retention row.Retention
	rounds    row.Rounds
}

type userID struct{ org, id string }

// What the rows point to is never changed, only replaced: it is shared with
// records that were given out.
type (
	userRow struct {
		user *store.User
		keys map[string]*keyRow // by ID, revoked ones too
	}
	keyRow struct {
		record *store.Record
		owner  *userRow
		uses   store.UseSummary
	}
)

func (k *keyRow) key() *store.Key { return k.record.Key }

// Options configure a [Store]. A nil *Options is the zero Options.
type Options struct {
	// UseRetention is how much is kept of where keys were used, and for how long
	// (D24). Each of its rounds is one step, during which nobody else can use the
	// store.
	// Defaults to the last ten addresses of a key, until it is purged.
	UseRetention store.UseRetention

	// Now is the clock that UseRetention goes by. It is read for nothing else.
	// Defaults to [time.Now].
	Now func() time.Time
}

// New returns an empty store with the default options. It cannot fail, as
// [NewWithOptions] can.
func New() *Store {
	return &Store{
		counter:  ratelimit.NewMemory(),
		keys:     make(map[string]*keyRow),
		digests:  make(map[token.Digest]*keyRow),
		users:    make(map[userID]*userRow),
		settings: make(map[string]*policy.Settings),
	}
}

// NewWithOptions returns an empty store. It reports all problems of opts at once.
func NewWithOptions(opts *Options) (*Store, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	retention, err := row.NewRetention("memstore", o.UseRetention, o.Now)
	if err != nil {
		return nil, err
	}
	s := New()
	s.retention = retention
	return s, nil
}

// Lookup implements [store.Reader]. It allocates nothing: the record was built
// when its key or user was written.
func (s *Store) Lookup(ctx context.Context, d token.Digest) (*store.Record, error) {
	if err := alive(ctx, "lookup"); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, ok := s.digests[d]
	if !ok {
		return nil, store.ErrNotFound
	}
	return k.record, nil
}

// Settings implements [store.Reader].
func (s *Store) Settings(ctx context.Context, org string) (*policy.Settings, error) {
	if err := alive(ctx, "settings"); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := policy.Settings{Org: org}
	if have, ok := s.settings[org]; ok {
		c = *have
	}
	return &c, nil
}

// InsertKey implements [store.Store].
func (s *Store) InsertKey(ctx context.Context, k, replaces *store.Key, max int) error {
	if err := alive(ctx, "insert key"); err != nil {
		return err
	}
	var err error
	if replaces == nil {
		k, err = row.Key(k)
	} else {
		k, replaces, err = row.Rotation(k, replaces)
	}
	if err != nil {
		return err
	}
	k.Version = 1

	s.mu.Lock()
	defer s.mu.Unlock()
	owner, ok := s.users[userID{k.Org, k.User}]
	if !ok {
		return fmt.Errorf("memstore: user of the new key: %w", store.ErrNotFound)
	}
	var old *keyRow
	if replaces != nil {
		if old, ok = s.keys[replaces.ID]; !ok {
			return fmt.Errorf("memstore: key to be replaced: %w", store.ErrNotFound)
		}
		if o := old.key(); old.owner != owner || o.Digest != replaces.Digest ||
			o.Version != replaces.Version || !o.RevokedAt.IsZero() {
			return fmt.Errorf("memstore: key to be replaced: %w", store.ErrConflict)
		}
	}
	if max >= 0 && owner.unrevoked(old) >= max {
		return fmt.Errorf("memstore: keys of the user: %w", store.ErrLimit)
	}
	if _, taken := s.keys[k.ID]; taken {
		return fmt.Errorf("memstore: ID of the new key: %w", store.ErrExists)
	}
	if _, taken := s.digests[k.Digest]; taken {
		return fmt.Errorf("memstore: digest of the new key: %w", store.ErrExists)
	}

	if old != nil {
		o := *old.key()
		o.RevokedAt, o.Revoked = replaces.RevokedAt, replaces.Revoked
		s.replace(old, &o)
	}
	added := &keyRow{record: store.NewRecord(k, owner.user), owner: owner}
	s.keys[k.ID], s.digests[k.Digest], owner.keys[k.ID] = added, added, added
	s.feed.add(changeOf(k))
	return nil
}

// unrevoked counts the keys of a user that are not revoked, without one of them.
func (u *userRow) unrevoked(without *keyRow) int {
	n := 0
	for _, k := range u.keys {
		if k != without && k.key().RevokedAt.IsZero() {
			n++
		}
	}
	return n
}

// UpdateKey implements [store.Store].
func (s *Store) UpdateKey(ctx context.Context, k *store.Key) error {
	if err := alive(ctx, "update key"); err != nil {
		return err
	}
	id, version := k.ID, k.Version
	k, err := row.Update(k)
	if err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.keys[id]
	if !ok {
		return fmt.Errorf("memstore: key: %w", store.ErrNotFound)
	}
	c := *have.key()
	if c.Version != version {
		return fmt.Errorf("memstore: key: %w", store.ErrConflict)
	}
	c.Name, c.Scopes, c.DailyLimit = k.Name, k.Scopes, k.DailyLimit
	c.NotAfter, c.DisabledAt, c.RevokedAt, c.Revoked = k.NotAfter, k.DisabledAt, k.RevokedAt, k.Revoked
	s.replace(have, &c)
	return nil
}

// replace puts k in the place of the key of r, which has its ID and version.
func (s *Store) replace(r *keyRow, k *store.Key) {
	k.Version++
	r.record = store.NewRecord(k, r.owner.user)
	s.feed.add(changeOf(k))
}

// PurgeKeys implements [store.Store].
func (s *Store) PurgeKeys(ctx context.Context, revokedBefore time.Time) (int, error) {
	if err := alive(ctx, "purge keys"); err != nil {
		return 0, err
	}
	revokedBefore = row.Time(revokedBefore)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for id, r := range s.keys {
		k := r.key()
		if k.RevokedAt.IsZero() || !k.RevokedAt.Before(revokedBefore) {
			continue
		}
		delete(s.keys, id)
		delete(s.digests, k.Digest)
		delete(r.owner.keys, id)
		s.feed.add(changeOf(k))
		n++
	}
	return n, nil
}

// Keys implements [store.Store].
func (s *Store) Keys(ctx context.Context, q store.Query) ([]*store.Key, error) {
	if err := alive(ctx, "keys"); err != nil {
		return nil, err
	}
	q, ok := row.Query(q)
	if !ok {
		return nil, nil
	}
	q.Name = lower(q.Name)
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []*store.Key
	for _, r := range s.candidates(q) {
		if k := r.key(); selects(q, k) {
			found = append(found, k)
		}
	}
	slices.SortFunc(found, newestFirst)
	found = found[:min(len(found), q.Limit)]
	for i, k := range found {
		c := *k
		c.Scopes = slices.Clone(k.Scopes)
		found[i] = &c
	}
	return found, nil
}

// candidates returns a map that has every key that q can select.
func (s *Store) candidates(q store.Query) map[string]*keyRow {
	if q.ID != "" {
		return only(s.keys, q.ID)
	}
	if q.Org != "" && q.User != "" {
		if u, ok := s.users[userID{q.Org, q.User}]; ok {
			return u.keys
		}
		return nil
	}
	return s.keys
}

// only returns the part of m that has no other key.
func only[K comparable, V any](m map[K]V, key K) map[K]V {
	if v, ok := m[key]; ok {
		return map[K]V{key: v}
	}
	return nil
}

// selects reports whether q selects k, which is one of its candidates. The name
// asked for is in lower case.
func selects(q store.Query, k *store.Key) bool {
	return (q.Org == "" || q.Org == k.Org) &&
		(q.User == "" || q.User == k.User) &&
		(q.Revoked || k.RevokedAt.IsZero()) &&
		(q.Name == "" || strings.Contains(lower(k.Name), q.Name)) &&
		(q.After == store.Cursor{} || newestFirst(k, &store.Key{CreatedAt: q.After.CreatedAt, ID: q.After.ID}) > 0)
}

func newestFirst(a, b *store.Key) int {
	if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
		return c
	}
	return strings.Compare(b.ID, a.ID)
}

// lower returns s with its ASCII letters in lower case, and the others as they
// are.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// Users implements [store.Store].
func (s *Store) Users(ctx context.Context, q store.UserQuery) ([]*store.User, error) {
	if err := alive(ctx, "users"); err != nil {
		return nil, err
	}
	q, ok := row.UserQuery(q)
	if !ok {
		return nil, nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	users := s.users
	if q.ID != "" {
		users = only(users, userID{q.Org, q.ID})
	}
	var found []*store.User
	for id, r := range users {
		if id.org == q.Org && id.id > q.After {
			found = append(found, r.user)
		}
	}
	slices.SortFunc(found, func(a, b *store.User) int { return strings.Compare(a.ID, b.ID) })
	found = found[:min(len(found), q.Limit)]
	for i, u := range found {
		c := *u
		found[i] = &c
	}
	return found, nil
}

// PutUser implements [store.Store].
func (s *Store) PutUser(ctx context.Context, u *store.User) error {
	if err := alive(ctx, "put user"); err != nil {
		return err
	}
	u, err := row.User(u)
	if err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	id := userID{u.Org, u.ID}
	have, ok := s.users[id]
	switch {
	case !ok && u.Version != 0:
		return fmt.Errorf("memstore: user: %w", store.ErrNotFound)
	case ok && u.Version == 0:
		return fmt.Errorf("memstore: user: %w", store.ErrExists)
	case ok && u.Version != have.user.Version:
		return fmt.Errorf("memstore: user: %w", store.ErrConflict)
	case !ok:
		have = &userRow{keys: make(map[string]*keyRow)}
		s.users[id] = have
	}
	u.Version++
	have.user = u
	for _, k := range have.keys {
		k.record = store.NewRecord(k.key(), u)
	}
	s.feed.add(store.Change{Kind: store.ChangedUser, Org: u.Org, User: u.ID})
	return nil
}

// UpdateSettings implements [store.Store].
func (s *Store) UpdateSettings(ctx context.Context, set *policy.Settings) error {
	if err := alive(ctx, "update settings"); err != nil {
		return err
	}
	set, err := row.Settings(set)
	if err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	var version int64
	if have, ok := s.settings[set.Org]; ok {
		version = have.Version
	}
	if set.Version != version {
		return fmt.Errorf("memstore: settings: %w", store.ErrConflict)
	}
	set.Version++
	s.settings[set.Org] = set
	s.feed.add(store.Change{Kind: store.ChangedSettings, Org: set.Org})
	return nil
}

// Add implements [ratelimit.Counter], with a [ratelimit.Memory].
func (s *Store) Add(ctx context.Context, key string, end time.Time, n, max int64) (count int64, ok bool, err error) {
	return s.counter.Add(ctx, key, end, n, max)
}

// alive returns an error if ctx has ended.
func alive(ctx context.Context, what string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("memstore: %s: %w", what, err)
	}
	return nil
}
