package keys_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// table returns all rows that q asks for, and how many pages they came in.
func (b *bundle) table(q keys.TableQuery) (rows []keys.Row, pages int) {
	b.t.Helper()
	if q.Org == "" {
		q.Org = org
	}
	for {
		page, next, err := b.Table(b.t.Context(), q)
		require.NoError(b.t, err)
		require.LessOrEqual(b.t, len(page), max(q.Limit, 100))
		rows = append(rows, page...)
		pages++
		if next == (store.Cursor{}) {
			return rows, pages
		}
		q.After = next
	}
}

func rowIDs(rows []keys.Row) []string {
	ids := []string{}
	for _, r := range rows {
		ids = append(ids, r.Key.ID)
	}
	return ids
}

// S47-S50, D24: one table of all keys, of all users, with the creator, the status,
// the end, and from where and by what each was used.
func TestTable(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.put(store.User{Org: "other", ID: "eve"})
	p := params("eve")
	p.Org = "other"
	_, _, err := b.Create(t.Context(), p)
	require.NoError(t, err)
	b.set(func(s *policy.Settings) { s.MaxAge = 60 * day })
	_, old := b.create()
	b.clock.Add(31 * day)
	_, disabled := b.createFor("bob")
	b.clock.Add(time.Second)
	_, revoked := b.createFor("bob")
	b.clock.Add(time.Second)
	_, active := b.createFor("olga")
	_, err = b.Disable(t.Context(), owner, ref(disabled))
	require.NoError(t, err)
	require.NoError(t, b.Revoke(t.Context(), owner, ref(revoked)))
	first := b.clock.Now().Add(-time.Hour)
	b.used(old, "192.0.2.1", first)
	b.used(old, "198.51.100.7", first.Add(time.Minute))
	b.set(func(s *policy.Settings) { s.MaxAge = 30 * day })

	rows, next, err := b.Table(t.Context(), keys.TableQuery{Org: org})
	require.NoError(t, err)
	require.Zero(t, next)
	require.Equal(t, []string{active.ID, disabled.ID, old.ID}, rowIDs(rows), "D12: revoked keys are in no list")
	for i, want := range []keys.State{keys.Active, keys.DisabledByOwner, keys.Expired} {
		require.Equal(t, want, rows[i].Status.State, "S48: all three are produced")
		require.Equal(t, b.status(rows[i].Key), rows[i].Status)
		require.Equal(t, b.stored(rows[i].Key.ID), rows[i].Key)
		require.Equal(t, rows[i].Key.User, rows[i].User.ID)
		require.Equal(t, rows[i].Key.ID, rows[i].Uses.KeyID)
	}
	require.Equal(t, old.CreatedAt.Add(30*day), rows[2].Status.ExpiresAt, "S49: created + policy")
	require.Equal(t, "olga@acme.example", rows[0].User.Email)
	require.Equal(t, store.UseSummary{KeyID: active.ID}, rows[0].Uses)
	require.Equal(t, first.Add(time.Minute), rows[2].Uses.LastUsed)
	require.Equal(t, "curl/8", rows[2].Uses.UserAgent)
	require.Equal(t, []store.AddrUse{
		{Addr: addr("198.51.100.7"), First: first.Add(time.Minute), Last: first.Add(time.Minute), Count: 1},
		{Addr: addr("192.0.2.1"), First: first, Last: first, Count: 1},
	}, rows[2].Uses.Addrs, "S49: after use from two addresses both are there")

	// S40, S41: the next look may find another status, for nothing was stored.
	b.set(func(s *policy.Settings) { s.MaxAge = 0 })
	rows, _ = b.table(keys.TableQuery{Org: org, State: keys.Expired})
	require.Empty(t, rows)
}

// S50, S51: search by creator and name, filter by status, own keys only.
func TestTableFilters(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.put(store.User{ID: "Änne", Email: "ANNE@Acme.example"})
	made := make(map[string]*store.Key)
	for _, p := range []keys.CreateParams{
		{User: "ada", Name: "Nightly Export"},
		{User: "bob", Name: "export 2"},
		{User: "olga", Name: "Änderung"},
		{User: "Änne", Name: "dashboard"},
		{User: "ada", Name: "gone"},
		{User: "ada", Name: "in grace"},
		{User: "bob", Name: "disabled"},
	} {
		b.clock.Add(time.Second)
		p.Org = org
		_, k, err := b.Create(t.Context(), p)
		require.NoError(t, err)
		made[k.Name] = k
	}
	require.NoError(t, b.Revoke(t.Context(), owner, ref(made["gone"])))
	_, err := b.Disable(t.Context(), owner, ref(made["disabled"]))
	require.NoError(t, err)
	b.clock.Add(time.Second)
	_, k, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(made["in grace"]), Grace: time.Hour})
	require.NoError(t, err)
	made["rotated"] = k
	for _, tt := range []struct {
		name string
		q    keys.TableQuery
		want string
	}{
		{"all", keys.TableQuery{}, "rotated, disabled, in grace, dashboard, Änderung, export 2, Nightly Export"},
		{"name", keys.TableQuery{Name: "EXPORT"}, "export 2, Nightly Export"},
		{"name, no Unicode folding", keys.TableQuery{Name: "änderung"}, ""},
		{"creator by ID", keys.TableQuery{Creator: "aD"}, "rotated, in grace, Nightly Export"},
		{"creator by e-mail", keys.TableQuery{Creator: "anne@ACME"}, "dashboard"},
		{"creator by a part that all have", keys.TableQuery{Creator: "@acme."}, "rotated, disabled, in grace, dashboard, Änderung, export 2, Nightly Export"},
		{"creator by ID, no Unicode folding", keys.TableQuery{Creator: "änne"}, ""},
		{"creator nobody is", keys.TableQuery{Creator: "nobody"}, ""},
		{"own (S51)", keys.TableQuery{User: "bob"}, "disabled, export 2"},
		{"own, of nobody", keys.TableQuery{User: "bo"}, ""},
		{"active", keys.TableQuery{State: keys.Active}, "rotated, in grace, dashboard, Änderung, export 2, Nightly Export"},
		{"disabled", keys.TableQuery{State: keys.DisabledByOwner}, "disabled"},
		{"expired", keys.TableQuery{State: keys.Expired}, ""},
		{"revoked", keys.TableQuery{State: keys.Revoked}, "gone"},
		{"revoked ones too", keys.TableQuery{User: "ada", Revoked: true}, "rotated, in grace, gone, Nightly Export"},
		{"active, revoked ones too", keys.TableQuery{Revoked: true, State: keys.Active, Creator: "ada"}, "rotated, in grace, Nightly Export"},
		{"all at once", keys.TableQuery{Creator: "ob", Name: "2", State: keys.Active, User: "bob"}, "export 2"},
		{"another organization", keys.TableQuery{Org: "other"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := []string{}
			for name := range strings.SplitSeq(tt.want, ", ") {
				if tt.want != "" {
					want = append(want, made[name].ID)
				}
			}
			for _, limit := range []int{0, 1, 2, 3, 7, 1000} {
				q := tt.q
				q.Limit = limit
				rows, pages := b.table(q)
				require.Equal(t, want, rowIDs(rows))
				if limit > 0 {
					require.Equal(t, max(1, (len(want)+limit-1)/limit), pages, "no empty page at the end, limit %d", limit)
				}
			}
		})
	}
}

func TestTableProblems(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, _, err := b.Table(t.Context(), keys.TableQuery{
		User: "a\x00", Name: "b\n", Creator: strings.Repeat("c", 1000), State: "purged",
		After: store.Cursor{ID: "\xff"}, Limit: 1001,
	})
	require.Equal(t, []string{"Org", "User", "Name", "Creator", "State", "After", "Limit"}, fields(err))
	_, err = b.Places(t.Context(), "", "")
	require.Equal(t, []string{"Org", "User"}, fields(err))
}

// bulk writes n keys of n users past the Manager, newest last, and returns their
// IDs, newest first. Of every user that is a multiple of nth the key is disabled.
func (b *bundle) bulk(n, nth int) (ids, disabled []string) {
	b.t.Helper()
	ctx := b.t.Context()
	for i := range n {
		u := fmt.Sprintf("u%05d", i)
		require.NoError(b.t, b.mem.PutUser(ctx, &store.User{Org: org, ID: u}))
		k := &store.Key{
			ID: fmt.Sprintf("csk_live_%08x", i), Org: org, User: u, Name: "bulk", CreatedAt: start.Add(time.Duration(i) * time.Second),
		}
		k.Family = k.ID
		k.Digest[0], k.Digest[1], k.Digest[2] = 1, byte(i), byte(i>>8)
		if i%nth == 0 {
			k.DisabledAt = start
			disabled = append(disabled, k.ID)
		}
		ids = append(ids, k.ID)
		require.NoError(b.t, b.mem.InsertKey(ctx, k, nil, -1))
	}
	slices.Reverse(ids)
	slices.Reverse(disabled)
	return ids, disabled
}

// The table of an organization with 10 000 keys of as many users: a page costs a
// fixed number of trips, however many keys there are and whatever is asked for;
// what few keys match is found over several calls, each of which ends.
func TestTableOfManyKeys(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ids, disabled := b.bulk(10_000, 700)
	trips := b.trips()

	rows, next, err := b.Table(t.Context(), keys.TableQuery{Org: org, Limit: 50})
	require.NoError(t, err)
	require.Equal(t, ids[:50], rowIDs(rows))
	require.Equal(t, store.Cursor{CreatedAt: rows[49].Key.CreatedAt, ID: ids[49]}, next)
	require.Equal(t, map[string]int{"Settings": 1, "Keys": 1, "Users": 51, "Uses": 1}, trips(), "each user once")

	rows, _, err = b.Table(t.Context(), keys.TableQuery{Org: org, Limit: 1000, After: next})
	require.NoError(t, err)
	require.Equal(t, ids[50:1050], rowIDs(rows))
	n := trips()
	require.LessOrEqual(t, n["Users"], 5+1001, "%v", n)
	require.Equal(t, []int{1, 2, 1}, []int{n["Settings"], n["Keys"], n["Uses"]})

	for _, tt := range []struct {
		name string
		q    keys.TableQuery
		want []string
	}{
		{"every 700th", keys.TableQuery{Org: org, State: keys.DisabledByOwner}, disabled},
		{"one, the oldest", keys.TableQuery{Org: org, Creator: "U00000"}, ids[9999:]},
		{"none", keys.TableQuery{Org: org, State: keys.Expired}, []string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var found []keys.Row
			calls := 0
			for q := tt.q; calls == 0 || q.After != (store.Cursor{}); calls++ {
				page, next, err := b.Table(t.Context(), q)
				require.NoError(t, err)
				require.LessOrEqual(t, trips()["Keys"], 5, "of 1000 each")
				found, q.After = append(found, page...), next
			}
			require.Equal(t, tt.want, rowIDs(found))
			require.LessOrEqual(t, calls, 3)
		})
	}
}

// A table with few trips for its users: known users are not asked for again, and
// many are asked for at once, also by a Preview of more users than are kept.
func TestManyUsers(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ids, _ := b.bulk(10_200, 2)
	trips := b.trips()

	rows, _, err := b.Table(t.Context(), keys.TableQuery{Org: org, Limit: 1000})
	require.NoError(t, err)
	require.Equal(t, ids[:1000], rowIDs(rows))
	require.Equal(t, 5+1000+1, trips()["Users"], "the newest users are the last in the order of IDs")

	p, err := b.Preview(t.Context(), &policy.Settings{Org: org, RestrictUsers: true}, 0)
	require.NoError(t, err)
	require.Equal(t, []int{10_200, 5_100, 5_100}, []int{p.Keys, p.Changed, p.Users})
	require.Equal(t, 5+5203+5, trips()["Users"], "no more than 10 000 are kept: the first pages are read again")
	require.Len(t, p.Changes, 1000)
}

// Users that cannot be read are not taken for users that are gone.
func TestManyUsersOfAStoreThatFails(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.bulk(150, 2)
	b.hook.on(func(op string) error {
		if op == "Users" {
			return errDown
		}
		return nil
	}, nil)
	for _, limit := range []int{10, 1000} {
		rows, next, err := b.Table(t.Context(), keys.TableQuery{Org: org, Limit: limit})
		require.ErrorIs(t, err, errDown)
		require.Nil(t, rows)
		require.Zero(t, next)
	}
	_, err := b.Preview(t.Context(), &policy.Settings{Org: org}, 0)
	require.ErrorIs(t, err, errDown)
}

// To leave revoked keys out is not to read for ever: whoever never purges gets
// short pages and a next.
func TestTableReadsOverRevoked(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, oldest := b.create()
	for i := range 5200 {
		k := &store.Key{
			ID: fmt.Sprintf("csk_live_%08x", i), Org: org, User: "bob", Name: "gone", Family: "f",
			CreatedAt: start.Add(time.Duration(i+1) * time.Microsecond), RevokedAt: start,
		}
		k.Digest[0], k.Digest[1], k.Digest[2] = 1, byte(i), byte(i>>8)
		require.NoError(t, b.mem.InsertKey(t.Context(), k, nil, -1))
	}
	trips := b.trips()
	rows, next, err := b.Table(t.Context(), keys.TableQuery{Org: org, Limit: 10})
	require.NoError(t, err)
	require.Empty(t, rows)
	require.NotZero(t, next)
	require.Equal(t, map[string]int{"Settings": 1, "Keys": 6}, trips())
	rows, next, err = b.Table(t.Context(), keys.TableQuery{Org: org, Limit: 10, After: next})
	require.NoError(t, err)
	require.Equal(t, []string{oldest.ID}, rowIDs(rows))
	require.Zero(t, next)
}

// D17: a key whose user's row is gone is kept and refused, and is shown so.
func TestUserIsGone(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, k := b.create()
	b.hook.Store = withoutUsers{b.mem}
	rows, _ := b.table(keys.TableQuery{})
	require.Len(t, rows, 1)
	require.Equal(t, keys.Status{State: keys.DisabledByOwner, Reasons: []policy.Reason{policy.InvalidToken}}, rows[0].Status)
	require.Equal(t, &store.User{Org: org, ID: "ada", SuspendedAt: time.Unix(0, 0).UTC()}, rows[0].User)

	e, err := b.Explain(t.Context(), ref(k), addr("192.0.2.1"))
	require.NoError(t, err)
	require.Equal(t, policy.Decision{Reason: policy.InvalidToken}, e.Decision)
	require.Equal(t, e.Decision, verdict(e, keys.RuleKnown))
	require.True(t, verdict(e, keys.RuleSuspended).Allow, "it is the other rule that refuses")
}

type withoutUsers struct{ *memstore.Store }

func (withoutUsers) Users(context.Context, store.UserQuery) ([]*store.User, error) { return nil, nil }

// Uses that answer for other keys than they were asked for are a failure, and not
// facts about the wrong keys.
func TestWrongUses(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.create()
	b.hook.uses = noUses{}
	_, _, err := b.Table(t.Context(), keys.TableQuery{Org: org})
	require.EqualError(t, err, "keys: table: 0 summaries of 1 keys")
}

type noUses struct{ *memstore.Store }

func (noUses) Uses(context.Context, string, []string) ([]store.UseSummary, error) { return nil, nil }

// Without use facts a row has the ID of its key and nothing else of its use.
func TestTableWithoutUses(t *testing.T) {
	t.Parallel()
	mgr, err := keys.New(memstore.New(), nil)
	require.NoError(t, err)
	require.NoError(t, mgr.PutUser(t.Context(), &store.User{Org: org, ID: "ada"}))
	_, k, err := mgr.Create(t.Context(), params("ada"))
	require.NoError(t, err)
	rows, _, err := mgr.Table(t.Context(), keys.TableQuery{Org: org})
	require.NoError(t, err)
	require.Equal(t, store.UseSummary{KeyID: k.ID}, rows[0].Uses)
}

// D10: every unrevoked key takes a place, expired and disabled ones too, since they
// can come back; one that was rotated away does not, while it works still (D39).
func TestPlaces(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	p := params("ada")
	p.NotAfter = start.Add(time.Hour)
	_, expired, err := b.Create(t.Context(), p)
	require.NoError(t, err)
	b.clock.Add(2 * time.Hour)
	_, disabled := b.create()
	_, err = b.Disable(t.Context(), owner, ref(disabled))
	require.NoError(t, err)
	b.clock.Add(time.Second)
	_, revoked := b.create()
	require.NoError(t, b.Revoke(t.Context(), plain, ref(revoked)))
	b.clock.Add(time.Second)
	_, rotated := b.create()
	b.clock.Add(time.Second)
	_, fresh, err := b.Rotate(t.Context(), keys.RotateParams{Ref: ref(rotated), Grace: time.Hour})
	require.NoError(t, err)
	b.createFor("bob")

	got, err := b.Places(t.Context(), org, "ada")
	require.NoError(t, err)
	require.Equal(t, keys.Places{Limit: 5, KeyIDs: []string{fresh.ID, disabled.ID, expired.ID}}, got)
	for range 2 {
		b.create()
	}
	got, err = b.Places(t.Context(), org, "ada")
	require.NoError(t, err)
	require.Len(t, got.KeyIDs, got.Limit)
	_, _, err = b.Create(t.Context(), params("ada"))
	require.ErrorIs(t, err, store.ErrLimit, "it is what the store counts")

	b = setup(t, &keys.Options{MaxPerUser: -1})
	got, err = b.Places(t.Context(), org, "ada")
	require.NoError(t, err)
	require.Equal(t, keys.Places{Limit: -1}, got)
}
