package storetest

import (
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
)

var settingsCases = []testCase{
	{
		name: "settings of an unknown organization",
		rule: "Settings of an organization whose settings were never written are zero but for Org: nothing is restricted (S11, S35, S43).",
		run: func(s *suite) {
			s.addUser("acme", "ada")
			s.putSettings(fullSettings(s, "globex"))
			for _, org := range []string{"acme", "nobody", "", "GLOBEX", "globex "} {
				s.same(s.settings(org), zeroSettings(org), "Settings of %q", org)
			}
		},
	},
	{
		name: "settings are kept",
		rule: "UpdateSettings replaces every field and raises Version by one: the period (S35, D21), the restriction (S21), and the list in its normal form (D19), in all its states: no restriction, addresses, and nobody.",
		run: func(s *suite) {
			set := fullSettings(s, "acme")
			for _, change := range []func(){
				func() {},
				func() { set.RestrictUsers = false },
				func() { set.MaxAge = 0 },
				func() { set.MaxAge = policy.MaxAgeLimit },
				func() { set.MaxAge = time.Second },
				func() { set.AllowedIPs = policy.IPList{} },
				func() { set.AllowedIPs = s.list("# nobody for now\n") },
				func() { set.AllowedIPs = s.list("\n \n") },
				func() { set.AllowedIPs = s.list("::/0\n0.0.0.0/0") },
				func() { version := set.Version; set = fullSettings(s, "acme"); set.Version = version },
				func() {}, // no change is a write too
			} {
				change()
				s.putSettings(set)
				s.same(s.settings("acme"), set, "Settings after UpdateSettings")
			}
		},
	},
	{
		name: "settings changed",
		rule: "UpdateSettings is ErrConflict unless Version is the stored one, 0 if there are none, and changes nothing.",
		run: func(s *suite) {
			set := fullSettings(s, "acme")
			for _, version := range []int64{1, 2, -1} {
				set.Version = version
				s.is(s.Store.UpdateSettings(s.ctx, set), store.ErrConflict, "UpdateSettings with version %d of none", version)
				s.same(s.settings("acme"), zeroSettings("acme"), "Settings after a refused UpdateSettings")
			}
			set.Version = 0
			s.putSettings(set)
			s.putSettings(set)
			for _, version := range []int64{0, 1, 3, -1} {
				other := zeroSettings("acme")
				other.Version = version
				s.is(s.Store.UpdateSettings(s.ctx, other), store.ErrConflict, "UpdateSettings with version %d of 2", version)
				s.same(s.settings("acme"), set, "Settings after a refused UpdateSettings")
			}
		},
	},
	{
		name: "settings of organizations",
		rule: "The settings of one organization are those of no other.",
		run: func(s *suite) {
			sets := map[string]*policy.Settings{}
			for i, org := range []string{"acme", "ACME", "acme ", " ", "acm"} {
				sets[org] = zeroSettings(org)
				sets[org].MaxAge = time.Duration(i) * time.Hour
				s.putSettings(sets[org])
			}
			sets["acme"].RestrictUsers = true
			s.putSettings(sets["acme"])
			for org, want := range sets {
				s.same(s.settings(org), want, "Settings of %q", org)
			}
		},
	},
	{
		name: "settings do not change",
		rule: "Settings that were given out are not changed by later writes, nor are those stored by changes of what was given to UpdateSettings.",
		run: func(s *suite) {
			set := fullSettings(s, "acme")
			given := *set
			s.ok(s.Store.UpdateSettings(s.ctx, &given), "UpdateSettings")
			s.same(&given, set, "the argument of UpdateSettings")
			given.RestrictUsers, given.MaxAge, given.Version = false, time.Hour, 7
			set.Version = 1
			before := s.settings("acme")
			s.same(before, set, "Settings after UpdateSettings's argument was changed")
			next := zeroSettings("acme")
			next.Version = 1
			s.putSettings(next)
			s.same(before, set, "Settings from before")
		},
	},
	{
		name: "parallel settings",
		rule: "Of 20 writes of one version of the settings at once exactly one works, the first write too, and the others are ErrConflict.",
		run: func(s *suite) {
			for round := range 3 {
				got := s.outcomes(20, func(i int) error {
					set := zeroSettings("acme")
					set.Version, set.MaxAge = int64(round), time.Duration(i+1)*time.Second
					return s.either(i).UpdateSettings(s.ctx, set)
				})
				if got[nil] != 1 || got[store.ErrConflict] != 19 {
					s.errorf("got %v, want 1 without an error and 19 with ErrConflict", got)
				}
				if v := s.settings("acme").Version; v != int64(round+1) {
					s.errorf("Version is %d, want %d", v, round+1)
				}
			}
		},
	},
	{
		name: "settings out of range",
		rule: "UpdateSettings refuses what Settings.Validate reports, and changes nothing (D21).",
		run: func(s *suite) {
			set := fullSettings(s, "acme")
			s.putSettings(set)
			for _, age := range []time.Duration{-time.Second, policy.MaxAgeLimit + time.Second, 1<<63 - 1, -1 << 63, time.Second / 2} {
				given := *set
				given.MaxAge, given.RestrictUsers = age, false
				s.failed(s.Store.UpdateSettings(s.ctx, &given), "UpdateSettings with a period of %d ns", int64(age))
				s.same(s.settings("acme"), set, "Settings after a refused UpdateSettings")
			}
		},
	},
}

// putSettings writes set, which must be current, and raises its version.
func (s *suite) putSettings(set *policy.Settings) {
	s.ok(s.Store.UpdateSettings(s.ctx, set), "UpdateSettings")
	set.Version++
}

func zeroSettings(org string) *policy.Settings { return &policy.Settings{Org: org} }

// fullSettings returns settings of which every field is set.
func fullSettings(s *suite, org string) *policy.Settings {
	return &policy.Settings{
		Org:           org,
		MaxAge:        90*24*time.Hour + time.Second,
		AllowedIPs:    s.list("# office\r\n192.0.2.7/24\n\n2001:DB8::1\n198.51.100.1 - 198.51.100.77\n# lab\n203.0.113.5\n"),
		RestrictUsers: true,
	}
}

func (s *suite) list(text string) policy.IPList {
	l, err := policy.ParseIPList(text)
	s.ok(err, "ParseIPList")
	return l
}
