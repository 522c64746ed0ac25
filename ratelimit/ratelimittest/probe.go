package ratelimittest

import (
	"context"
	"fmt"
	"time"

	"github.com/keystile/keystile/ratelimit"
)

// A step is one Add and what must come of it.
type step struct {
	key    string
	end    time.Time
	n, max int64

	count int64
	ok    bool
}

// A probe is what a case sees of a counter.
type probe struct {
	ctx     context.Context
	counter ratelimit.Counter
	prefix  string // of every key, so that no run meets the counts of another
}

// add calls the counter.
func (p *probe) add(key string, end time.Time, n, max int64) (count int64, ok bool, err error) {
	return p.counter.Add(p.ctx, p.prefix+key, end, n, max)
}

// want does one step and returns an error if something else came of it.
func (p *probe) want(s step) error {
	count, ok, err := p.add(s.key, s.end, s.n, s.max)
	if err != nil {
		return fmt.Errorf("%v: unexpected error: %w", s, err)
	}
	if count != s.count || ok != s.ok {
		return fmt.Errorf("%v = %d, %t; want %d, %t", s, count, ok, s.count, s.ok)
	}
	return nil
}

// follow does steps in order, up to the first with an error.
func (p *probe) follow(steps []step) error {
	for i, s := range steps {
		if err := p.want(s); err != nil {
			return fmt.Errorf("step %d of %d: %w", i+1, len(steps), err)
		}
	}
	return nil
}

// String returns the call that s makes.
func (s step) String() string {
	key := s.key
	if len(key) > 40 {
		key = fmt.Sprintf("%s... of %d bytes", key[:20], len(key))
	}
	return fmt.Sprintf("Add(%q, %s, n=%d, max=%d)", key, s.end.Format(time.RFC3339Nano), s.n, s.max)
}
