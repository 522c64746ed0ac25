//go:build !race

package token_test

// raceEnabled: see race_test.go.
const raceEnabled = false
