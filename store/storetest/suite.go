package storetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// noCap is the max of InsertKey where the cap is not what is tested.
const noCap = -1

// base is when things happen.
var base = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// A suite is one case under way. Its methods that end the case may only be
// called by the goroutine of the case.
type suite struct {
	Harness
	ctx context.Context
	*report
}

// A report is what is wrong.
type report struct {
	mu       sync.Mutex
	problems []string
}

type (
	stop struct{} // what ends a case that cannot go on
	skip string   // what a case needs and the Harness is Without
)

// swapped returns the same case with Store and Other exchanged.
func (s *suite) swapped() *suite {
	c := *s
	c.Store, c.Other = s.Other, s.Store
	return &c
}

// errorf reports a problem; the case goes on.
func (r *report) errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, short(fmt.Sprintf(format, args...)))
}

// fatalf reports a problem and ends the case.
func (s *suite) fatalf(format string, args ...any) {
	s.errorf(format, args...)
	panic(stop{})
}

// need ends the case unless the Harness has what is named: it is left out if the
// Harness says that it is Without, and has failed otherwise.
func (s *suite) need(name string, have bool) {
	switch {
	case have:
	case slices.Contains(s.Without, name):
		panic(skip(name))
	default:
		s.fatalf("the Harness has no %s, and does not name it in Without", name)
	}
}

// ok ends the case if something failed that must work.
func (s *suite) ok(err error, what string, args ...any) {
	if err != nil {
		s.fatalf("%s: %v", fmt.Sprintf(what, args...), err)
	}
}

// is reports an err that is not want, or that is another sentinel as well.
func (s *suite) is(err, want error, what string, args ...any) {
	what = fmt.Sprintf(what, args...)
	if !errors.Is(err, want) {
		s.errorf("%s: got error %v, want %v", what, err, want)
	}
	for _, other := range sentinels {
		if !errors.Is(want, other) && errors.Is(err, other) {
			s.errorf("%s: error %q is %v too", what, err, other)
		}
	}
}

// failed reports an err that is not a failure: nil, or an answer of the store.
func (s *suite) failed(err error, what string, args ...any) {
	what = fmt.Sprintf(what, args...)
	if err == nil {
		s.errorf("%s: no error", what)
	}
	for _, answer := range sentinels {
		if errors.Is(err, answer) {
			s.errorf("%s: error %q is %v", what, err, answer)
		}
	}
}

var sentinels = []error{store.ErrNotFound, store.ErrExists, store.ErrConflict, store.ErrLimit}

// same reports the first difference between two rows.
func (s *suite) same(got, want any, what string, args ...any) {
	if d := diff(got, want); d != "" {
		s.errorf("%s: %s", fmt.Sprintf(what, args...), d)
	}
}

// addUser makes a user of org and returns the row as it must be stored.
func (s *suite) addUser(org, id string) *store.User {
	u := &store.User{Org: org, ID: id, Email: id + "@example.com", Tier: "Pro"}
	s.ok(s.Store.PutUser(s.ctx, u), "PutUser of %s in %s", id, org)
	u.Version = 1
	return u
}

// putUser writes u, which must be current, and raises its version.
func (s *suite) putUser(u *store.User) {
	s.ok(s.Store.PutUser(s.ctx, u), "PutUser")
	u.Version++
}

// insert adds k without a cap, and sets its version to that of the row.
func (s *suite) insert(k *store.Key) *store.Key {
	s.ok(s.Store.InsertKey(s.ctx, k, nil, noCap), "InsertKey")
	k.Version = 1
	return k
}

// update writes k, which must be current, and raises its version.
func (s *suite) update(k *store.Key) {
	s.ok(s.Store.UpdateKey(s.ctx, k), "UpdateKey")
	k.Version++
}

// rotate replaces old, which must be current, by k. It raises the version of
// old and sets its end.
func (s *suite) rotate(k, old *store.Key, end time.Time) {
	old.RevokedAt = end
	s.ok(s.Store.InsertKey(s.ctx, k, old, noCap), "InsertKey of a rotation")
	old.Version++
	k.Version = 1
}

// lookup returns the record of a key that must be there.
func (s *suite) lookup(d token.Digest) *store.Record {
	r, err := s.Store.Lookup(s.ctx, d)
	s.ok(err, "Lookup")
	if r == nil || r.Key == nil || r.User == nil || r.Principal == nil {
		s.fatalf("Lookup: record is not complete: %+v", r)
	}
	return r
}

// key returns the row of a key that must be there.
func (s *suite) key(id string) *store.Key {
	ks := s.keys(store.Query{ID: id, Revoked: true})
	if len(ks) != 1 {
		s.fatalf("Keys with one ID: got %d keys, want 1", len(ks))
	}
	return ks[0]
}

func (s *suite) keys(q store.Query) []*store.Key {
	ks, err := s.Store.Keys(s.ctx, q)
	s.ok(err, "Keys")
	return ks
}

// user returns the row of a user that must be there.
func (s *suite) user(org, id string) *store.User {
	us := s.users(store.UserQuery{Org: org, ID: id})
	if len(us) != 1 {
		s.fatalf("Users with one ID: got %d users, want 1", len(us))
	}
	return us[0]
}

func (s *suite) users(q store.UserQuery) []*store.User {
	us, err := s.Store.Users(s.ctx, q)
	s.ok(err, "Users")
	return us
}

func (s *suite) settings(org string) *policy.Settings {
	got, err := s.Store.Settings(s.ctx, org)
	s.ok(err, "Settings")
	if got == nil {
		s.fatalf("Settings: nil without an error")
	}
	return got
}

// stored reports a key whose row, or whose record, is not want.
func (s *suite) stored(want *store.Key, what string) {
	s.same(s.key(want.ID), want, "Keys after %s", what)
	s.same(s.lookup(want.Digest).Key, want, "Lookup after %s", what)
}

// absent reports a key that can be found.
func (s *suite) absent(k *store.Key, what string) {
	_, err := s.Store.Lookup(s.ctx, k.Digest)
	s.is(err, store.ErrNotFound, "Lookup after %s", what)
	for _, have := range s.keys(store.Query{Revoked: true, Limit: 1000}) {
		if have.Digest == k.Digest {
			s.errorf("Keys after %s: the key is listed", what)
		}
	}
}

// end returns the end of the feed.
func (s *suite) end() int64 {
	changes, last, err := s.Feed.Changes(s.ctx, -1)
	s.ok(err, "Changes after -1")
	if len(changes) != 0 {
		s.errorf("Changes after -1: got %d changes, want none", len(changes))
	}
	return last
}

// changes returns all changes after a place.
func (s *suite) changes(after int64) []store.Change {
	var all []store.Change
	for {
		changes, last, err := s.Feed.Changes(s.ctx, after)
		s.ok(err, "Changes")
		if len(changes) == 0 {
			return all
		}
		if last <= after {
			s.fatalf("Changes after %d: %d changes, but the place to go on from is %d", after, len(changes), last)
		}
		all = append(all, changes...)
		after = last
	}
}

// outcomes runs n calls at once and returns how many of them had which error:
// nil, one of the answers of a store, or a failure, which is reported.
func (s *suite) outcomes(n int, call func(i int) error) map[error]int {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = call(i)
		})
	}
	close(start)
	wg.Wait()

	counts := make(map[error]int)
	for _, err := range errs {
		i := slices.IndexFunc(sentinels, func(answer error) bool { return errors.Is(err, answer) })
		switch {
		case err == nil:
			counts[nil]++
		case i >= 0:
			counts[sentinels[i]]++
		default:
			s.errorf("one of %d calls at once failed: %v", n, err)
		}
	}
	return counts
}

// either returns Store for even numbers and Other for odd ones, so that calls at
// once come from two processes.
func (s *suite) either(i int) store.Store {
	if i%2 == 0 {
		return s.Store
	}
	return s.Other
}

// newKey returns a key of u to be inserted. Keys with different numbers have
// different IDs, digests and times, a greater number a later time.
func newKey(u *store.User, n int) *store.Key {
	id := fmt.Sprintf("csk_live_%08x", n)
	return &store.Key{
		ID:        id,
		Digest:    digest(n),
		Org:       u.Org,
		User:      u.ID,
		Name:      fmt.Sprintf("key %d", n),
		CreatedAt: base.Add(time.Duration(n) * time.Second),
		Family:    id,
	}
}

func digest(n int) token.Digest {
	return sha256.Sum256(fmt.Append(nil, "storetest ", n))
}

// fullKey returns a key of u in which every field is set.
func fullKey(u *store.User, n int) *store.Key {
	k := newKey(u, n)
	k.Name = "Export to the SIEM"
	k.Scopes = []string{"events:read", "agents:read", "corps:read"}
	k.DailyLimit = 1000
	k.NotAfter = base.Add(90*24*time.Hour + 123456*time.Microsecond)
	k.DisabledAt = base.Add(time.Hour + time.Microsecond)
	k.RevokedAt, k.Revoked = base.Add(24*time.Hour+999999*time.Microsecond), true
	k.Family = "csk_live_00000000"
	return k
}

// fullUser returns a user in whom every field is set.
func fullUser(org, id string) *store.User {
	return &store.User{
		Org:         org,
		ID:          id,
		Email:       "ada.lovelace@example.com",
		Tier:        "Enterprise",
		Owner:       true,
		Permitted:   true,
		SuspendedAt: base.Add(time.Minute + 7*time.Microsecond),
	}
}

func clone(k *store.Key) *store.Key {
	c := *k
	c.Scopes = slices.Clone(k.Scopes)
	return &c
}

func ids(ks []*store.Key) []string {
	out := make([]string, len(ks))
	for i, k := range ks {
		out[i] = k.ID
	}
	return out
}

func userIDs(us []*store.User) []string {
	out := make([]string, len(us))
	for i, u := range us {
		out[i] = u.ID
	}
	return out
}

// diff compares two values of one type, or pointers to such, as the contract
// does: times are the same if they are the same instant, in UTC; lists of
// addresses if they have the same normal form; nil and empty slices are the same.
// It returns the first difference, or nothing.
func diff(got, want any) string {
	return diffValue("", reflect.ValueOf(got), reflect.ValueOf(want))
}

func diffValue(path string, got, want reflect.Value) string {
	differ := func(got, want any) string {
		return strings.TrimSpace(fmt.Sprintf("%s is %s, want %s", path, short(got), short(want)))
	}
	switch w := want.Interface().(type) {
	case time.Time:
		g := got.Interface().(time.Time)
		if !g.Equal(w) || g.Location() != time.UTC {
			return differ(g, w)
		}
		return ""
	case policy.IPList:
		g := got.Interface().(policy.IPList)
		if g.String() != w.String() || g.Restricts() != w.Restricts() {
			return differ(fmt.Sprintf("%q", g.String()), fmt.Sprintf("%q", w.String()))
		}
		return ""
	}
	switch want.Kind() {
	case reflect.Pointer:
		if got.IsNil() || want.IsNil() {
			if got.IsNil() != want.IsNil() {
				return differ(got.Interface(), want.Interface())
			}
			return ""
		}
		return diffValue(path, got.Elem(), want.Elem())
	case reflect.Struct:
		if want.Type().NumField() == 0 || !want.Type().Field(0).IsExported() {
			break
		}
		for i := range want.NumField() {
			name := strings.TrimPrefix(path+"."+want.Type().Field(i).Name, ".")
			if d := diffValue(name, got.Field(i), want.Field(i)); d != "" {
				return d
			}
		}
		return ""
	case reflect.Slice:
		if got.Len() != want.Len() {
			return differ(got.Interface(), want.Interface())
		}
		for i := range want.Len() {
			if d := diffValue(fmt.Sprintf("%s[%d]", path, i), got.Index(i), want.Index(i)); d != "" {
				return d
			}
		}
		return ""
	}
	if got.Interface() != want.Interface() {
		return differ(got.Interface(), want.Interface())
	}
	return ""
}

// short prints a value, but not all of one that is very long.
func short(v any) string {
	const most = 500
	text := fmt.Sprintf("%v", v)
	if len(text) > most {
		return fmt.Sprintf("%s... (%d bytes)", text[:most], len(text))
	}
	return text
}
