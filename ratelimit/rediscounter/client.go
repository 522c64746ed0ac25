package rediscounter

import (
	"errors"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

var errURL = errors.New("rediscounter: not the URL of a server, such as redis://user:password@host:6379/0, rediss://host or unix:///path?db=0")

// Open returns a client of the server that a URL names, as go-redis reads it, with
// the settings that suit a [Counter]: contexts are obeyed, dialing is tried once,
// and no command is sent that Valkey and servers before Redis 8 do not know. It
// does not connect. The caller closes it.
//
// The error for a bad URL does not repeat it, since it may contain a password.
func Open(url string) (*redis.Client, error) {
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, errURL
	}
	o.ContextTimeoutEnabled = true
	o.DialerRetries = 1
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(o), nil
}
