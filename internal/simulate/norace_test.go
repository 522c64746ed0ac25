//go:build !race

package simulate_test

// race tells that the race detector is on.
const race = false
