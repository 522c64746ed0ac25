package itest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/rediscounter"
)

// What leaseProgram spends, and with how many goroutines.
const (
	leaseLimit    = 2000
	leaseSpenders = 4
)

// leaseProgram is a node that spends a leased quota, a unit in each millisecond and
// goroutine, until it has been refused for longer than units of other nodes may lie
// idle. It prints a line for each unit that was admitted.
func leaseProgram(open func(ctx context.Context, args []string) (ratelimit.Lender, error)) program {
	return func(ctx context.Context, args []string) error {
		l, err := open(ctx, args)
		if err != nil {
			return err
		}
		leased := ratelimit.NewLeased(l, &ratelimit.LeaseOptions{Timeout: leaseTimeout})
		if err := ready(); err != nil {
			return err
		}
		errs := make([]error, leaseSpenders)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = spendLeased(ctx, leased) })
		}
		wg.Wait()
		return errors.Join(append(errs, leased.Close(ctx))...)
	}
}

func spendLeased(ctx context.Context, leased *ratelimit.Leased) error {
	ticks := time.NewTicker(time.Millisecond)
	defer ticks.Stop()
	admitted, refusals := time.Now(), 0 // the last, and how many since
	for n := 0; n <= leaseLimit && (time.Since(admitted) < 3*time.Second || refusals < 1000); refusals++ {
		<-ticks.C
		_, ok, err := leased.Add(ctx, "family", testDay, 1, leaseLimit)
		if err != nil {
			return err
		}
		if ok {
			admitted, refusals = time.Now(), 0
			n++
			fmt.Println("admitted")
		}
	}
	return nil
}

// backendLeases is a leaseProgram that borrows from a store.
func backendLeases(open func(ctx context.Context, name string) (backend, error)) program {
	return leaseProgram(func(ctx context.Context, args []string) (ratelimit.Lender, error) { return open(ctx, args[0]) })
}

// redisLender is for a leaseProgram: its arguments are a URL and a prefix.
func redisLender(_ context.Context, args []string) (ratelimit.Lender, error) {
	client, err := rediscounter.Open(args[0])
	return rediscounter.New(client, &rediscounter.Options{Prefix: args[1]}), err
}

// TestKillLeased kills one of two nodes, without a warning, in the middle of a burst
// on a leased quota. Both together never admit more than the limit (D8), and they
// admit all of it but what the dead one held: one loan at most.
func TestKillLeased(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args func(t *testing.T) []string
	}{
		{"sqlite lease", func(t *testing.T) []string {
			file := newFile(t)
			newStore(t, openFile(t, file), nil)
			return []string{file}
		}},
		{"postgres lease", func(t *testing.T) []string {
			dsn, _ := newSchema(t)
			newPostgres(t, openPool(t, dsn), nil)
			return []string{dsn}
		}},
		{"redis lease", func(t *testing.T) []string { return []string{redisServer(t).URL(), newRedisPrefix()} }},
	} {
		for _, after := range []int{1, 50, 700} {
			t.Run(fmt.Sprintf("%s, after %d", tt.name, after), func(t *testing.T) {
				t.Parallel()
				args := tt.args(t)
				victim, other := start(t, tt.name, args...), start(t, tt.name, args...)
				for _, p := range []*process{victim, other} {
					line, _ := p.line()
					require.Equal(t, "ready", line, "stderr: %s", &p.stderr)
				}
				for _, p := range []*process{victim, other} {
					require.NoError(t, p.stdin.Close())
				}
				died := len(killed(t, victim, after))
				lived := len(other.wait(t))
				t.Logf("%d and %d were admitted of %d", died, lived, leaseLimit)
				require.LessOrEqual(t, died+lived, leaseLimit)
				// What each goroutine of the dead node had not printed yet, it may have
				// accounted for.
				loan := int(ratelimit.LoanSize(leaseLimit, leaseLimit, 1))
				require.GreaterOrEqual(t, died+lived, leaseLimit-loan-leaseSpenders)
				require.Positive(t, lived)
			})
		}
	}
}
