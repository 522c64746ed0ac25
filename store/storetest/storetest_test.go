package storetest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/store/storetest"
	"github.com/keystile/keystile/token"
)

// bare is what a Harness is without that has nothing but a store.
var bare = []string{"Uses", "Feed", "ForgetChanges", "Break", "Retaining"}

// sound returns a store without a fault.
func sound() *faulty { return &faulty{Store: memstore.New()} }

// TestFaults shows that every case fails on a store that breaks its rule, and
// does not fail on one that is sound.
func TestFaults(t *testing.T) {
	t.Parallel()
	shown := make(map[string]bool)
	for _, tt := range faults {
		require.NotEmpty(t, tt.failsIn, tt.name)
		for name := range strings.SplitSeq(tt.failsIn, ", ") {
			shown[name] = true
			t.Run(tt.name+" in "+name, func(t *testing.T) {
				t.Parallel()
				f := sound()
				h := f.harness()
				tt.inject(f, &h)
				err := storetest.RunCase(t.Context(), name, h)
				require.Error(t, err)
				require.NotErrorIs(t, err, storetest.ErrSkip)
				require.ErrorContains(t, err, "storetest: "+name+":\n")
				require.ErrorContains(t, err, "the rule: ")
				t.Log(err)
			})
		}
	}
	for _, name := range storetest.CaseNames() {
		require.Contains(t, shown, name, "no fault shows that this case can fail")
	}
}

func TestSound(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Parallel()
		return sound().harness()
	})
}

// TestNothingIsLeftOutUnsaid: what a Harness does not have, it names in Without, or
// the cases about it fail; and it names nothing else there.
func TestNothingIsLeftOutUnsaid(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		field, in string
		drop      func(h *storetest.Harness)
	}{
		{"Uses", "uses add up", func(h *storetest.Harness) { h.Uses = nil }},
		{"Feed", "feed in pages", func(h *storetest.Harness) { h.Feed = nil }},
		{"ForgetChanges", "feed that forgot", func(h *storetest.Harness) { h.ForgetChanges = nil }},
		{"Break", "failure is no answer", func(h *storetest.Harness) { h.Break = nil }},
		{"Retaining", "fewer addresses", func(h *storetest.Harness) { h.Retaining = nil }},
	} {
		h := sound().harness()
		tt.drop(&h)
		err := storetest.RunCase(t.Context(), tt.in, h)
		require.ErrorContains(t, err, "the Harness has no "+tt.field+", and does not name it in Without")
		require.NotErrorIs(t, err, storetest.ErrSkip)

		h = sound().harness()
		tt.drop(&h)
		h.Without = []string{tt.field}
		require.ErrorIs(t, storetest.RunCase(t.Context(), tt.in, h), storetest.ErrSkip)

		h = sound().harness()
		h.Without = []string{tt.field}
		require.ErrorContains(t, storetest.RunCase(t.Context(), tt.in, h), "Without names "+tt.field+", which the Harness has")
	}
	h := sound().harness()
	h.Without = []string{"Other"}
	require.ErrorContains(t, storetest.RunCase(t.Context(), "failure is no answer", h), `"Other", which no store can be without`)
}

// TestRulesAreNamed: every case says which rule it is about, and no two have one
// name.
func TestRulesAreNamed(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, name := range storetest.CaseNames() {
		require.False(t, seen[name], name)
		seen[name] = true
		require.Regexp(t, `^[A-Za-z][A-Za-z' ]+$`, name)
	}
}

func TestErrorForm(t *testing.T) {
	t.Parallel()
	opened, closed := 0, 0
	open := func(inject func(f *faulty)) func() (storetest.Harness, error) {
		return func() (storetest.Harness, error) {
			opened++
			f := sound()
			inject(f)
			return storetest.Harness{Store: f, Without: bare, Close: func() error { closed++; return nil }}, nil
		}
	}
	require.NoError(t, storetest.TestStore(open(func(*faulty) {})))
	require.Equal(t, len(storetest.CaseNames()), opened)
	require.Equal(t, opened, closed)

	err := storetest.TestStore(open(func(f *faulty) {
		f.lookup = func(context.Context, token.Digest) (*store.Record, error) { return nil, store.ErrNotFound }
	}))
	require.ErrorContains(t, err, "storetest: lookup finds by digest:\n")
	require.ErrorContains(t, err, "storetest: ID taken:\n")
	require.NotContains(t, err.Error(), "storetest: settings are kept:\n")

	err = storetest.TestStore(func() (storetest.Harness, error) { return storetest.Harness{Store: sound()}, nil })
	for _, field := range []string{"Uses", "Feed", "Break"} { // the cases of ForgetChanges need Feed first
		require.ErrorContains(t, err, "the Harness has no "+field)
	}

	bad := errors.New("no database")
	require.ErrorIs(t, storetest.TestStore(func() (storetest.Harness, error) { return storetest.Harness{}, bad }), bad)
	require.ErrorIs(t, storetest.TestStore(func() (storetest.Harness, error) {
		h := sound().harness()
		h.Close = func() error { return bad }
		return h, nil
	}), bad)
}

// TestRunForm runs Run on a broken store in another process, since a subtest
// that fails makes its parents fail.
func TestRunForm(t *testing.T) {
	t.Parallel()
	const env = "KEYSTILE_STORETEST_BROKEN"
	if os.Getenv(env) != "" {
		closed := 0
		storetest.Run(t, func(*testing.T) storetest.Harness {
			f := sound()
			f.lookup = func(context.Context, token.Digest) (*store.Record, error) { return nil, store.ErrNotFound }
			return storetest.Harness{Store: f, Without: bare[1:], Close: func() error {
				if closed++; closed == 1 {
					return errors.New("cannot close")
				}
				return nil
			}}
		})
		return
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestRunForm$", "-test.v")
	cmd.Env = append(os.Environ(), env+"=1")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "--- FAIL: TestRunForm/lookup_finds_by_digest")
	require.Contains(t, string(out), "the rule: Lookup returns the record")
	require.Contains(t, string(out), "--- FAIL: TestRunForm/uses_add_up")
	require.Contains(t, string(out), "the Harness has no Uses, and does not name it in Without")
	require.Contains(t, string(out), "--- PASS: TestRunForm/failure_is_no_answer")
	require.Contains(t, string(out), "storetest: left out: failure is no answer: the Harness is without Break")
	require.Contains(t, string(out), "Close: cannot close")
}
