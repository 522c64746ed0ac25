package middleware

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keystile/keystile/store"
)

const (
	useShards     = 16
	usesPerShard  = 4096 // 65 536 pairs of key and address between two writes
	addrsPerKey   = 64   // of them; a store keeps ten of a key
	usesPerBatch  = 1000
	userAgentSize = 256 // of a User-Agent is kept, here as in the stores

	// batchTimeout is how long the store may take for one batch. It is short because
	// close waits for what is under way, of which nothing follows a batch that failed.
	batchTimeout = 5 * time.Second
)

// A useRecorder joins the uses of keys in memory and writes them in batches, so
// that a request costs a map access under a short lock and never a trip to the
// store (S77).
//
// It is bounded: between two writes it takes 64 different addresses of a key, so
// that nobody with many addresses takes the room of others; requests from further
// ones are counted without an address. It takes 65 536 different pairs of key and
// address; uses of further ones are lost, which Options.UsesFailed is told. A
// process that dies loses what it noted since the last write. We lose facts here
// because the alternative would be to refuse requests.
type useRecorder struct {
	store    store.Uses
	interval time.Duration
	failed   func(error) // may be nil
	seed     maphash.Seed
	shards   [useShards]useShard
	closed   atomic.Bool

	stop    chan struct{} // closed by the first close
	stopped chan struct{} // closed when run has ended
	ended   chan struct{} // closed when the first close has, after result was set
	result  error         // of the last write
}

type useShard struct {
	mu    sync.Mutex
	uses  map[useKey]*store.Use
	addrs map[string]int // how many of uses a key has
	lost  int64          // requests since the last write
}

// errUsesLost tells that more keys and addresses were in use than there is room
// to note.
var errUsesLost = errors.New("middleware: uses were lost: more keys and addresses between two writes than can be noted")

type useKey struct {
	keyID string
	addr  netip.Addr
	day   int64 // of the last use, in UTC: counts are kept by day
}

func newUseRecorder(s store.Uses, interval time.Duration, failed func(error)) *useRecorder {
	u := &useRecorder{
		store: s, interval: interval, failed: failed, seed: maphash.MakeSeed(),
		stop: make(chan struct{}), stopped: make(chan struct{}), ended: make(chan struct{}),
	}
	go u.run()
	return u
}

// note adds one use.
func (u *useRecorder) note(keyID string, addr netip.Addr, now time.Time, r *http.Request) {
	if u.closed.Load() {
		return
	}
	agent := ""
	if lines := r.Header["User-Agent"]; len(lines) > 0 {
		agent = lines[0]
	}
	if len(agent) > userAgentSize {
		agent = agent[:userAgentSize]
	}
	u.add(store.Use{KeyID: keyID, Addr: addr, UserAgent: agent, First: now, Last: now, Count: 1})
}

// add joins a use with what is noted of the same key and address.
func (u *useRecorder) add(use store.Use) {
	s := &u.shards[maphash.String(u.seed, use.KeyID)%useShards]
	key := useKey{use.KeyID, use.Addr, use.Last.Unix() / (24 * 60 * 60)}
	s.mu.Lock()
	defer s.mu.Unlock()
	noted, ok := s.uses[key]
	if !ok && s.addrs[use.KeyID] >= addrsPerKey {
		use.Addr, key.addr = netip.Addr{}, netip.Addr{}
		noted, ok = s.uses[key]
	}
	if !ok {
		if len(s.uses) >= usesPerShard {
			s.lost += use.Count
			return
		}
		if s.uses == nil {
			s.uses, s.addrs = make(map[useKey]*store.Use), make(map[string]int)
		}
		s.addrs[use.KeyID]++
		use.UserAgent = strings.Clone(use.UserAgent) // the request's own text may be a part of much more
		s.uses[key] = &use
		return
	}
	noted.Count += use.Count
	if use.First.Before(noted.First) {
		noted.First = use.First
	}
	if use.Last.Before(noted.Last) {
		return
	}
	noted.Last = use.Last
	if noted.UserAgent != use.UserAgent {
		noted.UserAgent = strings.Clone(use.UserAgent)
	}
}

func (u *useRecorder) run() {
	defer close(u.stopped)
	ticker := time.NewTicker(u.interval)
	defer ticker.Stop()
	for {
		select {
		case <-u.stop:
			return
		case <-ticker.C:
			if err := u.write(context.Background()); err != nil && u.failed != nil {
				u.failed(err)
			}
		}
	}
}

// write hands all that is noted to the store. What the store did not take is
// noted again; a batch whose outcome is unknown may so be counted twice.
func (u *useRecorder) write(ctx context.Context) error {
	var batch []store.Use
	var failed error
	var lost int64
	flush := func() {
		if failed == nil {
			failed = u.record(ctx, batch)
		}
		if failed != nil {
			for _, use := range batch {
				u.add(use)
			}
		}
		batch = batch[:0]
	}
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		uses := s.uses
		lost += s.lost
		s.uses, s.addrs, s.lost = nil, nil, 0
		s.mu.Unlock()
		for _, use := range uses {
			if batch = append(batch, *use); len(batch) == usesPerBatch {
				flush()
			}
		}
	}
	if len(batch) > 0 {
		flush()
	}
	if lost > 0 {
		failed = errors.Join(failed, fmt.Errorf("%w: %d requests", errUsesLost, lost))
	}
	return failed
}

// record hands a batch to the store. A store that panics has failed: nobody waits for
// it whose request could, and the program goes on, as net/http does in a handler.
func (u *useRecorder) record(ctx context.Context, batch []store.Use) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("middleware: the store of uses panicked: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	return u.store.RecordUses(ctx, batch)
}

// close stops the writing goroutine and writes the rest. Later calls wait for the
// first one and return what it did.
func (u *useRecorder) close(ctx context.Context) error {
	if u.closed.Swap(true) {
		select {
		case <-u.ended:
			return u.result
		case <-ctx.Done():
		}
		select {
		case <-u.ended:
			return u.result
		default:
			return ctx.Err()
		}
	}
	defer close(u.ended)
	close(u.stop)
	select {
	case <-u.stopped:
		u.result = u.write(ctx)
	case <-ctx.Done():
		u.result = ctx.Err()
	}
	return u.result
}
