package middleware

import (
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/keystile/keystile/ratelimit"
)

// The fields of draft-ietf-httpapi-ratelimit-headers-10, and the one that clients
// knew before, in the canonical form of net/http.
const (
	headerRateLimitPolicy = "Ratelimit-Policy"
	headerRateLimit       = "Ratelimit"
	headerRetryAfter      = "Retry-After" // RFC 9110 10.2.3
)

// maxInteger is the largest integer of a structured field (RFC 9651 3.3.1). More is
// shown as that.
const maxInteger = 999_999_999_999_999

// rateLimitFields writes the RateLimit fields of results. The zero value is
// ready for use.
type rateLimitFields struct {
	// policies are the limits that were needed so far. A service has few different
	// ones, so a scan finds one without a lock.
	policies atomic.Pointer[[]*limitPolicy]
}

// A limitPolicy is what is kept of one limit.
type limitPolicy struct {
	name   string
	limit  int64
	window time.Duration
	value  string // of RateLimit-Policy

	// refusal is the last one: all who are over a daily limit in the same second are
	// answered alike, so that a flood of them allocates nothing. Results of a burst
	// limiter differ in Reset, and seldom share one.
	refusal atomic.Pointer[Refusal]
}

// maxPolicies bounds what is kept; a service with more different limits makes the
// others anew for each answer.
const maxPolicies = 64

// rateLimit returns the value of the RateLimit field of an admitted request.
func rateLimit(result *ratelimit.Result, now time.Time) string {
	var buf [48]byte
	return string(appendRateLimit(buf[:0], result, wholeSeconds(result.Reset.Sub(now))))
}

// appendRateLimit appends the value of the RateLimit field: the remaining units
// and the seconds until there are new ones.
func appendRateLimit(b []byte, result *ratelimit.Result, seconds int64) []byte {
	b = append(b, '"')
	b = append(b, result.Name...)
	b = append(b, `";r=`...)
	b = strconv.AppendInt(b, min(max(result.Remaining, 0), maxInteger), 10)
	b = append(b, ";t="...)
	return strconv.AppendInt(b, seconds, 10)
}

// policy returns what is kept of the limit of result.
func (f *rateLimitFields) policy(result *ratelimit.Result) *limitPolicy {
	known := f.policies.Load()
	if known != nil {
		for _, p := range *known {
			if p.limit == result.Limit && p.window == result.Window && p.name == result.Name {
				return p
			}
		}
	}
	b := append([]byte{'"'}, result.Name...)
	b = append(b, `";q=`...)
	b = strconv.AppendInt(b, min(result.Limit, maxInteger), 10)
	if w := int64(result.Window / time.Second); w > 0 {
		b = append(b, ";w="...)
		b = strconv.AppendInt(b, w, 10)
	}
	p := &limitPolicy{name: result.Name, limit: result.Limit, window: result.Window, value: string(b)}
	var next []*limitPolicy
	if known != nil {
		next = *known
	}
	if len(next) < maxPolicies {
		next = append(slices.Clip(next), p)
		f.policies.CompareAndSwap(known, &next) // losing the race costs one more try
	}
	return p
}

// overQuota returns the refusal of a request over a limit, as result has it with
// RetryAfter in whole seconds.
func (c *core) overQuota(result *ratelimit.Result) *Refusal {
	told := *result
	told.RetryAfter = time.Duration(wholeSeconds(result.RetryAfter)) * time.Second
	p := c.fields.policy(result)
	if f := p.refusal.Load(); f != nil && f.Quota == told {
		return f
	}
	f := c.refusals.overQuota(&told, p.value)
	p.refusal.Store(f)
	return f
}
