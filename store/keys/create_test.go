package keys_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/token"
)

// S11: by default every user may create and use tokens.
func TestEveryUserMayCreateAndUse(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	for _, user := range []string{"ada", "bob", "olga"} {
		secret, k := b.createFor(user)
		require.Equal(t, admitted, b.use(secret))
		require.Equal(t, keys.Active, b.status(k).State)
	}
}

func TestCreateFillsTheKey(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.clock.Set(time.Date(2026, 3, 1, 13, 0, 0, 123456789, time.FixedZone("", 3600)))
	p := params("ada")
	p.Name = "\t SIEM export\n"
	p.Scopes = []string{"reports:read", "x"}
	p.DailyLimit = 100
	p.NotAfter = b.clock.Now().Add(time.Hour)
	tok, k, err := b.Create(t.Context(), p)
	require.NoError(t, err)
	digest, err := new(token.Format).Digest(tok.Reveal())
	require.NoError(t, err)
	now := start.Add(123456 * time.Microsecond) // microseconds, in UTC
	want := &store.Key{
		ID: tok.ID(), Digest: digest, Org: org, User: "ada", Name: "SIEM export",
		Scopes: []string{"reports:read", "x"}, DailyLimit: 100,
		CreatedAt: now, NotAfter: now.Add(time.Hour), Family: tok.ID(), Version: 1,
	}
	require.Equal(t, want, k)
	require.Equal(t, want, b.stored(k.ID), "what is returned is what is stored")
	require.Regexp(t, `^csk_live_[0-9a-f]{8}$`, k.ID) // D27
	require.Regexp(t, `^csk_live_[0-9a-f]{32}$`, tok.Reveal())

	p.Scopes[0] = "admin"
	require.Equal(t, want, k, "nothing is shared with the caller")
	k.Scopes[0] = "admin"
	require.Equal(t, "reports:read", b.stored(k.ID).Scopes[0])
}

// S15, D30: a name is required: surrounding blanks are cut, then 1 to 100
// printable characters of any script, without control characters. Duplicates are
// allowed.
func TestNames(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{MaxPerUser: -1})
	tests := []struct {
		name, in string
		want     string // "" is refused
	}{
		{"simple", "export", "export"},
		{"duplicate", "export", "export"},
		{"one character", "x", "x"},
		{"blanks inside", "SIEM  export", "SIEM  export"},
		{"blanks around", " \t\r\n export \u00a0\u3000", "export"},
		{"one hundred", strings.Repeat("x", 100), strings.Repeat("x", 100)},
		{"one hundred of four bytes", strings.Repeat("🔑", 100), strings.Repeat("🔑", 100)},
		{"one hundred and blanks", "  " + strings.Repeat("x", 100) + "  ", strings.Repeat("x", 100)},
		{"Cyrillic", "Экспорт данных", "Экспорт данных"},
		{"Chinese with its blank", "数据\u3000导出", "数据\u3000导出"},
		{"Arabic", "تصدير", "تصدير"},
		{"Persian with its joiner", "می\u200cخواهم", "می\u200cخواهم"},
		{"combining mark", "e\u0301xport", "e\u0301xport"},
		{"joined emoji", "👩\u200d💻", "👩\u200d💻"},
		{"markup", `<b>"it's" & more</b>`, `<b>"it's" & more</b>`},

		{"empty", "", ""},
		{"blank", " \t\n\u00a0", ""},
		{"nothing but joiners", "\u200c\u200d", ""},
		{"one hundred and one", strings.Repeat("x", 101), ""},
		{"one hundred and one of four bytes", strings.Repeat("🔑", 101), ""},
		{"tab", "a\tb", ""},
		{"line feed", "a\nb", ""},
		{"carriage return", "a\rb", ""},
		{"NUL", "a\x00b", ""},
		{"escape", "a\x1b[2Jb", ""},
		{"delete", "a\x7fb", ""},
		{"C1 control", "a\u0085b", ""},
		{"invalid UTF-8", "a\xffb", ""},
		{"surrogate", "a\xed\xa0\x80b", ""},
		{"right-to-left override", "a\u202etxt.exe", ""},
		{"isolate", "a\u2066b", ""},
		{"zero-width blank", "a\u200bb", ""},
		{"byte order mark", "\ufeffexport", ""},
		{"line separator", "a\u2028b", ""},
		{"private use", "a\ue000b", ""},
		{"not a character", "a\uffffb", ""},
		{"tag", "a\U000E0041b", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := params("ada")
			p.Name = tt.in
			_, k, err := b.Create(t.Context(), p)
			if tt.want == "" {
				require.Equal(t, []string{"Name"}, fields(err))
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, k.Name)
		})
	}
}

// Scopes have the form of RFC 6749 section 3.3.
func TestScopes(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{MaxPerUser: -1})
	many := func(n int) []string {
		s := make([]string, n)
		for i := range s {
			s[i] = fmt.Sprint("scope", i)
		}
		return s
	}
	tests := []struct {
		name   string
		scopes []string
		ok     bool
	}{
		{"none", nil, true},
		{"empty", []string{}, true},
		{"one", []string{"reports:read"}, true},
		{"all the characters", []string{"!#$%&'()*+,-./09:;<=>?@AZ[]^_`az{|}~"}, true},
		{"differ in case", []string{"read", "Read"}, true},
		{"fifty", many(50), true},
		{"one hundred bytes", []string{strings.Repeat("x", 100)}, true},

		{"fifty-one", many(51), false},
		{"one hundred and one bytes", []string{strings.Repeat("x", 101)}, false},
		{"empty scope", []string{"read", ""}, false},
		{"repeated", []string{"read", "write", "read"}, false},
		{"blank", []string{"read write"}, false},
		{"quote", []string{`read"`}, false},
		{"backslash", []string{`read\`}, false},
		{"tab", []string{"read\t"}, false},
		{"NUL", []string{"read\x00"}, false},
		{"delete", []string{"read\x7f"}, false},
		{"not ASCII", []string{"lesen-für"}, false},
		{"invalid UTF-8", []string{"\xff"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := params("ada")
			p.Scopes = tt.scopes
			_, k, err := b.Create(t.Context(), p)
			if !tt.ok {
				require.Equal(t, []string{"Scopes"}, fields(err))
				return
			}
			require.NoError(t, err)
			require.Len(t, k.Scopes, len(tt.scopes))
		})
	}
}

// D6: 0 is the default and -1 unlimited, other negative numbers are refused. D7: a
// plain user sets at most the configured maximum and never unlimited; owners and
// operators set any. Nobody sets one that RFC 9651 cannot write.
func TestDailyLimits(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		max   int64
		actor keys.Actor
		limit int64
		ok    bool
	}{
		{"default", 0, plain, 0, true},
		{"one", 0, plain, 1, true},
		{"the maximum", 0, plain, 250, true},
		{"above the maximum", 0, plain, 251, false},
		{"far above", 0, plain, math.MaxInt64, false},
		{"plain unlimited", 0, plain, -1, false},
		{"negative", 0, plain, -2, false},
		{"configured maximum", 1000, plain, 1000, true},
		{"above configured maximum", 1000, plain, 1001, false},
		{"any number", -1, plain, 999_999_999_999_999, true},
		{"too large for a field", -1, plain, 1_000_000_000_000_000, false},
		{"owner too large", 0, owner, 1_000_000_000_000_000, false},
		{"operator too large", 0, operator, math.MaxInt64, false},
		{"any number, but not unlimited", -1, plain, -1, false},
		{"owner above", 0, owner, 251, true},
		{"owner unlimited", 0, owner, -1, true},
		{"owner negative", 0, owner, -2, false},
		{"operator above", 0, operator, 999_999_999_999_999, true},
		{"operator unlimited", 0, operator, -1, true},
		{"operator negative", 0, operator, math.MinInt64, false},
		{"unknown role is a plain user", 0, keys.Actor{Role: 99}, 251, false},
		{"zero actor is a plain user", 0, keys.Actor{}, -1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, &keys.Options{MaxDailyLimit: tt.max})
			p := params("ada")
			p.Actor, p.DailyLimit = tt.actor, tt.limit
			_, k, err := b.Create(t.Context(), p)
			if tt.ok {
				require.NoError(t, err)
				require.Equal(t, tt.limit, k.DailyLimit)
			} else {
				require.Equal(t, []string{"DailyLimit"}, fields(err))
			}

			_, k = b.createFor("bob")
			k, err = b.Update(t.Context(), keys.UpdateParams{Actor: tt.actor, Ref: ref(k), DailyLimit: &tt.limit})
			if tt.ok {
				require.NoError(t, err)
				require.Equal(t, tt.limit, k.DailyLimit)
			} else {
				require.Equal(t, []string{"DailyLimit"}, fields(err))
			}
		})
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit func(p *keys.CreateParams)
		want []string
	}{
		{"end ahead", func(p *keys.CreateParams) { p.NotAfter = start.Add(time.Microsecond) }, nil},
		{"end now", func(p *keys.CreateParams) { p.NotAfter = start }, []string{"NotAfter"}},
		{"end ahead by less than is stored", func(p *keys.CreateParams) { p.NotAfter = start.Add(999) }, []string{"NotAfter"}},
		{"end past", func(p *keys.CreateParams) { p.NotAfter = start.Add(-day) }, []string{"NotAfter"}},
		{"end at the epoch", func(p *keys.CreateParams) { p.NotAfter = time.Unix(0, 0) }, []string{"NotAfter"}},
		{"end in 9999", func(p *keys.CreateParams) { p.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }, nil},
		{"end in 10000", func(p *keys.CreateParams) { p.NotAfter = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, []string{"NotAfter"}},
		{"made by a plain user", func(p *keys.CreateParams) { p.CreatedAt = start }, []string{"CreatedAt"}},
		{"made by an owner", func(p *keys.CreateParams) { p.Actor, p.CreatedAt = owner, start }, []string{"CreatedAt"}},
		{"made by an operator", func(p *keys.CreateParams) { p.Actor, p.CreatedAt = operator, start.Add(-60*day) }, nil},
		{"made now", func(p *keys.CreateParams) { p.Actor, p.CreatedAt = operator, start }, nil},
		{"made at the epoch", func(p *keys.CreateParams) { p.Actor, p.CreatedAt = operator, time.Unix(0, 0) }, nil},
		{"made ahead", func(p *keys.CreateParams) { p.Actor, p.CreatedAt = operator, start.Add(time.Microsecond) }, []string{"CreatedAt"}},
		{"made before the year 1", func(p *keys.CreateParams) { p.Actor, p.CreatedAt = operator, time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC) }, []string{"CreatedAt"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			p := params("ada")
			tt.edit(&p)
			_, k, err := b.Create(t.Context(), p)
			if tt.want != nil {
				require.Equal(t, tt.want, fields(err))
				return
			}
			require.NoError(t, err)
			require.True(t, k.NotAfter.Equal(p.NotAfter))
			if !p.CreatedAt.IsZero() {
				require.True(t, k.CreatedAt.Equal(p.CreatedAt))
				require.Equal(t, time.UTC, k.CreatedAt.Location())
			}
		})
	}
}

// All problems with the fields are reported together, and no value is repeated.
func TestCreateReportsAllFields(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	const marker = "Xyzzy"
	_, _, err := b.Create(t.Context(), keys.CreateParams{
		Org: marker + "\x00", User: "", Name: marker + "\x00", Scopes: []string{marker + " "},
		DailyLimit: 123456, NotAfter: start.Add(-123456 * time.Second), CreatedAt: start.Add(-123456 * time.Second),
	})
	require.Equal(t, []string{"Org", "User", "Name", "Scopes", "DailyLimit", "CreatedAt", "NotAfter"}, fields(err))
	require.NotContains(t, err.Error(), marker)
	require.NotContains(t, err.Error(), "123456")
	for line := range strings.Lines(err.Error()) {
		require.True(t, strings.HasPrefix(line, "keys: "), line)
	}
	require.Zero(t, b.count("", true))
}

func TestCreateNeedsTheUser(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	for _, p := range []keys.CreateParams{
		{Org: org, User: "nobody", Name: "x"},
		{Org: "elsewhere", User: "ada", Name: "x"},
		{Org: org, User: "ADA", Name: "x", Actor: operator},
	} {
		_, _, err := b.Create(t.Context(), p)
		require.ErrorIs(t, err, store.ErrNotFound)
	}
	require.Zero(t, b.count("", true))
}

// S12: at most 5 tokens per user; the 5 go on working. D9: the error names the
// limit.
func TestSixthTokenIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	var secrets []string
	for range 5 {
		secret, _ := b.create()
		secrets = append(secrets, secret)
	}
	tok, k, err := b.Create(t.Context(), params("ada"))
	require.ErrorIs(t, err, store.ErrLimit)
	limit, ok := errors.AsType[*keys.LimitError](err)
	require.True(t, ok)
	require.Equal(t, 5, limit.Limit)
	require.ErrorContains(t, err, "5")
	require.Empty(t, tok.Reveal())
	require.Nil(t, k)
	for _, secret := range secrets {
		require.Equal(t, admitted, b.use(secret))
	}
	b.createFor("bob") // the cap is each user's own
}

// D11: one cap of the service: 0 is 5, -1 none.
func TestCap(t *testing.T) {
	t.Parallel()
	tests := []struct{ max, ok, tries int }{{0, 5, 8}, {1, 1, 3}, {7, 7, 9}, {-1, 40, 40}}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.max), func(t *testing.T) {
			t.Parallel()
			b := setup(t, &keys.Options{MaxPerUser: tt.max})
			for i := range tt.tries {
				_, _, err := b.Create(t.Context(), params("ada"))
				require.Equal(t, i < tt.ok, err == nil)
			}
			require.Equal(t, tt.ok, b.count("ada", false))
		})
	}
}

// D10: expired and disabled keys count, since they can come back.
func TestExpiredAndDisabledKeysCount(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{MaxPerUser: 2})
	_, k := b.create()
	_, err := b.Disable(t.Context(), owner, ref(k))
	require.NoError(t, err)
	b.create()
	b.set(func(s *policy.Settings) { s.MaxAge = day })
	b.clock.Add(2 * day)
	_, _, err = b.Create(t.Context(), params("ada"))
	require.ErrorIs(t, err, store.ErrLimit)
}

// S13: concurrent creations never leave more than 5.
func TestParallelCreations(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	var made, refused atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, _, err := b.Create(t.Context(), params("ada"))
			switch {
			case err == nil:
				made.Add(1)
			case errors.Is(err, store.ErrLimit):
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 5, made.Load())
	require.EqualValues(t, 45, refused.Load())
	require.Equal(t, 5, b.count("ada", true))
}

// S14: deleting a token frees a place.
func TestRevokeFreesAPlace(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{MaxPerUser: 1})
	_, k := b.create()
	_, _, err := b.Create(t.Context(), params("ada"))
	require.ErrorIs(t, err, store.ErrLimit)
	require.NoError(t, b.Revoke(t.Context(), plain, ref(k)))
	b.create()
}

// S54, D26: keys are for the configured tiers, compared without case in ASCII.
func TestTiers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, tier string
		actor      keys.Actor
		ok         bool
	}{
		{"Pro", "Pro", plain, true},
		{"lower case", "pro", plain, true},
		{"upper case", "ENTERPRISE", plain, true},
		{"Free", "Free", plain, false},
		{"none", "-", plain, false},
		{"part of a name", "Pr", plain, false},
		{"blank after", "Pro ", plain, false},
		{"no Unicode folding", "Enterpri\u017fe", plain, false},
		{"owner is bound", "Free", owner, false},
		{"operator is not", "Free", operator, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, &keys.Options{Tiers: []string{"Pro", "Team", "Enterprise"}})
			u := store.User{Org: org, ID: "ada", Tier: strings.Trim(tt.tier, "-")}
			require.NoError(t, b.PutUser(t.Context(), &u))
			p := params("ada")
			p.Actor = tt.actor
			_, _, err := b.Create(t.Context(), p)
			if tt.ok {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, keys.ErrTier)
			require.Zero(t, b.count("ada", true))
		})
	}

	t.Run("every tier without a list", func(t *testing.T) {
		t.Parallel()
		b := setup(t, nil)
		require.NoError(t, b.PutUser(t.Context(), &store.User{Org: org, ID: "ada"}))
		b.create()
	})
}

// S25: while restricted, users without permission cannot create tokens. S29: owners
// are not exempt. An operator can, but the key cannot be used (S26).
func TestRestrictionBindsCreation(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.set(func(s *policy.Settings) { s.RestrictUsers = true })
	for _, user := range []string{"ada", "olga"} {
		p := params(user)
		for _, a := range []keys.Actor{plain, owner} {
			p.Actor = a
			_, _, err := b.Create(t.Context(), p)
			require.ErrorIs(t, err, keys.ErrNotPermitted)
		}
		require.Zero(t, b.count(user, true))
	}

	p := params("ada")
	p.Actor = operator
	tok, _, err := b.Create(t.Context(), p)
	require.NoError(t, err)
	require.Equal(t, policy.UserNotPermitted, b.use(tok.Reveal()))

	b.permit("ada", true)
	require.Equal(t, admitted, b.use(tok.Reveal()))
	b.create()
	b.permit("olga", true)
	b.createFor("olga")
}

// D17: a suspended user gets no keys, whoever asks.
func TestNoKeysForSuspendedUsers(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.put(store.User{ID: "ada", SuspendedAt: start})
	for _, a := range []keys.Actor{plain, owner, operator} {
		p := params("ada")
		p.Actor = a
		_, _, err := b.Create(t.Context(), p)
		require.ErrorIs(t, err, keys.ErrSuspended)
	}
	b.put(store.User{ID: "ada"})
	b.create()
}

// F48: what decides a creation is read from the store, however warm the cache is.
func TestManagementReadsTheStore(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{Cache: &store.CacheOptions{TTL: 5 * time.Minute}})
	secret, k := b.create()
	require.Equal(t, admitted, b.use(secret)) // warm

	// Another process writes.
	ctx := t.Context()
	require.NoError(t, b.mem.UpdateSettings(ctx, &policy.Settings{Org: org, RestrictUsers: true}))
	require.Equal(t, admitted, b.use(secret), "the cache does not know")
	_, _, err := b.Create(ctx, params("ada"))
	require.ErrorIs(t, err, keys.ErrNotPermitted)
	_, _, err = b.Rotate(ctx, keys.RotateParams{Ref: ref(k)})
	require.ErrorIs(t, err, keys.ErrNotActive)
	s, err := b.Settings(ctx, org)
	require.NoError(t, err)
	require.True(t, s.RestrictUsers)
}

// D27: a collision makes creation try again with a new token.
func TestCollisionsAreTriedAgain(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 7} {
		b := setup(t, nil)
		left := n
		b.hook.on(func(op string) error {
			if op == "InsertKey" && left > 0 {
				left--
				return fmt.Errorf("somestore: %w", store.ErrExists)
			}
			return nil
		}, nil)
		tok, k, err := b.Create(t.Context(), params("ada"))
		require.NoError(t, err)
		require.Equal(t, tok.ID(), k.ID)
		require.Equal(t, k.ID, k.Family)
		require.Equal(t, admitted, b.use(tok.Reveal()))
		_, _, err = b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k)})
		require.NoError(t, err)
	}
}

// D27: but not for ever.
func TestEndlessCollisionsAreAnError(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, k := b.createFor("bob")
	calls := 0
	b.hook.on(func(op string) error {
		if op == "InsertKey" {
			calls++
			return store.ErrExists
		}
		return nil
	}, nil)
	tok, _, err := b.Create(t.Context(), params("ada"))
	require.ErrorIs(t, err, store.ErrExists)
	require.Empty(t, tok.Reveal())
	require.Equal(t, 8, calls)
	_, _, err = b.Rotate(t.Context(), keys.RotateParams{Ref: ref(k)})
	require.ErrorIs(t, err, store.ErrExists)
	require.Equal(t, 16, calls)
}

// D27: real collisions, by randomness that repeats itself; the ID of a revoked key
// is not given out again. Not parallel, since the randomness is the process's.
func TestCollisionsOfRealTokens(t *testing.T) {
	b := setup(t, nil)
	cryptotest.SetGlobalRandom(t, 1)
	first, k := b.create()
	require.NoError(t, b.Revoke(t.Context(), plain, ref(k)))
	cryptotest.SetGlobalRandom(t, 1)
	require.Equal(t, first, token.Generate().Reveal(), "the test would show nothing otherwise")
	cryptotest.SetGlobalRandom(t, 1)
	second, k2 := b.create()
	require.NotEqual(t, first, second)
	require.NotEqual(t, k.ID, k2.ID)
	require.Equal(t, policy.InvalidToken, b.use(first))
	require.Equal(t, admitted, b.use(second))
}

// The token is under the current pepper of the Manager's own Format.
func TestCreateUsesTheFormat(t *testing.T) {
	t.Parallel()
	b := setup(t, &keys.Options{Format: &token.Format{Prefix: "acme_", Peppers: [][]byte{[]byte("0123456789abcdef")}}})
	secret, k := b.create()
	require.Regexp(t, `^acme_[0-9a-f]{32}$`, secret)
	require.Equal(t, secret[:13], k.ID)
	require.Equal(t, admitted, b.use(secret))
	require.Equal(t, policy.InvalidToken, b.use(strings.ToUpper(secret))) // D31
}

// An ended context makes nothing.
func TestCreateWithEndedContext(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := b.Create(ctx, params("ada"))
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, b.count("ada", true))
}

// D30: whatever is given, a stored name is trimmed, printable and short.
func FuzzName(f *testing.F) {
	for _, s := range []string{"export", " ", "a\x00", "\u202e", "\u200d", "\xff", "👩\u200d💻", "\u00a0x\u3000", strings.Repeat("é", 101)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		b := setup(t, nil)
		p := params("ada")
		p.Name = name
		_, k, err := b.Create(t.Context(), p)
		if err != nil {
			require.Equal(t, []string{"Name"}, fields(err))
			return
		}
		require.Equal(t, strings.TrimSpace(name), k.Name)
		require.True(t, utf8.ValidString(k.Name))
		n := utf8.RuneCountInString(k.Name)
		require.True(t, n >= 1 && n <= 100)
		for _, r := range k.Name {
			require.False(t, unicode.IsControl(r))
			require.False(t, unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp, unicode.Cs, unicode.Co))
		}
	})
}

// Scopes survive the header field that they are sent in (RFC 6750 section 3):
// a stored one has no blank, quote or backslash.
func FuzzScope(f *testing.F) {
	for _, s := range []string{"read", "a b", `"`, `\`, "\x7f", "", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, scope string) {
		b := setup(t, nil)
		p := params("ada")
		p.Scopes = []string{scope}
		_, k, err := b.Create(t.Context(), p)
		if err != nil {
			require.Equal(t, []string{"Scopes"}, fields(err))
			return
		}
		require.Equal(t, []string{scope}, k.Scopes)
		require.Regexp(t, `^[\x21\x23-\x5b\x5d-\x7e]{1,100}$`, scope)
	})
}

// TestEndOfKey: D23, F70: an end lies ahead, and none so early that it would be
// stored as "never"; an operator may bring a key that has ended already, but none
// that ended before it was made.
func TestEndOfKey(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	mgr, err := keys.New(memstore.New(), nil)
	require.NoError(t, err)
	require.NoError(t, mgr.PutUser(ctx, &store.User{Org: "acme", ID: "u"}))
	now := time.Now()
	operator := keys.Actor{Role: keys.Operator}
	for _, test := range []struct {
		name    string
		actor   keys.Actor
		created time.Time
		end     time.Time
		ok      bool
	}{
		{"none", keys.Actor{}, time.Time{}, time.Time{}, true},
		{"ahead", keys.Actor{}, time.Time{}, now.Add(time.Hour), true},
		{"past", keys.Actor{}, time.Time{}, now.Add(-time.Hour), false},
		{"within the first microsecond of the year 1", keys.Actor{}, time.Time{}, time.Time{}.Add(500), false},
		{"the same by an operator", operator, now.Add(-time.Hour), time.Time{}.Add(500), false},
		{"past, by an operator, for a new key", operator, time.Time{}, now.Add(-time.Hour), false},
		{"past, by an operator, for an older key", operator, now.Add(-2 * time.Hour), now.Add(-time.Hour), true},
		{"before its creation", operator, now.Add(-time.Hour), now.Add(-2 * time.Hour), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, k, err := mgr.Create(ctx, keys.CreateParams{
				Actor: test.actor, Org: "acme", User: "u", Name: "k", CreatedAt: test.created, NotAfter: test.end,
			})
			if !test.ok {
				field, ok := errors.AsType[*keys.FieldError](err)
				require.True(t, ok, err)
				require.Equal(t, "NotAfter", field.Field)
				return
			}
			require.NoError(t, err)
			end := time.Time{}.Add(500)
			_, err = mgr.Update(ctx, keys.UpdateParams{Ref: keys.Ref{Org: "acme", ID: k.ID}, NotAfter: &end})
			require.Error(t, err)
		})
	}
}
