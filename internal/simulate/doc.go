// Package simulate has no code but its tests: a service on several machines, in
// one process and under a fake clock.
//
// A world is a few nodes, each with a Manager, a Guard and a Leased of its own,
// over one store in memory. Between every node and the store is a wire, which
// loses, delays and repeats nothing of its own accord but by a plan: calls that
// fail before they had an effect, or after it, or hang until their caller gives
// up, and then have one all the same. Operators create, rotate, revoke, disable,
// restrict and set limits through any node; clients send requests with tokens, old
// ones among them, from several addresses; nodes crash, stop and start; their wall
// clocks step; midnight passes.
//
// What is right is known by a ledger, which the wires write: every state of a row,
// and since when. A request is judged by all states that its node may still go by,
// and by rules that are written down here a second time, as plainly as can be.
//
// A world is made of its seed. Its tests print the seed of one that went wrong, and
//
//	go test ./internal/simulate -run TestStorm -seed=N -v
//
// runs it again, with every step of it. Not quite: by the bytes of its tokens, which
// are not made of the seed, a cache of one world in a hundred looks something up once
// more. With -seeds=5000 there are as many worlds.
package simulate
