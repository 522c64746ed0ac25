package ratelimit

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// admit counts a lease that is to be made, and sees to it that the sweeper runs. It
// reports false after Close. The caller holds the lock of a shard.
func (b *Leased) admit() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.closed:
		return false
	default:
	}
	b.leases++
	if b.sweeping == nil {
		b.sweeping = make(chan struct{})
		go b.sweep(b.sweeping)
	}
	return true
}

// sweep gives back what lies idle, and drops leases that are not used, until there
// are none.
func (b *Leased) sweep(done chan<- struct{}) {
	defer close(done)
	ticker := time.NewTicker(max(b.idle/leaseTicks, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-b.closed:
			return
		case <-ticker.C:
		}
		dropped, idle := b.tick()
		_ = each(idle, b.giveBackIdle) // what fails is tried again
		if b.discount(dropped) {
			return
		}
	}
}

// discount subtracts leases that were dropped, and reports that the sweeper has
// nothing left to do.
func (b *Leased) discount(dropped int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leases -= dropped
	if b.leases == 0 {
		b.sweeping = nil
	}
	return b.leases == 0
}

// tick drops the leases that were not used for long enough, and returns how many,
// and those that have something to give back.
func (b *Leased) tick() (dropped int, idle []*lease) {
	now := b.elapsed()
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		for e := range s.leases() {
			e.mu.Lock()
			switch {
			case e.gone || e.trip != nil || now-e.since < b.idle:
			case e.indebted():
				idle = append(idle, e)
			case e.used:
				e.used = false
			case now < e.dry.until:
				// It saves those a trip who ask now and then for what is used up.
			default:
				s.drop(e)
				dropped++
			}
			e.mu.Unlock()
		}
		s.shrink()
		s.mu.Unlock()
	}
	return dropped, idle
}

// indebted reports whether the Lender has to be told something before e may be
// dropped. The caller holds e.mu.
func (e *lease) indebted() bool { return e.unsure || e.told < e.lent }

// giveBackIdle gives back what e has, unless it was borrowed meanwhile, or cannot
// be given back and was tried a moment ago.
func (b *Leased) giveBackIdle(e *lease) error {
	now := b.elapsed()
	e.mu.Lock()
	if e.trip != nil || now-e.since < b.idle || now < e.retry {
		e.mu.Unlock()
		return nil
	}
	t := e.begin()
	e.mu.Unlock()
	e.finish(t, func() error { return b.settle(context.Background(), e) })
	return t.err
}

// settle is giveBack, and what comes after it. It is a trip.
func (b *Leased) settle(ctx context.Context, e *lease) error {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	err := b.giveBack(ctx, e)
	if err == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := b.elapsed()
	e.retry = now + b.idle
	if b.now().After(e.end) && now-e.since > leaseGrace {
		e.forget() // nobody can spend it any more
	}
	return err
}

// Close gives back what is held, so that other nodes have it at once, and stops. It
// waits for trips that are under way. From then on every Add is one of the Lender.
// An error says that something could not be given back: nobody can spend that any
// more unless another Close succeeds.
func (b *Leased) Close(ctx context.Context) error {
	if b == nil || b.lender == nil {
		return b.unusable()
	}
	b.closing.Lock()
	defer b.closing.Unlock()
	b.mu.Lock()
	select {
	case <-b.closed:
	default:
		close(b.closed)
	}
	sweeping := b.sweeping
	b.mu.Unlock()
	if sweeping != nil {
		select {
		case <-sweeping:
		case <-ctx.Done():
			return ended(ctx)
		}
	}
	var open []*lease
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		for e := range s.leases() {
			e.mu.Lock()
			e.gone = true
			e.mu.Unlock()
			open = append(open, e)
		}
		s.mu.Unlock()
	}
	return each(open, func(e *lease) error { return b.giveBackLast(ctx, e) })
}

// giveBackLast gives back what e has when nothing can be borrowed any more.
func (b *Leased) giveBackLast(ctx context.Context, e *lease) error {
	e.mu.Lock()
	for e.trip != nil {
		t := e.trip
		e.mu.Unlock()
		select {
		case <-t.done:
		case <-ctx.Done():
			return ended(ctx)
		}
		e.mu.Lock()
	}
	t := e.begin()
	e.mu.Unlock()
	e.finish(t, func() error { return b.settle(ctx, e) })
	return t.err
}

// each calls f for leases, several at a time, and returns one of its errors.
func each(leases []*lease, f func(*lease) error) error {
	var (
		wg     sync.WaitGroup
		places = make(chan struct{}, leaseTrips)
		mu     sync.Mutex
		last   error
		failed int
	)
	for _, e := range leases {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			if err := f(e); err != nil {
				mu.Lock()
				defer mu.Unlock()
				last = err
				failed++
			}
		})
	}
	wg.Wait()
	if last != nil {
		return fmt.Errorf("%w (so it is for %d of %d loans)", last, failed, len(leases))
	}
	return nil
}
