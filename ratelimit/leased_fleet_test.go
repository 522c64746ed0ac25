package ratelimit_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
)

// D8, S61: a fleet admits exactly the limit of twice as many requests, wherever
// they come, for so few trips per admitted request. The trips are printed.
func TestLeasedFleetAdmitsExactlyTheLimit(t *testing.T) {
	t.Parallel()
	tests := []struct {
		limit int64
		nodes int
		most  float64 // trips per admitted request
	}{
		{10_000, 1, 0.02},
		{10_000, 4, 0.03},
		{10_000, 16, 0.06},
		{250, 1, 0.2},
		{250, 4, 0.3},
		{250, 16, 0.65},
	}
	for _, test := range tests {
		patterns := []struct {
			name string
			node func(i int64) int // that the i-th request comes to
		}{
			{"uniform", func(i int64) int { return int(i) % test.nodes }},
			{"90 % on one node", func(i int64) int {
				if i%10 > 0 {
					return 0
				}
				return int(i/10) % test.nodes
			}},
			{"moving", func(i int64) int { return int(8*i/(2*test.limit)) % test.nodes }},
		}
		for _, p := range patterns {
			t.Run(fmt.Sprintf("%d on %d/%s", test.limit, test.nodes, p.name), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					m := ratelimit.NewMemory()
					fleet := make([]*ratelimit.Leased, test.nodes)
					lines := make([]*line, test.nodes)
					for i := range fleet {
						fleet[i], lines[i] = newLeased(t, m, nil)
					}
					// So many a second that the demand lasts for longer than units lie idle.
					every := 4 * time.Second / time.Duration(2*test.limit)
					var admitted atomic.Int64
					var wg sync.WaitGroup
					for i := range 2 * test.limit {
						wg.Go(func() {
							_, ok, err := fleet[p.node(i)].Add(context.Background(), "k", midnight, 1, test.limit)
							if err != nil {
								t.Error(err)
							}
							if ok {
								admitted.Add(1)
							}
						})
						time.Sleep(every)
					}
					wg.Wait()
					require.Equal(t, test.limit, admitted.Load())
					for _, l := range fleet {
						refused(t, l, "k", test.limit)
					}
					var trips int64
					for _, l := range lines {
						trips += l.trips()
					}
					each := float64(trips) / float64(test.limit)
					t.Logf("%.4f trips per admitted request", each)
					require.LessOrEqual(t, each, test.most)
				})
			})
		}
	}
}

// A world is a fleet and what it did to one key.
type world struct {
	t     *testing.T
	rnd   *rand.Rand
	m     *ratelimit.Memory
	fault func() fault // of the next trip
	calm  atomic.Bool  // no trip has a fault
	nodes []*node
	made  int         // nodes, with those that are gone
	wall  sharedClock // that the clocks of nodes differ from

	end     time.Time
	limit   int64 // that all nodes will know of
	highest int64 // of this day
	served  int64 // of this day
	crashes int64 // of this day
	unknown int64 // requests of this day that ended in an error: counted or not
}

type node struct {
	leased *ratelimit.Leased
	line   *line
	skew   atomic.Int64
	limit  int64 // that this one knows of
}

func newWorld(t *testing.T, rnd *rand.Rand, nodes int, limit int64, f func() fault) *world {
	w := &world{t: t, rnd: rnd, m: ratelimit.NewMemory(), end: midnight, limit: limit, highest: limit, fault: f}
	w.wall.Set(noon)
	t.Cleanup(func() { <-time.After(6 * time.Second) }) // for what is late
	for range nodes {
		w.nodes = append(w.nodes, w.newNode())
	}
	return w
}

func (w *world) newNode() *node {
	w.made++
	n := &node{line: &line{to: w.m}, limit: w.limit}
	n.line.fault = func(int64) fault {
		if w.calm.Load() {
			return none
		}
		return w.fault()
	}
	n.leased = ratelimit.NewLeased(n.line, &ratelimit.LeaseOptions{
		Node: fmt.Sprint("node", w.made, " "),
		Now:  func() time.Time { return w.wall.Now().Add(time.Duration(n.skew.Load())) },
	})
	w.t.Cleanup(func() {
		n.line.cut.Store(true)
		_ = n.leased.Close(context.Background())
	})
	return n
}

// request makes one at n, by the limit that n knows of.
func (w *world) request(n *node) (ok bool) {
	count, ok, err := n.leased.Add(w.t.Context(), "k", w.end, 1, n.limit)
	switch {
	case err != nil:
		require.ErrorIs(w.t, err, errLine)
		w.unknown++
		return false
	case ok:
		w.served++
		require.LessOrEqual(w.t, count, n.limit)
	}
	require.LessOrEqual(w.t, w.served, w.highest, "more than the highest limit of the day")
	require.LessOrEqual(w.t, w.served, w.count())
	return ok
}

// count returns what the store has counted today.
func (w *world) count() int64 { return add(w.t, w.m, "k", w.end, 0) }

// settle lets idle units come back, and looks at what is lost: nothing but what
// crashed nodes had not accounted for, at most one loan each, and requests that
// ended in an error. What is left is admitted, to the last unit, wherever it is
// asked for.
func (w *world) settle() {
	w.calm.Store(true)
	<-time.After(8 * time.Second) // late ones come after five
	gone := w.count() - w.served
	require.GreaterOrEqual(w.t, gone, int64(0))
	require.LessOrEqual(w.t, gone, w.unknown+w.crashes*ratelimit.LoanSize(w.highest, w.highest, 1))
	for _, n := range w.nodes {
		n.limit = w.limit
	}
	n := w.nodes[w.rnd.IntN(len(w.nodes))]
	before := w.count()
	require.Equal(w.t, before < w.limit, w.request(n), "count %d of %d", before, w.limit)
	w.calm.Store(false)
}

// act does something by chance.
func (w *world) act(clocks bool) {
	i := w.rnd.IntN(len(w.nodes))
	n := w.nodes[i]
	switch p := w.rnd.IntN(1000); {
	case p < 900:
		for range 1 + w.rnd.IntN(12) {
			w.request(n)
		}
	case p < 950:
		<-time.After(time.Duration(w.rnd.Int64N(int64(800 * time.Millisecond))))
	case p < 960:
		<-time.After(time.Duration(w.rnd.Int64N(int64(15 * time.Second))))
	case p < 970: // crash and start anew
		n.line.cut.Store(true)
		w.crashes++
		w.nodes[i] = w.newNode()
	case p < 975: // stop and start anew
		if n.leased.Close(w.t.Context()) != nil {
			w.crashes++ // it leaves what it could not give back
		}
		w.nodes[i] = w.newNode()
	case p < 985: // the limit changes, and nodes hear of it one after the other
		w.limit = max(w.highest/2+w.rnd.Int64N(w.highest), 1)
		w.highest = max(w.highest, w.limit)
		n.limit = w.limit
	case p < 995:
		n.limit = w.limit
	case clocks:
		n.skew.Store(w.rnd.Int64N(int64(96*time.Hour)) - int64(48*time.Hour))
	}
}

var seeds = flag.Uint64("seeds", 80, "how many `seeds` TestLeasedSimulation tries")

// Over any day of a fleet whose nodes crash and stop, whose trips get lost before
// they arrive or after, or arrive late, whose clocks step and whose limits change:
// never more than the highest limit of the day is admitted, and nothing is lost but
// what settle allows. The seed is the name of the subtest; the flag -seeds=1500 tries
// as many.
func TestLeasedSimulation(t *testing.T) {
	t.Parallel()
	for seed := range *seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { simulate(t, seed) })
		})
	}
}

func simulate(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 3))
	limits := []int64{1, 7, 60, 250, 2000}
	// Late trips and clocks that step are not met in the same run: a store forgets
	// that an account has ended after LoanTime, by the clocks of its callers.
	clocks := seed%2 == 0
	faults := []fault{lost, unanswered}
	if !clocks {
		faults = append(faults, late)
	}
	chance := rnd.IntN(30) // of a fault, in percent
	var mu sync.Mutex      // trips of several nodes are made by several goroutines
	dice := rand.New(rand.NewPCG(seed, 4))
	w := newWorld(t, rnd, 1+rnd.IntN(6), limits[seed%uint64(len(limits))], func() fault {
		mu.Lock()
		defer mu.Unlock()
		if dice.IntN(100) >= chance {
			return none
		}
		return faults[dice.IntN(len(faults))]
	})
	for range 4 {
		for range 60 + rnd.IntN(300) {
			w.act(clocks)
			synctest.Wait()
		}
		w.settle()
		if rnd.IntN(2) == 0 {
			w.end = w.end.Add(day)
			w.wall.Set(w.end.Add(-12 * time.Hour))
			w.served, w.unknown, w.crashes, w.highest = 0, 0, 0, w.limit
		}
	}
}

// Whichever trip fails, the first or the last, and however: never more than the
// limit is admitted, a request that is refused early is one that failed itself, and
// when all is over nothing is lost but the unit of that request.
func TestLeasedSurvivesEveryFault(t *testing.T) {
	t.Parallel()
	for _, f := range []fault{lost, unanswered, late} {
		for k := int64(1); ; k++ {
			var trips atomic.Int64
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, rand.New(rand.NewPCG(1, 1)), 3, 60, func() fault {
					if trips.Add(1) == k {
						return f
					}
					return none
				})
				for i := range 200 {
					w.request(w.nodes[[]int{0, 0, 1, 0, 2, 1}[i%6]])
					synctest.Wait()
					switch i {
					case 30: // everything comes back
						<-time.After(3 * time.Second)
					case 50:
						for _, n := range w.nodes {
							n.limit = 45
						}
					case 120:
						for _, n := range w.nodes {
							n.limit = 60
						}
					case 150:
						if w.nodes[1].leased.Close(t.Context()) != nil {
							require.NoError(t, w.nodes[1].leased.Close(t.Context()))
						}
					}
				}
				<-time.After(8 * time.Second)
				require.LessOrEqual(t, w.unknown, int64(1))
				gone := w.count() - w.served
				require.GreaterOrEqual(t, gone, int64(0))
				require.LessOrEqual(t, gone, w.unknown)
				for w.count() < 60 {
					require.True(t, w.request(w.nodes[0]))
					<-time.After(2 * time.Second)
				}
				require.False(t, w.request(w.nodes[2]))
			})
			if trips.Load() < k {
				t.Logf("%d trips failed, one after the other", k-1)
				require.Greater(t, k, int64(20))
				break
			}
		}
	}
}

// A node that crashes takes at most one loan with it, whenever that is.
func TestLeasedCrashCostsOneLoan(t *testing.T) {
	t.Parallel()
	var costs []int64
	for requests := 0; requests < 100; requests += 7 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, rand.New(rand.NewPCG(1, 1)), 2, 2000, func() fault { return none })
			for range requests {
				w.request(w.nodes[0])
				synctest.Wait()
			}
			w.nodes[0].line.cut.Store(true)
			<-time.After(20 * time.Second)
			cost := w.count() - w.served
			require.LessOrEqual(t, cost, int64(20))
			costs = append(costs, cost)
			for w.request(w.nodes[1]) {
			}
			require.Equal(t, 2000-cost, w.served)
		})
	}
	t.Logf("a crash cost %d to %d units", slices.Min(costs), slices.Max(costs))
}
