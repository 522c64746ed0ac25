package ratelimittest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/ratelimittest"
)

// The test of a Counter. The function is named TestCounter in its package.
func ExampleRun() {
	_ = func(t *testing.T) {
		ratelimittest.Run(t, func(t *testing.T) ratelimit.Counter {
			return ratelimit.NewMemory()
		})
	}
}

// Without a testing.T the failures come as one error, which quotes the rules.
func ExampleTestCounter() {
	newCounter := func() (ratelimit.Counter, error) {
		m := newModel()
		m.name = func(key string, end time.Time) (string, any) { return key, end.Unix() }
		return m, nil
	}
	for line := range strings.Lines(ratelimittest.TestCounter(newCounter).Error()) {
		if name, _, ok := strings.Cut(line, ": step"); ok {
			fmt.Println("failed:", name)
		}
		if strings.Contains(line, "rule") {
			fmt.Println(strings.TrimSpace(line))
		}
	}
	// Output:
	// failed: precision
	// the rule: ends that are a microsecond apart must be different windows
}
