package servers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// A Redis is a server of Redis, or of Valkey where that is installed. Its methods
// are not safe for concurrent use.
type Redis struct {
	program  string
	dir      string // of the socket and the data
	settings []string
	server   *process
}

// StartRedis starts a server, in about a tenth of a second, with more settings
// than its own, such as "--appendonly", "yes". Without any it keeps nothing on
// the disk, and listens on a socket only.
func StartRedis(settings ...string) (*Redis, error) {
	program, err := exec.LookPath("valkey-server")
	if err != nil {
		program, err = exec.LookPath("redis-server")
	}
	if err != nil {
		return nil, fmt.Errorf("redis-server or valkey-server: %w", ErrMissing)
	}
	dir, err := tempDir("valkey", "redis")
	if err != nil {
		return nil, err
	}
	r := &Redis{program: program, dir: dir, settings: settings}
	if err := r.Start(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Socket returns the path of the server's socket.
func (r *Redis) Socket() string { return filepath.Join(r.dir, "socket") }

// URL returns the URL of the server, for go-redis.
func (r *Redis) URL() string { return "unix://" + r.Socket() }

// Program returns the path of the server's program.
func (r *Redis) Program() string { return r.program }

// Start starts the server again after Stop or Kill, and returns when it answers.
func (r *Redis) Start() error {
	args := append([]string{"--port", "0", "--unixsocket", r.Socket(), "--save", "", "--appendonly", "no"}, r.settings...)
	var err error
	r.server, err = startProcess(r.dir, "eady to accept connections", syscall.SIGKILL, r.program, args...)
	return err
}

// Stop stops the server as an operator does.
func (r *Redis) Stop() error {
	r.server.signal(syscall.SIGTERM)
	return r.server.wait()
}

// Kill kills the server, as at the end of the machine.
func (r *Redis) Kill() error {
	r.server.signal(syscall.SIGKILL)
	return r.server.wait()
}

// Pause suspends the server until Continue: connections stay, new ones are
// accepted by the system, and nobody answers.
func (r *Redis) Pause() { r.server.signal(syscall.SIGSTOP) }

// Continue ends a Pause.
func (r *Redis) Continue() { r.server.signal(syscall.SIGCONT) }

// Close ends the server, if it runs, and removes all that it has kept.
func (r *Redis) Close() error {
	var err error
	if r.server != nil {
		err = r.Kill()
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}
