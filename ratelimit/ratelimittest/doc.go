// Package ratelimittest tests implementations of [ratelimit.Counter] and
// [ratelimit.Lender].
//
// Whoever writes a Counter calls [Run] from a test:
//
//	func TestCounter(t *testing.T) {
//		ratelimittest.Run(t, func(t *testing.T) ratelimit.Counter {
//			return mycounter.New(t.TempDir())
//		})
//	}
//
// Whoever writes a [ratelimit.Lender] calls [RunLender] as well.
//
// There is a case for every rule of the contract, and a failure quotes the rule.
// Cases use keys that no other run has used, so that counters may share a
// database that is not emptied. They take about 3000 additions and 500
// borrowings in all, and never sleep.
//
// The package does not test what cannot be seen in a moment: that a counter
// forgets what it may forget, that it lasts, that it is exact among several
// processes, and that it is fast.
//
// Numbers such as S53 and D27 are those of REQUIREMENTS.md in the repository.
package ratelimittest
