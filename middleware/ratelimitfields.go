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

// burstName is the Name of the results of a ratelimit.Burst.
const burstName = "burst"

// rateLimitFields writes the RateLimit fields of results. The zero value is
// ready for use.
type rateLimitFields struct {
	// policies are the values of RateLimit-Policy that were needed so far. A
	// service has few different limits, so a scan finds one without a lock.
	policies atomic.Pointer[[]policyField]
}

type policyField struct {
	name   string
	limit  int64
	window time.Duration
	value  string
}

// maxPolicyFields bounds what is kept; a service with more different limits
// makes the others anew for each answer.
const maxPolicyFields = 64

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

// policy returns the value of the RateLimit-Policy field.
func (f *rateLimitFields) policy(result *ratelimit.Result) string {
	known := f.policies.Load()
	if known != nil {
		for i := range *known {
			if p := &(*known)[i]; p.limit == result.Limit && p.window == result.Window && p.name == result.Name {
				return p.value
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
	p := policyField{result.Name, result.Limit, result.Window, string(b)}
	var next []policyField
	if known != nil {
		next = *known
	}
	if len(next) < maxPolicyFields {
		next = append(slices.Clip(next), p)
		f.policies.CompareAndSwap(known, &next) // losing the race costs one more try
	}
	return p.value
}
