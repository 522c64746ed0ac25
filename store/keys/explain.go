package keys

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
)

// A Rule is one of those that a request with a key has to pass.
type Rule string

// The rules, in the order in which they are asked (S72). Rules are stable, and are
// sent to clients as they are.
const (
	RuleKnown     Rule = "known"     // the key's user exists (D17)
	RuleRevoked   Rule = "revoked"   // the key is not revoked
	RuleSuspended Rule = "suspended" // its user is not suspended (D17)
	RuleEnabled   Rule = "enabled"   // [policy.Enabled]
	RulePermitted Rule = "permitted" // [policy.PermittedUsers]
	RuleExpiry    Rule = "expiry"    // [policy.Expiry]
	RuleAddress   Rule = "address"   // [policy.AllowedIPs]
	RuleQuota     Rule = "quota"     // [Options.Limiter]; left out without one
)

// A Verdict is what one rule says.
type Verdict struct {
	Rule     Rule
	Decision policy.Decision
}

// An Explanation tells why a key works, or does not, from one address.
type Explanation struct {
	Key      *store.Key
	User     *store.User      // as in [Row]
	Settings *policy.Settings // those in force
	Status   Status

	Addr netip.Addr // that was asked about
	Time time.Time  // of the decision

	// Verdicts are what the rules say, each by itself, in their order: also those
	// that a request would not come to.
	Verdicts []Verdict

	// Decision is what a request is told: the first refusal among Verdicts.
	Decision policy.Decision

	// Quota is how the key's quota stands: the zero Result without
	// [Options.Limiter], and if that fails.
	Quota ratelimit.Result

	// Err is why the limiter failed, when the quota's verdict is
	// [policy.StoreUnavailable].
	Err error
}

// Explain tells what a request with a key from addr would be told now, and what
// each rule says of it, spending nothing. The zero addr is an unknown address. It
// asks the policies of [policy.Default] about what is in the store, not in the
// cache. What the host requires on top, such as scopes, and the x-api-user of a
// request, are not known here; nor is a Guard's LimiterFailOpen, by which a limiter
// that fails would be passed.
//
// Revoked keys are found too. [store.ErrNotFound] if there is no such key.
func (m *Manager) Explain(ctx context.Context, ref Ref, addr netip.Addr) (Explanation, error) {
	k, err := m.anyKey(ctx, ref)
	if err != nil {
		return Explanation{}, fmt.Errorf("keys: explain: %w", err)
	}
	d := m.directory(k.Org)
	if err := d.find(ctx, []*store.Key{k}); err != nil {
		return Explanation{}, fmt.Errorf("keys: explain: user: %w", err)
	}
	s, err := m.store.Settings(ctx, k.Org)
	if err != nil {
		return Explanation{}, fmt.Errorf("keys: explain: settings: %w", err)
	}

	now, r := m.now(), d.record(k)
	e := Explanation{
		Key: k, User: r.User, Settings: s, Status: StatusOf(r, s, now), Addr: addr, Time: now,
		Decision: policy.Decision{Allow: true},
	}
	known := d.known[k.User] != nil
	e.require(RuleKnown, known, policy.InvalidToken)
	e.require(RuleRevoked, !k.RevokedBy(now), policy.InvalidToken)
	e.require(RuleSuspended, !known || r.User.SuspendedAt.IsZero(), policy.InvalidToken)
	req := policy.Request{Principal: r.Principal, Settings: s, Addr: addr, Time: now}
	e.add(RuleEnabled, policy.Enabled().Evaluate(req))
	e.add(RulePermitted, policy.PermittedUsers().Evaluate(req))
	e.add(RuleExpiry, policy.Expiry().Evaluate(req))
	e.add(RuleAddress, policy.AllowedIPs().Evaluate(req))
	if m.limiter != nil {
		m.explainQuota(ctx, &e, r.Principal)
	}
	return e, nil
}

func (e *Explanation) require(rule Rule, ok bool, why policy.Reason) {
	if ok {
		why = ""
	}
	e.add(rule, policy.Decision{Allow: ok, Reason: why})
}

func (e *Explanation) add(rule Rule, d policy.Decision) {
	e.Verdicts = append(e.Verdicts, Verdict{rule, d})
	if e.Decision.Allow {
		e.Decision = d
	}
}

// explainQuota asks the limiter what a Guard asks it.
func (m *Manager) explainQuota(ctx context.Context, e *Explanation, p *policy.Principal) {
	e.Quota, e.Err = m.limiter.Peek(ctx, p.Quota, p.DailyLimit)
	why := policy.BurstLimit // as a Guard calls every limit but the daily one
	switch {
	case e.Err != nil:
		e.Quota, why = ratelimit.Result{}, policy.StoreUnavailable
	case e.Quota.Name == ratelimit.DailyName:
		why = policy.DailyLimit
	}
	e.require(RuleQuota, e.Quota.OK, why)
}
