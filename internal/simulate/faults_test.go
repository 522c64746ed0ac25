package simulate_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// A fault is what happens to one call of the store.
type fault struct {
	kind  faultKind
	delay time.Duration // of those that have one
}

type faultKind int

const (
	none       faultKind = iota
	lost                 // fails, and has had no effect
	unanswered           // has its effect, and then fails
	hanging              // has none, and fails when its caller has given up
	late                 // fails when its caller has given up, and has its effect after that
	slowThere            // waits, and then has its effect
	slowBack             // has its effect, and waits before it answers
	faultKinds           // how many there are
)

func (k faultKind) String() string {
	return [...]string{"none", "lost", "unanswered", "hanging", "late", "slow there", "slow back"}[k]
}

// errFault is how a call fails.
var errFault = errors.New("fault")

// longest is how long a call hangs whose caller does not give up.
const longest = 4 * time.Second

// A plan says what happens to the calls of the store: to the n-th of a node with
// that name, from 1.
type plan interface {
	fault(node int, call string, n int64) fault
}

// A storm is a plan of many faults by chance. What happens to a call depends on the
// seed, the node, and how many calls of that name it made, and not on what others
// do at the same instant: so a world can be repeated.
type storm struct {
	seed   uint64
	chance int             // of a fault, in percent
	spared map[string]bool // calls that have none
}

func (s storm) fault(node int, call string, n int64) fault {
	if s.spared[call] {
		return fault{}
	}
	// Now and then polls fail in a row, for longer than a cache may do without.
	if call == "changes" && fnv(s.seed, node, "row", (n-1)/pollsInARow)%100 < uint64(s.chance) {
		return fault{kind: lost}
	}
	dice := rand.New(rand.NewPCG(s.seed, fnv(node, call, n)))
	if dice.IntN(100) >= s.chance {
		return fault{}
	}
	return fault{
		kind:  faultKind(1 + dice.IntN(int(faultKinds)-1)),
		delay: time.Duration(1 + dice.Int64N(int64(2*time.Second))),
	}
}

// pollsInARow take about two TTLs: see node.notify.
const pollsInARow = 8

// fnv is a hash that is the same in every process.
func fnv(parts ...any) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range []byte(fmt.Sprint(parts...)) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}

// An only is a plan in which the k-th call of all fails, and no other.
type only struct {
	k     int64
	f     fault
	calls atomic.Int64
}

func (o *only) fault(int, string, int64) fault {
	if o.calls.Add(1) == o.k {
		return o.f
	}
	return fault{}
}
