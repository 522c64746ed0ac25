//go:build !race

package store_test

const cacheRace = false
