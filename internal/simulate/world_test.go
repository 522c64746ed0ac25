package simulate_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keystile/keystile/ratelimit"
)

// A config is what a world is made from.
type config struct {
	seed   uint64
	lasts  time.Duration
	nodes  int
	people int // operators, and half as many clients again

	ttl        time.Duration // of the caches; negative: there are none
	serveStale time.Duration

	plan    plan
	crashes bool // nodes crash
	exact   bool // the counter has no faults, so that nothing may be lost
}

const (
	// defaultLimit is the daily limit of keys without one of their own.
	defaultLimit = 40

	// mostKeys is how many keys a user may have by default (S12).
	mostKeys = 5

	// lookupTimeout is the default of the cache, by which lookups are joined.
	lookupTimeout = 2 * time.Second
)

// bound is how long a change can be unknown to a node that hears nothing.
func (c *config) bound() time.Duration { return max(c.ttl, lookupTimeout) + c.serveStale }

// A world is a service and those who use it.
type world struct {
	conf   config
	plan   plan
	broken broken
	dice   *rand.Rand // of what is chosen before the actors begin, and by chaos

	ledger *ledger
	counts *ratelimit.Memory
	quotas quotas

	made    int // nodes
	crashes atomic.Int64

	calm atomic.Bool // nothing has a fault any more
	over atomic.Bool // nobody goes on

	mu     sync.Mutex
	nodes  []*node // that are live
	tokens []*holder

	background sync.WaitGroup
	later      sync.WaitGroup // effects that come late

	print  func(line string) // nil: nobody looks at the steps
	steps  atomic.Uint64     // the hashes of all that happened, added up
	wrong  sync.Once
	failed atomic.Pointer[string]

	requests, admitted atomic.Int64
}

// run makes a world, lets it go on for its time, and looks at what is left. It
// returns it, and what went wrong.
func run(t *testing.T, conf config, b broken, print func(line string)) (w *world, failure string) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		w = &world{
			conf: conf, plan: conf.plan, broken: b, print: print,
			dice:   rand.New(rand.NewPCG(conf.seed, 1)),
			ledger: newLedger(), counts: ratelimit.NewMemory(),
		}
		w.quotas.days = make(map[quota]*tally)
		pause(24*time.Hour - conf.lasts/2) // midnight comes in the middle
		w.populate()
		for range conf.nodes {
			// No two nodes do something at the same instants because they began together.
			pause(time.Duration(w.dice.Int64N(int64(time.Second))))
			w.nodes = append(w.nodes, w.newNode())
		}
		var actors sync.WaitGroup
		for i := range conf.people {
			actors.Go(func() { newOperator(w, i).act() })
		}
		for i := range conf.people + (conf.people+1)/2 {
			actors.Go(func() { newClient(w, i).act() })
		}
		actors.Go(w.chaos)
		pause(conf.lasts)
		w.over.Store(true)
		actors.Wait()
		w.aftermath()
		for _, n := range w.nodes {
			n.stop()
		}
		w.background.Wait()
		w.later.Wait()
		w.account()
	})
	if f := w.failed.Load(); f != nil {
		failure = *f
	}
	return w, failure
}

// A world that goes wrong says so once, and nobody goes on.
func (w *world) violation(format string, args ...any) {
	w.wrong.Do(func() {
		f := fmt.Sprintf("seed %d, at %s: %s", w.conf.seed, time.Now().Format("15:04:05.000000"), fmt.Sprintf(format, args...))
		w.failed.Store(&f)
		w.tracef("WRONG: %s", f)
		w.over.Store(true)
	})
}

func (w *world) must(err error) {
	if err != nil {
		w.violation("unexpected: %v", err)
	}
}

// tracef prints a step, if anybody looks.
func (w *world) tracef(format string, args ...any) {
	if w.print != nil {
		w.print(time.Now().Format("15:04:05.000000 ") + fmt.Sprintf(format, args...))
	}
}

// happened adds a step to what two runs of a world have to have in common.
func (w *world) happened(parts ...any) {
	w.steps.Add(fnv(time.Now().UnixNano(), parts))
}

// anyNode returns a live node, which takes the work that follows: leave it then.
func (w *world) anyNode(dice *rand.Rand) *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.nodes) == 0 {
		return nil
	}
	n := w.nodes[dice.IntN(len(w.nodes))]
	if !n.enter() {
		return nil
	}
	return n
}

// chaos lets nodes crash, stop and start, cuts wires, and sets clocks.
func (w *world) chaos() {
	for {
		pause(time.Duration(w.dice.Int64N(int64(6 * time.Second))))
		if w.over.Load() {
			return
		}
		i := w.dice.IntN(len(w.nodes))
		n := w.nodes[i]
		switch p := w.dice.IntN(100); {
		case p < 20 && w.conf.crashes:
			w.replace(i, n.crash)
		case p < 35:
			w.replace(i, n.stop)
		case p < 50 && !w.conf.exact:
			w.tracef("node %d is cut off", n.id)
			n.wire.cut.Store(true)
			pause(time.Duration(w.dice.Int64N(int64(8 * time.Second))))
			n.wire.cut.Store(false)
		case p < 90:
			off := time.Duration(w.dice.Int64N(int64(6*time.Second))) - 3*time.Second
			if p >= 85 {
				off = time.Duration(w.dice.Int64N(int64(60*time.Hour))) - 30*time.Hour
			}
			w.tracef("the clock of node %d is off by %v", n.id, off)
			n.clock.set(off)
		default:
			n.clock.set(0)
		}
	}
}

// replace ends a node in some way, and starts another in its place.
func (w *world) replace(i int, end func()) {
	w.mu.Lock()
	w.nodes = append(w.nodes[:i:i], w.nodes[i+1:]...)
	w.mu.Unlock()
	end()
	pause(time.Duration(w.dice.Int64N(int64(time.Second))))
	n := w.newNode()
	w.mu.Lock()
	w.nodes = append(w.nodes, n)
	w.mu.Unlock()
}

// String tells how large a world was.
func (w *world) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests, %d admitted, %d keys, %d nodes, %d of them crashed",
		w.requests.Load(), w.admitted.Load(), len(w.tokens), w.made, w.crashes.Load())
	return b.String()
}
