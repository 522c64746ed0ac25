package middleware

import (
	"net/netip"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
)

// An Event tells what a Guard decided about one request, for logs, metrics and
// audit. It contains no credential, digest or header of the request.
type Event struct {
	Time time.Time

	// Principal is the caller. With a refusal it is whom the credential belongs
	// to, as far as it was found out, which the client is not told; nil if unknown.
	Principal *policy.Principal

	// Addr is the client's address as the Guard understood it; the zero Addr if
	// unknown.
	Addr netip.Addr

	// Refusal is the answer, or nil if the request was let through. Its Reason and
	// Status suit as labels of a metric; the fields of Principal do not.
	Refusal *Refusal

	// Quota is how the caller's quota stands; the zero Result if none was asked.
	Quota ratelimit.Result

	// Err is why: which of the things that answer invalid_token it was, or what
	// failed. A client that hung up during a look-up is a failure too, with 503, and is
	// told from the others by errors.Is(Err, context.Canceled). With LimiterFailOpen Err
	// is set in a request that was let through.
	Err error

	// Stale says that the key was served from the cache past its time, while the
	// store failed (store.CacheOptions.ServeStale).
	Stale bool
}
