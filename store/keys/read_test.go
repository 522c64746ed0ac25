package keys_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// D27: a key is found only among the keys of the user named. D28: by its exact ID,
// else not at all, and the text of the error never has what was asked for.
func TestRefs(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	secret, k := b.create()
	b.createFor("bob")
	tests := []struct {
		name string
		ref  keys.Ref
		ok   bool
	}{
		{"own", keys.Ref{Org: org, User: "ada", ID: k.ID}, true},
		{"of the organization", keys.Ref{Org: org, ID: k.ID}, true},
		{"foreign", keys.Ref{Org: org, User: "bob", ID: k.ID}, false},
		{"user in another case", keys.Ref{Org: org, User: "Ada", ID: k.ID}, false},
		{"other organization", keys.Ref{Org: "elsewhere", ID: k.ID}, false},
		{"zero", keys.Ref{}, false},
		{"no ID is not every ID", keys.Ref{Org: org, User: "ada"}, false},
		{"no organization is not every organization", keys.Ref{ID: k.ID}, false},
		{"part of the ID", keys.Ref{Org: org, User: "ada", ID: k.ID[:16]}, false},
		{"longer than the ID", keys.Ref{Org: org, User: "ada", ID: k.ID + "0"}, false},
		{"the whole token", keys.Ref{Org: org, User: "ada", ID: secret}, false},
		{"upper case", keys.Ref{Org: org, User: "ada", ID: strings.ToUpper(k.ID)}, false},
		{"blank after", keys.Ref{Org: org, User: "ada", ID: k.ID + " "}, false},
		{"NUL", keys.Ref{Org: org, User: "ada", ID: k.ID + "\x00"}, false},
		{"NUL in the user", keys.Ref{Org: org, User: "ada\x00", ID: k.ID}, false},
		{"pattern", keys.Ref{Org: org, User: "ada", ID: "csk_live_%"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx := t.Context()
			got, err := b.Get(ctx, tt.ref)
			if tt.ok {
				require.NoError(t, err)
				require.Equal(t, k, got)
				return
			}
			name := "x"
			_, updateErr := b.Update(ctx, keys.UpdateParams{Ref: tt.ref, Name: &name})
			_, disableErr := b.Disable(ctx, owner, tt.ref)
			_, enableErr := b.Enable(ctx, owner, tt.ref)
			_, _, rotateErr := b.Rotate(ctx, keys.RotateParams{Ref: tt.ref})
			for _, err := range []error{err, updateErr, disableErr, enableErr, rotateErr, b.Revoke(ctx, owner, tt.ref)} {
				require.ErrorIs(t, err, store.ErrNotFound)
				require.NotContains(t, err.Error(), "csk_")
				require.NotContains(t, err.Error(), "CSK_")
			}
			require.Equal(t, k, b.stored(k.ID), "nothing has changed")
		})
	}
}

// D28, S16: a whole token in the place of an ID does not even reach the store.
func TestWholeTokenDoesNotReachTheStore(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	secret, _ := b.create()
	b.hook.on(func(op string) error { t.Error("called ", op); return nil }, nil)
	_, err := b.Get(t.Context(), keys.Ref{Org: org, ID: secret})
	require.ErrorIs(t, err, store.ErrNotFound)
}

// S47: one list of all keys of the organization. S51: own ones only, with a user.
func TestList(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx := t.Context()
	var ids []string // newest first
	for i := range 4 {
		b.clock.Add(time.Minute)
		p := params([]string{"ada", "bob"}[i%2])
		p.Name = fmt.Sprint("Export ", i)
		_, k, err := b.Create(ctx, p)
		require.NoError(t, err)
		ids = append([]string{k.ID}, ids...)
	}
	b.put(store.User{Org: "elsewhere", ID: "ada"})
	_, _, err := b.Create(ctx, keys.CreateParams{Org: "elsewhere", User: "ada", Name: "x"})
	require.NoError(t, err)

	tests := []struct {
		name string
		q    store.Query
		want []string
	}{
		{"all", store.Query{Org: org}, ids},
		{"own", store.Query{Org: org, User: "ada"}, []string{ids[1], ids[3]}},
		{"by name", store.Query{Org: org, Name: "export 2"}, []string{ids[1]}},
		{"by ID", store.Query{Org: org, ID: ids[2]}, []string{ids[2]}},
		{"first page", store.Query{Org: org, Limit: 3}, ids[:3]},
		{"nobody's", store.Query{Org: org, User: "nobody"}, nil},
		{"no such organization", store.Query{Org: "nowhere"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := b.List(ctx, tt.q)
			require.NoError(t, err)
			require.Equal(t, tt.want, idsOf(got))
		})
	}

	t.Run("page by page", func(t *testing.T) {
		var got []string
		q := store.Query{Org: org, Limit: 1}
		for {
			page, err := b.List(ctx, q)
			require.NoError(t, err)
			if len(page) == 0 {
				break
			}
			got = append(got, page[0].ID)
			q.After = store.Cursor{CreatedAt: page[0].CreatedAt, ID: page[0].ID}
		}
		require.Equal(t, ids, got)
	})
}

func TestListProblems(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, err := b.List(t.Context(), store.Query{})
	require.Equal(t, []string{"Org"}, fields(err), "a list is of one organization")
	_, err = b.List(t.Context(), store.Query{
		Org: org, User: "\x00", ID: "\xff", Name: "\x00", After: store.Cursor{ID: "\x00"}, Limit: -1,
	})
	require.Equal(t, []string{"User", "ID", "Name", "After", "Limit"}, fields(err))
	_, err = b.List(t.Context(), store.Query{Org: org, Limit: 1001})
	require.Equal(t, []string{"Limit"}, fields(err))
	_, err = b.Users(t.Context(), store.UserQuery{ID: "\x00", After: "\xff", Limit: 1001})
	require.Equal(t, []string{"Org", "ID", "After", "Limit"}, fields(err))
	_, err = b.Settings(t.Context(), "")
	require.Equal(t, []string{"Org"}, fields(err))
}

// D12, S19: revoked keys are in no list unless asked for. A key in the grace period
// of its rotation still works, and so is still listed (D39).
func TestListLeavesOutRevoked(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{MaxPerUser: -1})
	ctx := t.Context()
	_, kept := b.create()
	_, gone := b.create()
	require.NoError(t, b.Revoke(ctx, plain, ref(gone)))
	_, old := b.create()
	_, renewed, err := b.Rotate(ctx, keys.RotateParams{Ref: ref(old), Grace: time.Hour})
	require.NoError(t, err)

	list := func(revoked bool) []string {
		ks, err := b.List(ctx, store.Query{Org: org, Revoked: revoked})
		require.NoError(t, err)
		return idsOf(ks)
	}
	require.ElementsMatch(t, []string{kept.ID, old.ID, renewed.ID}, list(false))
	require.ElementsMatch(t, []string{kept.ID, old.ID, renewed.ID, gone.ID}, list(true))
	_, err = b.Get(ctx, ref(gone))
	require.ErrorIs(t, err, store.ErrNotFound)
	_, err = b.Get(ctx, ref(old))
	require.NoError(t, err)

	b.clock.Add(time.Hour)
	require.ElementsMatch(t, []string{kept.ID, renewed.ID}, list(false))
	_, err = b.Get(ctx, ref(old))
	require.ErrorIs(t, err, store.ErrNotFound)
}

// A list reads over revoked keys, page by page, and loses none of the others.
func TestListReadsOverRevoked(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{MaxPerUser: -1})
	ctx := t.Context()
	var want []string
	for i := range 350 {
		b.clock.Add(time.Second)
		_, k := b.create()
		if i%100 == 0 {
			want = append([]string{k.ID}, want...)
		} else {
			require.NoError(t, b.Revoke(ctx, plain, ref(k)))
		}
	}
	got, err := b.List(ctx, store.Query{Org: org})
	require.NoError(t, err)
	require.Equal(t, want, idsOf(got))
	got, err = b.List(ctx, store.Query{Org: org, Limit: 2})
	require.NoError(t, err)
	require.Equal(t, want[:2], idsOf(got))
	got, err = b.List(ctx, store.Query{Org: org, Limit: 3, After: store.Cursor{CreatedAt: got[1].CreatedAt, ID: got[1].ID}})
	require.NoError(t, err)
	require.Equal(t, want[2:], idsOf(got))
	got, err = b.List(ctx, store.Query{Org: org, Revoked: true, Limit: 1000})
	require.NoError(t, err)
	require.Len(t, got, 350)
	got, err = b.List(ctx, store.Query{Org: org, Revoked: true})
	require.NoError(t, err)
	require.Len(t, got, 100)
}

func idsOf(ks []*store.Key) []string {
	var ids []string
	for _, k := range ks {
		ids = append(ids, k.ID)
	}
	return ids
}
