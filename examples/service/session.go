package main

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
)

// sessions are those who are signed in by a cookie: how a host plugs a sign-in of
// its own into a Guard. They are kept by the hash of what the cookie says, so that
// nobody who reads the memory of the process can be somebody else, and there is no
// more than a fixed number of them.
type sessions struct {
	now func() time.Time

	mu     sync.Mutex
	byHash map[[sha256.Size]byte]*policy.Principal // NotAfter is the end of the session
}

const (
	// sessionCookie is the cookie's name on plain HTTP, which the development mode
	// speaks on loopback addresses. A service on HTTPS names it __Host-session and
	// makes it Secure, so that no other host of its domain can set it.
	sessionCookie = "session"

	sessionLifetime = 8 * time.Hour
	maxSessions     = 1000
)

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, byHash: make(map[[sha256.Size]byte]*policy.Principal)}
}

// start signs a person in, with another cookie than r may have come with. A browser
// sends the cookie with requests of the service's own pages and with addresses that
// somebody opens, and never for another site (SameSite=Strict); no script can read it.
func (s *sessions) start(w http.ResponseWriter, r *http.Request, p person) {
	s.forget(r)
	id := rand.Text() + rand.Text() // 260 random bits
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeRoom(now)
	s.byHash[sha256.Sum256([]byte(id))] = &policy.Principal{
		Credential: policy.Session,
		Org:        p.org,
		User:       p.id,
		Tier:       p.tier,
		Owner:      p.role == roleOwner,
		IssuedAt:   now,
		NotAfter:   now.Add(sessionLifetime),
	}
	http.SetCookie(w, cookie(id, int(sessionLifetime/time.Second)))
}

// makeRoom forgets the sessions that are over, and the oldest if there are too many
// still.
func (s *sessions) makeRoom(now time.Time) {
	var oldest [sha256.Size]byte
	for hash, p := range s.byHash {
		if !now.Before(p.NotAfter) {
			delete(s.byHash, hash)
			continue
		}
		if o := s.byHash[oldest]; o == nil || p.NotAfter.Before(o.NotAfter) {
			oldest = hash
		}
	}
	if len(s.byHash) >= maxSessions {
		delete(s.byHash, oldest)
	}
}

// end signs out whoever sent r.
func (s *sessions) end(w http.ResponseWriter, r *http.Request) {
	s.forget(r)
	http.SetCookie(w, cookie("", -1))
}

func (s *sessions) forget(r *http.Request) {
	if c, err := r.Cookie(sessionCookie); err == nil {
		s.mu.Lock()
		delete(s.byHash, sha256.Sum256([]byte(c.Value)))
		s.mu.Unlock()
	}
}

func cookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{Name: sessionCookie, Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteStrictMode}
}

// Authenticate implements middleware.Authenticator. A cookie that stands for no
// session is none: browsers send those of other programs on this machine, whatever
// their port.
func (s *sessions) Authenticate(r *http.Request) (*policy.Principal, error) {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil, middleware.ErrNoCredential
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.byHash[sha256.Sum256([]byte(c.Value))]
	if p == nil || !s.now().Before(p.NotAfter) {
		return nil, middleware.ErrNoCredential
	}
	return p, nil
}
