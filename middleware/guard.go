package middleware

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
)

// A Guard lets requests through to handlers, or refuses them: it authenticates
// the caller, decides by policies, spends one unit of quota, and serves, in this
// order, so that a refused request spends nothing (S72, D5). A service has one
// Guard made by [New]; With derives others from it, which add requirements and
// share the rest: the family of a Guard.
//
// All methods are safe for concurrent use. The zero Guard and a nil Guard refuse
// every request.
type Guard struct {
	core   *core
	layers []*layer // evaluated in order; the first is Options.Policy
}

// A layer is what New or one call of With requires. Guards share layers, so that
// a nested Guard knows which of its own were evaluated already.
type layer struct{ policy policy.Policy }

// A core is what the Guards of a family share.
type core struct {
	opts     Options
	verifier Verifier
	keys     []*apiKeys       // of opts.Authenticators
	others   chain            // the rest of them
	daily    *ratelimit.Daily // opts.Limiter, if it is one
	refusals refusals
	fields   rateLimitFields
	uses     *useRecorder // nil without Options.Uses
}

// New returns a Guard that finds API keys through v, which a Manager of package
// keys hands out. Its error reports everything that is wrong, joined: a missing v, and
// what is wrong with opts as values of *[OptionError].
//
// With Options.Uses the Guard runs a goroutine, until [Guard.Close].
func New(v Verifier, opts *Options) (*Guard, error) {
	o, err := opts.withDefaults(v)
	if err != nil {
		return nil, err
	}
	c := &core{opts: o, verifier: v, refusals: newRefusals(o.Realm)}
	for _, a := range o.Authenticators {
		if keys, ok := a.(*apiKeys); ok {
			c.keys = append(c.keys, keys)
		} else {
			c.others = append(c.others, a)
		}
	}
	c.daily, _ = o.Limiter.(*ratelimit.Daily)
	if o.Uses != nil {
		c.uses = newUseRecorder(o.Uses, o.UseInterval, o.UsesFailed)
	}
	return &Guard{core: c, layers: []*layer{{o.Policy}}}, nil
}

// With returns a Guard that requires the policies on top of what g requires, in
// order, and shares everything else with it. A nil policy refuses.
func (g *Guard) With(policies ...policy.Policy) *Guard {
	if g == nil {
		return nil
	}
	return &Guard{g.core, append(slices.Clip(g.layers), &layer{policy.All(policies...)})}
}

// Wrap returns a handler that serves h the requests that g lets through, with
// the caller in the context: see [PrincipalFrom]. Around h the ResponseWriter is
// the one that Wrap was given.
//
// Inside of Authenticate or Wrap of the same family Wrap does only what is left
// to do: it evaluates the policies that were not evaluated yet, and spends quota
// if none was spent. A Wrap around another has spent when the inner one refuses,
// so handlers with requirements of their own are best put inside of Authenticate. It
// does not look at the key again: in a request that lasts for hours the caller is as
// the outermost Guard found it.
// A request that a handler makes up with the context of its own is that of the
// same caller, whatever credential it carries. It panics if h is nil.
func (g *Guard) Wrap(h http.Handler) http.Handler {
	if h == nil {
		panic("middleware: Wrap of a nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var d decision
		var quota ratelimit.Result
		if !g.admit(w, r, &d, &quota) {
			return
		}
		inner := r.WithContext(d.admission(r.Context(), g))
		h.ServeHTTP(w, inner)
		r.MultipartForm = inner.MultipartForm // whose files the server removes
	})
}

// WrapFunc is Wrap for a function that takes the caller as an argument. The
// request is not copied and its context has no principal, which makes it the
// cheapest way through a Guard. A Guard of the family inside of h does not know
// of it and starts from the beginning.
func (g *Guard) WrapFunc(h func(http.ResponseWriter, *http.Request, *policy.Principal)) http.Handler {
	if h == nil {
		panic("middleware: WrapFunc of a nil function")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var d decision
		var quota ratelimit.Result
		if g.admit(w, r, &d, &quota) {
			h(w, r, d.Principal)
		}
	})
}

// Authenticate returns a handler that serves h the requests that g lets through,
// but spends nothing: for a mux whose handlers are wrapped by Guards of the
// family, which spend once for each request. A handler inside that has no Guard
// of its own is checked but not metered.
func (g *Guard) Authenticate(h http.Handler) http.Handler {
	if h == nil {
		panic("middleware: Authenticate of a nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var d decision
		if !g.admit(w, r, &d, nil) {
			return
		}
		a := d.admission(r.Context(), g)
		a.unspent.Store(true)
		a.unsettled.Store(true)
		// A Guard inside notes and observes the request, since it may refuse it. If
		// there was none, the request is noted here, also when the handler panics.
		defer func() {
			if a.root().unsettled.CompareAndSwap(true, false) {
				g.core.settle(r, &d, nil)
			}
		}()
		inner := r.WithContext(a)
		h.ServeHTTP(w, inner)
		r.MultipartForm = inner.MultipartForm
	})
}

// Check decides about r without spending anything, for frameworks that are not
// built on net/http handlers. The error is a *[Refusal]. It observes and notes
// the use of the key: call either Check or [Guard.Admit], once for a request. The
// header of the answer is the framework's to set: "Cache-Control: private" for a
// request with x-api-token (D40).
func (g *Guard) Check(r *http.Request) (*policy.Principal, error) {
	var d decision
	if f := g.decide(r, &d, nil); f != nil {
		return nil, f
	}
	g.settle(r, &d, nil)
	return d.Principal, nil
}

// Admit decides about r and spends one unit of the caller's quota, for
// frameworks that are not built on net/http handlers. The error is a *[Refusal]. The
// Result is the zero one if nothing was counted: for a caller without an API key, for
// a Guard that is Unmetered, where LimiterFailOpen let the request pass, or with a
// refusal that is not the limiter's. A key without a limit is counted and has Limit
// [ratelimit.Unlimited]. As with [Guard.Check] the header of the answer is the
// framework's to set.
func (g *Guard) Admit(r *http.Request) (caller *policy.Principal, quota ratelimit.Result, err error) {
	var d decision
	if f := g.decide(r, &d, &quota); f != nil {
		return nil, quota, f
	}
	g.settle(r, &d, &quota)
	return d.Principal, quota, nil
}

// Refuse answers r with f as g answers what it refuses itself: by Options.Refuse
// if the host has one, else by [Refusal.Write]. It is for handlers behind g that
// refuse something, so that all refusals of a service look alike (D1). Header
// fields beyond those that every refusal has, such as Allow or Retry-After, are
// the handler's to set before. Refuse observes nothing.
func (g *Guard) Refuse(w http.ResponseWriter, r *http.Request, f *Refusal) {
	if f.answer == nil {
		g.complete(w.Header(), f)
	}
	if g == nil || g.core == nil || g.core.opts.Refuse == nil {
		f.Write(w, r)
		return
	}
	f.writeHeader(w.Header())
	g.core.opts.Refuse(w, r, f)
}

// Limiter returns the limiter that g spends from, Options.Limiter or its default, for handlers
// that show how a quota stands; nil if g is unmetered.
func (g *Guard) Limiter() ratelimit.Limiter {
	if g == nil || g.core == nil {
		return nil
	}
	return g.core.opts.Limiter
}

// Close writes the facts about use that are still in memory and stops the
// goroutine of the family. The Guard goes on deciding, but notes no more uses.
// Call it when the server has shut down. The error is that of the store or of
// ctx; what could not be written is lost then.
func (g *Guard) Close(ctx context.Context) error {
	if g == nil || g.core == nil || g.core.uses == nil {
		return nil
	}
	return g.core.uses.close(ctx)
}

// complete sets what the answer of a handler's own Refusal needs by its status:
// the challenge of a 401 (RFC 9110 15.5.2), and when to try again.
func (g *Guard) complete(h http.Header, f *Refusal) {
	realm := defaultRealm
	if g != nil && g.core != nil {
		realm = g.core.opts.Realm
	}
	switch f.Status {
	case http.StatusUnauthorized:
		h["Www-Authenticate"] = []string{challenge(realm, f.Reason)}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if h[headerRetryAfter] == nil {
			h[headerRetryAfter] = []string{"1"}
		}
	}
}

// A decision collects what is found out about one request. It lives on the
// stack.
type decision struct {
	policy.Request            // what the policies look at
	outer          *admission // of an enclosing Guard of the family
	err            error      // for Event.Err
	refusal        *Refusal
	stale          bool
	pair           bool // x-api-user and x-api-token
}

// admission returns the mark of a request that passed.
func (d *decision) admission(ctx context.Context, g *Guard) *admission {
	return &admission{Context: ctx, principal: d.Principal, settings: d.Settings, addr: d.Addr, guard: g, outer: d.outer}
}

// admit decides about r, as decide does. If it is refused, admit has answered it.
func (g *Guard) admit(w http.ResponseWriter, r *http.Request, d *decision, quota *ratelimit.Result) bool {
	if f := g.decide(r, d, quota); f != nil {
		g.Refuse(w, r, f)
		return false
	}
	private := d.pair && d.outer == nil
	fields := quota != nil && quota.OK && quota.Limit >= 0 && d.Principal.DailyLimit != ratelimit.Unlimited && !g.core.opts.OmitRateLimitFields
	if private || fields {
		g.core.setHeader(w.Header(), d.Time, quota, private, fields)
	}
	if quota != nil {
		g.settle(r, d, quota)
	}
	return true
}

// setHeader sets what an admitted answer has before its handler runs. The values
// are this answer's own, in one allocation, since the handler may do with them
// what it likes.
func (c *core) setHeader(h http.Header, now time.Time, quota *ratelimit.Result, private, fields bool) {
	values := new([3]string)
	if private {
		// x-api-token is not Authorization: shared caches would keep the answer
		// unless told otherwise (RFC 9111 3.5, D40). The handler may replace this.
		values[0] = "private"
		if !slices.ContainsFunc(h["Cache-Control"], forbidsStoring) {
			h["Cache-Control"] = values[0:1:1]
		}
	}
	if fields {
		values[1], values[2] = c.fields.policy(quota).value, rateLimit(quota, now)
		h[headerRateLimitPolicy], h[headerRateLimit] = values[1:2:2], values[2:3:3]
	}
}

// forbidsStoring reports whether a value of Cache-Control, of a handler around the
// Guard, is stricter than private.
func forbidsStoring(value string) bool { return strings.Contains(strings.ToLower(value), "no-store") }

// settle notes and observes an admitted request, if that is asked for. It is
// inlined.
func (g *Guard) settle(r *http.Request, d *decision, quota *ratelimit.Result) {
	if c := g.core; c.uses != nil || c.opts.Observe != nil {
		g.settleOnce(r, d, quota)
	}
}

// settleOnce does so once in the family of g.
func (g *Guard) settleOnce(r *http.Request, d *decision, quota *ratelimit.Result) {
	if d.outer == nil || d.outer.root().unsettled.CompareAndSwap(true, false) {
		g.core.settle(r, d, quota)
	}
}

func (c *core) settle(r *http.Request, d *decision, quota *ratelimit.Result) {
	if c.uses != nil && d.Principal.KeyID != "" {
		c.uses.note(d.Principal.KeyID, d.Addr, d.Time, r)
	}
	c.observe(r, d, quota)
}

func (c *core) observe(r *http.Request, d *decision, quota *ratelimit.Result) {
	if c.opts.Observe != nil {
		c.opts.Observe(r, d.event(quota))
	}
}

// event is apart so that a Guard that nobody observes has no room for an Event
// on its stack, which would be cleared for each request.
//
//go:noinline
func (d *decision) event(quota *ratelimit.Result) Event {
	e := Event{Time: d.Time, Principal: d.Principal, Addr: d.Addr, Refusal: d.refusal, Err: d.err, Stale: d.stale}
	if quota != nil {
		e.Quota = *quota
	}
	return e
}

// decide finds out whether r may proceed. If it may, and quota is not nil, it spends
// and puts the result there: apart from d, so that [Guard.Admit] copies nothing. It
// returns the refusal, which it has observed, or nil.
func (g *Guard) decide(r *http.Request, d *decision, quota *ratelimit.Result) *Refusal {
	if g == nil || g.core == nil {
		return notMade()
	}
	f := g.judge(r, d)
	if f == nil && quota != nil {
		f = g.spend(r, d, quota)
	}
	if f != nil {
		g.refused(r, d, quota, f)
	}
	return f
}

// notMade is the refusal of a Guard that was not made by New.
func notMade() *Refusal {
	rs := newRefusals(defaultRealm)
	return rs.failed(errors.New("middleware: Guard was not made by New"))
}

// refused observes a refused request.
func (g *Guard) refused(r *http.Request, d *decision, quota *ratelimit.Result, f *Refusal) {
	d.refusal = f
	if d.outer != nil {
		d.outer.root().unsettled.Store(false)
	}
	g.core.observe(r, d, quota)
}

// judge authenticates and evaluates the policies.
func (g *Guard) judge(r *http.Request, d *decision) *Refusal {
	c := g.core
	d.Time = c.opts.Now()
	if d.outer = g.admissionFrom(r.Context()); d.outer != nil {
		d.Principal, d.Settings, d.Addr = d.outer.principal, d.outer.settings, d.outer.addr
	} else {
		d.Addr = c.opts.ClientIP(r)
		if f := c.authenticate(r, d); f != nil {
			return f
		}
	}
	for _, l := range g.layers {
		if d.outer != nil && d.outer.evaluated(l) {
			continue
		}
		if decided := l.policy.Evaluate(d.Request); !decided.Allow {
			return c.refusals.of(decided.Reason)
		}
	}
	return nil
}

// authenticate finds the caller of r and the settings of its organization.
func (c *core) authenticate(r *http.Request, d *decision) *Refusal {
	var creds credentials
	creds.read(r.Header)
	switch creds.presented {
	case presentedMultiple:
		return c.refusals.of(policy.MultipleCredentials)
	case presentedMalformed: // nobody is asked whether it is somebody all the same (D34)
		d.err = errMalformed
		return c.refusals.of(policy.InvalidToken)
	case presentedPair:
		d.pair = true
	}
	for _, a := range c.keys {
		if a.claims(&creds) {
			// They are spared the second look at the headers, the second reading of
			// the clock and a look-up of the settings.
			verified, err := a.verify(r.Context(), &creds, d.Time)
			if verified.Record != nil {
				d.Principal, d.Settings, d.stale = verified.Record.Principal, verified.Settings, verified.Stale
			}
			if err != nil {
				return c.unknown(d, err)
			}
			return nil
		}
	}
	var err error
	d.Principal, err = c.others.ask(r, creds.presented)
	switch {
	case err == nil:
		return c.accept(r, d)
	case !errors.Is(err, ErrNoCredential) || errors.Is(err, ErrInvalidCredential):
		return c.unknown(d, err)
	case creds.presented == presentedNothing:
		return c.refusals.of(policy.NoCredentials)
	}
	return c.unknown(d, errUnclaimed)
}

// unknown refuses a caller whom an Authenticator did not find, for that reason.
func (c *core) unknown(d *decision, err error) *Refusal {
	d.err = err
	if errors.Is(err, ErrInvalidCredential) {
		return c.refusals.of(policy.InvalidToken)
	}
	return c.refusals.failed(err)
}

// noSettings are those of a caller without an organization.
var noSettings policy.Settings

// accept completes what an Authenticator of the host gave.
func (c *core) accept(r *http.Request, d *decision) *Refusal {
	if d.Principal.Org == "" {
		d.Settings = &noSettings
		return nil
	}
	d.Settings, d.err = c.verifier.Settings(r.Context(), d.Principal.Org, d.Time)
	if d.err != nil {
		return c.refusals.failed(d.err)
	}
	return nil
}

// spend takes one unit of the quota of an API key, once for a request, however
// many Guards of the family it passes.
func (g *Guard) spend(r *http.Request, d *decision, quota *ratelimit.Result) *Refusal {
	c := g.core
	if d.Principal.Credential != policy.APIKey || c.opts.Unmetered {
		return nil
	}
	var root *admission
	if d.outer != nil {
		if root = d.outer.root(); !root.unspent.Load() {
			return nil
		}
	}
	key := d.Principal.Quota
	if key == "" {
		key = d.Principal.KeyID
	}
	if key == "" { // of an Authenticator of the host
		d.err = errors.New("middleware: Principal of an API key without Quota and KeyID")
		return c.refusals.failed(d.err)
	}
	var err error
	if c.daily != nil {
		err = c.daily.TakeAt(r.Context(), key, d.Principal.DailyLimit, d.Time, quota)
	} else {
		*quota, err = c.opts.Limiter.Take(r.Context(), key, d.Principal.DailyLimit)
	}
	switch {
	case err != nil && (!c.opts.LimiterFailOpen || r.Context().Err() != nil):
		// Who has gone away has made the limiter fail: that opens nothing.
		d.err, *quota = err, ratelimit.Result{}
		return c.refusals.failed(err)
	case err != nil:
		d.err, *quota = err, ratelimit.Result{} // let through uncounted, by the host's choice
	case !quota.OK:
		return c.overQuota(quota)
	}
	if root != nil {
		root.unspent.Store(false)
	}
	return nil
}
