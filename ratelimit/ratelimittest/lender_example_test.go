package ratelimittest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/ratelimittest"
)

// The tests of a Lender, which is a Counter as well. The functions are named
// TestCounter and TestLender in its package.
func ExampleRunLender() {
	_ = func(t *testing.T) {
		ratelimittest.Run(t, func(t *testing.T) ratelimit.Counter { return ratelimit.NewMemory() })
	}
	_ = func(t *testing.T) {
		ratelimittest.RunLender(t, func(t *testing.T) ratelimit.Lender { return ratelimit.NewMemory() })
	}
}

// Without a testing.T the failures come as one error, which quotes the rules.
func ExampleTestLender() {
	newLender := func() (ratelimit.Lender, error) {
		b := newBank()
		b.reopens = true
		return b, nil
	}
	for line := range strings.Lines(ratelimittest.TestLender(newLender).Error()) {
		if name, _, ok := strings.Cut(line, ": call"); ok {
			fmt.Println("failed:", name)
		}
	}
	// Output: failed: ended
}
