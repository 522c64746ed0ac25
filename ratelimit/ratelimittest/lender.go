package ratelimittest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/keystile/keystile/ratelimit"
)

// RunLender runs every case about lending as a subtest of t, each with a lender of
// its own from newLender, which ends the subtest itself if it cannot make one. A
// lender is a counter as well: [Run] tests that.
func RunLender(t *testing.T, newLender func(t *testing.T) ratelimit.Lender) {
	for _, c := range lenderCases {
		t.Run(c.name, func(t *testing.T) {
			if err := c.check(t.Context(), newLender(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLender runs every case about lending, each with a lender of its own from
// newLender, and returns all that failed, joined, as [TestCounter] does.
func TestLender(newLender func() (ratelimit.Lender, error)) error {
	var errs []error
	for _, c := range lenderCases {
		lender, err := newLender()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: new lender: %w", c.name, err))
			continue
		}
		if err := c.check(context.Background(), lender); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// A lenderCase checks one rule of the contract.
type lenderCase struct {
	name        string
	explanation string // the rule, as a sentence that says must or may

	// Of the two, calls suit what one goroutine can show.
	calls []call
	run   func(p *lenderProbe) error
}

// check runs the case and returns what is wrong with lender.
func (c lenderCase) check(ctx context.Context, lender ratelimit.Lender) error {
	p := &lenderProbe{
		probe:  probe{ctx: ctx, counter: lender, prefix: rand.Text() + " "},
		lender: lender,
	}
	run := c.run
	if run == nil {
		run = func(p *lenderProbe) error { return p.follow(c.calls) }
	}
	if err := run(p); err != nil {
		return fmt.Errorf("%s: %w\n\tthe rule: %s", c.name, err, c.explanation)
	}
	return nil
}

// A lenderProbe is what a case sees of a lender.
type lenderProbe struct {
	probe
	lender ratelimit.Lender
}

// A call is one of a lender, and what must come of it: a step or a borrowing.
type call interface {
	check(p *lenderProbe) error
}

// check does the step and returns an error if something else came of it.
func (s step) check(p *lenderProbe) error { return p.want(s) }

// A borrowing is one Lend.
type borrowing struct {
	account, key       string
	end                time.Time
	spent, want, limit int64
	at                 time.Duration // after noon

	lent, count, others int64
}

// all is a want that nothing limits.
const all = math.MaxInt64

// noon is the time at which borrowings begin.
var noon = monday.Add(-12 * time.Hour)

// String returns the call that b makes.
func (b borrowing) String() string {
	return fmt.Sprintf("Lend(%.40q, %.40q, %s, spent=%d, want=%d, limit=%d, noon + %v)",
		b.account, b.key, b.end.Format(time.RFC3339Nano), b.spent, b.want, b.limit, b.at)
}

// check borrows and returns an error if something else came of it.
func (b borrowing) check(p *lenderProbe) error {
	l, err := p.borrow(b)
	if err != nil {
		return fmt.Errorf("%v: unexpected error: %w", b, err)
	}
	if want := (ratelimit.Loan{Lent: b.lent, Count: b.count, Others: b.others}); l != want {
		return fmt.Errorf("%v = %+v; want %+v", b, l, want)
	}
	return nil
}

// borrow calls the lender.
func (p *lenderProbe) borrow(b borrowing) (ratelimit.Loan, error) {
	return p.lender.Lend(p.ctx, b.account, p.prefix+b.key, b.end, b.spent, b.want, b.limit, noon.Add(b.at))
}

// follow makes calls in order, up to the first with an error.
func (p *lenderProbe) follow(calls []call) error {
	for i, c := range calls {
		if err := c.check(p); err != nil {
			return fmt.Errorf("call %d of %d: %w", i+1, len(calls), err)
		}
	}
	return nil
}
