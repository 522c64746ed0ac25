// Package ratelimit spends quotas: how many requests an API key may make in a
// day, and how many in quick succession.
//
// A [Limiter] spends one unit of a key or refuses. There are three:
//
//   - [Daily] gives a key so many units in a calendar day, 250 by default
//     (S61). It counts in a [Counter], such as [Memory].
//   - The limiter of [NewBurst] smooths: it gives a key so many units at once
//     and refills them steadily.
//   - The limiter of [All] asks several in order.
//
// The day is a calendar day of a fixed location, never a rolling window, and
// every day of a key has a count of its own (D4). So a clock that steps back
// finds the day it left as it was, and an excursion into a later day costs the
// days in between nothing.
//
// Everything that cannot be decided is an error, and the zero [Result] is a
// refusal: a counter that is down, a limit that has no meaning, a limiter that
// was not made by its constructor. A caller that looks at the error and at OK fails
// closed. [Validate] tells what is wrong with the arguments of a constructor before
// the first request does.
//
// What the package does not do:
//
//   - It is not a policy. A policy decides without a trace; a Limiter spends.
//     Therefore it is asked last, once, and only for requests that are admitted
//     otherwise (S72, D5).
//   - It gives no refunds. What was taken stays taken, whatever the handler
//     answers: refunds make failing work free (D5).
//   - It reads no request, writes no header and rounds no time to seconds. That
//     is the work of package middleware.
//   - Memory is shared by nobody: several processes admit several times the
//     limit (D8). Processes that are to share one need a Counter that they share:
//     sqlitestore on one machine, postgresstore or rediscounter on several.
//     [Leased] before it saves most of the trips.
//
// Who writes a Counter runs it through package ratelimittest.
//
// Numbers such as S53 and D27 are those of REQUIREMENTS.md in the repository.
package ratelimit
