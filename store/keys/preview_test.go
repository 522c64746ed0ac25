package keys_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// addrPool are the addresses of the random tests, and lists the texts of their
// lists of addresses, which contain some of them.
var (
	addrPool = []netip.Addr{
		addr("192.0.2.1"), addr("192.0.2.200"), addr("198.51.100.7"), addr("203.0.113.3"), addr("2001:db8::1"), addr("2001:db8:1::1"),
	}
	listTexts = []string{"", "", "192.0.2.0/25", "192.0.2.0/24\n2001:db8::/48", "198.51.100.0 - 203.0.113.255", "# nobody", "::/0", "0.0.0.0/0"}
)

// A world is a random organization: users of every kind, with keys of every kind,
// used at various times from various addresses.
type world struct {
	*bundle
	r       *rand.Rand
	keys    []*store.Key // not all of which still are
	secrets map[string]string
	uses    map[string][]store.Use // by key
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{
		bundle:  setup(t, &keys.Options{MaxPerUser: -1}),
		r:       rand.New(rand.NewPCG(seed, 2)),
		secrets: make(map[string]string),
		uses:    make(map[string][]store.Use),
	}
	ctx := t.Context()
	for i := range 1 + w.r.IntN(6) {
		u := store.User{ID: fmt.Sprintf("u%d", i), Owner: w.one(3), Permitted: w.one(2)}
		w.put(u)
		for range w.r.IntN(5) {
			p := params(u.ID)
			p.Actor, p.CreatedAt = operator, start.Add(-w.days(120))
			if w.one(3) {
				p.NotAfter = start.Add(w.days(60)) // of which some will have passed
			}
			secret, k, err := w.Create(ctx, p)
			require.NoError(t, err)
			w.add(secret.Reveal(), k)
		}
		if w.one(6) {
			u.SuspendedAt = start
			w.put(u)
		}
	}
	w.clock.Add(w.days(40))
	for _, k := range slices.Clone(w.keys) {
		switch w.r.IntN(8) {
		case 0:
			_, err := w.Disable(ctx, owner, ref(k))
			require.NoError(t, err)
		case 1:
			require.NoError(t, w.Revoke(ctx, owner, ref(k)))
		case 2:
			secret, k, err := w.Rotate(ctx, keys.RotateParams{Ref: ref(k), Grace: w.days(3)})
			if err == nil { // it is not expired
				w.add(secret.Reveal(), k)
			}
		}
	}
	w.clock.Add(w.days(2)) // within which a grace period can end
	for _, k := range w.keys {
		for range w.r.IntN(4) {
			at := w.clock.Now().Add(-w.days(20)).UTC()
			u := store.Use{KeyID: k.ID, Addr: addrPool[w.r.IntN(len(addrPool))], First: at, Last: at, Count: 1}
			w.uses[k.ID] = append(w.uses[k.ID], u)
			require.NoError(t, w.mem.RecordUses(ctx, []store.Use{u}))
		}
	}
	if w.one(2) {
		w.set(func(s *policy.Settings) { w.randomize(s) })
	}
	return w
}

func (w *world) add(secret string, k *store.Key) {
	w.keys = append(w.keys, k)
	w.secrets[k.ID] = secret
}

// one is true one time in n.
func (w *world) one(n int) bool { return w.r.IntN(n) == 0 }

// days returns a random period of up to n days, in whole microseconds, as a store
// keeps them.
func (w *world) days(n int64) time.Duration {
	return time.Duration(w.r.Int64N(n*int64(day/time.Microsecond))) * time.Microsecond
}

func (w *world) randomize(s *policy.Settings) {
	s.RestrictUsers = w.one(2)
	s.MaxAge = time.Duration(w.r.IntN(3)) * 30 * day
	s.AllowedIPs = list(w.t, listTexts[w.r.IntN(len(listTexts))])
}

// live returns the keys that are not revoked, as they are stored.
func (w *world) live() (live []*store.Key) {
	for _, k := range w.keys {
		k := w.stored(k.ID)
		if !k.RevokedBy(w.clock.Now()) {
			live = append(live, k)
		}
	}
	return live
}

// from returns the answer to a request with a key from an address.
func (w *world) from(k *store.Key, a netip.Addr) policy.Reason {
	w.t.Helper()
	now := w.clock.Now()
	v, err := w.Verifier().Verify(w.t.Context(), w.secrets[k.ID], now)
	require.NoError(w.t, err)
	if v.Record.Key.RevokedBy(now) || !v.Record.User.SuspendedAt.IsZero() {
		return policy.InvalidToken
	}
	return policy.Default().Evaluate(policy.Request{Principal: v.Record.Principal, Settings: v.Settings, Time: now, Addr: a}).Reason
}

// Preview agrees with what happens when the same settings are then applied, over
// random organizations: with the status of every key before and after, and with
// what requests are told.
func TestPreviewAgreesWithWhatHappens(t *testing.T) {
	t.Parallel()
	seen := make(map[string]int) // that the organizations have what can be told
	for seed := range uint64(200) {
		w := newWorld(t, seed)
		ctx := t.Context()
		proposed, err := w.Settings(ctx, org)
		require.NoError(t, err)
		w.randomize(proposed)
		recent := 1 + w.days(20)

		dump := w.dump()
		p, err := w.Preview(ctx, proposed, recent)
		require.NoError(t, err)
		require.Equal(t, dump, w.dump(), "seed %d: it changes nothing", seed)

		live, before := w.live(), make(map[string]keys.Status)
		for _, k := range live {
			before[k.ID] = w.status(k)
		}
		_, err = w.UpdateSettings(ctx, owner, proposed)
		require.NoError(t, err)

		// Which keys change, and how.
		want := keys.Preview{Settings: p.Settings, Keys: len(live)}
		since := w.clock.Now().Add(-recent)
		users := make(map[string]bool)
		for _, k := range live {
			after := w.status(k)
			var last time.Time
			for _, u := range w.uses[k.ID] {
				if u.Last.After(last) {
					last = u.Last
				}
			}
			if after.State == before[k.ID].State {
				continue
			}
			want.Changed++
			users[k.User] = true
			if !last.IsZero() && !last.Before(since) {
				want.Recent++
			}
			want.Changes = append(want.Changes, keys.StatusChange{
				KeyID: k.ID, User: k.User, Name: k.Name, From: before[k.ID], To: after, LastUsed: last,
			})
			seen[string(before[k.ID].State)+" to "+string(after.State)]++
		}
		slices.SortFunc(want.Changes, func(a, b keys.StatusChange) int {
			x, y := w.stored(a.KeyID), w.stored(b.KeyID)
			if c := y.CreatedAt.Compare(x.CreatedAt); c != 0 {
				return c
			}
			if x.ID < y.ID {
				return 1
			}
			return -1
		})
		want.Users = len(users)

		// Which of the addresses in use are refused from now on.
		refused := make(map[netip.Addr]map[string]bool)
		last := make(map[netip.Addr]time.Time)
		for _, k := range live {
			for _, u := range w.uses[k.ID] {
				e, err := w.Explain(ctx, ref(k), u.Addr)
				require.NoError(t, err)
				if u.Last.Before(since) || verdict(e, keys.RuleAddress).Allow {
					continue
				}
				if refused[u.Addr] == nil {
					refused[u.Addr] = make(map[string]bool)
				}
				refused[u.Addr][k.ID] = true
				if u.Last.After(last[u.Addr]) {
					last[u.Addr] = u.Last
				}
				seen["refused address"]++
			}
		}
		want.RefusedAddrs = len(refused)
		require.Len(t, p.Refused, len(refused), "seed %d", seed)
		for i, a := range p.Refused {
			require.Equal(t, last[a.Addr], a.LastUsed)
			require.Len(t, refused[a.Addr], a.Keys)
			require.Len(t, a.KeyIDs, a.Keys)
			for _, id := range a.KeyIDs {
				require.True(t, refused[a.Addr][id])
			}
			if i > 0 {
				require.False(t, a.LastUsed.After(p.Refused[i-1].LastUsed), "last used first")
			}
		}
		want.Refused = p.Refused
		require.Equal(t, want, p, "seed %d", seed)

		// What requests are told.
		changes := make(map[string]keys.StatusChange)
		for _, c := range p.Changes {
			changes[c.KeyID] = c
		}
		for _, k := range live {
			for _, a := range addrPool {
				reason := w.from(k, a)
				if c, ok := changes[k.ID]; ok && c.To.State != keys.Active {
					require.Equal(t, c.To.Reasons[0], reason, "seed %d", seed)
				} else if ok {
					require.Contains(t, []policy.Reason{admitted, policy.AddressNotAllowed}, reason, "seed %d", seed)
				}
				isRefused := slices.ContainsFunc(p.Refused, func(r keys.RefusedAddr) bool {
					return r.Addr == a && slices.Contains(r.KeyIDs, k.ID)
				})
				require.False(t, isRefused && reason == admitted, "seed %d", seed)
				seen["told "+string(reason)]++
			}
		}
	}
	for _, what := range []string{
		"active to expired", "expired to active", "active to disabled_by_owner", "disabled_by_owner to active",
		"expired to disabled_by_owner", "disabled_by_owner to expired", "refused address",
		"told ", "told expired", "told user_not_permitted", "told key_disabled", "told address_not_allowed", "told invalid_token",
	} {
		require.Greater(t, seen[what], 5, "%s: %v", what, seen)
	}
}

func verdict(e keys.Explanation, rule keys.Rule) policy.Decision {
	for _, v := range e.Verdicts {
		if v.Rule == rule {
			return v.Decision
		}
	}
	return policy.Decision{}
}

// S38, S39, D20: what an owner is warned of before a period, a restriction and a
// list are put in force.
func TestPreview(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, old := b.create()
	b.clock.Add(31 * day)
	_, young := b.create()
	_, other := b.createFor("bob")
	now := b.clock.Now()
	b.used(old, "192.0.2.1", now.Add(-time.Hour))
	b.used(young, "192.0.2.1", now.Add(-2*time.Hour))
	b.used(young, "198.51.100.7", now.Add(-3*time.Hour))
	b.used(young, "203.0.113.9", now.Add(-8*day)) // not recent
	b.permit("bob", true)

	p, err := b.Preview(t.Context(), &policy.Settings{Org: org, MaxAge: 30 * day}, 7*day)
	require.NoError(t, err)
	require.Equal(t, keys.Preview{
		Settings: &policy.Settings{Org: org},
		Keys:     3, Changed: 1, Users: 1, Recent: 1,
		Changes: []keys.StatusChange{{
			KeyID: old.ID, User: "ada", Name: "export",
			From:     keys.Status{State: keys.Active},
			To:       keys.Status{State: keys.Expired, Reasons: []policy.Reason{policy.Expired}, ExpiresAt: old.CreatedAt.Add(30 * day)},
			LastUsed: now.Add(-time.Hour),
		}},
	}, p)

	p, err = b.Preview(t.Context(), &policy.Settings{Org: org, MaxAge: 90 * day}, 7*day)
	require.NoError(t, err)
	require.Zero(t, p.Changed, "a date that moves is no change of state")

	p, err = b.Preview(t.Context(), &policy.Settings{Org: org, RestrictUsers: true}, time.Minute)
	require.NoError(t, err)
	require.Equal(t, []int{3, 2, 1, 0}, []int{p.Keys, p.Changed, p.Users, p.Recent})
	require.NotContains(t, []string{p.Changes[0].KeyID, p.Changes[1].KeyID}, other.ID)

	p, err = b.Preview(t.Context(), &policy.Settings{Org: org, AllowedIPs: list(t, "203.0.113.0/24")}, 7*day)
	require.NoError(t, err)
	require.Zero(t, p.Changed, "S45: a key that is used from elsewhere stays active")
	require.Equal(t, 2, p.RefusedAddrs)
	require.Equal(t, []keys.RefusedAddr{
		{Addr: addr("192.0.2.1"), Keys: 2, KeyIDs: p.Refused[0].KeyIDs, LastUsed: now.Add(-time.Hour)},
		{Addr: addr("198.51.100.7"), Keys: 1, KeyIDs: []string{young.ID}, LastUsed: now.Add(-3 * time.Hour)},
	}, p.Refused)
	require.ElementsMatch(t, []string{old.ID, young.ID}, p.Refused[0].KeyIDs)

	p, err = b.Preview(t.Context(), &policy.Settings{Org: org, AllowedIPs: list(t, "192.0.2.0/24\n198.51.100.0/24")}, 0)
	require.NoError(t, err)
	require.Equal(t, 1, p.RefusedAddrs, "by default 30 days are recent")

	b.clock.Add(30*day - time.Hour)
	p, err = b.Preview(t.Context(), &policy.Settings{Org: org, AllowedIPs: list(t, "# nobody")}, 0)
	require.NoError(t, err)
	require.Equal(t, 1, p.RefusedAddrs, "and no more than those, to the instant")
}

// Without use facts nothing is said of use, rather than that there was none.
func TestPreviewWithoutUses(t *testing.T) {
	t.Parallel()
	mgr, err := keys.New(memstore.New(), nil)
	require.NoError(t, err)
	require.NoError(t, mgr.PutUser(t.Context(), &store.User{Org: org, ID: "ada"}))
	_, k, err := mgr.Create(t.Context(), params("ada"))
	require.NoError(t, err)
	p, err := mgr.Preview(t.Context(), &policy.Settings{Org: org, RestrictUsers: true, AllowedIPs: list(t, "# nobody")}, day)
	require.NoError(t, err)
	require.Equal(t, []int{1, 1, 1, -1, -1}, []int{p.Keys, p.Changed, p.Users, p.Recent, p.RefusedAddrs})
	require.Empty(t, p.Refused)
	require.Equal(t, k.ID, p.Changes[0].KeyID)
	require.Zero(t, p.Changes[0].LastUsed)
}

func TestPreviewProblems(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, err := b.Preview(t.Context(), &policy.Settings{Org: org, MaxAge: -1}, 0)
	require.ErrorContains(t, err, "policy: Settings.MaxAge")
	_, err = b.Preview(t.Context(), &policy.Settings{}, 0)
	require.ErrorContains(t, err, "policy: Settings.Org")
	_, err = b.Preview(t.Context(), &policy.Settings{Org: "a\x00"}, -1)
	require.Equal(t, []string{"Org", "Recent"}, fields(err))
}

// A Preview of a large organization counts everything and names a part, the newest
// keys and the addresses used last, so that it is bounded.
func TestPreviewIsBounded(t *testing.T) {
	t.Parallel()
	const users, perUser = 230, 5
	b := setup(t, nil)
	var ids []string // newest first
	for i := range users {
		u := fmt.Sprintf("u%d", i)
		b.put(store.User{ID: u})
		for j := range perUser {
			b.clock.Add(time.Second)
			_, k := b.createFor(u)
			ids = append([]string{k.ID}, ids...)
			b.used(k, "192.0.2.1", b.clock.Now())
			for n := range 9 {
				a := netip.AddrFrom4([4]byte{10, byte(i), byte(j), byte(n)})
				b.used(k, a.String(), b.clock.Now())
			}
		}
	}
	trips := b.trips()
	p, err := b.Preview(t.Context(), &policy.Settings{Org: org, RestrictUsers: true, AllowedIPs: list(t, "# nobody")}, day)
	require.NoError(t, err)
	require.Equal(t, []int{users * perUser, users * perUser, users, users * perUser}, []int{p.Keys, p.Changed, p.Users, p.Recent})
	require.Len(t, p.Changes, 1000)
	require.Equal(t, ids[0], p.Changes[0].KeyID)
	require.Equal(t, 10_000, p.RefusedAddrs, "of %d", 1+users*perUser*9)
	require.Len(t, p.Refused, 1000)
	require.Equal(t, b.clock.Now(), p.Refused[0].LastUsed)
	i := slices.IndexFunc(p.Refused, func(a keys.RefusedAddr) bool { return a.Addr == addr("192.0.2.1") })
	require.Equal(t, users*perUser, p.Refused[i].Keys)
	require.Equal(t, ids[:100], p.Refused[i].KeyIDs)
	require.Equal(t, map[string]int{"Settings": 1, "Keys": 2, "Users": 1, "Uses": 2}, trips(), "by pages, not by keys")
}
