package simulate_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Without the race detector, which makes it many times as slow, every call is tried.
var (
	oneSeed  = flag.Uint64("seed", 0, "the only `seed` of TestStorm, which then prints every step with -v")
	howMany  = flag.Uint64("seeds", unlessRace[uint64](60, 10), "how many `seeds` TestStorm tries")
	everyNth = flag.Int64("every", unlessRace[int64](1, 24), "TestEveryCall lets every `n`-th call fail")
)

func unlessRace[T any](without, with T) T {
	if race {
		return with
	}
	return without
}

// stormy returns the config of a seed.
func stormy(seed uint64) config {
	dice := rand.New(rand.NewPCG(seed, 0))
	c := config{
		seed:   seed,
		lasts:  40 * time.Second,
		nodes:  2 + dice.IntN(3),
		people: 2 + dice.IntN(2),
		ttl:    []time.Duration{5 * time.Second, 5 * time.Second, 2 * time.Second, 500 * time.Millisecond, -1}[dice.IntN(5)],
		exact:  seed%3 == 0,
	}
	if c.ttl > 0 && dice.IntN(4) == 0 {
		c.serveStale = 4 * time.Second
	}
	c.crashes = !c.exact
	s := storm{seed: seed, chance: dice.IntN(25)}
	if c.exact {
		s.spared = map[string]bool{"add": true, "lend": true, "record uses": true}
	}
	c.plan = s
	return c
}

// Whatever happens to the store, to nodes and to clocks, whatever is changed
// meanwhile, and whoever asks where: never more than the highest limit of the day is
// admitted (S61, D8); never a request of a key that is revoked (S19), disabled, or
// of a user who is suspended (D17) or without a grant (S26), for longer than the
// bound; never one of a key that is expired (S38, D22, D23), or from an address that
// is not allowed (S45, S46); a refusal has its reason (S72); what was refused has
// changed no counter (D5); what was acknowledged is not lost; and when it is over
// everything works again.
func TestStorm(t *testing.T) {
	t.Parallel()
	first, last := uint64(1), *howMany
	if *oneSeed > 0 {
		first, last = *oneSeed, *oneSeed
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			var print func(string)
			if *oneSeed > 0 {
				print = func(line string) { t.Log(line) }
			}
			w, failure := run(t, stormy(seed), broken{}, print)
			t.Log(w)
			require.Empty(t, failure, "go test ./internal/simulate -run TestStorm -seed=%d -v", seed)
		})
	}
}

// calmly is the config of a short world in which nothing happens by itself.
func calmly(p plan) config {
	return config{seed: 1, lasts: 6 * time.Second, nodes: 2, people: 2, ttl: 2 * time.Second, plan: p}
}

// Whichever call of the store fails, the first or the last, and however: all that
// TestStorm requires holds. With -every=n one call in n is tried, from another first
// one for each kind of fault.
func TestEveryCall(t *testing.T) {
	t.Parallel()
	for kind := lost; kind < faultKinds; kind++ {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			k := 1 + int64(kind)%*everyNth
			for ; ; k += *everyNth {
				p := &only{k: k, f: fault{kind, 1300 * time.Millisecond}}
				_, failure := run(t, calmly(p), broken{}, nil)
				require.Empty(t, failure, "the %d-th call is %v", k, kind)
				if p.calls.Load() < k {
					break
				}
			}
			t.Logf("%d calls", k)
			require.Greater(t, k, int64(100))
		})
	}
}

// A seed makes the same world every time, but for one in a hundred: tokens and the
// seeds of hashes are not ours to choose, and by them a cache looks something up
// once more.
func TestReplay(t *testing.T) {
	t.Parallel()
	for seed := uint64(101); seed < 104; seed++ {
		seen := make(map[uint64]bool)
		again := false
		for range 5 {
			w, _ := run(t, stormy(seed), broken{}, nil)
			again = again || seen[w.steps.Load()]
			seen[w.steps.Load()] = true
			if again {
				break
			}
		}
		require.True(t, again, "five worlds of seed %d, and no two are alike", seed)
	}
}
