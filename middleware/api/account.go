package api

import (
	"cmp"
	"time"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// An accountView is the caller, and what the caller may make keys with.
type accountView struct {
	Organization           string        `json:"organization"`
	User                   userView      `json:"user"`
	RestrictedAccessTokens bool          `json:"restrictedAccessTokens"`
	APITokenMaxAge         int64         `json:"apiTokenMaxAge"` // seconds (D21)
	MaxDailyLimit          *int64        `json:"maxDailyLimit"`  // null: any
	Places                 placesView    `json:"places"`
	Creation               *creationView `json:"creationRefused"` // null: a key can be made
}

// A placesView tells which keys take the places that a user has (S12, D10).
type placesView struct {
	Limit    int      `json:"limit"` // -1: no cap
	Prefixes []string `json:"prefixes"`
}

// A creationView tells why no key can be made, as the refusal of it would.
type creationView struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// getAccount serves GET /v1/me.
func getAccount(c *call) (*answer, error) {
	a, err := c.mgr.Allowance(c.r.Context(), c.actor, c.user.Org, c.user.ID)
	if err != nil {
		return nil, err
	}
	v := accountView{
		Organization:           c.user.Org,
		User:                   viewUser(a.User),
		RestrictedAccessTokens: a.Settings.RestrictUsers,
		APITokenMaxAge:         int64(a.Settings.MaxAge / time.Second),
		Places:                 placesView{a.Places.Limit, list(a.Places.KeyIDs)},
	}
	if a.MaxDailyLimit >= 0 {
		v.MaxDailyLimit = &a.MaxDailyLimit
	}
	if a.Refusal != nil {
		f := refusalOf(a.Refusal)
		v.Creation = &creationView{string(f.Reason), f.Message}
	}
	return ok(v)
}

// A keyUsageView is how often a key was used.
type keyUsageView struct {
	Prefix string     `json:"prefix"`
	Usage  *usageView `json:"usage"` // null: not counted, or not known now
	Days   []dayView  `json:"days"`  // oldest first
}

type dayView struct {
	Day   string `json:"day"`
	Count int64  `json:"count"`
}

// keyUsage serves GET /v1/api-keys/{prefix}/usage.
func keyUsage(c *call) (*answer, error) { return c.usageOf(c.ownKey()) }

// orgKeyUsage serves GET /v1/org/api-keys/{prefix}/usage.
func orgKeyUsage(c *call) (*answer, error) { return c.usageOf(c.orgKey()) }

// usageOf tells of the use of one key. A quota that cannot be looked at is left out,
// since the days are worth having without it.
func (c *call) usageOf(ref keys.Ref) (*answer, error) {
	k, days, err := c.mgr.Days(c.r.Context(), ref)
	if err != nil {
		return nil, err
	}
	v := keyUsageView{Prefix: k.ID, Days: make([]dayView, len(days))}
	for i, d := range days {
		v.Days[i] = dayView{d.Day.Format(time.DateOnly), d.Count}
	}
	if v.Usage, err = c.quotaOf(k); err != nil {
		c.report(err)
	}
	return ok(v)
}

// quotaOf returns how the quota of a key stands, spending nothing; nil if it is not
// counted or not known.
func (c *call) quotaOf(k *store.Key) (*usageView, error) {
	if c.limiter == nil {
		return nil, nil
	}
	q, err := c.limiter.Peek(c.r.Context(), cmp.Or(k.Family, k.ID), k.DailyLimit)
	if err != nil {
		return nil, err
	}
	return new(viewUsage(q)), nil
}

// getOrgKey serves GET /v1/org/api-keys/{prefix}.
func getOrgKey(c *call) (*answer, error) {
	row, err := c.mgr.Row(c.r.Context(), c.orgKey())
	if err != nil {
		return nil, err
	}
	return ok(viewRow(row))
}
