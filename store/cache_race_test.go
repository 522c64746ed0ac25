//go:build race

package store_test

// cacheRace tells that the race detector is on: it allocates, and it is slow.
const cacheRace = true
