package rediscounter

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keystile/keystile/ratelimit"
)

// Options are the options of [New].
type Options struct {
	// Prefix begins the names of the keys in Redis, so that several services can
	// share a server. If it has braces, a cluster keeps all keys at one place.
	// Defaults to "keystile:".
	Prefix string

	// Timeout bounds every call, beside its context: a request has no deadline by
	// itself, and a server that hangs says nothing. Defaults to 1 second.
	Timeout time.Duration
}

// A Counter is a [ratelimit.Counter] and [ratelimit.Lender] in Redis or Valkey.
// It is exact among all processes that share the server and the prefix, and it is
// safe for concurrent use.
//
// Use [New]; the zero Counter answers every call with an error.
type Counter struct {
	client  redis.UniversalClient // nil: err says why
	err     error
	prefix  string
	timeout time.Duration
}

var _ ratelimit.Lender = (*Counter)(nil)

var (
	errNoClient = errors.New("rediscounter: no client")
	errRing     = errors.New("rediscounter: a redis.Ring forgets counts when one of its servers fails; use a cluster")
	errTimeout  = errors.New("rediscounter: Options.Timeout is negative")
	errNegative = errors.New("rediscounter: Add of a negative number")
	errSpent    = errors.New("rediscounter: Lend with a spent below 0 or above 2^53")
)

// New returns a Counter in the server, or the cluster, of client, which it never
// closes. Nil opts stand for the defaults. If client is nil or an option has no
// meaning, every call returns an error, and [Counter.Validate] tells. So it is with a
// [redis.Ring], which asks another server for a quota when one fails, so that what
// was counted would be forgotten without any error.
//
// Of any other client nothing is expected. [Open] makes one for a single server; for a
// cluster, or with Sentinel, make it with ContextTimeoutEnabled, and on Valkey with
// maintnotifications.ModeDisabled, which saves an error for each connection.
func New(client redis.UniversalClient, opts *Options) *Counter {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Prefix == "" {
		o.Prefix = "keystile:"
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	c := &Counter{client: client, prefix: o.Prefix, timeout: o.Timeout}
	var errs []error
	if client == nil {
		errs = append(errs, errNoClient)
	}
	if _, ring := client.(*redis.Ring); ring {
		errs = append(errs, errRing)
	}
	if o.Timeout < 0 {
		errs = append(errs, errTimeout)
	}
	if c.err = errors.Join(errs...); c.err != nil {
		c.client = nil
	}
	return c
}

// Validate reports everything that is wrong with the arguments of [New], joined, as
// [ratelimit.Validate] does. It does not ask the server.
func (c *Counter) Validate() error {
	switch {
	case c == nil || c.client == nil && c.err == nil:
		return errNoClient
	case c.client == nil:
		return c.err
	}
	return nil
}

// check returns why nothing can be asked: the Counter, or a context that has ended.
func (c *Counter) check(ctx context.Context) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("rediscounter: %w", ctx.Err())
	}
	return nil
}

// Add implements [ratelimit.Counter], in one trip. Windows are kept until eight
// others of the same key were made after them, or for at least 50 hours after the
// last call for the key.
func (c *Counter) Add(ctx context.Context, key string, end time.Time, n, max int64) (count int64, ok bool, err error) {
	if err := c.check(ctx); err != nil {
		return 0, false, err
	}
	if n < 0 {
		return 0, false, errNegative
	}
	room := "" // for none
	if n <= max {
		room = strconv.FormatInt(max-n, 10)
	}
	answer := make([]int64, 2)
	if err := c.run(ctx, addScript, key, answer, window(end), n, room); err != nil {
		return 0, false, fmt.Errorf("rediscounter: counting: %w", err)
	}
	return answer[0], answer[1] == 1, nil
}

// window names a window. Any instant has a name of its own.
func window(end time.Time) string {
	return strconv.FormatInt(end.Unix(), 10) + "." + strconv.Itoa(end.Nanosecond())
}
