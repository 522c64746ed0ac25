package simulate_test

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// A node is a process of the service: everything that a host makes of the library.
type node struct {
	id    int
	w     *world
	wire  *wire
	clock *clock
	known knowledge

	manager *keys.Manager
	leased  *ratelimit.Leased // nil: each request is a trip to the counter
	guard   *middleware.Guard
	handler http.Handler
	wake    chan struct{}

	mu       sync.Mutex
	stopping bool
	busy     sync.WaitGroup // requests and acts under way
}

// newNode starts a node.
func (w *world) newNode() *node {
	w.made++
	n := &node{id: w.made, w: w, clock: new(clock), wake: make(chan struct{}, 1)}
	n.known.told = make(map[row]time.Time)
	n.wire = &wire{w: w, node: n, calls: make(map[string]int64), loans: make(map[loan]lent)}
	n.clock.set(time.Duration(w.dice.Int64N(int64(20*time.Millisecond))) - 10*time.Millisecond)
	b := w.broken.backend(n.wire)

	cache := &store.CacheOptions{TTL: w.conf.ttl, ServeStale: w.conf.serveStale}
	if w.conf.ttl > 0 {
		// Polls begin when they are told to: the instants at which they would begin by
		// themselves are chosen by chance, and not by the seed.
		cache.Feed, cache.FeedInterval, cache.FeedWake = b, w.conf.ttl, n.wake
	}
	var err error
	n.manager, err = keys.New(b, &keys.Options{Cache: cache, Uses: b, Now: n.clock.Now})
	w.must(err)

	var counter ratelimit.Counter = b
	if n.id%4 > 0 {
		n.leased = ratelimit.NewLeased(b, &ratelimit.LeaseOptions{Now: n.clock.Now})
		counter = n.leased
	}
	opts := &ratelimit.DailyOptions{Limit: defaultLimit}
	if w.broken.wrapLimiter != nil {
		opts.Now = n.clock.Now // what is not a Daily is not told the Guard's time
	}
	daily := ratelimit.NewDaily(counter, opts)
	n.guard, err = middleware.New(n.manager.Verifier(), &middleware.Options{
		Limiter:     w.broken.limiter(daily),
		Now:         n.clock.Now,
		Observe:     observe,
		Policy:      w.broken.policy(counter, n.clock),
		Uses:        b,
		UseInterval: 3 * time.Second,
	})
	w.must(err)
	n.handler = n.guard.WrapFunc(serve)
	if w.conf.ttl > 0 {
		w.background.Go(n.notify)
	}
	w.tracef("node %d starts", n.id)
	return n
}

// notify wakes the node's feed, as a database does that notifies of changes, a few
// times in each TTL.
func (n *node) notify() {
	for i := 0; !n.wire.dead.Load(); i++ {
		pause(n.w.conf.ttl/5 + time.Duration(fnv(n.w.conf.seed, n.id, i)%uint64(n.w.conf.ttl/8)))
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
}

// enter reports whether n takes work; leave follows then.
func (n *node) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping {
		return false
	}
	n.busy.Add(1)
	return true
}

func (n *node) leave() { n.busy.Done() }

// stop lets n finish what it does, and ends it as a host does.
func (n *node) stop() {
	n.drain()
	ctx := context.Background()
	n.manager.Close()
	err := n.guard.Close(ctx)
	if n.leased != nil {
		for range 5 {
			if err = n.leased.Close(ctx); err == nil {
				break
			}
		}
	}
	n.w.tracef("node %d stops: %v", n.id, err)
	if err != nil {
		n.w.crashes.Add(1) // it leaves what it could not give back
	}
	n.wire.dead.Store(true)
}

// crash ends n at once.
func (n *node) crash() {
	n.w.tracef("node %d crashes", n.id)
	n.w.crashes.Add(1)
	n.wire.dead.Store(true)
	n.drain()
	// What would end with the process.
	n.manager.Close()
	_ = n.guard.Close(context.Background())
	if n.leased != nil {
		_ = n.leased.Close(context.Background())
	}
}

func (n *node) drain() {
	n.mu.Lock()
	n.stopping = true
	n.mu.Unlock()
	n.busy.Wait()
}

// knowledge is what a node must have learned of changes by others.
type knowledge struct {
	mu       sync.Mutex
	told     map[row]time.Time // when an act of the node's own on the row returned last
	first    time.Time         // when its feed had a place to go on from
	began    time.Time         // when the last poll began that was answered
	answered time.Time
}

// polled notes a poll that is answered now.
func (k *knowledge) polled(began time.Time, first bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if first {
		k.first = time.Now()
		return
	}
	k.began, k.answered = began, time.Now()
}

// tell notes that an act on a row has returned.
func (k *knowledge) tell(r row) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.told[r] = time.Now()
}

// at returns what the node must know of changes of a row when a request begins now:
// those that were made so long ago that no answer of before may be used, those that
// an answered poll found, and those of before its own last act on the row.
func (k *knowledge) at(now time.Time, r row, bound time.Duration) (mustKnow func(changed time.Time) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	told, first, began := k.told[r], k.first, k.began
	if !k.answered.Before(now) || first.IsZero() {
		began = time.Time{}
	}
	return func(changed time.Time) bool {
		return changed.Before(now.Add(-bound)) ||
			changed.After(first) && changed.Before(began) ||
			told.Before(now) && !changed.After(told)
	}
}
