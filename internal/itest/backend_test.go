package itest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// A backend is a store in a database, of whatever kind.
type backend interface {
	store.Store
	store.Uses
	store.Feed
	ratelimit.Lender
	Migrate(ctx context.Context) error
	Validate(ctx context.Context) error
	Migrations() fs.FS
}

// testDay is a day on which tests count, and ends then.
var testDay = time.Date(2026, time.March, 10, 0, 0, 0, 0, time.UTC)

// A user and its key, as tests need them.
func testUser(n int) *store.User {
	return &store.User{Org: "acme", ID: fmt.Sprintf("u%d", n), Email: fmt.Sprintf("u%d@example.com", n), Tier: "Pro"}
}

func testKey(user string, tok token.Token) *store.Key {
	var f token.Format
	d, err := f.Digest(tok.Reveal())
	if err != nil {
		panic(err)
	}
	return &store.Key{
		ID: tok.ID(), Digest: d, Org: "acme", User: user, Name: "export", CreatedAt: testDay, Family: tok.ID(),
	}
}

// requireFailure requires that err is a failure of a store and none of its
// answers, which would be believed (S76, D13).
func requireFailure(t *testing.T, err error, what string) {
	t.Helper()
	require.NoError(t, notFailure(err), what)
}

// notFailure returns what err is, unless that is a failure. It is requireFailure
// for goroutines.
func notFailure(err error) error {
	if err == nil {
		return errors.New("no error at all")
	}
	for _, answer := range []error{store.ErrNotFound, store.ErrExists, store.ErrConflict, store.ErrLimit, errAdmitted} {
		if errors.Is(err, answer) {
			return fmt.Errorf("an answer: %w", err)
		}
	}
	if s := err.Error(); !strings.HasPrefix(s, "sqlitestore: ") && !strings.HasPrefix(s, "postgresstore: ") {
		return fmt.Errorf("from elsewhere: %w", err)
	}
	return nil
}

// A fixture is a store with a user and a key that was used once and counted once.
type fixture struct {
	backend
	key *store.Key
}

func newFixture(t *testing.T, s backend) *fixture {
	t.Helper()
	f := &fixture{s, testKey("u1", token.Generate())}
	require.NoError(t, f.PutUser(t.Context(), testUser(1)))
	require.NoError(t, f.InsertKey(t.Context(), f.key, nil, 5))
	f.key.Version = 1
	require.NoError(t, f.RecordUses(t.Context(), []store.Use{f.use()}))
	require.NoError(t, f.UpdateSettings(t.Context(), &policy.Settings{Org: "acme", MaxAge: time.Hour}))
	_, ok, err := f.Add(t.Context(), f.key.Family, testDay, 1, 250)
	require.NoError(t, err)
	require.True(t, ok)
	return f
}

func (f *fixture) use() store.Use {
	return store.Use{KeyID: f.key.ID, UserAgent: "curl", First: testDay, Last: testDay, Count: 1}
}

// A call is a call of a method, for tests of what they have in common.
type call struct {
	name string
	run  func(ctx context.Context, s backend) error
}

// writes calls every method that writes, so that each would change something.
func (f *fixture) writes() []call {
	return []call{
		{"InsertKey", func(ctx context.Context, s backend) error {
			return s.InsertKey(ctx, testKey("u1", token.Generate()), nil, 5)
		}},
		{"InsertKey, rotation", func(ctx context.Context, s backend) error {
			old := *f.key
			old.RevokedAt = testDay
			return s.InsertKey(ctx, testKey("u1", token.Generate()), &old, 5)
		}},
		{"UpdateKey", func(ctx context.Context, s backend) error { return s.UpdateKey(ctx, f.key) }},
		{"PutUser, new", func(ctx context.Context, s backend) error { return s.PutUser(ctx, testUser(2)) }},
		{"PutUser", func(ctx context.Context, s backend) error {
			u := testUser(1)
			u.Version = 1
			return s.PutUser(ctx, u)
		}},
		{"UpdateSettings", func(ctx context.Context, s backend) error {
			return s.UpdateSettings(ctx, &policy.Settings{Org: "acme", Version: 1})
		}},
		{"PurgeKeys", func(ctx context.Context, s backend) error {
			_, err := s.PurgeKeys(ctx, testDay.AddDate(1, 0, 0))
			return err
		}},
		{"RecordUses", func(ctx context.Context, s backend) error {
			return s.RecordUses(ctx, []store.Use{f.use()})
		}},
		{"Add", func(ctx context.Context, s backend) error {
			_, ok, err := s.Add(ctx, f.key.Family, testDay, 1, 250)
			return counted(ok, err)
		}},
		{"Add, new", func(ctx context.Context, s backend) error {
			_, ok, err := s.Add(ctx, "new", testDay, 1, 250)
			return counted(ok, err)
		}},
		{"Lend", func(ctx context.Context, s backend) error {
			loan, err := s.Lend(ctx, "account", f.key.Family, testDay, 0, 250, 250, testDay)
			return counted(loan.Lent > 0, err)
		}},
		{"Lend, new", func(ctx context.Context, s backend) error {
			loan, err := s.Lend(ctx, "account", "new", testDay, 0, 250, 250, testDay)
			return counted(loan.Lent > 0, err)
		}},
	}
}

// errAdmitted is returned for an Add that is ok beside its error.
var errAdmitted = errors.New("admitted")

func counted(ok bool, err error) error {
	if ok && err != nil {
		return errors.Join(errAdmitted, err)
	}
	return err
}

// reads calls every method that only reads.
func (f *fixture) reads() []call {
	return []call{
		{"Lookup", func(ctx context.Context, s backend) error {
			_, err := s.Lookup(ctx, f.key.Digest)
			return err
		}},
		{"Settings", func(ctx context.Context, s backend) error {
			_, err := s.Settings(ctx, "acme")
			return err
		}},
		{"Keys", func(ctx context.Context, s backend) error {
			_, err := s.Keys(ctx, store.Query{})
			return err
		}},
		{"Users", func(ctx context.Context, s backend) error {
			_, err := s.Users(ctx, store.UserQuery{Org: "acme"})
			return err
		}},
		{"Uses", func(ctx context.Context, s backend) error {
			_, err := s.Uses(ctx, "acme", []string{f.key.ID})
			return err
		}},
		{"Changes", func(ctx context.Context, s backend) error {
			_, _, err := s.Changes(ctx, 0)
			return err
		}},
		{"Changes, end", func(ctx context.Context, s backend) error {
			_, _, err := s.Changes(ctx, -1)
			return err
		}},
		{"Add of 0", func(ctx context.Context, s backend) error {
			_, ok, err := s.Add(ctx, f.key.Family, testDay, 0, 250)
			return counted(ok, err)
		}},
		{"Add, no room at all", func(ctx context.Context, s backend) error {
			_, ok, err := s.Add(ctx, f.key.Family, testDay, 2, 1)
			return counted(ok, err)
		}},
	}
}

// withoutAsking calls every method with what no database needs to be asked for.
func withoutAsking() []call {
	return []call{
		{"Keys of none", func(ctx context.Context, s backend) error {
			_, err := s.Keys(ctx, store.Query{ID: "\x00"})
			return err
		}},
		{"Users of none", func(ctx context.Context, s backend) error {
			_, err := s.Users(ctx, store.UserQuery{ID: "\x00"})
			return err
		}},
		{"Settings of none", func(ctx context.Context, s backend) error {
			_, err := s.Settings(ctx, "\x00")
			return err
		}},
		{"Uses of none", func(ctx context.Context, s backend) error {
			_, err := s.Uses(ctx, "acme", []string{"\x00"})
			return err
		}},
	}
}

// state returns what can be seen of a store, to compare.
func (f *fixture) state(t *testing.T) []any {
	t.Helper()
	ctx := t.Context()
	keys, err := f.Keys(ctx, store.Query{Revoked: true})
	require.NoError(t, err)
	users, err := f.Users(ctx, store.UserQuery{Org: "acme"})
	require.NoError(t, err)
	set, err := f.Settings(ctx, "acme")
	require.NoError(t, err)
	uses, err := f.Uses(ctx, "acme", []string{f.key.ID})
	require.NoError(t, err)
	changes, last, err := f.Changes(ctx, 0)
	require.NoError(t, err)
	count, _, err := f.Add(ctx, f.key.Family, testDay, 0, 0)
	require.NoError(t, err)
	fresh, _, err := f.Add(ctx, "new", testDay, 0, 0)
	require.NoError(t, err)
	return []any{keys, users, set, uses, changes, last, count, fresh}
}

// A damage is a change of a row that keystile cannot have made, and what reads
// that row.
type damage struct {
	name, change string
	read         func(ctx context.Context, f *fixture) error
}

// What reads rows, for damages.
func readSettings(ctx context.Context, f *fixture) error {
	_, err := f.Settings(ctx, "acme")
	return err
}

func readRecord(ctx context.Context, f *fixture) error {
	_, err := f.Lookup(ctx, f.key.Digest)
	return err
}

func readKeys(ctx context.Context, f *fixture) error {
	_, err := f.Keys(ctx, store.Query{})
	return err
}

func readUses(ctx context.Context, f *fixture) error {
	_, err := f.Uses(ctx, "acme", []string{f.key.ID})
	return err
}

func addUse(ctx context.Context, f *fixture) error { return f.RecordUses(ctx, []store.Use{f.use()}) }

func readChanges(ctx context.Context, f *fixture) error {
	_, _, err := f.Changes(ctx, 0)
	return err
}

func putUser(ctx context.Context, f *fixture) error {
	return f.PutUser(ctx, &store.User{Org: "acme", ID: token.Generate().ID()})
}

// requireDamageFails requires that a damaged row is a failure of what reads it,
// and is not repeated.
func (f *fixture) requireDamageFails(t *testing.T, d damage) {
	t.Helper()
	err := d.read(t.Context(), f)
	requireFailure(t, err, d.name)
	require.NotContains(t, err.Error(), "secret")
}
