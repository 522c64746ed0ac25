package policy_test

import (
	"math"
	"testing"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/stretchr/testify/require"
)

// fieldErrors returns what err joins.
func fieldErrors(tb testing.TB, err error) (fields []policy.FieldError) {
	tb.Helper()
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(tb, ok)
	for _, err := range joined.Unwrap() {
		var fe *policy.FieldError
		require.ErrorAs(tb, err, &fe)
		fields = append(fields, *fe)
	}
	return fields
}

// TestSettingsValidate_D21: whole seconds from 0 to 36 500 days; all problems at
// once.
func TestSettingsValidate_D21(t *testing.T) {
	t.Parallel()
	const (
		org   = "policy: Settings.Org: is required"
		bound = "policy: Settings.MaxAge: must be between 0 and 3153600000 seconds"
		whole = "policy: Settings.MaxAge: must be in whole seconds"
	)
	for _, tt := range []struct {
		name string
		s    policy.Settings
		want []string
	}{
		{"least", policy.Settings{Org: "acme"}, nil},
		{"full", policy.Settings{Org: "acme", MaxAge: 90 * day, AllowedIPs: must(policy.ParseIPList("::1")), RestrictUsers: true, Version: 7}, nil},
		{"one second", policy.Settings{Org: "acme", MaxAge: time.Second}, nil},
		{"limit", policy.Settings{Org: "acme", MaxAge: policy.MaxAgeLimit}, nil},
		{"zero", policy.Settings{}, []string{org}},
		{"negative", policy.Settings{Org: "acme", MaxAge: -time.Second}, []string{bound}},
		{"above", policy.Settings{Org: "acme", MaxAge: policy.MaxAgeLimit + time.Second}, []string{bound}},
		{"fraction", policy.Settings{Org: "acme", MaxAge: 1500 * time.Millisecond}, []string{whole}},
		{"nanosecond", policy.Settings{Org: "acme", MaxAge: 1}, []string{whole}},
		{"negative fraction", policy.Settings{Org: "acme", MaxAge: -1}, []string{bound, whole}},
		{"everything", policy.Settings{MaxAge: math.MaxInt64}, []string{org, bound, whole}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, fe := range fieldErrors(t, tt.s.Validate()) {
				got = append(got, fe.Error())
			}
			require.Equal(t, tt.want, got)
		})
	}
}

// TestMaxAgeFromSeconds_F69: range check before multiplying. 106752 days of
// seconds, multiplied, lie in 1731; 213504 days are 25 minutes.
func TestMaxAgeFromSeconds_F69(t *testing.T) {
	t.Parallel()
	const limit = 36500 * 24 * 60 * 60
	for _, tt := range []struct {
		name    string
		seconds int64
		want    time.Duration
		ok      bool
	}{
		{"never", 0, 0, true},
		{"one", 1, time.Second, true},
		{"a day", 86400, day, true},
		{"D21: at least 36 500 days", limit, policy.MaxAgeLimit, true},
		{"one more", limit + 1, 0, false},
		{"106752 days", 106752 * 86400, 0, false},
		{"213504 days", 213504 * 86400, 0, false},
		{"product of 0", 1 << 55, 0, false},
		{"largest", math.MaxInt64, 0, false},
		{"F70: negative", -1, 0, false},
		{"smallest", math.MinInt64, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := policy.MaxAgeFromSeconds(tt.seconds)
			require.Equal(t, tt.want, got)
			if tt.ok {
				require.NoError(t, err)
				require.NoError(t, (&policy.Settings{Org: "acme", MaxAge: got}).Validate())
				return
			}
			var fe *policy.FieldError
			require.ErrorAs(t, err, &fe)
			require.Equal(t, "Settings.MaxAge", fe.Field)
		})
	}
}
