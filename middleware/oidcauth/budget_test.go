//go:build !race

package oidcauth_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware/oidcauth"
)

// A token that was seen costs no allocation, and one that was not a bounded number.
func TestAuthenticate_AllocBudget(t *testing.T) {
	a := open(t, shared(), oidcauth.Options{CacheSize: 1})
	requests := bench(2)
	var err error
	for _, r := range requests {
		_, err = a.Authenticate(r)
		require.NoError(t, err)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { _, err = a.Authenticate(requests[1]) }))
	i := 0
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		i++
		_, err = a.Authenticate(requests[i%2])
	}), 100.0)
	require.NoError(t, err)
}
