package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/store"
)

// A Harness is a new, empty store and what the suite may do with it. All of its
// fields must be of one medium, which no other Harness shares.
type Harness struct {
	// Store is the store to be tested.
	Store store.Store

	// Other is a second handle on the same medium, as another process would have
	// it. Defaults to Store.
	Other store.Store

	// Uses and Feed are the use facts and the changes of Store.
	Uses store.Uses
	Feed store.Feed

	// ForgetChanges makes Feed forget all changes that it has.
	ForgetChanges func(ctx context.Context) error

	// Break makes everything fail from then on, such as by closing the database.
	Break func() error

	// Retaining makes a Harness like this one, of a store that keeps use facts by a
	// UseRetention and goes by a clock for it. Of that Harness only Store, Uses and
	// Close are used.
	Retaining func(r store.UseRetention, now func() time.Time) (Harness, error)

	// Without are those of the fields Uses, Feed, ForgetChanges, Break and Retaining,
	// by name, that are nil because this store has no such thing. The cases that need
	// one are left out, and say so in the log; one that is nil and not named here fails
	// them, so that nothing is left out unnoticed.
	Without []string

	// Close, if not nil, is called when a case is over.
	Close func() error
}

// Run runs every case as a subtest of t, each with a Harness of its own.
// NewHarness may call Parallel on the subtest that it is given.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	for _, c := range cases() {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			h := newHarness(t)
			if h.Close != nil {
				t.Cleanup(func() {
					if err := h.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				})
			}
			switch err := c.test(t.Context(), h); {
			case errors.Is(err, errSkip):
				t.Log(err) // left out, as the Harness says
			case err != nil:
				t.Error(err)
			}
		})
	}
}

// TestStore runs every case, each with a Harness of its own, and returns an
// error that joins one for each case that failed. Cases that need what a Harness
// says that it is Without are left out.
func TestStore(newHarness func() (Harness, error)) error {
	var errs []error
	for _, c := range cases() {
		h, err := newHarness()
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := c.test(context.Background(), h); !errors.Is(err, errSkip) {
			errs = append(errs, err)
		}
		if h.Close != nil {
			errs = append(errs, h.Close())
		}
	}
	return errors.Join(errs...)
}

// caseTimeout is far more than a case needs; a store that blocks for ever fails.
const caseTimeout = 2 * time.Minute

// A testCase is one rule of the contract.
type testCase struct {
	name string
	rule string // what must hold, and where that is said
	run  func(s *suite)
}

func cases() []testCase {
	var all []testCase
	for _, group := range [][]testCase{
		lookupCases, insertCases, rotateCases, updateCases, listCases, purgeCases,
		userCases, settingsCases, textCases, timeCases, failureCases, handleCases,
		useCases, retentionCases, feedCases,
	} {
		all = append(all, group...)
	}
	return all
}

// A caseError is why a case failed.
type caseError struct {
	testCase testCase
	problems []string
}

// maxProblems bounds what is printed of a case that goes wrong all over.
const maxProblems = 10

func (e *caseError) Error() string {
	lines := e.problems
	if more := len(lines) - maxProblems; more > 0 {
		lines = append(slices.Clip(lines[:maxProblems]), fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("storetest: %s:\n\t%s\n\tthe rule: %s", e.testCase.name, strings.Join(lines, "\n\t"), e.testCase.rule)
}

// errSkip is returned by a case that needs what the Harness is Without.
var errSkip = errors.New("storetest: left out")

// checkWithout returns what is wrong with Without: it names what is not nil, or
// nothing that can be missing.
func (h *Harness) checkWithout() error {
	for _, name := range h.Without {
		has, ok := map[string]bool{
			"Uses": h.Uses != nil, "Feed": h.Feed != nil, "ForgetChanges": h.ForgetChanges != nil, "Break": h.Break != nil,
			"Retaining": h.Retaining != nil,
		}[name]
		switch {
		case !ok:
			return fmt.Errorf("storetest: Without names %q, which no store can be without", name)
		case has:
			return fmt.Errorf("storetest: Without names %s, which the Harness has", name)
		}
	}
	return nil
}

func (c testCase) test(ctx context.Context, h Harness) (err error) {
	if err := h.checkWithout(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, caseTimeout)
	defer cancel()
	if h.Other == nil {
		h.Other = h.Store
	}
	s := &suite{Harness: h, ctx: ctx, report: new(report)}
	defer func() {
		switch v := recover().(type) {
		case nil:
		case stop:
		case skip:
			err = fmt.Errorf("%w: %s: the Harness is without %s", errSkip, c.name, string(v))
			return
		default:
			panic(v)
		}
		if len(s.problems) > 0 {
			err = &caseError{c, s.problems}
		}
	}()
	c.run(s)
	return nil
}
