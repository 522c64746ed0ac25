package oidcauth

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// pause is how long after a fetch that a request asked for no other request asks
	// for one. It is a little less than ten seconds, so that a new key is accepted
	// within ten.
	pause = 9 * time.Second

	// retry is how long after a failed fetch the background tries again.
	retry = 30 * time.Second

	fetchTimeout = 5 * time.Second
	maxBody      = 256 << 10 // some hundreds of keys
)

var (
	errUnknownKey = refused("kid is unknown")
	errNoKeys     = errors.New("oidcauth: no keys to judge the token by")
	errClosed     = errors.New("oidcauth: Authenticator is closed")
)

// A keySet is the set of keys that an issuer publishes, as it was when it was
// fetched last. Requests read it through an atomic pointer. They wait for nothing
// but a fetch, and only if the key that they need is not there; at most one fetch is
// under way.
type keySet struct {
	opts    *Options
	current atomic.Pointer[snapshot] // nil until the first success

	ctx     context.Context // of the fetches: it ends with close
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	flight *flight   // nil: none
	asked  time.Time // when the last fetch began that a request asked for
	err    error     // of the last fetch that failed
	closed bool
}

// A snapshot is what a fetch brought. It is immutable.
type snapshot struct {
	byKID map[string]*key
	asOf  time.Time // when the fetch began
}

// A flight is a fetch that is under way.
type flight struct {
	began time.Time
	done  chan struct{} // closed when it has ended and what follows is set
	err   error
}

// newKeySet returns the key set of opts, which have their defaults, and begins to
// fetch it.
func newKeySet(opts *Options) *keySet {
	s := &keySet{opts: opts}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Go(s.refresh)
	return s
}

// close stops what is under way and waits for its end.
func (s *keySet) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
}

// holds reports whether k is in the set.
func (s *keySet) holds(k *key, now time.Time) bool { return s.lookUp(k.kid, now) == k }

// lookUp returns the key of that kid, or nil if there is none, or if the set is too
// old to be believed.
func (s *keySet) lookUp(kid string, now time.Time) *key {
	set := s.current.Load()
	if set == nil || now.Sub(set.asOf) > s.opts.KeysMaxAge {
		return nil
	}
	return set.byKID[kid]
}

// find returns the key of that kid. If it is not there, find waits for one fetch,
// with all others that do, unless there was one for this reason just now. The error
// refuses the token if a set that is as young does not have the key; else nobody can
// tell.
func (s *keySet) find(ctx context.Context, kid string) (*key, error) {
	if k := s.lookUp(kid, s.opts.Now()); k != nil {
		return k, nil
	}
	k, f, err := s.ask(kid)
	if k != nil || err != nil {
		return k, err
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errNoKeys, context.Cause(ctx))
	}
	if f.err != nil {
		return nil, fmt.Errorf("%w: %w", errNoKeys, f.err)
	}
	if k := s.lookUp(kid, s.opts.Now()); k != nil {
		return k, nil
	}
	return nil, errUnknownKey
}

// ask returns the key of that kid if it has come meanwhile, or the fetch to wait
// for, or the error if there is to be none now.
func (s *keySet) ask(kid string) (*key, *flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opts.Now()
	if k := s.lookUp(kid, now); k != nil {
		return k, nil, nil
	}
	// A clock that stepped back ends the pause.
	if since := now.Sub(s.asked); s.flight == nil && !s.asked.IsZero() && 0 <= since && since < pause {
		if set := s.current.Load(); set != nil && !set.asOf.Before(s.asked) {
			return nil, nil, errUnknownKey
		}
		return nil, nil, fmt.Errorf("%w: %w", errNoKeys, s.err)
	}
	f := s.begin(now)
	if f == nil {
		return nil, nil, fmt.Errorf("%w: %w", errNoKeys, errClosed)
	}
	s.asked = f.began
	return nil, f, nil
}

// begin returns the fetch that is under way, which it begins if there is none; nil
// after close. The caller holds s.mu.
func (s *keySet) begin(now time.Time) *flight {
	if s.flight != nil || s.closed {
		return s.flight
	}
	f := &flight{began: now, done: make(chan struct{})}
	s.flight = f
	s.running.Go(func() {
		defer close(f.done)
		// Not for the request that asked: that may go away, and others wait too.
		byKID, problems, err := s.fetch()
		s.mu.Lock()
		if err == nil {
			s.current.Store(&snapshot{s.keep(byKID), f.began})
		} else {
			f.err, s.err = err, err
		}
		s.flight = nil
		s.mu.Unlock()
		if err := errors.Join(err, problems); err != nil && s.ctx.Err() == nil {
			s.opts.KeysFailed(err)
		}
	})
	return f
}

// keep puts the keys that were known before in the place of their equals, so that
// tokens which they verified stay remembered.
func (s *keySet) keep(byKID map[string]*key) map[string]*key {
	if old := s.current.Load(); old != nil {
		for kid, k := range byKID {
			if was := old.byKID[kid]; was != nil && was.public.Equal(k.public) {
				byKID[kid] = was
			}
		}
	}
	return byKID
}

// fetch gets the set of the issuer. Beside it, it returns what is wrong with single
// keys.
func (s *keySet) fetch() (byKID map[string]*key, problems, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.opts.JWKSURL, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("oidcauth: fetch of keys: %w", err)
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	resp, err := s.opts.HTTPClient.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("oidcauth: fetch of keys: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("oidcauth: fetch of keys: status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, nil, fmt.Errorf("oidcauth: fetch of keys: %w", err)
	}
	if len(body) > maxBody {
		return nil, nil, fmt.Errorf("oidcauth: fetch of keys: more than %d bytes", maxBody)
	}
	byKID, problems = parseKeys(body)
	if byKID == nil {
		return nil, nil, problems
	}
	return byKID, problems, nil
}

// refresh fetches the set now and again until close.
func (s *keySet) refresh() {
	for {
		s.mu.Lock()
		f := s.begin(s.opts.Now())
		s.mu.Unlock()
		if f == nil {
			return
		}
		<-f.done // soon after close at the latest, which cancels it
		wait := s.opts.KeysRefresh
		if f.err != nil {
			wait = retry
		}
		select {
		case <-time.After(jittered(wait)):
		case <-s.ctx.Done():
			return
		}
	}
}

// jittered returns d less up to a tenth of it.
func jittered(d time.Duration) time.Duration {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return d - time.Duration(binary.NativeEndian.Uint64(b[:])%uint64(d/10+1))
}
