package middleware

import (
	"errors"
	"net/http"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
)

// Options configure a Guard. A nil *Options means the defaults: API keys in both
// forms, all rules of policy.Default, 250 requests a day and key.
type Options struct {
	// Authenticators are asked in order who sent a request. A token that the Verifier
	// of APIKeys claims, in either form, is judged by these alone, wherever they stand
	// (D33). A rule for all callers is no Authenticator, but a Policy or a handler
	// around the Guard.
	// Defaults to APIKeys of the Guard's Verifier.
	Authenticators []Authenticator

	// ClientIP gives the address that the rules and Events are about. Behind a
	// proxy it must be one that reads the proxy's header, else every client has
	// the proxy's address.
	// Defaults to PeerIP.
	ClientIP AddrSource

	// LimiterFailOpen lets requests through uncounted while the Limiter fails, but none
	// whose client has gone away, which makes every Limiter fail.
	// The risk is in the name: who can make the counter fail has no limit.
	// Defaults to false: such requests are answered by 503.
	LimiterFailOpen bool

	// Limiter is spent by requests with API keys that passed every policy; it is
	// asked for the Quota and DailyLimit of the Principal (S61, D5). A Limiter
	// over ratelimit.Memory counts for this process only. New refuses one that
	// ratelimit.Validate does.
	// Defaults to ratelimit.NewDaily(ratelimit.NewMemory(), nil).
	Limiter ratelimit.Limiter

	// Now is the clock, read once for each request. Of limiters only a
	// ratelimit.Daily without a Now of its own goes by it, if it is Limiter itself and
	// no part of ratelimit.All; give others the same Now.
	// Defaults to time.Now.
	Now func() time.Time

	// Observe is called once for each request, when it is decided and before the
	// handler runs. With a Guard's Authenticate around other Guards of its family
	// the inner Guard decides; only a handler without a Guard of its own is observed
	// after it has returned. There are two exceptions, which are
	// observed twice: a request that one Wrap let through and another one inside of it
	// refused, and one whose inner Guard refuses after the Authenticate around it has
	// returned, as behind http.TimeoutHandler. Observe runs on the path of the request
	// and must not block; the request must not be kept or changed.
	// Defaults to none.
	Observe func(r *http.Request, e Event)

	// OmitRateLimitFields leaves the RateLimit fields out of admitted answers,
	// which saves two allocations; refusals with 429 have them all the same. Keys whose
	// daily limit is Unlimited have none in admitted answers anyway (D4).
	// Defaults to false.
	OmitRateLimitFields bool

	// Policy decides what an authenticated caller may do. It replaces the
	// default, so one of your own usually is policy.All(policy.Default(), yours).
	// Defaults to policy.Default().
	Policy policy.Policy

	// Realm is named in the challenge of a 401 (RFC 6750 section 3). It consists of
	// printable ASCII without quote and backslash.
	// Defaults to "api".
	Realm string

	// Refuse writes the answer of a refused request instead of Refusal.Write, also
	// of what handlers refuse by Guard.Refuse. The header fields that every refusal
	// needs are set already: the challenge, Retry-After, the RateLimit fields and
	// Cache-Control. It must write the status, f.Status as a rule: for a function that
	// writes nothing net/http answers 200 and an empty body.
	// Defaults to the JSON of D1.
	Refuse func(w http.ResponseWriter, r *http.Request, f *Refusal)

	// Unmetered turns counting off: keys have no limit. It excludes Limiter.
	// Defaults to false.
	Unmetered bool

	// UseInterval is how often the facts about use are written.
	// Defaults to 10 seconds; at least 100 milliseconds.
	UseInterval time.Duration

	// Uses takes the facts about the use of keys (S49, D24): admitted requests are
	// noted in memory, joined by key and address, and written in batches off the
	// path of the request; Guard.Close writes the rest. Of a key that is used from
	// more than 64 addresses between two writes, the requests from further ones are
	// counted without an address.
	// Defaults to none.
	Uses store.Uses

	// UsesFailed is called, off the path of requests, after a write of which the store
	// did not take all: the error is the store's, and the rest is tried again with the
	// next write. It is called too if uses were lost because more keys and addresses
	// were in use between two writes than there is room to note (65 536).
	// Defaults to none.
	UsesFailed func(err error)
}

// defaultRealm is the realm of a Guard that was given none.
const defaultRealm = "api"

// An OptionError tells which field of Options cannot be used, and why.
type OptionError struct {
	Field   string
	Problem string
}

// Error names the field and the problem.
func (e *OptionError) Error() string { return "middleware: Options." + e.Field + ": " + e.Problem }

// withDefaults returns the options with every default filled in, or everything
// that is wrong with them, joined.
func (o *Options) withDefaults(v Verifier) (Options, error) {
	var opts Options
	if o != nil {
		opts = *o
	}
	var errs []error
	bad := func(field, problem string) { errs = append(errs, &OptionError{field, problem}) }
	if v == nil {
		errs = append(errs, errors.New("middleware: New without a Verifier"))
	}
	opts.Authenticators = spread(opts.Authenticators)
	for _, a := range opts.Authenticators {
		switch a := a.(type) {
		case nil:
			bad("Authenticators", "contains nil")
		case *apiKeys:
			if a.verifier == nil {
				bad("Authenticators", "contains APIKeys without a Verifier")
			}
			if a.opts.RefuseBearer && a.opts.RefuseHeaderPair {
				bad("Authenticators", "contains APIKeys that refuse keys in both forms")
			}
		}
	}
	if opts.Authenticators == nil {
		opts.Authenticators = []Authenticator{APIKeys(v, nil)}
	}
	if len(opts.Authenticators) == 0 {
		bad("Authenticators", "is empty, so that nobody could be let through")
	}
	if opts.ClientIP == nil {
		opts.ClientIP = PeerIP
	}
	if opts.Unmetered && opts.Limiter != nil {
		bad("Unmetered", "contradicts Limiter")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if err := ratelimit.Validate(opts.Limiter); err != nil {
		bad("Limiter", err.Error())
	}
	if opts.Limiter == nil && !opts.Unmetered {
		opts.Limiter = ratelimit.NewDaily(ratelimit.NewMemory(), nil) // is handed the Guard's time
	}
	if opts.Policy == nil {
		opts.Policy = policy.Default()
	}
	if opts.Realm == "" {
		opts.Realm = defaultRealm
	}
	for _, c := range []byte(opts.Realm) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			bad("Realm", "contains something else than printable ASCII without quote and backslash")
			break
		}
	}
	if opts.UseInterval == 0 {
		opts.UseInterval = 10 * time.Second
	}
	if opts.UseInterval < 100*time.Millisecond {
		bad("UseInterval", "is shorter than 100 milliseconds")
	}
	return opts, errors.Join(errs...)
}

// spread puts the parts of each [Chain] in its place.
func spread(as []Authenticator) []Authenticator {
	var all []Authenticator
	for _, a := range as {
		if c, ok := a.(chain); ok {
			all = append(all, spread(c)...)
		} else {
			all = append(all, a)
		}
	}
	if all == nil && as != nil {
		all = []Authenticator{}
	}
	return all
}
