package row

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keystile/keystile/store"
)

const (
	// minAge is the shortest Age of a [store.UseRetention]. Uses are recorded some
	// seconds after they were made, and a number without a unit is nanoseconds.
	minAge = time.Hour

	// rest is how long after the end of a round the next one begins, at the
	// earliest.
	rest = time.Hour
)

// A Retention applies a [store.UseRetention]. The zero Retention forgets nothing.
type Retention struct {
	addrs int // a bound below that of Add, if on
	age   time.Duration
	now   func() time.Time
	on    bool // whether it forgets anything that Add keeps
}

// NewRetention returns a Retention that goes by a clock, time.Now if it is nil, or
// an error that joins all that is wrong with r. Each begins with the package of the
// store and names its field.
func NewRetention(pkg string, r store.UseRetention, now func() time.Time) (Retention, error) {
	var errs []error
	refuse := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf(pkg+": UseRetention."+format, args...))
	}
	switch {
	case r.Addrs < -1:
		refuse("Addrs is below -1")
	case r.Addrs > store.MaxUseAddrs:
		refuse("Addrs is above %d", store.MaxUseAddrs)
	}
	switch {
	case r.Age < 0:
		refuse("Age is negative")
	case 0 < r.Age && r.Age < minAge:
		refuse("Age is below %s", minAge)
	}
	if err := errors.Join(errs...); err != nil {
		return Retention{}, err
	}
	if now == nil {
		now = time.Now
	}
	addrs := max(r.Addrs, 0)
	if r.Addrs == 0 {
		addrs = store.MaxUseAddrs
	}
	return Retention{addrs: addrs, age: r.Age, now: now, on: addrs < store.MaxUseAddrs || r.Age > 0}, nil
}

// Bounds returns what is to be kept now. It is the one reading of the clock for a
// call of a store; a Retention that forgets nothing does not read it.
func (r Retention) Bounds() Bounds {
	b := Bounds{Retention: r}
	if r.on {
		b.at = r.now()
	}
	return b
}

// Bounds are what a [Retention] keeps at one moment.
type Bounds struct {
	Retention
	at time.Time
}

// Apply forgets what of a summary is not to be kept, and reports whether there
// was anything. The lists must not be shared: what is forgotten is gone from their
// memory.
func (b Bounds) Apply(sum *store.UseSummary) (forgot bool) {
	if !b.on {
		return false
	}
	n := min(len(sum.Addrs), b.addrs)
	if b.age > 0 {
		since := b.at.Add(-b.age)
		for n > 0 && sum.Addrs[n-1].Last.Before(since) { // They are listed last used first.
			n--
		}
		if sum.UserAgent != "" && sum.LastUsed.Before(since) {
			sum.UserAgent, forgot = "", true
		}
	}
	if n == len(sum.Addrs) {
		return forgot
	}
	clear(sum.Addrs[n:])
	sum.Addrs = sum.Addrs[:n]
	return true
}

// Add is [Add] within the bounds. What was not told of any more is forgotten before,
// so that it is not continued by a use that comes just then.
func (b Bounds) Add(sum *store.UseSummary, uses ...store.Use) {
	b.Apply(sum)
	Add(sum, uses...)
	b.Apply(sum)
}

// Rounds tell a store which of its keys to look at, so that what is too old is
// forgotten of those too that are not used any more. They are safe for concurrent
// use; two that go on at once look at the same keys.
//
// A process keeps to itself how far it has come. So that one that is started again and
// again before the end of a round does not look at the same keys each time, the first
// round begins somewhere, and is followed at once by a whole one.
type Rounds struct {
	mu    sync.Mutex
	begun bool
	whole bool      // the round under way began with the first key
	after string    // the key that the round under way has come to
	ended time.Time // when the last whole round did; zero: there was none
}

// Next returns the ID of the key after which to go on, if there is anything to do.
// Like is the ID of any key, or empty, and the first round begins with the first key
// then. A clock that was set back does not keep it waiting for longer.
func (r *Rounds) Next(b Bounds, like string) (after string, ok bool) {
	if !b.on {
		return "", false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.begun {
		r.after = somewhere(like)
		r.begun, r.whole = true, r.after == ""
	}
	if r.after == "" && !r.ended.IsZero() {
		if rested := b.at.Sub(r.ended); 0 <= rested && rested < rest {
			return "", false
		}
	}
	return r.after, true
}

// Reached says which key was the last one looked at of those after one that Next gave.
// The empty ID ends the round. It counts for nothing if another call has come further.
func (r *Rounds) Reached(b Bounds, after, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.after != after {
		return
	}
	if r.after = id; id == "" {
		if r.whole {
			r.ended = b.at
		}
		r.whole = true
	}
}

// somewhere returns what could be an ID, at random: like with other digits at its end
// (D27). It returns none if like has no room for them.
func somewhere(like string) string {
	var random [4]byte
	end := len(like) - hex.EncodedLen(len(random))
	if end < 0 {
		return ""
	}
	_, _ = rand.Read(random[:]) // never fails
	return like[:end] + hex.EncodeToString(random[:])
}
