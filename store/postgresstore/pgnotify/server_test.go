package pgnotify_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// What needs PostgreSQL is tested in internal/itest.

// A server speaks as much of the protocol of PostgreSQL as a Listener asks for, over
// connections in memory, so that synctest has the clock of both.
type server struct {
	mu       sync.Mutex
	away     bool // no connection is made
	hangs    bool // nothing is answered
	pools    bool // a connection listens only for as long as its transaction
	standby  bool // LISTEN is refused
	dials    int
	password string // of the last connection
	sessions map[*session]bool
}

// A session is a connection to a server.
type session struct {
	net.Conn
	backend *pgproto3.Backend
	out     chan pgproto3.BackendMessage // what is to be sent: a pipe has no room
	channel string                       // that it listens to, with quotes; "" if none
}

var errAway = errors.New("the server is away")

// configure is the BeforeConnect of a Listener for this server.
func (s *server) configure(_ context.Context, config *pgx.ConnConfig) error {
	config.DialFunc = s.dial
	return nil
}

func (s *server) dial(context.Context, string, string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials++
	if s.away {
		return nil, errAway
	}
	client, conn := net.Pipe()
	c := &session{Conn: conn, backend: pgproto3.NewBackend(conn, conn), out: make(chan pgproto3.BackendMessage, 200)}
	if s.sessions == nil {
		s.sessions = make(map[*session]bool)
	}
	s.sessions[c] = true
	go func() {
		defer func() {
			_ = conn.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.sessions, c)
			close(c.out)
		}()
		s.serve(c)
	}()
	go func() {
		for m := range c.out {
			c.backend.Send(m)
			_ = c.backend.Flush() // what fails ends the session as well
		}
	}()
	return client, nil
}

// set changes how s behaves.
func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *server) get(what *bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *what
}

// connections returns how many there are, and how many were asked for.
func (s *server) connections() (open, dials int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions), s.dials
}

// cut closes every connection.
func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		_ = c.Close()
	}
}

// serve answers until the connection ends.
func (s *server) serve(c *session) {
	first, err := c.backend.ReceiveStartupMessage()
	if err != nil {
		return
	}
	if s.get(&s.hangs) {
		_, _ = c.Read(make([]byte, 1)) // until the other side hangs up
		return
	}
	if _, ok := first.(*pgproto3.StartupMessage); !ok {
		return // to cancel a request
	}
	c.send(&pgproto3.AuthenticationCleartextPassword{})
	_ = c.backend.SetAuthType(pgproto3.AuthTypeCleartextPassword)
	for {
		m, err := c.backend.Receive()
		if err != nil {
			return
		}
		hangs := s.get(&s.hangs)
		switch m := m.(type) {
		case *pgproto3.PasswordMessage:
			s.set(func() { s.password = m.Password })
			c.send(&pgproto3.AuthenticationOk{}, &pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte("1234")},
				&pgproto3.ReadyForQuery{TxStatus: 'I'})
		case *pgproto3.Query:
			if !hangs {
				c.send(append(s.run(c, m.String), &pgproto3.ReadyForQuery{TxStatus: 'I'})...)
			}
		default: // Terminate
			return
		}
	}
}

// run runs a statement and returns the answer.
func (s *server) run(c *session, statement string) []pgproto3.BackendMessage {
	verb, rest, _ := strings.Cut(statement, " ")
	switch verb {
	case "LISTEN":
		if s.get(&s.standby) {
			return []pgproto3.BackendMessage{&pgproto3.ErrorResponse{Severity: "ERROR", Code: "25006", Message: "recovery"}}
		}
		if !s.get(&s.pools) {
			s.set(func() { c.channel = rest })
		}
	case "NOTIFY":
		channel, payload, _ := strings.Cut(rest, ", ")
		s.notify(channel, strings.Trim(payload, "'"))
	default:
		return []pgproto3.BackendMessage{&pgproto3.EmptyQueryResponse{}}
	}
	return []pgproto3.BackendMessage{&pgproto3.CommandComplete{CommandTag: []byte(verb)}}
}

// notify notifies a channel, whose name has its quotes.
func (s *server) notify(channel, payload string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		if c.channel == channel && !s.hangs {
			c.send(&pgproto3.NotificationResponse{Channel: strings.Trim(channel, `"`), Payload: payload})
		}
	}
}

func (c *session) send(messages ...pgproto3.BackendMessage) {
	for _, m := range messages {
		c.out <- m
	}
}
