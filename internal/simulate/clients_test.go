package simulate_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
)

// A client sends requests with the tokens that people were given, to any node.
type client struct {
	w    *world
	id   string
	dice *rand.Rand
}

func newClient(w *world, i int) *client {
	return &client{w, fmt.Sprint("client ", i), rand.New(rand.NewPCG(w.conf.seed, fnv("client", i)))}
}

// act sends requests until the world is over: one now and then, and sometimes many.
func (c *client) act() {
	for {
		pause(time.Duration(c.dice.Int64N(int64(500 * time.Millisecond))))
		if c.w.over.Load() {
			return
		}
		h := c.w.anyToken(c.dice)
		if h == nil {
			continue
		}
		some := 1
		if c.dice.IntN(12) == 0 {
			some = 1 + c.dice.IntN(25)
		}
		addr := pick(c.dice, addrs...)
		if c.dice.IntN(2) == 0 {
			addr = addrs[0]
		}
		for range some {
			n := c.w.anyNode(c.dice)
			if n == nil {
				break
			}
			q := request{node: n, holder: h, addr: addr}
			if c.dice.IntN(3) == 0 {
				q.email = c.email(h.user)
			}
			c.w.send(c.id, q)
			if c.dice.IntN(10) == 0 {
				n.usage(h)
			}
			n.leave()
			pause(time.Duration(c.dice.Int64N(int64(3 * time.Millisecond))))
		}
	}
}

// usage looks how a quota stands, which spends nothing (D5).
func (n *node) usage(h *holder) {
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Second)
	defer cancel()
	r, err := n.guard.Limiter().Peek(ctx, h.family, 0)
	n.w.tracef("the usage of %s by node %d: %d, %v", h.family, n.id, r.Used, err)
}

// email is what the client takes for that of a user: it is mostly right.
func (c *client) email(user row) string {
	email := pick(c.dice, emails(user)...)
	if c.dice.IntN(8) > 0 {
		c.w.ledger.mu.Lock()
		h := c.w.ledger.users[user]
		email = h.states[len(h.states)-1].value.Email
		c.w.ledger.mu.Unlock()
	}
	if email == "" {
		email = user.id
	}
	return email
}

// A request is one of a client.
type request struct {
	node   *node
	holder *holder
	addr   string
	email  string // sent with the token; empty: the token is a Bearer token
}

// An answer is what came of a request, as a client and an observer see it.
type answer struct {
	status int
	served bool
	event  middleware.Event
}

// reason returns why the request was refused, nothing if it was not.
func (a *answer) reason() policy.Reason {
	if a.event.Refusal == nil {
		return ""
	}
	return a.event.Refusal.Reason
}

type answerKey struct{}

// serve is the handler behind every Guard.
func serve(_ http.ResponseWriter, r *http.Request, _ *policy.Principal) {
	r.Context().Value(answerKey{}).(*answer).served = true
}

func observe(r *http.Request, e middleware.Event) {
	r.Context().Value(answerKey{}).(*answer).event = e
}

// A writer is a ResponseWriter of which the status counts.
type writer struct {
	header http.Header
	status int
}

func (w *writer) Header() http.Header         { return w.header }
func (w *writer) Write(b []byte) (int, error) { return len(b), nil }
func (w *writer) WriteHeader(status int)      { w.status = status }

// do sends q through the node's Guard.
func (q *request) do() *answer {
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Second)
	defer cancel()
	a := new(answer)
	r := (&http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/"}, Header: make(http.Header),
		RemoteAddr: net.JoinHostPort(q.addr, "4711"),
	}).WithContext(context.WithValue(ctx, answerKey{}, a))
	if q.email == "" {
		r.Header.Set("Authorization", "Bearer "+q.holder.token)
	} else {
		r.Header.Set("X-Api-User", q.email)
		r.Header.Set("X-Api-Token", q.holder.token)
	}
	w := &writer{header: make(http.Header), status: http.StatusOK}
	q.node.handler.ServeHTTP(w, r)
	a.status = w.status
	return a
}

// send sends q, and judges what comes back.
func (w *world) send(who string, q request) *answer {
	j := w.judgement(q)
	a := q.do()
	w.requests.Add(1)
	w.tracef("%s from %s with %s of %s (%q) to node %d: %d %s", who, q.addr, q.holder.key.id, q.holder.user.id, q.email, q.node.id, a.status, a.reason())
	w.happened(who, q.node.id, a.status, a.reason())
	j.judge(a)
	return a
}

// limitOf returns how many requests a day a key has, by its state.
func limitOf(k *store.Key) int64 {
	switch k.DailyLimit {
	case 0:
		return defaultLimit
	case -1:
		return 1 << 40
	}
	return k.DailyLimit
}
