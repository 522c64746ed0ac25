package rediscounter

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// The scripts touch one key each, which they are told in KEYS.
var (
	//go:embed window.lua
	windowLua string

	//go:embed add.lua
	addLua string

	//go:embed lend.lua
	lendLua string

	addScript  = newScript(windowLua + addLua)
	lendScript = newScript(windowLua + lendLua)
)

// A script is sent to the server by its hash.
type script struct{ text, hash string }

func newScript(text string) *script {
	return &script{text, redis.NewScript(text).Hash()}
}

// errAnswer is the answer that none of the scripts gives.
var errAnswer = errors.New("not an answer of keystile's script")

// run runs a script on the hash of key, and returns its answer: numbers, as many
// as answer has. It ends with ctx or after the timeout, whatever the client does.
func (c *Counter) run(ctx context.Context, s *script, key string, answer []int64, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	// By default a go-redis client does not look at contexts while it waits for the
	// server, and never at one that is canceled.
	done := make(chan *redis.Cmd, 1)
	go func() { done <- c.eval(ctx, s, c.prefix+key, args) }()
	select {
	case cmd := <-done:
		return parse(cmd, answer)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// eval runs a script by its hash, and by its text if the server does not know it:
// a server that was restarted knows none.
func (c *Counter) eval(ctx context.Context, s *script, key string, args []any) *redis.Cmd {
	cmd := c.once(ctx, append([]any{"evalsha", s.hash, 1, key}, args...))
	if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
		cmd = c.once(ctx, append([]any{"eval", s.text, 1, key}, args...))
	}
	return cmd
}

// once sends a command that the client does not send again when its answer does
// not come: it may have been done, and would be counted twice.
func (c *Counter) once(ctx context.Context, args []any) *redis.Cmd {
	cmd := redis.NewCmd(ctx, args...)
	_ = c.client.Process(ctx, onceCmd{cmd}) // is the error of cmd as well
	return cmd
}

type onceCmd struct{ *redis.Cmd }

// NoRetry is asked by the client.
func (onceCmd) NoRetry() bool { return true }

// parse reads an answer of numbers, each as digits or as an integer.
func parse(cmd *redis.Cmd, answer []int64) error {
	values, err := cmd.Slice()
	if err != nil {
		return err
	}
	if len(values) != len(answer) {
		return errAnswer
	}
	for i, v := range values {
		switch v := v.(type) {
		case int64:
			answer[i] = v
		case string:
			if answer[i], err = strconv.ParseInt(v, 10, 64); err != nil {
				return errAnswer
			}
		default:
			return fmt.Errorf("%w: %T", errAnswer, v)
		}
	}
	return nil
}
