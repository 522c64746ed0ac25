package rediscounter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

var errURL = errors.New("rediscounter: not the URL of a server, such as redis://user:password@host:6379/0, rediss://host or unix:///path?db=0")

// Open returns a client of the server that a URL names, as go-redis reads it, with
// the settings that suit a [Counter]: contexts are obeyed, nothing is tried again, a
// server that is back is used at once, and no command is sent that Valkey and servers
// before Redis 8 do not know. It does not connect. The caller closes it.
//
// The error for a bad URL does not repeat it, since it may contain a password.
func Open(url string) (*redis.Client, error) {
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, errURL
	}
	o.ContextTimeoutEnabled = true
	o.MaxRetries = -1 // A connection that cannot be set up would be tried again four times.
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	dial := redis.NewDialer(o)
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return unreached{fmt.Errorf("rediscounter: connecting: %w", err)}, nil
		}
		return conn, nil
	}
	return redis.NewClient(o), nil
}

// An unreached is a connection that could not be made, and fails when it is used. A
// client whose pool fails to dial as often as it has places goes on failing for a
// second, however soon the server is there.
type unreached struct{ err error }

func (u unreached) Read([]byte) (int, error)       { return 0, u.err }
func (u unreached) Write([]byte) (int, error)      { return 0, u.err }
func (unreached) Close() error                     { return nil }
func (unreached) LocalAddr() net.Addr              { return nil }
func (unreached) RemoteAddr() net.Addr             { return nil }
func (unreached) SetDeadline(time.Time) error      { return nil }
func (unreached) SetReadDeadline(time.Time) error  { return nil }
func (unreached) SetWriteDeadline(time.Time) error { return nil }
