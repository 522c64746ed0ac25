package row_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/internal/row"
	"github.com/keystile/keystile/token"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func goodKey() *store.Key {
	return &store.Key{ID: "csk_live_a1b2c3d4", Digest: token.Digest{1}, Org: "acme", User: "ada", Scopes: []string{"a"}, CreatedAt: at}
}

// TestRefusals shows that everything that is wrong is named at once, and that
// nothing of it is repeated.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const secret = "csk_live_0123456789abcdef0123456789abcdef\x00"
	long := strings.Repeat("x", store.MaxText)
	year := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	all := &store.Key{
		Org: secret, Name: secret, Scopes: []string{long, "", "x"}, Family: strings.Repeat("x", store.MaxID+1),
		CreatedAt: year, NotAfter: year, DisabledAt: year, RevokedAt: year,
	}
	mutable := []string{"Name has a NUL", "Scopes is too long", "NotAfter is outside", "DisabledAt is outside", "RevokedAt is outside"}
	for _, tt := range []struct {
		name  string
		check func() error
		want  []string
	}{
		{"key", func() error { _, err := row.Key(all); return err }, append([]string{
			"store: key: ", "ID is empty", "User is empty", "Org has a NUL", "Family is too long", "Digest is zero", "CreatedAt is outside of the years 1 to 9999",
		}, mutable...)},
		{"update", func() error { _, err := row.Update(all); return err }, mutable},
		{"rotation", func() error {
			old := goodKey()
			old.User, old.Name = "bob", secret
			_, _, err := row.Rotation(all, old)
			return err
		}, append([]string{"ID is empty", "key to be replaced: RevokedAt is not set", "User is another"}, mutable...)},
		{"user", func() error {
			_, err := row.User(&store.User{Email: secret, Tier: long + "x", SuspendedAt: year})
			return err
		}, []string{"store: user: ", "Org is empty", "ID is empty", "Email has a NUL", "Tier is too long", "SuspendedAt is outside"}},
		{"settings", func() error {
			_, err := row.Settings(&policy.Settings{Org: secret, MaxAge: -1})
			return err
		}, []string{"store: settings: Org has a NUL", "MaxAge"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tt.check()
			for _, want := range tt.want {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), "csk_live_")
			for _, answer := range []error{store.ErrNotFound, store.ErrExists, store.ErrConflict, store.ErrLimit} {
				require.NotErrorIs(t, err, answer)
			}
		})
	}
}

func TestCopies(t *testing.T) {
	t.Parallel()
	k := goodKey()
	k.Version = 7
	got, err := row.Key(k)
	require.NoError(t, err)
	require.Equal(t, k, got)
	k.Scopes[0] = "changed"
	require.Equal(t, []string{"a"}, got.Scopes)

	old := goodKey()
	old.RevokedAt = at
	a, b, err := row.Rotation(goodKey(), old)
	require.NoError(t, err)
	require.Equal(t, goodKey(), a)
	require.Equal(t, old, b)
	require.NotSame(t, old, b)
}

// TestQuery: what no row can have selects nothing, and limits are in bounds.
func TestQuery(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"\x00", "\xff", "a\x00b"} {
		for _, q := range []store.Query{{Org: bad}, {User: bad}, {ID: bad}, {Name: bad}, {After: store.Cursor{ID: bad}}} {
			_, ok := row.Query(q)
			require.False(t, ok)
		}
		for _, q := range []store.UserQuery{{Org: bad}, {ID: bad}, {After: bad}} {
			_, ok := row.UserQuery(q)
			require.False(t, ok)
		}
	}
	for limit, want := range map[int]int{-1: 100, 0: 100, 1: 1, 1000: 1000, 1001: 1000} {
		q, ok := row.Query(store.Query{Limit: limit, After: store.Cursor{CreatedAt: at.Add(999)}})
		require.True(t, ok)
		require.Equal(t, want, q.Limit)
		require.Equal(t, at, q.After.CreatedAt)
		u, ok := row.UserQuery(store.UserQuery{Limit: limit})
		require.True(t, ok)
		require.Equal(t, want, u.Limit)
	}
}

func TestTime(t *testing.T) {
	t.Parallel()
	require.True(t, row.Time(time.Time{}).IsZero())
	require.Equal(t, time.Unix(-1, 999999000).UTC(), row.Time(time.Unix(0, -1)))
	now := row.Time(time.Now())
	require.Equal(t, now, now.Round(0), "no monotonic clock")
}

// FuzzUserAgent: whatever a client sends, what is kept is valid, short, and the
// beginning of what was sent where that was valid (D24).
func FuzzUserAgent(f *testing.F) {
	for _, s := range []string{
		"", "curl/8", "a\x00b", "\xff\xfe\x00", strings.Repeat("é", 200), "x" + strings.Repeat("日", 100), strings.Repeat("😀", 65),
		strings.Repeat("x", 255) + "é", strings.Repeat("\xff", 300), strings.Repeat("x\xff", 150),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		uses, err := row.Uses([]store.Use{{UserAgent: s, First: at, Last: at, Count: 1}})
		require.NoError(t, err)
		got := uses[0].UserAgent
		require.True(t, row.Text(got))
		require.LessOrEqual(t, len(got), 256)
		if row.Text(s) {
			require.True(t, strings.HasPrefix(s, got))
			if len(got) < len(s) {
				next, size := utf8.DecodeRuneInString(s[len(got):])
				require.Greater(t, len(got)+size, 256, "room for %q", next)
			}
		} else if len(s) < 256/3 { // nothing was cut off
			require.Contains(t, got, "\ufffd")
		}
	})
}

// TestAddInAnyOrder: facts only grow, so the order in which uses arrive does not
// matter where no bound was reached (D24).
func TestAddInAnyOrder(t *testing.T) {
	t.Parallel()
	var uses []store.Use
	for n := range 40 {
		from := at.Add(time.Duration(n) * 13 * time.Hour)
		uses = append(uses, store.Use{
			Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(n % 7)}), UserAgent: string(rune('a' + n)),
			First: from, Last: from.Add(time.Duration(n%5) * time.Hour), Count: int64(n + 1),
		})
	}
	var inOrder store.UseSummary
	row.Add(&inOrder, uses...)
	require.Len(t, inOrder.Addrs, 7)
	require.Equal(t, uses[39].Last, inOrder.LastUsed)
	for range 20 {
		rand.Shuffle(len(uses), func(i, j int) { uses[i], uses[j] = uses[j], uses[i] })
		var one, each store.UseSummary
		row.Add(&one, uses...)
		for batch := range slices.Chunk(uses, 3) {
			row.Add(&each, batch...)
		}
		require.Equal(t, inOrder, one)
		require.Equal(t, inOrder, each)
	}
}

// TestAddTies: addresses that were used last at one instant are listed in the
// order of the addresses, so that two stores tell the same.
func TestAddTies(t *testing.T) {
	t.Parallel()
	var sum store.UseSummary
	for n := range byte(12) {
		row.Add(&sum, store.Use{Addr: netip.AddrFrom4([4]byte{192, 0, 2, 11 - n}), First: at, Last: at, Count: 1})
	}
	require.Len(t, sum.Addrs, store.MaxUseAddrs)
	for n, a := range sum.Addrs {
		require.Equal(t, netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), a.Addr)
	}
}
