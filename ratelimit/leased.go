package ratelimit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// leaseMargin is how much earlier than its Lender a node takes a loan for
	// expired.
	leaseMargin = time.Second

	// The time after which units lie idle is measured in so many ticks, and a refusal
	// that may have come early is forgotten after one of them.
	leaseTicks = 4

	// A refusal that may have come early is remembered for that part of the time for
	// which others have not moved: longer than a tick only after twice the time after
	// which they would have given back, had they been able to. So what a dead node
	// holds does not cost the others a trip in every tick until the day ends.
	leaseStill = 8

	// leaseBlind is how long such a refusal is remembered at most.
	leaseBlind = LoanTime / 4

	// leaseGrace is how long it is tried to give back what nobody can spend any more by
	// this node's clock, which may be ahead.
	leaseGrace = time.Hour

	// leaseTrips is how many leases are given back at a time.
	leaseTrips = 16

	// The next loan is borrowed when a tenth of one is left. Of fewer than 10 units
	// that is none, and the next one is not borrowed before it is asked for.
	leaseLow = 10
)

var (
	errNoLender     = errors.New("ratelimit: Leased without a Lender")
	errLeaseIdle    = errors.New("ratelimit: LeaseOptions.IdleAfter is negative or more than 5 seconds")
	errLeaseTimeout = errors.New("ratelimit: LeaseOptions.Timeout is negative or more than 5 seconds")
)

// LeaseOptions are the options of [NewLeased].
type LeaseOptions struct {
	// IdleAfter is how long borrowed units may last: what is not used by then is given
	// back, a quarter of IdleAfter later at most. Another node that is refused
	// meanwhile asks again after another quarter; but more and more seldom, down to
	// once in 2.5 seconds, when nobody has given back or borrowed for longer than
	// twice IdleAfter. Defaults to 1 second; at most 5 seconds.
	IdleAfter time.Duration

	// Node begins the names of this node's accounts, for people who look into the
	// store. What follows makes them unique, so several nodes may have the same.
	// Defaults to none.
	Node string

	// Now is the wall clock that the Lender is told. Nothing here goes by it but one
	// thing: what could not be given back for an hour is given up when the window has
	// ended. The life of loans is measured by the monotonic clock. Defaults to
	// time.Now.
	Now func() time.Time

	// Timeout bounds a call of the Lender, by the context that this is given. Calls that
	// several callers may wait for do not end with the context of one. Defaults to 2 seconds; at most 5 seconds.
	Timeout time.Duration
}

// A Leased is a [Counter] that is exact among many nodes and seldom asks the store
// that they share. It borrows some units of a key from a [Lender], spends them in
// memory, borrows the next before they run out, and gives back what it does not
// use:
//
//	leased := ratelimit.NewLeased(lender, nil)
//	defer leased.Close(ctx)
//	limiter := ratelimit.NewDaily(leased, nil)
//
// What it promises:
//
//   - Never more than max is admitted, whatever crashes, however clocks go and
//     whichever answers get lost. (Two calls with different max are each held to
//     their own.)
//   - A refusal can come early only while another live node holds units that it
//     does not use, which lasts for IdleAfter and at most half of it more, or if
//     that node could not give back in time, until it has and 2.5 seconds more; or
//     for what a node held that died, at most one loan, until the end of the day.
//   - A max that changes acts at once. What was borrowed under another is given back
//     first.
//   - A Lender that fails is an error as soon as the units held are spent, idle or
//     expired: we fail closed here because nobody knows what is left (S76).
//
// A key that is used less than once in IdleAfter is not worth a loan: the request
// is counted in the Lender, which costs its one trip. With the second request in
// that time a loan begins.
//
// The count that Add returns is what all nodes have used as far as this one knows:
// what others hold counts as used, what this one holds does not. An n of 0 asks
// the Lender and returns the same. Where one node is alone, both are exact. An n of
// more than 1 gives back what is held and is counted in the Lender.
//
// Callers of the same key wait for the same trip, those who read for one that began
// after they came, and what fails for one fails for all who wait. A trip that has
// begun is not ended by a caller's context, the caller is. Memory in use follows the
// keys of the last second or two, and those refused in the last ten. While there are
// none, there is no goroutine either.
//
// Use [NewLeased]; the zero Leased answers every Add with an error.
type Leased struct {
	lender Lender // nil: err says why
	err    error

	idle    time.Duration
	timeout time.Duration
	now     func() time.Time
	start   time.Time // what elapsed counts from
	node    string    // begins the names of accounts, and is unique

	accounts atomic.Uint64 // opened so far
	seed     maphash.Seed
	shards   [leaseShards]leaseShard

	closing sync.Mutex // held by Close

	mu       sync.Mutex
	leases   int           // in the tables
	sweeping chan struct{} // closed by the sweeper at its end; nil if there is none
	closed   chan struct{} // closed by Close
}

// NewLeased returns a Leased that borrows from l. Nil opts stand for the defaults.
// If l is nil, or an option has no meaning, every Add returns an error, and so does
// [Validate] of a Daily over it.
func NewLeased(l Lender, opts *LeaseOptions) *Leased {
	var o LeaseOptions
	if opts != nil {
		o = *opts
	}
	if o.IdleAfter == 0 {
		o.IdleAfter = time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	b := &Leased{
		lender:  l,
		idle:    o.IdleAfter,
		timeout: o.Timeout,
		now:     o.Now,
		start:   time.Now(),
		node:    o.Node + rand.Text() + "-",
		seed:    maphash.MakeSeed(),
		closed:  make(chan struct{}),
	}
	b.err = errors.Join(
		when(l == nil, errNoLender), validate(l),
		when(o.IdleAfter < 0 || o.IdleAfter > LoanTime/2, errLeaseIdle),
		when(o.Timeout < 0 || o.Timeout > LoanTime/2, errLeaseTimeout),
	)
	if b.err != nil {
		b.lender = nil
	}
	for i := range b.shards {
		b.shards[i].table.Store(newLeaseTable(minSlots))
	}
	return b
}

// elapsed is the clock of leases. It is monotonic: setting the wall clock neither
// lengthens a loan nor ends it.
func (b *Leased) elapsed() time.Duration { return time.Since(b.start) }

// Add implements [Counter]. An error of the Lender is returned as it is or wrapped.
func (b *Leased) Add(ctx context.Context, key string, end time.Time, n, max int64) (count int64, ok bool, err error) {
	if b == nil || b.lender == nil {
		return 0, false, b.unusable()
	}
	hash := b.hash(key, end)
	if n == 1 && ctx.Err() == nil {
		if e := b.shard(hash).table.Load().find(hash, key, end); e != nil {
			if l := e.loan.Load(); l != nil && l.max == max && b.elapsed() < l.until {
				if left := l.left.Add(-1); left >= 0 {
					if left == l.low {
						b.renew(ctx, e, max)
					}
					return l.count - left, true, nil
				}
			}
		}
	}
	return b.addSlow(ctx, hash, key, end, n, max)
}

func (b *Leased) unusable() error {
	if b != nil && b.err != nil {
		return b.err
	}
	return errNoLender
}

// addSlow is Add where a loan does not settle it.
func (b *Leased) addSlow(ctx context.Context, hash uint32, key string, end time.Time, n, max int64) (int64, bool, error) {
	switch {
	case n < 0:
		return 0, false, errNegativeN
	case ctx.Err() != nil:
		return 0, false, ended(ctx)
	}
	p := leasePatience{timeout: b.timeout}
	defer p.end()
	for {
		e, made := b.lease(hash, key, end, n == 1 && max > 0)
		if e == nil || made {
			ctx, cancel := context.WithTimeout(ctx, p.left())
			defer cancel()
			return b.lender.Add(ctx, key, end, n, max)
		}
		count, ok, err := b.addTo(ctx, &p, e, n, max)
		if !errors.Is(err, errLeaseGone) {
			return count, ok, err
		}
	}
}

// errLeaseGone says that a lease was dropped before it was locked.
var errLeaseGone = errors.New("gone")

// A leasePatience is how long a caller waits in all, however many trips it takes:
// for timeout from the first wait on.
type leasePatience struct {
	timeout time.Duration
	began   time.Time
	timer   *time.Timer // nil: there was no wait
}

// left is what is left of it.
func (p *leasePatience) left() time.Duration {
	if p.timer == nil {
		return p.timeout
	}
	return p.timeout - time.Since(p.began)
}

// over returns a channel that says when it is over.
func (p *leasePatience) over() <-chan time.Time {
	if p.timer == nil {
		p.began, p.timer = time.Now(), time.NewTimer(p.timeout)
	}
	return p.timer.C
}

// end frees what it takes.
func (p *leasePatience) end() {
	if p.timer != nil {
		p.timer.Stop()
	}
}

// errLeasePatience is what a caller gets whose patience is over.
var errLeasePatience = fmt.Errorf("ratelimit: waiting for the lender: %w", context.DeadlineExceeded)

// addTo is addSlow with a lease that was there before.
func (b *Leased) addTo(ctx context.Context, p *leasePatience, e *lease, n, max int64) (count int64, ok bool, err error) {
	e.mu.Lock()
	e.used = true
	for waited := false; ; waited = true {
		if e.gone {
			e.mu.Unlock()
			return 0, false, errLeaseGone
		}
		if n == 1 {
			if count, ok, decided := e.take(max, b.elapsed()); decided {
				e.mu.Unlock()
				return count, ok, nil
			}
		}
		t, answer := e.trip, (*leaseAnswer)(nil)
		switch {
		case t != nil && waited && n == 0:
			answer = t.read // if it has one: the trip began after this call
		case t != nil:
		case n == 1 && max > 0 && (e.account == "" || e.max == max):
			t = b.depart(ctx, e, func(ctx context.Context) error { return b.borrow(ctx, e, max) })
		default:
			answer = new(leaseAnswer)
			t = b.depart(ctx, e, func(ctx context.Context) (err error) {
				*answer, err = b.ask(ctx, e, n, max)
				return err
			})
			if n == 0 {
				t.read = answer
			}
		}
		e.mu.Unlock()
		over := p.over()
		select {
		case <-t.done:
		case <-ctx.Done():
			return 0, false, ended(ctx)
		case <-over:
			return 0, false, errLeasePatience
		}
		switch {
		case t.err != nil:
			return 0, false, t.err
		case answer != nil:
			return answer.count, answer.ok, nil
		}
		e.mu.Lock()
	}
}

// A leaseAnswer is one of the Lender's Add.
type leaseAnswer struct {
	count int64
	ok    bool
}

// A leaseTrip is a call of the Lender for a lease, which others wait for.
type leaseTrip struct {
	done chan struct{}
	err  error        // when done
	read *leaseAnswer // when done, if it only reads
}

// depart begins a trip in a goroutine of its own. The caller holds e.mu, and there
// is no other trip. It keeps the values of the caller's context, and not its end.
func (b *Leased) depart(ctx context.Context, e *lease, f func(ctx context.Context) error) *leaseTrip {
	t := e.begin()
	go e.finish(t, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.timeout)
		defer cancel()
		return f(ctx)
	})
	return t
}

func (e *lease) begin() *leaseTrip {
	e.trip = &leaseTrip{done: make(chan struct{})}
	return e.trip
}

func (e *lease) finish(t *leaseTrip, f func() error) {
	t.err = f()
	e.mu.Lock()
	e.trip = nil
	e.mu.Unlock()
	close(t.done)
}

// renew borrows the next loan in the background.
func (b *Leased) renew(ctx context.Context, e *lease, max int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.trip == nil && !e.gone && e.account != "" && e.max == max {
		b.depart(ctx, e, func(ctx context.Context) error { return b.borrow(ctx, e, max) })
	}
}

// borrow borrows for e under max, and notes what came of it: a loan, or that there
// is nothing left. It is a trip.
func (b *Leased) borrow(ctx context.Context, e *lease, max int64) error {
	e.mu.Lock()
	stopped := e.stopped
	e.mu.Unlock()
	if stopped {
		if err := b.giveBack(ctx, e); err != nil {
			return err
		}
	}
	e.mu.Lock()
	if e.account == "" {
		e.account = b.node + strconv.FormatUint(b.accounts.Add(1), 10)
		e.max = max
	}
	account, spent := e.account, e.spent+e.loan.Load().used()
	asked := b.elapsed()
	e.estimate(spent, asked, b.idle)
	want := e.want
	e.mu.Unlock()

	l, err := b.lender.Lend(ctx, account, e.key, e.end, spent, want, max, b.now())

	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.unsure = true
		return fmt.Errorf("ratelimit: borrowing: %w", err)
	}
	e.drain()
	more := l.Lent > e.lent
	e.told, e.lent, e.since = spent, l.Lent, b.elapsed()
	left, count := e.lent-e.spent, l.Count
	if over := count - max; over > 0 {
		// Others admit more, by a higher max. What was lent to us before cannot be
		// spent beyond our own.
		left -= over
		count = max
	}
	if left > 0 {
		next := &loan{size: left, low: -1, count: count, max: max, until: asked + LoanTime - leaseMargin}
		if more && left >= leaseLow {
			next.low = left / leaseLow
		}
		next.left.Store(left)
		e.loan.Store(next)
		return nil
	}
	if l.Count < max {
		// The Lender has some left, and counted as held by us what was spent while its
		// answer was on its way. Who waits asks again.
		e.dry = leaseRefusal{}
		return nil
	}
	e.dry = e.dry.next(l, max, asked, b.idle)
	return nil
}

// giveBack stops spending what e has, gives it back and ends its account. It is a
// trip, or part of one.
func (b *Leased) giveBack(ctx context.Context, e *lease) error {
	e.mu.Lock()
	e.drain()
	e.stopped = true
	e.estimate(e.spent, b.elapsed(), b.idle)
	account, spent := e.account, e.spent
	if !e.indebted() {
		// Nothing was borrowed, or the Lender knows already that it is spent.
		e.forget()
		e.mu.Unlock()
		return nil
	}
	e.mu.Unlock()

	_, err := b.lender.Lend(ctx, account, e.key, e.end, spent, 0, 0, b.now())

	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("ratelimit: giving back: %w", err)
	}
	e.forget()
	return nil
}

// ask is Add by the Lender, for what a loan cannot answer. What is held is given
// back before an addition, since it would be in its way, and does not count as used
// for a reader. It is a trip.
func (b *Leased) ask(ctx context.Context, e *lease, n, ceiling int64) (a leaseAnswer, err error) {
	if n > 0 {
		if err := b.giveBack(ctx, e); err != nil {
			return a, err
		}
	}
	if a.count, a.ok, err = b.lender.Add(ctx, e.key, e.end, n, ceiling); err != nil {
		return leaseAnswer{}, err
	}
	if l := e.loan.Load(); l != nil {
		held := l.size - l.used()
		a.count = max(a.count-held, 0)
	}
	return a, nil
}

// A lease is what a node knows of a key in a window that it used lately.
type lease struct {
	key  string
	end  time.Time
	hash uint32

	loan atomic.Pointer[loan] // nil: there is nothing to spend

	mu   sync.Mutex
	gone bool       // dropped from the table; set under the lock of the shard as well
	used bool       // looked for since the last tick, and found without a loan
	trip *leaseTrip // under way: one at a time

	since time.Duration // when the lease was made or last borrowed
	want  int64         // the units that are worth to be borrowed
	retry time.Duration // when to try again to give back

	// The account at the Lender: "" if none is open.
	account string
	max     int64 // that it borrows under
	lent    int64 // by the last answer
	spent   int64 // without what is spent of loan
	told    int64 // so much of it the Lender knows for sure
	unsure  bool  // an answer did not come: the Lender may have lent more, or still will
	stopped bool  // it is to be given back, and nothing may be spent of it again

	dry leaseRefusal
}

// A leaseRefusal is what the Lender said when it had nothing left.
type leaseRefusal struct {
	max, count, others int64
	since              time.Duration // when the Lender said so first
	until              time.Duration // when to ask again
}

// next returns the refusal of l, the answer to a trip that began at asked, after r.
func (r leaseRefusal) next(l Loan, ceiling int64, asked, idle time.Duration) leaseRefusal {
	n := leaseRefusal{max: ceiling, count: l.Count, others: l.Others, since: asked, until: asked + LoanTime}
	if n.others == 0 {
		return n // nothing can come back
	}
	if r.max == n.max && r.count == n.count && r.others == n.others {
		n.since = r.since
	}
	n.until = asked + max(idle/leaseTicks, min((asked-n.since)/leaseStill, leaseBlind))
	return n
}

// take decides an addition of 1 from what is known. The caller holds e.mu.
func (e *lease) take(max int64, now time.Duration) (count int64, ok, decided bool) {
	if l := e.loan.Load(); l != nil {
		if l.max == max && now < l.until {
			if left := l.left.Add(-1); left >= 0 {
				return l.count - left, true, true
			}
		}
		return 0, false, false
	}
	return e.dry.count, false, e.dry.max == max && now < e.dry.until
}

// estimate sets want: to what was used since the last loan began, at that pace, in
// three quarters of idle, so that a loan is used up before it lies idle; but not to
// more than twice the last want, since a few requests at once are no pace. The
// caller holds e.mu.
func (e *lease) estimate(spent int64, now, idle time.Duration) {
	if e.lent == 0 {
		return // there was none
	}
	pace := float64(spent-e.told) / float64(now-e.since) * float64(idle) * 3 / 4
	e.want = max(int64(min(pace, float64(max(2*e.want, smallLoan)))), 1)
}

// drain ends the loan, and accounts for it. The caller holds e.mu.
func (e *lease) drain() {
	if l := e.loan.Load(); l != nil {
		left := max(l.left.Swap(drained), 0)
		e.spent += l.size - left
		e.loan.Store(nil)
	}
}

// forget forgets the account. The caller holds e.mu.
func (e *lease) forget() {
	e.account, e.max, e.lent, e.spent, e.told, e.unsure, e.stopped = "", 0, 0, 0, 0, false, false
}

// A loan is what can be spent without asking. It is replaced and never filled up,
// so that a spender who is late finds it drained, and never spends of the next one
// under the conditions of this.
type loan struct {
	left  atomic.Int64 // below 0 when spent
	low   int64        // of left, when to borrow the next; -1: not before it is asked for
	size  int64
	count int64 // of the window, with everything that was lent
	max   int64
	until time.Duration
}

// drained is a left that no number of spenders brings back.
const drained = math.MinInt64 / 2

// used returns how much of l is spent.
func (l *loan) used() int64 {
	if l == nil {
		return 0
	}
	return l.size - max(l.left.Load(), 0)
}
