package refusallog

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store/audit"
)

const (
	defaultPerMinute = 60

	// queued is how many events wait for a slow sink.
	queued = 256

	// maxReasons bounds what is kept for reasons that a host's policies bring.
	maxReasons = 64

	// maxUserAgent bounds, in bytes, what is kept of a User-Agent, as in the stores.
	maxUserAgent = 256
)

// Options configure a [Log]. A nil *Options means the defaults.
type Options struct {
	// Failed is called, off the path of requests, with the error of the sink for
	// each event that could not be written.
	// Defaults to none: such errors are dropped, and the events count as left out.
	Failed func(err error)

	// Now is the clock of the lines that say how many events were left out; the
	// others have the time of their request.
	// Defaults to [time.Now].
	Now func() time.Time

	// PerMinute is how many refusals of one reason are written in a minute. Each
	// reason has its own share, so that a flood of unknown tokens does not hide the
	// key that is used from a new address.
	// Defaults to 60.
	PerMinute int
}

// A Log writes a sample of the refusals of a Guard to an [audit.Sink]: of each
// reason the first ones of every minute, with the action [audit.Authentication] and
// the outcome [audit.Failure], the caller, key and address as far as they were found
// out, and the reason of the refusal. How many of a reason were left out in a minute
// is written at its end, in a line of its own: see [audit.Event.Suppressed].
//
// The ID of the caller is left out where the credential was not valid, such as
// another user's key: then User and KeyID say whose it is. In the User-Agent,
// which a client chooses, what looks like a token or a JWT is cut.
//
// All methods are safe for concurrent use. The zero Log writes nothing; see [New].
type Log struct {
	sink      audit.Sink
	failed    func(error)
	now       func() time.Time
	perMinute int

	queue chan audit.Event // nil: not made by New

	mu      sync.Mutex
	samples map[policy.Reason]*sample
	closed  bool

	stop    chan struct{}
	stopped chan struct{}
}

// A sample is what was done with the refusals of a reason in this minute.
type sample struct {
	taken int
	left  int64
}

// New returns a Log that writes to sink, on a goroutine of its own, until
// [Log.Close]. Its error reports everything that is wrong with the arguments.
func New(sink audit.Sink, opts *Options) (*Log, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.PerMinute == 0 {
		o.PerMinute = defaultPerMinute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	var errs []error
	if sink == nil {
		errs = append(errs, errors.New("refusallog: New without a Sink"))
	}
	if o.PerMinute < 0 {
		errs = append(errs, errors.New("refusallog: Options.PerMinute is negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	l := &Log{
		sink: sink, failed: o.Failed, now: o.Now, perMinute: o.PerMinute,
		queue: make(chan audit.Event, queued), samples: make(map[policy.Reason]*sample),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	go l.run()
	return l, nil
}

// Observe takes note of e, if it is a refusal: it is what middleware.Options.Observe
// is to be set to, or to call. It never waits for the sink, and allocates nothing
// for requests that were let through or are left out.
func (l *Log) Observe(r *http.Request, e middleware.Event) {
	if e.Refusal == nil || l == nil || l.queue == nil {
		return
	}
	switch e.Refusal.Status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
	default:
		return
	}
	if !l.take(e.Refusal.Reason) {
		return
	}
	select {
	case l.queue <- event(r, e):
	default:
		l.leave(e.Refusal.Reason, 1)
	}
}

// take reports whether a refusal is to be written, and notes it.
func (l *Log) take(reason policy.Reason) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sample(reason)
	if l.closed || s.taken >= l.perMinute {
		s.left++
		return false
	}
	s.taken++
	return true
}

// leave notes that n refusals were not written.
func (l *Log) leave(reason policy.Reason, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sample(reason).left += n
}

// sample returns that of a reason; those of too many reasons share one.
func (l *Log) sample(reason policy.Reason) *sample {
	s := l.samples[reason]
	if s == nil {
		if len(l.samples) >= maxReasons {
			reason = ""
		}
		if s = l.samples[reason]; s == nil {
			s = new(sample)
			l.samples[reason] = s
		}
	}
	return s
}

// event returns e as the trail has it. Nothing in it refers to r.
func event(r *http.Request, e middleware.Event) audit.Event {
	a := audit.Event{
		Time:    e.Time,
		Phase:   audit.Outcome,
		Action:  audit.Authentication,
		Actor:   audit.Actor{Addr: e.Addr, UserAgent: userAgent(r)},
		Outcome: audit.Failure,
		Reason:  string(e.Refusal.Reason),
		Err:     e.Err,
	}
	if p := e.Principal; p != nil {
		a.Org, a.User, a.KeyID = p.Org, p.User, p.KeyID
		a.Actor.Credential = p.Credential
		if e.Refusal.Reason != policy.InvalidToken {
			a.Actor.ID = p.User
		}
	}
	return a
}

// secret finds the tokens of every Format.
var secret = regexp.MustCompile(`([0-9a-f]{8})[0-9a-f]{24,}`)

// userAgent returns the User-Agent of r without secrets.
func userAgent(r *http.Request) string {
	agent := r.UserAgent()
	agent = agent[:min(len(agent), 2*maxUserAgent)] // so that a secret is not cut before it is found
	agent = secret.ReplaceAllString(audit.CutJWTs(agent), "$1…")
	return strings.Clone(agent[:min(len(agent), maxUserAgent)])
}

// run writes until l is closed.
func (l *Log) run() {
	defer close(l.stopped)
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	for {
		select {
		case e := <-l.queue:
			l.write(e)
		case <-minute.C:
			l.turn()
		case <-l.stop:
			for {
				select {
				case e := <-l.queue:
					l.write(e)
				default:
					l.turn()
					return
				}
			}
		}
	}
}

// turn begins a new minute, and says how many refusals the old one left out.
func (l *Log) turn() {
	l.mu.Lock()
	ended := l.samples
	l.samples = make(map[policy.Reason]*sample)
	l.mu.Unlock()
	for reason, s := range ended {
		if s.left > 0 {
			l.write(audit.Event{
				Time: l.now(), Phase: audit.Outcome, Action: audit.Authentication,
				Outcome: audit.Failure, Reason: string(reason), Suppressed: s.left,
			})
		}
	}
}

// write hands e to the sink. What it does not take is left out.
func (l *Log) write(e audit.Event) {
	e.ID = rand.Text()
	if err := l.sink.Write(context.Background(), e); err != nil {
		l.leave(policy.Reason(e.Reason), max(e.Suppressed, 1))
		l.failed(err)
	}
}

// Close writes what is noted and stops the goroutine of l. Later refusals are not
// written. Call it when the server has shut down. The error is that of ctx, if the
// sink takes longer.
func (l *Log) Close(ctx context.Context) error {
	if l == nil || l.queue == nil {
		return nil
	}
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.stop)
	}
	l.mu.Unlock()
	select {
	case <-l.stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
