package ratelimittest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	"github.com/keystile/keystile/ratelimit"
)

// Run runs every case as a subtest of t, each with a counter of its own from
// newCounter, which ends the subtest itself if it cannot make one.
func Run(t *testing.T, newCounter func(t *testing.T) ratelimit.Counter) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if err := c.check(t.Context(), newCounter(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCounter runs every case, each with a counter of its own from newCounter,
// and returns all that failed, joined. The text of each begins with the name of
// the case. It is Run for callers without a testing.T, such as tests that a
// wrong counter is found out.
func TestCounter(newCounter func() (ratelimit.Counter, error)) error {
	var errs []error
	for _, c := range cases {
		counter, err := newCounter()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: new counter: %w", c.name, err))
			continue
		}
		if err := c.check(context.Background(), counter); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// A testCase checks one rule of the contract.
type testCase struct {
	name        string
	explanation string // the rule, as a sentence that says must or may

	// Of the two, steps suit what one goroutine can show.
	steps []step
	run   func(p *probe) error
}

// check runs the case and returns what is wrong with counter.
func (c testCase) check(ctx context.Context, counter ratelimit.Counter) error {
	p := &probe{ctx: ctx, counter: counter, prefix: rand.Text() + " "}
	run := c.run
	if run == nil {
		run = func(p *probe) error { return p.follow(c.steps) }
	}
	if err := run(p); err != nil {
		return fmt.Errorf("%s: %w\n\tthe rule: %s", c.name, err, c.explanation)
	}
	return nil
}
