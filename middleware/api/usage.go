package api

import (
	"cmp"
	"net/http"
	"strings"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
)

// A usageView tells how a quota stands; -1 is unlimited.
type usageView struct {
	Used        int64     `json:"used"`
	Limit       int64     `json:"limit"`
	Remaining   int64     `json:"remaining"`
	PeriodStart timestamp `json:"periodStart"`
	ResetAt     timestamp `json:"resetAt"`
}

func viewUsage(q ratelimit.Result) usageView {
	return usageView{q.Used, q.Limit, q.Remaining, timestamp{q.Start}, timestamp{q.Reset}}
}

// usage serves GET /v1/usage, the one operation that keys have (S60): how the quota
// of the caller stands. It spends nothing, and answers at the limit too (D5).
//
// Only keys are counted (S63, D5): a person has used nothing and has no limit.
func (a *api) usage(w http.ResponseWriter, r *http.Request) {
	c := &call{api: a, w: w, r: r}
	ok, err := c.ownUsage()
	if err != nil {
		c.refuse(err)
		return
	}
	ok.write(w)
}

func (c *call) ownUsage() (*answer, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	p, _ := middleware.PrincipalFrom(c.r.Context())
	quota, limit := "", int64(ratelimit.Unlimited)
	if p.Credential == policy.APIKey {
		quota, limit = cmp.Or(p.Quota, p.KeyID), p.DailyLimit
	}
	result := ratelimit.Result{Limit: ratelimit.Unlimited, Remaining: ratelimit.Unlimited}
	if c.limiter != nil {
		var err error
		if result, err = c.limiter.Peek(c.r.Context(), quota, limit); err != nil {
			return nil, err
		}
	}
	view := struct {
		usageView
		Tier *string `json:"tier"` // null: unknown
	}{usageView: viewUsage(result)}
	if p.Tier != "" {
		view.Tier = new(strings.ToLower(p.Tier))
	}
	return ok(view)
}
