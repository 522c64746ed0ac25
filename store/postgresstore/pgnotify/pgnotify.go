package pgnotify

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrNotDelivered is reported to [Options].Failed if the server has taken the
// listener's LISTEN, and yet what is notified does not arrive: there is a pooler in
// between that shares connections out by the transaction.
var ErrNotDelivered = errors.New("pgnotify: notifications are not delivered (the connection must not go through a pooler in transaction mode)")

const (
	defaultPing = 5 * time.Second

	// patience bounds each step to a connection and each answer of the server.
	patience = 5 * time.Second

	// The first and the longest pause before the listener connects again. The longest
	// is what a cache waits from one poll to the next, by default, so that a server
	// that comes back meets no greater rush than it does anyway.
	firstPause = 100 * time.Millisecond
	lastPause  = time.Second

	// maxChannel is how many bytes of a channel's name PostgreSQL looks at.
	maxChannel = 63
)

// Options are the options of [New]. A nil *Options stands for the defaults.
type Options struct {
	// BeforeConnect, if there is one, is called with a copy of the configuration
	// before each connection is made, and may change it, such as by a password that
	// lasts for minutes. An error of it is one of the connection.
	// Defaults to none.
	BeforeConnect func(context.Context, *pgx.ConnConfig) error

	// Failed, if there is one, is called with the reason whenever the listener is not
	// connected, or not any more: while it cannot connect, about once a second. It is
	// called by one goroutine, which waits for it, and must not call
	// [Listener.Close].
	// Defaults to none: such errors are dropped.
	Failed func(error)

	// Ping is for how long the connection may be silent before the server is asked
	// whether it is there. It has 5 seconds to answer.
	// Defaults to 5 seconds; at least 10 milliseconds.
	Ping time.Duration
}

// A Listener listens for notifications of changes. Use [New] to make one. It is safe
// for concurrent use.
type Listener struct {
	config  *pgx.ConnConfig
	channel string
	opts    Options
	wake    chan struct{}

	proven bool // notifications arrive; the goroutine's own

	stop context.CancelFunc
	done chan struct{} // closed when the goroutine has ended
}

// errDSN has no cause: that of pgx may contain a password.
var errDSN = errors.New("pgnotify: data source name: not a URL such as postgres://user:password@host:5432/database, nor keywords and values that pgx knows")

// New returns a Listener on a channel, which is that of
// [github.com/keystile/keystile/store/postgresstore.Store.NotifyChannel]. The data
// source name is one of pgx, as a URL or as keywords and values; what it leaves out
// is taken from the environment, as psql does. All problems of the arguments are
// reported at once.
//
// New connects to nothing: the listener does so in the background, and goes on
// trying until [Listener.Close].
func New(dsn, channel string, opts *Options) (*Listener, error) {
	l := &Listener{
		channel: channel,
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	if opts != nil {
		l.opts = *opts
	}
	if l.opts.Ping == 0 {
		l.opts.Ping = defaultPing
	}
	var errs []error
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		errs = append(errs, errDSN)
	}
	if channel == "" || len(channel) > maxChannel || strings.ContainsRune(channel, 0) {
		errs = append(errs, errors.New("pgnotify: the channel is empty or no name that PostgreSQL has"))
	}
	if l.opts.Ping < 10*time.Millisecond {
		errs = append(errs, errors.New("pgnotify: Options.Ping: less than 10 milliseconds"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	l.config = config
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	go l.run(ctx)
	return l, nil
}

// Wake returns the channel for
// [github.com/keystile/keystile/store.CacheOptions].FeedWake. Something is received
// from it after one notification or several, and after each time that the listener
// has connected, since what was notified before is lost. It is for one cache: what
// one receives the other does not.
func (l *Listener) Wake() <-chan struct{} { return l.wake }

// Close ends the listening and the connection. When it has returned Failed is not
// running, and nothing is sent to the channel of [Listener.Wake], which stays open.
// It may be called more than once. What pgx does to hang up on a server that does
// not answer may take 15 seconds more, in the background.
func (l *Listener) Close() {
	l.stop()
	<-l.done
}

// notified wakes whoever waits; one who is woken already is not woken twice.
func (l *Listener) notified() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run listens, and connects again whenever that ends.
func (l *Listener) run(ctx context.Context) {
	defer close(l.done)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		began, err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		if l.opts.Failed != nil {
			l.opts.Failed(err)
		}
		if began {
			pause = firstPause
		}
		select {
		case <-time.After(jitter(pause)):
		case <-ctx.Done():
			return
		}
	}
}

// jitter returns between a half and the whole of d, so that nodes that have lost
// their server at one moment do not all come back at one.
func jitter(d time.Duration) time.Duration {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return d/2 + time.Duration(binary.NativeEndian.Uint64(b[:])%uint64(d/2))
}

// listen listens by one connection until that ends, and reports whether it had begun.
func (l *Listener) listen(ctx context.Context) (began bool, err error) {
	conn, err := l.connect(ctx)
	if err != nil {
		return false, err
	}
	defer hangUp(conn)
	if err := exec(ctx, conn, "LISTEN "+l.name()); err != nil {
		return false, fmt.Errorf("pgnotify: listening: %w", err)
	}
	l.notified() // what was sent until now is lost
	if !l.proven {
		if err := l.prove(ctx, conn); err != nil {
			return false, err
		}
		l.proven = true
	}
	for {
		n, err := l.next(ctx, conn, l.opts.Ping)
		if err == nil && n == nil {
			err = exec(ctx, conn, "-- ping")
		}
		if err != nil {
			return true, fmt.Errorf("pgnotify: the connection is lost: %w", err)
		}
	}
}

// prove has somebody else notify the channel, and waits for it. What a connection
// notifies itself would arrive also behind a pooler.
func (l *Listener) prove(ctx context.Context, conn *pgx.Conn) error {
	other, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer hangUp(other)
	probe := rand.Text() // letters and digits
	if err := exec(ctx, other, "NOTIFY "+l.name()+", '"+probe+"'"); err != nil {
		return fmt.Errorf("pgnotify: notifying: %w", err)
	}
	end := time.Now().Add(patience)
	for left := patience; left > 0; left = time.Until(end) {
		n, err := l.next(ctx, conn, left)
		if err != nil {
			return fmt.Errorf("pgnotify: the connection is lost: %w", err)
		}
		if n != nil && n.Payload == probe {
			return nil
		}
	}
	return ErrNotDelivered
}

// next waits for the next notification, and returns nil if there is none for so
// long. A payload is the mark of somebody's probe, which wakes nobody.
func (l *Listener) next(ctx context.Context, conn *pgx.Conn, wait time.Duration) (*pgconn.Notification, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	n, err := conn.WaitForNotification(waiting)
	switch {
	case err == nil && n.Payload == "":
		l.notified()
	case err != nil && pgconn.Timeout(err) && ctx.Err() == nil:
		return nil, nil //nolint:nilnil // no notification, and no failure
	}
	return n, err
}

// name returns the channel as SQL writes it.
func (l *Listener) name() string { return pgx.Identifier{l.channel}.Sanitize() }

// connect makes a connection.
func (l *Listener) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	config := l.config.Copy()
	if l.opts.BeforeConnect != nil {
		if err := l.opts.BeforeConnect(ctx, config); err != nil {
			return nil, fmt.Errorf("pgnotify: before connecting: %w", err)
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("pgnotify: connecting: %w", err)
	}
	return conn, nil
}

// exec runs a statement, which has no answer.
func exec(ctx context.Context, conn *pgx.Conn, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := conn.Exec(ctx, statement)
	return err
}

// hangUp ends a connection.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}
