package itest

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/rediscounter"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/postgresstore"
	"github.com/keystile/keystile/token"
)

// A fleetConfig says what a node of a fleet stands on.
type fleetConfig struct {
	DSN    string // of PostgreSQL
	Redis  string // URL; counts are in PostgreSQL without one
	Prefix string // of what is counted in Redis
	Token  string // of the key that everybody uses
	Limit  int64
	Direct bool  // every request is counted in the store
	Began  int64 // nanoseconds; at which it was noon for all nodes of the fleet
}

// now is the clock of the limiter: a midnight that comes during the test would be a
// limit more.
func (c fleetConfig) now() time.Time {
	return testDay.Add(-12 * time.Hour).Add(time.Since(time.Unix(0, c.Began)))
}

// Trips are what nodes have asked the stores for.
type trips struct {
	Adds, Borrows, Returns int64 // of quota
	Lookups, Polls         int64
}

func (t trips) quota() int64 { return t.Adds + t.Borrows + t.Returns }

// A countedLender counts the trips to a lender.
type countedLender struct {
	ratelimit.Lender
	adds, borrows, returns atomic.Int64
}

func (l *countedLender) Add(ctx context.Context, key string, end time.Time, n, max int64) (int64, bool, error) {
	l.adds.Add(1)
	return l.Lender.Add(ctx, key, end, n, max)
}

func (l *countedLender) Lend(ctx context.Context, account, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	if want > 0 {
		l.borrows.Add(1)
	} else {
		l.returns.Add(1)
	}
	return l.Lender.Lend(ctx, account, key, end, spent, want, limit, now)
}

// A countedStore counts the trips that a cache makes.
type countedStore struct {
	store.Store
	feed           store.Feed
	lookups, polls atomic.Int64
}

func (s *countedStore) Lookup(ctx context.Context, d token.Digest) (*store.Record, error) {
	s.lookups.Add(1)
	return s.Store.Lookup(ctx, d)
}

func (s *countedStore) Changes(ctx context.Context, after int64) ([]store.Change, int64, error) {
	s.polls.Add(1)
	return s.feed.Changes(ctx, after)
}

// A fleetNode is what a service has on one machine.
type fleetNode struct {
	token  string
	guard  *middleware.Guard
	leased *ratelimit.Leased // nil: every request is counted in the store
	lender *countedLender
	store  *countedStore
	close  []func() error
}

// leaseTimeout is the longest that LeaseOptions allow. These nodes share a machine with
// others; one that is slow is not to be taken for one whose store is away.
const leaseTimeout = ratelimit.LoanTime / 2

func newFleetNode(c fleetConfig) (*fleetNode, error) {
	n := &fleetNode{token: c.Token}
	db, err := sql.Open("pgx", c.DSN)
	if err != nil {
		return nil, err
	}
	n.close = append(n.close, db.Close)
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	s, err := postgresstore.New(db, &postgresstore.Options{CountTimeout: tooLong})
	if err != nil {
		return nil, err
	}
	n.store = &countedStore{Store: s, feed: s}
	n.lender = &countedLender{Lender: s}
	if c.Redis != "" {
		var client *redis.Client
		if client, err = rediscounter.Open(c.Redis); err != nil {
			return nil, err
		}
		n.close = append(n.close, client.Close)
		n.lender.Lender = rediscounter.New(client, &rediscounter.Options{Prefix: c.Prefix, Timeout: tooLong})
	}
	var counter ratelimit.Counter = n.lender
	if !c.Direct {
		n.leased = ratelimit.NewLeased(n.lender, &ratelimit.LeaseOptions{Now: c.now, Timeout: leaseTimeout})
		n.close = append(n.close, func() error { return n.leased.Close(context.Background()) })
		counter = n.leased
	}
	mgr, err := keys.New(n.store, &keys.Options{Cache: &store.CacheOptions{Feed: n.store, LookupTimeout: tooLong}})
	if err != nil {
		return nil, err
	}
	n.close = append(n.close, func() error { mgr.Close(); return nil })
	n.guard, err = middleware.New(mgr.Verifier(), &middleware.Options{
		Limiter: ratelimit.NewDaily(counter, &ratelimit.DailyOptions{Limit: c.Limit, Now: c.now}),
	})
	return n, err
}

// request makes a request, and reports whether it was admitted.
func (n *fleetNode) request(ctx context.Context) (bool, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", http.NoBody)
	if err != nil {
		return false, err
	}
	r.RemoteAddr = "192.0.2.1:1"
	r.Header.Set("Authorization", "Bearer "+n.token)
	_, _, err = n.guard.Admit(r)
	refusal, ok := errors.AsType[*middleware.Refusal](err)
	if ok && refusal.Status == http.StatusTooManyRequests {
		return false, nil
	}
	return err == nil, err
}

// requests makes some requests at once, and returns how many were admitted.
func (n *fleetNode) requests(ctx context.Context, number int) (int, error) {
	var (
		wg       sync.WaitGroup
		admitted atomic.Int64
		errs     = make([]error, number)
	)
	for i := range number {
		wg.Go(func() {
			ok, err := n.request(ctx)
			if errs[i] = err; ok {
				admitted.Add(1)
			}
		})
	}
	wg.Wait()
	return int(admitted.Load()), errors.Join(errs...)
}

func (n *fleetNode) trips() trips {
	return trips{n.lender.adds.Load(), n.lender.borrows.Load(), n.lender.returns.Load(), n.store.lookups.Load(), n.store.polls.Load()}
}

// end closes everything, what was opened last first.
func (n *fleetNode) end() error {
	var errs []error
	for i := range n.close {
		errs = append(errs, n.close[len(n.close)-1-i]())
	}
	return errors.Join(errs...)
}

// nodeProgram is a node in a process of its own. It makes as many requests at once as
// each line of its input says, prints how many were admitted, and at the end its
// trips.
func nodeProgram(ctx context.Context, args []string) error {
	var c fleetConfig
	if err := json.Unmarshal([]byte(args[0]), &c); err != nil {
		return err
	}
	n, err := newFleetNode(c)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var number int
		if _, err := fmt.Sscan(lines.Text(), &number); err != nil {
			return err
		}
		admitted, err := n.requests(ctx, number)
		if err != nil {
			return err
		}
		fmt.Println(admitted)
	}
	if err := n.end(); err != nil {
		return err
	}
	t := n.trips()
	fmt.Println(t.Adds, t.Borrows, t.Returns, t.Lookups, t.Polls)
	return nil
}

// A member is a node as a test sees it, in this process or another.
type member interface {
	requests(ctx context.Context, number int) (admitted int, err error)
	// end tells it to end, and over returns its trips when it has.
	end() error
	over(t *testing.T) trips
}

type localMember struct{ *fleetNode }

func (m localMember) over(*testing.T) trips { return m.trips() }

// A remoteMember is a [nodeProgram].
type remoteMember struct{ *process }

// startMembers starts nodes in processes of their own.
func startMembers(t *testing.T, c fleetConfig, number int) []member {
	t.Helper()
	text, err := json.Marshal(c)
	require.NoError(t, err)
	var all []member
	for range number {
		all = append(all, remoteMember{start(t, "fleet node", string(text))})
	}
	for _, m := range all {
		p := m.(remoteMember)
		line, _ := p.line()
		require.Equal(t, "ready", line, "stderr: %s", &p.stderr)
	}
	return all
}

func (m remoteMember) requests(_ context.Context, number int) (admitted int, err error) {
	if _, err := fmt.Fprintln(m.stdin, number); err != nil {
		return 0, err
	}
	line, ok := m.line()
	if !ok {
		return 0, fmt.Errorf("the node has ended: %s", &m.stderr)
	}
	_, err = fmt.Sscan(line, &admitted)
	return admitted, err
}

func (m remoteMember) end() error { return m.stdin.Close() }

func (m remoteMember) over(t *testing.T) (of trips) {
	t.Helper()
	lines := m.wait(t)
	require.Len(t, lines, 1)
	_, err := fmt.Sscan(lines[0], &of.Adds, &of.Borrows, &of.Returns, &of.Lookups, &of.Polls)
	require.NoError(t, err)
	return of
}

// over ends a fleet and returns the trips of all.
func over(t *testing.T, fleet []member) (sum trips) {
	t.Helper()
	for _, m := range fleet {
		require.NoError(t, m.end())
	}
	for _, m := range fleet {
		of := m.over(t)
		sum.Adds += of.Adds
		sum.Borrows += of.Borrows
		sum.Returns += of.Returns
		sum.Lookups += of.Lookups
		sum.Polls += of.Polls
	}
	return sum
}

// newFleet makes what a fleet stands on: a database with a key, and a place in Redis if
// that counts.
func newFleet(t testing.TB, inRedis bool, limit int64) fleetConfig {
	t.Helper()
	dsn, _ := newSchema(t)
	mgr, err := keys.New(newPostgres(t, openPool(t, dsn), nil), nil)
	require.NoError(t, err)
	require.NoError(t, mgr.PutUser(t.Context(), testUser(1)))
	secret, _, err := mgr.Create(t.Context(), keys.CreateParams{Org: "acme", User: "u1", Name: "export"})
	require.NoError(t, err)
	c := fleetConfig{DSN: dsn, Token: secret.Reveal(), Limit: limit, Began: time.Now().UnixNano()}
	if inRedis {
		c.Redis, c.Prefix = redisServer(t).URL(), newRedisPrefix()
	}
	return c
}

// The ways in which the demand comes to a fleet: the node of the i-th of all requests.
var patterns = []struct {
	name string
	node func(i, all, nodes int) int
}{
	{"uniform", func(i, _, nodes int) int { return i % nodes }},
	{"90 % on one node", func(i, _, nodes int) int {
		if i%10 > 0 {
			return 0
		}
		return i / 10 % nodes
	}},
	{"moving", func(i, all, nodes int) int { return 8 * i / all % nodes }},
}

// TestFleet shows S61, D8 and what leases promise on real stores: a fleet admits
// exactly its limit of twice as many requests, wherever they come, also with 4 nodes
// that are processes of their own; and a refusal comes early only while a node holds
// units that it does not use, which is printed. How many trips that takes is printed
// too, and may be three times what it should be on a quiet machine.
func TestFleet(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		limit int64
		nodes int
		most  float64 // trips per admitted request
	}{
		{10_000, 1, 0.02},
		{10_000, 4, 0.03},
		{10_000, 16, 0.06},
		{250, 16, 0.65},
	} {
		for _, inRedis := range []bool{false, true} {
			for _, pattern := range patterns {
				if pattern.name != "uniform" && tt.nodes != 4 {
					continue
				}
				counts := "PostgreSQL"
				if inRedis {
					counts = "Redis"
				}
				t.Run(fmt.Sprintf("%d on %d nodes, counted in %s, %s", tt.limit, tt.nodes, counts, pattern.name), func(t *testing.T) {
					c := newFleet(t, inRedis, tt.limit)
					var fleet []member
					if tt.nodes <= 4 {
						fleet = startMembers(t, c, tt.nodes)
					}
					for len(fleet) < tt.nodes {
						n, err := newFleetNode(c)
						require.NoError(t, err)
						fleet = append(fleet, localMember{n})
					}
					d := demand(t, fleet, int(tt.limit), pattern.node)
					sum := over(t, fleet)
					each := float64(sum.quota()) / float64(tt.limit)
					t.Logf("%.4f trips per admitted request (%d to add, %d to borrow, %d to give back), beside %d look-ups and %d polls; refused early for %v",
						each, sum.Adds, sum.Borrows, sum.Returns, sum.Lookups, sum.Polls, d.early.Round(time.Millisecond))
					require.EqualValues(t, tt.limit, d.admitted)
					require.Less(t, each, 3*tt.most)
				})
			}
		}
	}
}

// A demanded is what became of a demand.
type demanded struct {
	admitted int
	early    time.Duration // from the first refusal until the last unit was admitted
	steps    int           // the same, in steps of the demand
}

// demand makes twice as many requests as the limit, within four seconds: every 20
// milliseconds some of them, at all nodes at once.
func demand(t *testing.T, fleet []member, limit int, node func(i, all, nodes int) int) demanded {
	t.Helper()
	const steps = 200
	all := 2 * limit
	var (
		d       demanded
		refused time.Time // first
		first   int       // step with a refusal
		ticks   = time.NewTicker(4 * time.Second / steps)
		asked   = 0
	)
	defer ticks.Stop()
	for step := range steps {
		<-ticks.C
		number := make([]int, len(fleet))
		for ; asked < (step+1)*all/steps; asked++ {
			number[node(asked, all, len(fleet))]++
		}
		admitted := make([]int, len(fleet))
		errs := make([]error, len(fleet))
		var wg sync.WaitGroup
		for i, m := range fleet {
			if number[i] > 0 {
				wg.Go(func() { admitted[i], errs[i] = m.requests(t.Context(), number[i]) })
			}
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
		for i := range fleet {
			d.admitted += admitted[i]
			if admitted[i] > 0 && !refused.IsZero() {
				d.early, d.steps = time.Since(refused), step-first
			}
			if admitted[i] < number[i] && refused.IsZero() {
				refused, first = time.Now(), step
			}
		}
	}
	require.Equal(t, all, asked)
	return d
}

// TestFleetDirect has the same fleet without leases: as many trips as requests, and no
// refusal comes early at all.
func TestFleetDirect(t *testing.T) {
	t.Parallel()
	for _, inRedis := range []bool{false, true} {
		t.Run(fmt.Sprintf("in Redis: %t", inRedis), func(t *testing.T) {
			c := newFleet(t, inRedis, 1000)
			c.Direct = true
			fleet := startMembers(t, c, 4)
			d := demand(t, fleet, 1000, patterns[0].node)
			sum := over(t, fleet)
			require.Equal(t, 1000, d.admitted)
			require.Zero(t, d.steps, "no unit is admitted in a step after that of the first refusal")
			require.EqualValues(t, 2000, sum.Adds)
		})
	}
}
