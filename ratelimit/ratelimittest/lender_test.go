package ratelimittest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/ratelimittest"
)

// A bank is a Lender as simple as can be, and right. Every field makes it wrong in
// one way.
type bank struct {
	mu       sync.Mutex
	windows  map[string][]*bankWindow       // by key, the newest made last
	accounts map[string]map[string]*account // by place and name

	size  func(limit, left int64, nodes int) int64     // of a loan
	place func(key string, end time.Time) string       // where accounts are kept
	name  func(account string) string                  // under which they are
	live  func(a *account, now time.Time) bool         // of others
	ask   func(ctx context.Context, spent int64) error // before the step
	kept  int                                          // windows of a key

	generous     bool  // lends more than is wanted
	onTop        bool  // lends what is wanted, without what is outstanding
	whole        bool  // lends a whole loan, whatever is outstanding
	parts        bool  // answers with what was lent by this call
	before       bool  // answers with the count before it
	lastSpent    bool  // believes the last call, not the highest
	apartFromAdd bool  // Add does not see what is lent
	keepsBack    bool  // gives nothing back
	givesAll     bool  // gives back what was spent, too
	givesTwice   bool  // gives back again
	reopens      bool  // lends to accounts that have ended
	forgetsEnd   bool  // does not note the end of an account it does not know
	ownOthers    bool  // counts the borrower among the others
	liveOthers   bool  // leaves the dead out of the others
	inherits     bool  // takes what the dead have
	takesBack    bool  // takes back what exceeds a lower limit
	believesNew  bool  // adds to the count what an unknown account spent
	startsNew    bool  // lends to an unknown account as if it had spent nothing
	distrusts    bool  // takes no account's word for more than it was lent
	makes        bool  // makes a window by lending nothing
	outlives     bool  // keeps accounts when their window is dropped
	floats       bool  // calculates in floating point
	wraps        bool  // subtracts the count from the lowest of limits
	apart        bool  // looks and lends in two steps
	remembers    bool  // the first limit
	firstLimit   int64 // the first
}

type bankWindow struct {
	end         time.Time
	count, lent int64
}

type account struct {
	lent, spent int64
	called      time.Time
	ended       bool
}

func (a *account) outstanding() int64 { return a.lent - a.spent }

var errSpent = errors.New("spent out of range")

func newBank() *bank {
	return &bank{
		windows:  make(map[string][]*bankWindow),
		accounts: make(map[string]map[string]*account),
		size:     ratelimit.LoanSize,
		place:    func(key string, end time.Time) string { return fmt.Sprint(end.UnixMicro(), key) },
		name:     func(account string) string { return account },
		live: func(a *account, now time.Time) bool {
			return a.outstanding() > 0 && now.Sub(a.called) < ratelimit.LoanTime
		},
		ask: func(ctx context.Context, spent int64) error {
			if spent < 0 || spent > 1<<53 {
				return errSpent
			}
			return ctx.Err()
		},
		kept: 8,
	}
}

// window returns the window of key that ends at end, and whether it is kept: a new
// one is not.
func (b *bank) window(key string, end time.Time) (w *bankWindow, kept bool) {
	i := slices.IndexFunc(b.windows[key], func(w *bankWindow) bool { return w.end.Equal(end) })
	if i < 0 {
		return &bankWindow{end: end}, false
	}
	return b.windows[key][i], true
}

// keep keeps a new window and drops the one made first, if there are too many.
func (b *bank) keep(key string, w *bankWindow) {
	all := append(b.windows[key], w)
	if len(all) > b.kept {
		if !b.outlives {
			delete(b.accounts, b.place(key, all[0].end))
		}
		all = all[1:]
	}
	b.windows[key] = all
}

func (b *bank) Add(ctx context.Context, key string, end time.Time, n, max int64) (int64, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n < 0 || ctx.Err() != nil {
		return 0, false, errors.Join(errors.New("bank: no"), ctx.Err())
	}
	w, kept := b.window(key, end)
	count := w.count
	if b.apartFromAdd {
		count -= w.lent
	}
	if n == 0 || count > max || n > max-count {
		return count, n == 0, nil
	}
	if !kept {
		b.keep(key, w)
	}
	w.count += n
	return count + n, true, nil
}

func (b *bank) Lend(ctx context.Context, name, key string, end time.Time, spent, want, limit int64, now time.Time) (ratelimit.Loan, error) {
	if err := b.ask(ctx, spent); err != nil {
		return ratelimit.Loan{}, fmt.Errorf("bank: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.remembers {
		if b.firstLimit == 0 {
			b.firstLimit = limit
		}
		limit = b.firstLimit
	}
	w, kept := b.window(key, end)
	if !kept {
		if (want <= 0 || limit <= 0) && !b.makes {
			return ratelimit.Loan{Lent: spent}, nil
		}
		b.keep(key, w)
	}
	before := w.count
	a, others, nodes := b.account(w, key, name, spent, now)
	lent := a.lent
	if want <= 0 {
		b.giveBack(w, a)
	} else if !a.ended || b.reopens {
		b.lend(w, a, want, limit, nodes)
	}
	l := ratelimit.Loan{Lent: a.lent, Count: w.count, Others: others}
	if b.parts {
		l.Lent -= lent
	}
	if b.before {
		l.Count = before
	}
	if b.ownOthers {
		l.Others += a.outstanding()
	}
	return l, nil
}

// account returns the account of a name, after what it says, and what there is of
// others.
func (b *bank) account(w *bankWindow, key, name string, spent int64, now time.Time) (a *account, others int64, nodes int) {
	place := b.place(key, w.end)
	if b.accounts[place] == nil {
		b.accounts[place] = make(map[string]*account)
	}
	all := b.accounts[place]
	name = b.name(name)
	nodes = 1
	for n, o := range all {
		if n == name {
			continue
		}
		alive := b.live(o, now)
		if alive {
			nodes++
		}
		if alive || !b.liveOthers {
			others += o.outstanding()
		}
		if !alive && b.inherits {
			w.count -= o.outstanding()
			o.lent = o.spent
		}
	}
	if a = all[name]; a == nil {
		a = new(account)
		if b.believesNew {
			w.count += spent
		}
		if !b.startsNew {
			a.lent = spent
		}
		all[name] = a
	}
	if b.distrusts {
		spent = min(spent, a.lent)
	}
	if a.spent < spent || b.lastSpent {
		a.spent = spent
	}
	if !b.startsNew {
		a.lent = max(a.lent, a.spent)
	}
	a.called = now
	return a, others, nodes
}

func (b *bank) giveBack(w *bankWindow, a *account) {
	switch {
	case b.keepsBack:
	case b.givesAll:
		w.count -= a.lent
	case a.ended && b.givesTwice:
		w.count -= min(3, w.count)
	default:
		w.count -= a.outstanding()
		w.lent -= a.outstanding()
	}
	a.lent = a.spent
	a.ended = a.lent > 0 || !b.forgetsEnd
}

func (b *bank) lend(w *bankWindow, a *account, want, limit int64, nodes int) {
	left := max(limit, 0) - w.count
	if b.wraps {
		left = limit - w.count
	}
	if b.floats {
		left = int64(min(float64(limit)-float64(w.count), 1<<62))
	}
	if b.apart {
		b.mu.Unlock()
		for range 3 {
			runtime.Gosched()
		}
		b.mu.Lock()
	}
	if b.takesBack && left < 0 {
		back := min(-left, a.outstanding())
		a.lent -= back
		w.count -= back
	}
	n := b.size(limit, left, nodes)
	if !b.whole {
		if !b.generous && !b.onTop {
			n = min(n, want)
		}
		n = max(n-a.outstanding(), 0)
	}
	if b.onTop || b.whole {
		n = min(n, want)
	}
	a.lent += n
	w.lent += n
	w.count += n
}

// brokenBanks are lenders that are wrong in one way each, and the cases that have
// to find it. Others may find it too.
var brokenBanks = []struct {
	name  string
	cases []string
	spoil func(b *bank)
}{
	{"lends one too many", []string{"left", "large numbers", "parallel lending"}, func(b *bank) {
		b.size = func(limit, left int64, nodes int) int64 { return ratelimit.LoanSize(limit, left+1, nodes) }
	}},
	{"lends fixed blocks", []string{"size", "left", "nodes", "live"}, func(b *bank) {
		b.size = func(_, left int64, _ int) int64 { return max(min(left, 100), 0) }
	}},
	{"lends a share of an unlimited key", []string{"size"}, func(b *bank) {
		b.size = func(limit, left int64, nodes int) int64 {
			return min(max(ratelimit.LoanSize(limit, left, nodes), limit/100), left/2)
		}
	}},
	{"lends nothing of the last units", []string{"left", "size", "parallel lending"}, func(b *bank) {
		b.size = func(limit, left int64, nodes int) int64 { return min(ratelimit.LoanSize(limit, left, nodes), left/2) }
	}},
	{"takes itself for the only node", []string{"nodes", "live"}, func(b *bank) {
		b.size = func(limit, left int64, _ int) int64 { return ratelimit.LoanSize(limit, left, 1) }
	}},
	{"counts itself twice", []string{"nodes"}, func(b *bank) {
		b.size = func(limit, left int64, nodes int) int64 { return ratelimit.LoanSize(limit, left, nodes+1) }
	}},
	{"lends a whole loan at every call", []string{"fills up", "repeated"}, func(b *bank) { b.whole = true }},
	{"lends more than is wanted", []string{"want"}, func(b *bank) { b.generous = true }},
	{"lends what is wanted on top", []string{"want"}, func(b *bank) { b.onTop = true }},
	{"answers with the last loan only", []string{"lends", "repeated", "fills up"}, func(b *bank) { b.parts = true }},
	{"answers with the count before the step", []string{"lends", "gives back"}, func(b *bank) { b.before = true }},
	{"believes the last call", []string{"late"}, func(b *bank) { b.lastSpent = true }},
	{"hides loans from Add", []string{"taken"}, func(b *bank) { b.apartFromAdd = true }},
	{"gives nothing back", []string{"gives back", "parallel mix"}, func(b *bank) { b.keepsBack = true }},
	{"gives back what was spent", []string{"gives back", "parallel mix"}, func(b *bank) { b.givesAll = true }},
	{"gives back twice", []string{"gives back once"}, func(b *bank) { b.givesTwice = true }},
	{"lends to accounts that have ended", []string{"ended"}, func(b *bank) { b.reopens = true }},
	{"forgets that an unknown account ended", []string{"ended"}, func(b *bank) { b.forgetsEnd = true }},
	{"counts the borrower among the others", []string{"others", "taken"}, func(b *bank) { b.ownOthers = true }},
	{"leaves the dead out of the others", []string{"others", "dead"}, func(b *bank) { b.liveOthers = true }},
	{"inherits from the dead", []string{"dead", "clocks"}, func(b *bank) { b.inherits = true }},
	{"takes everybody for live", []string{"live"}, func(b *bank) {
		b.live = func(a *account, _ time.Time) bool { return a.outstanding() > 0 }
	}},
	{"takes the dead for live a moment longer", []string{"live"}, func(b *bank) {
		b.live = func(a *account, now time.Time) bool {
			return a.outstanding() > 0 && now.Sub(a.called) <= ratelimit.LoanTime
		}
	}},
	{"takes for live who has nothing", []string{"live"}, func(b *bank) {
		b.live = func(a *account, now time.Time) bool { return now.Sub(a.called) < ratelimit.LoanTime }
	}},
	{"takes back what exceeds a lower limit", []string{"limit changes"}, func(b *bank) { b.takesBack = true }},
	{"remembers the first limit", []string{"limit changes"}, func(b *bank) { b.remembers = true }},
	{"counts what an unknown account spent", []string{"unknown"}, func(b *bank) { b.believesNew = true }},
	{"starts unknown accounts from nothing", []string{"unknown"}, func(b *bank) { b.startsNew = true }},
	{"believes nothing beyond what it lent", []string{"unknown"}, func(b *bank) { b.distrusts = true }},
	{"folds the names of accounts", []string{"accounts"}, func(b *bank) {
		b.name = strings.ToLower
	}},
	{"ends the names of accounts at a NUL", []string{"accounts"}, func(b *bank) {
		b.name = func(name string) string { name, _, _ = strings.Cut(name, "\x00"); return name }
	}},
	{"repairs names that are not UTF-8", []string{"accounts"}, func(b *bank) {
		b.name = func(name string) string { return strings.ToValidUTF8(name, "\ufffd") }
	}},
	{"knows one account of a window", []string{"nodes", "accounts"}, func(b *bank) {
		b.name = func(string) string { return "" }
	}},
	{"knows one account in all windows", []string{"accounts"}, func(b *bank) {
		b.place = func(key string, _ time.Time) string { return key }
	}},
	{"knows one account for all keys", []string{"accounts"}, func(b *bank) {
		b.place = func(_ string, end time.Time) string { return end.String() }
	}},
	{"makes a count by lending nothing", []string{"nothing made"}, func(b *bank) { b.makes = true }},
	{"keeps accounts longer than windows", []string{"windows"}, func(b *bank) { b.outlives = true }},
	{"keeps seven windows", []string{"windows"}, func(b *bank) { b.kept = 7 }},
	{"calculates in floating point", []string{"large numbers"}, func(b *bank) { b.floats = true }},
	{"overflows below the lowest limit", []string{"limit changes"}, func(b *bank) { b.wraps = true }},
	{"takes any spent", []string{"bad spent"}, func(b *bank) {
		b.ask = func(ctx context.Context, _ int64) error { return ctx.Err() }
	}},
	{"takes a spent above 2^53", []string{"bad spent"}, func(b *bank) {
		b.ask = func(ctx context.Context, spent int64) error {
			if spent < 0 {
				return errSpent
			}
			return ctx.Err()
		}
	}},
	{"takes a negative spent", []string{"bad spent"}, func(b *bank) {
		b.ask = func(ctx context.Context, spent int64) error {
			if spent > 1<<53 {
				return errSpent
			}
			return ctx.Err()
		}
	}},
	{"ignores the context", []string{"context"}, func(b *bank) {
		ask := b.ask
		b.ask = func(_ context.Context, spent int64) error { return ask(context.Background(), spent) }
	}},
	{"returns an error of its own for the context", []string{"context"}, func(b *bank) {
		ask := b.ask
		b.ask = func(ctx context.Context, spent int64) error {
			if ask(ctx, spent) != nil {
				return errSpent
			}
			return nil
		}
	}},
	{"looks, then lends", []string{"parallel lending"}, func(b *bank) { b.apart = true }},
}

// A failingBank always fails.
type failingBank struct{ failing }

func (failingBank) Lend(context.Context, string, string, time.Time, int64, int64, int64, time.Time) (ratelimit.Loan, error) {
	return ratelimit.Loan{}, errors.New("out of order")
}

func testBank(b func() ratelimit.Lender) error {
	return ratelimittest.TestLender(func() (ratelimit.Lender, error) { return b(), nil })
}

// A right lender passes, also one that has lent before, and is a right counter.
func TestLenderPassesTheModel(t *testing.T) {
	t.Parallel()
	require.NoError(t, testBank(func() ratelimit.Lender { return newBank() }))
	used := newBank()
	for range 3 {
		require.NoError(t, testBank(func() ratelimit.Lender { return used }))
	}
	require.NoError(t, test(func() ratelimit.Counter { return newBank() }))
}

// Every broken lender fails, in the cases that are about what is broken, and for
// every case there is one. The subtests are not parallel: the last one looks at
// what all others found.
func TestLenderFindsBrokenLenders(t *testing.T) {
	t.Parallel()
	found := make(map[string]bool)
	for _, broken := range brokenBanks {
		t.Run(broken.name, func(t *testing.T) {
			err := untilFound(broken.cases, func() error {
				return testBank(func() ratelimit.Lender {
					b := newBank()
					broken.spoil(b)
					return b
				})
			})
			require.Error(t, err)
			require.Subset(t, failed(err), broken.cases)
			require.Contains(t, err.Error(), "the rule: ")
			for _, name := range broken.cases {
				found[name] = true
			}
		})
	}
	t.Run("fails", func(t *testing.T) {
		all := failed(testBank(func() ratelimit.Lender { return failingBank{} }))
		for _, name := range all {
			require.True(t, found[name], "no broken lender is there for case %q", name)
		}
		require.Len(t, all, len(found), "a lender that always fails passes a case")
	})
}

func TestLenderReportsThatThereIsNone(t *testing.T) {
	t.Parallel()
	none := errors.New("no server")
	err := ratelimittest.TestLender(func() (ratelimit.Lender, error) { return nil, none })
	require.ErrorIs(t, err, none)
	require.Contains(t, failed(err), "repeated")
}

// RunLender passes a right lender, in subtests by the names of the cases.
func TestRunLender(t *testing.T) {
	t.Parallel()
	ratelimittest.RunLender(t, func(t *testing.T) ratelimit.Lender {
		require.Contains(t, t.Name(), "TestRunLender/")
		return newBank()
	})
}

// RunLender fails a wrong one, and says which rule it breaks. A test that is to
// fail needs a process of its own.
func TestRunLenderFails(t *testing.T) {
	t.Parallel()
	const variable = "RATELIMITTEST_BROKEN_LENDER"
	if os.Getenv(variable) != "" {
		ratelimittest.RunLender(t, func(*testing.T) ratelimit.Lender {
			b := newBank()
			b.whole = true
			return b
		})
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRunLenderFails$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"=1")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "--- FAIL: TestRunLenderFails/repeated")
	require.Contains(t, string(out), "the rule: a call that is repeated because its answer was lost must lend nothing more")
	require.Contains(t, string(out), "--- PASS: TestRunLenderFails/gives_back")
}
