package policy_test

import (
	"math"
	"testing"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/stretchr/testify/require"
)

const day = 24 * time.Hour

// TestExpiry is the section "Expiration" with D21 to D23: what a key of some age
// gets under a period, and what a table shows for it.
func TestExpiry(t *testing.T) {
	t.Parallel()
	type T = time.Time
	var none T
	year1 := none.Add(1)
	farPast, farFuture := time.Unix(-1<<62, 0), time.Unix(1<<62, 0)
	lastSecond := time.Unix(math.MaxInt64-62135596800, 0) // the last that a Time holds
	epoch := time.Unix(0, 0)
	for _, tt := range []struct {
		name     string
		issued   T
		maxAge   time.Duration
		notAfter T
		now      T
		end      T
		want     bool // that it works
	}{
		{"S35: default never", now, 0, none, farFuture, none, true},
		{"S37: counted from creation, a nanosecond before", now.Add(-30*day + 1), 30 * day, none, now, now.Add(1), true},
		{"D22: expired when now >= created + max age", now.Add(-30 * day), 30 * day, none, now, now, false},
		{"D22: a nanosecond after", now.Add(-30*day - 1), 30 * day, none, now, now.Add(-1), false},
		{"D22: fractions of a second counted", now.Add(-30*day + 500*time.Millisecond), 30 * day, none, now, now.Add(500 * time.Millisecond), true},
		{"S38: 60-day-old token, policy set to 30 days", now.Add(-60 * day), 30 * day, none, now, now.Add(-30 * day), false},
		{"S39: policy then set to 90 days", now.Add(-60 * day), 90 * day, none, now, now.Add(30 * day), true},
		{"S41: turning the policy off un-expires", now.Add(-60 * day), 0, none, now, none, true},
		{"S42: the policy covers old tokens", now.Add(-5000 * day), day, none, now, now.Add(-4999 * day), false},
		{"S42: and new ones", now, day, none, now, now.Add(day), true},
		{"D21: one second", now.Add(-time.Second), time.Second, none, now, now, false},
		{"D21: one second, before", now.Add(-time.Second + 1), time.Second, none, now, now.Add(1), true},
		{"D21: the longest period", now.Add(-policy.MaxAgeLimit + 1), policy.MaxAgeLimit, none, now, now.Add(1), true},
		{"D21: the longest period, over", now.Add(-policy.MaxAgeLimit), policy.MaxAgeLimit, none, now, now, false},
		{"F70: negative period fails closed", now.Add(-day), -1, none, now, year1, false},
		{"F70: also for a creation ahead", now.Add(day), -time.Second, none, now, year1, false},
		{"F70: the smallest duration", now, math.MinInt64, none, now, year1, false},
		{"D22: zero creation is expired under any period", none, policy.MaxAgeLimit, none, now, year1, false},
		{"D22: zero creation, clock in the year 50", none, policy.MaxAgeLimit, none, none.AddDate(50, 0, 0), year1, false},
		{"D22: zero creation works without a period", none, 0, none, now, none, true},
		{"D22: the epoch is an ordinary date", epoch, day, none, epoch.Add(day - 1), epoch.Add(day), true},
		{"D22: the epoch is an ordinary date, expired", epoch, day, none, epoch.Add(day), epoch.Add(day), false},
		{"D22: creation ahead of the clock is active", now.Add(time.Hour), time.Second, none, now, now.Add(time.Hour + time.Second), true},
		{"D23: own end first", now, 30 * day, now.Add(day), now.Add(day - 1), now.Add(day), true},
		{"D23: own end first, reached", now, 30 * day, now.Add(day), now.Add(day), now.Add(day), false},
		{"D23: period first", now.Add(-day), day, now.Add(day), now, now, false},
		{"D23: both at once", now.Add(-day), day, now, now, now, false},
		{"D23: own end alone", now, 0, now.Add(day), now.Add(day), now.Add(day), false},
		{"D23: own end alone, the same boundary", now, 0, now.Add(day), now.Add(day - 1), now.Add(day), true},
		{"D23: only the policy part can be un-expired", now.Add(-60 * day), 0, now.Add(-day), now, now.Add(-day), false},
		{"D23: own end beside a creation that is missing", none, day, now, now.Add(-1), year1, false},
		{"own end in the year 0", now, 0, none.Add(-day), now, none.Add(-day), false},
		{"own end in the year 0 and a period", now, day, none.Add(-day), now, none.Add(-day), false},
		{"F69: creation in the far past", farPast, policy.MaxAgeLimit, none, now, year1, false},
		{"F69: creation in the far future", farFuture, policy.MaxAgeLimit, none, now, farFuture.Add(policy.MaxAgeLimit), true},
		{"F69: creation at the end of time", lastSecond, policy.MaxAgeLimit, none, now, lastSecond, true},
		{"F69: creation + period is the zero Time", none.Add(-day), day, none, now, year1, false},
		{"clock unknown, with a period", now, day, none, none, now.Add(day), false},
		{"clock unknown, with an end", now, 0, now.Add(day), none, now.Add(day), false},
		{"clock before the zero Time", now, day, none, none.Add(-day), now.Add(day), false},
		{"clock unknown, without any end", now, 0, none, none, none, true},
		{"F68: zones do not matter", now.In(time.FixedZone("", -9*3600)).Add(-day), day, none, now.In(time.FixedZone("", 9*3600)), now, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := with(keyRequest(), func(r *policy.Request) {
				r.Principal.IssuedAt, r.Principal.NotAfter, r.Settings.MaxAge, r.Time = tt.issued, tt.notAfter, tt.maxAge, tt.now
			})
			end := r.Principal.ExpiresAt(r.Settings)
			require.True(t, tt.end.Equal(end), "ends at %v, want %v", end, tt.end)
			want := refused(policy.Expired)
			if tt.want {
				want = allowed()
			}
			require.Equal(t, want, policy.Expiry().Evaluate(r))
			require.Equal(t, want, policy.Default().Evaluate(r))

			// F71: the credential's own end binds all kinds; D20: the period only keys.
			for _, kind := range []policy.Credential{policy.JWT, policy.Session} {
				r.Principal.Credential = kind
				require.True(t, tt.notAfter.Equal(r.Principal.ExpiresAt(r.Settings)))
				want := allowed()
				if !tt.notAfter.IsZero() && (!tt.now.Before(tt.notAfter) || tt.now.IsZero()) {
					want = refused(policy.Expired)
				}
				require.Equal(t, want, policy.Expiry().Evaluate(r), kind)
			}
		})
	}
}

// TestExpiryIsComputed_S40: "expired is computed, never stored": the same
// principal goes back and forth with the settings alone.
func TestExpiryIsComputed_S40(t *testing.T) {
	t.Parallel()
	r := keyRequest()
	r.Principal.IssuedAt = now.Add(-60 * day)
	for _, tt := range []struct {
		maxAge time.Duration
		want   bool
	}{{0, true}, {30 * day, false}, {90 * day, true}, {60 * day, false}, {60*day + time.Second, true}, {1, false}, {0, true}} {
		r.Settings = &policy.Settings{MaxAge: tt.maxAge}
		require.Equal(t, tt.want, policy.Default().Evaluate(r).Allow, tt.maxAge)
	}
}

// TestExpiresAtWithoutSettings: only the credential's own end is known then.
func TestExpiresAtWithoutSettings(t *testing.T) {
	t.Parallel()
	p := &policy.Principal{Credential: policy.APIKey, IssuedAt: now}
	require.Zero(t, p.ExpiresAt(nil))
	p.NotAfter = now.Add(day)
	require.Equal(t, now.Add(day), p.ExpiresAt(nil))
}
