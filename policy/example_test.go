package policy_test

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/keystile/keystile/policy"
)

// exampleRequest is what a Guard makes of a request with an API key.
func exampleRequest() policy.Request {
	return policy.Request{
		Principal: &policy.Principal{
			Credential: policy.APIKey,
			Org:        "acme",
			User:       "u1",
			Scopes:     []string{"reports:read"},
			Tier:       "Team",
			IssuedAt:   time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		},
		Settings: &policy.Settings{Org: "acme"},
		Addr:     netip.MustParseAddr("192.0.2.7"),
		Time:     time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
	}
}

func ExampleDefault() {
	r := exampleRequest()
	fmt.Println(policy.Default().Evaluate(r))

	r.Settings = &policy.Settings{Org: "acme", MaxAge: 30 * 24 * time.Hour}
	fmt.Println(policy.Default().Evaluate(r))
	// Output:
	// {true }
	// {false expired}
}

func ExampleAll() {
	p := policy.All(policy.Default(), policy.Tier("Pro", "Team"), policy.Scope("reports:write"))
	fmt.Println(p.Evaluate(exampleRequest()))
	// Output: {false insufficient_scope}
}

func ExampleAny() {
	office, err := policy.ParseIPList("203.0.113.0/24")
	if err != nil {
		fmt.Println(err)
		return
	}
	// From the office, or with the scope from anywhere.
	p := policy.Any(policy.From(office), policy.Scope("reports:read"))
	fmt.Println(p.Evaluate(exampleRequest()))
	// Output: {true }
}

// Requirements that all hold are joined by All. Any of them lets everybody in
// who meets the weakest.
func ExampleAny_incorrect() {
	p := policy.Any(policy.Default(), policy.Scope("admin")) // incorrect: use All
	fmt.Println(p.Evaluate(exampleRequest()))
	// Output: {true }
}

func ExampleFunc() {
	weekdays := policy.Func(func(r policy.Request) policy.Decision {
		if d := r.Time.UTC().Weekday(); d == time.Saturday || d == time.Sunday {
			return policy.Decision{Reason: "weekend"} // a reason of its own answers 403
		}
		return policy.Decision{Allow: true}
	})
	fmt.Println(policy.All(policy.Default(), weekdays).Evaluate(exampleRequest()))
	// Output: {false weekend}
}

// A policy must not read a clock: the time of the decision is in the request.
// One that does answers differently when a decision is explained or previewed.
func ExampleFunc_incorrect() {
	p := policy.Func(func(r policy.Request) policy.Decision {
		return policy.Decision{Allow: time.Since(r.Principal.IssuedAt) < time.Hour} // incorrect: use r.Time
	})
	r := exampleRequest()
	r.Time = r.Principal.IssuedAt.Add(time.Minute)
	fmt.Println(p.Evaluate(r).Allow)
	// Output: false
}

func ExampleEnabled() {
	r := exampleRequest()
	r.Principal.Disabled = true
	fmt.Println(policy.Enabled().Evaluate(r))
	// Output: {false key_disabled}
}

func ExamplePermittedUsers() {
	r := exampleRequest()
	r.Settings = &policy.Settings{Org: "acme", RestrictUsers: true}
	r.Principal.Owner = true // not exempt
	fmt.Println(policy.PermittedUsers().Evaluate(r))
	r.Principal.Permitted = true
	fmt.Println(policy.PermittedUsers().Evaluate(r))
	// Output:
	// {false user_not_permitted}
	// {true }
}

func ExampleExpiry() {
	r := exampleRequest() // 59 days after the creation of the key
	for _, days := range []int64{30, 90} {
		maxAge, err := policy.MaxAgeFromSeconds(days * 24 * 60 * 60)
		if err != nil {
			fmt.Println(err)
			return
		}
		r.Settings = &policy.Settings{Org: "acme", MaxAge: maxAge}
		fmt.Println(days, policy.Expiry().Evaluate(r))
	}
	// Output:
	// 30 {false expired}
	// 90 {true }
}

func ExamplePrincipal_ExpiresAt() {
	p := exampleRequest().Principal
	s := &policy.Settings{Org: "acme", MaxAge: 90 * 24 * time.Hour}
	fmt.Println(p.ExpiresAt(s))
	fmt.Println(p.ExpiresAt(&policy.Settings{Org: "acme"}).IsZero())
	// Output:
	// 2026-04-01 00:00:00 +0000 UTC
	// true
}

func ExampleAllowedIPs() {
	list, err := policy.ParseIPList("198.51.100.0/24")
	if err != nil {
		fmt.Println(err)
		return
	}
	r := exampleRequest()
	r.Settings = &policy.Settings{Org: "acme", AllowedIPs: list}
	fmt.Println(policy.AllowedIPs().Evaluate(r))
	r.Principal.Credential = policy.Session // a person can undo the list
	fmt.Println(policy.AllowedIPs().Evaluate(r))
	// Output:
	// {false address_not_allowed}
	// {true }
}

func ExampleFrom() {
	office, err := policy.ParseIPList("192.0.2.0/28 # office")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(policy.From(office).Evaluate(exampleRequest()))
	// Output: {true }
}

// The zero IPList restricts nothing as a setting. Where a route asks for a list,
// it contains nobody.
func ExampleFrom_incorrect() {
	var settings policy.Settings
	p := policy.From(settings.AllowedIPs) // incorrect: AllowedIPs() applies the settings
	fmt.Println(p.Evaluate(exampleRequest()))
	// Output: {false address_not_allowed}
}

func ExampleVia() {
	person := policy.Via(policy.JWT, policy.Session)
	fmt.Println(person.Evaluate(exampleRequest()))
	// Output: {false wrong_credential_kind}
}

func ExampleScope() {
	r := exampleRequest()
	fmt.Println(policy.Scope("reports:read").Evaluate(r))
	fmt.Println(policy.Scope("reports:read", "reports:write").Evaluate(r))
	// Output:
	// {true }
	// {false insufficient_scope}
}

func ExampleTier() {
	fmt.Println(policy.Tier("pro", "team", "enterprise").Evaluate(exampleRequest()))
	// Output: {true }
}

func ExampleParseIPList() {
	list, err := policy.ParseIPList(`
# our offices
198.51.100.77/24  #Vienna
203.0.113.10 - 203.0.113.19
::ffff:192.0.2.7
`)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(list)
	// Output:
	// # our offices
	// 198.51.100.0/24 # Vienna
	// 203.0.113.10-203.0.113.19
	// 192.0.2.7
}

func ExampleLineError() {
	_, err := policy.ParseIPList("192.0.2.7\n192.0.2.07\nfe80::1%eth0")
	fmt.Println(err)
	if bad, ok := errors.AsType[*policy.LineError](err); ok {
		fmt.Println("first:", bad.Line)
	}
	// Output:
	// policy: line 2: not an IP address; names, ports and leading zeros are not accepted
	// policy: line 3: zones are not accepted
	// first: 2
}

func ExampleIPList_Contains() {
	list, _ := policy.ParseIPList("192.0.2.0/28")
	fmt.Println(list.Contains(netip.MustParseAddr("192.0.2.7")))
	fmt.Println(list.Contains(netip.MustParseAddr("::ffff:192.0.2.7")))
	fmt.Println(list.Contains(netip.Addr{}))
	// Output:
	// true
	// true
	// false
}

// The zero IPList contains nothing: that is no restriction, not nobody.
func ExampleIPList_Contains_incorrect() {
	var list policy.IPList
	a := netip.MustParseAddr("192.0.2.7")
	fmt.Println(list.Contains(a))                      // incorrect: nobody is let in
	fmt.Println(!list.Restricts() || list.Contains(a)) // as AllowedIPs asks
	// Output:
	// false
	// true
}

func ExampleIPList_Restricts() {
	for _, text := range []string{"", "# nobody", "192.0.2.7"} {
		list, err := policy.ParseIPList(text)
		fmt.Println(list.Restricts(), err)
	}
	// Output:
	// false <nil>
	// true <nil>
	// true <nil>
}

func ExampleIPList_Lines() {
	list, _ := policy.ParseIPList("192.0.2.7\r\n\r\n10.0.0.1/8\r\n")
	fmt.Printf("%q\n", list.Lines())
	// Output: ["192.0.2.7" "10.0.0.0/8"]
}

func ExampleSettings_Validate() {
	s := &policy.Settings{MaxAge: 1500 * time.Millisecond}
	fmt.Println(s.Validate())
	// Output:
	// policy: Settings.Org: is required
	// policy: Settings.MaxAge: must be in whole seconds
}

func ExampleMaxAgeFromSeconds() {
	fmt.Println(policy.MaxAgeFromSeconds(90 * 24 * 60 * 60))
	_, err := policy.MaxAgeFromSeconds(-1)
	fmt.Println(err)
	// Output:
	// 2160h0m0s <nil>
	// policy: Settings.MaxAge: must be between 0 and 3153600000 seconds
}

// A product of durations overflows without notice: 213504 days are 25 minutes.
func ExampleMaxAgeFromSeconds_incorrect() {
	days := 213504
	fmt.Println(time.Duration(days) * 24 * time.Hour) // incorrect
	_, err := policy.MaxAgeFromSeconds(int64(days) * 24 * 60 * 60)
	fmt.Println(err != nil)
	// Output:
	// 25m26.290448384s
	// true
}
