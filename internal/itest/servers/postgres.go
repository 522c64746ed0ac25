package servers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Postgres is a PostgreSQL server with a database cluster of its own. Its
// methods are not safe for concurrent use.
type Postgres struct {
	programs string // the directory of its programs
	dir      string // of the sockets and the cluster
	server   *process
}

// StartPostgres makes a cluster and starts its server, in about a second. Where
// PostgreSQL is new enough the collation of its databases is that of American
// English, so that nothing can rely on texts being compared byte for byte unasked.
//
// The server does not sync the disk, which it could only need if the machine
// failed. Otherwise it commits as it does by default: what it has acknowledged it
// has after being killed.
func StartPostgres() (*Postgres, error) {
	initdb, err := findPostgres("initdb")
	if err != nil {
		return nil, err
	}
	dir, err := tempDir("postgres")
	if err != nil {
		return nil, err
	}
	p := &Postgres{programs: filepath.Dir(initdb), dir: dir}
	args := []string{"-D", "data", "-U", "test", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"}
	if version(initdb) >= 15 {
		args = append(args, "--locale-provider=icu", "--icu-locale=en-US")
	}
	cmd, err := command(dir, initdb, args...)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w: %s", err, out), p.Close())
	}
	if err := p.Start(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// findPostgres returns where a program of PostgreSQL is. Debian has those of the
// server in a directory for each version, which is not on the path.
func findPostgres(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return filepath.EvalSymlinks(path)
	}
	all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + program)
	if len(all) == 0 {
		return "", fmt.Errorf("%s of PostgreSQL: %w", program, ErrMissing)
	}
	return slices.MaxFunc(all, func(a, b string) int { return version(a) - version(b) }), nil
}

// version returns the major version of a program of PostgreSQL.
func version(program string) int {
	out, _ := exec.Command(program, "--version").Output()
	_, text, _ := strings.Cut(string(out), ") ")
	text, _, _ = strings.Cut(text, ".")
	n, _ := strconv.Atoi(text)
	return n
}

// DSN returns a data source name of the server, for a user who may do everything,
// with more settings after it, such as "search_path=a".
func (p *Postgres) DSN(settings ...string) string {
	return strings.Join(append([]string{"host=" + p.dir, "user=test dbname=postgres sslmode=disable"}, settings...), " ")
}

// Program returns the command of a client program that comes with the server,
// such as pg_dump, set up to connect to it.
func (p *Postgres) Program(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.programs, name), args...)
	cmd.Env = append(os.Environ(), "PGHOST="+p.dir, "PGUSER=test", "PGDATABASE=postgres")
	return cmd
}

// Dir returns the directory of the server's files.
func (p *Postgres) Dir() string { return p.dir }

// Start starts the server again after Stop or Kill, and returns when it answers.
func (p *Postgres) Start() error {
	args := []string{"-D", "data", "-k", p.dir, "-h", ""}
	for _, setting := range []string{
		"fsync=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0",
		"autovacuum=off", "jit=off", "max_connections=200", "shared_buffers=32MB", "logging_collector=off",
	} {
		args = append(args, "-c", setting)
	}
	var err error
	p.server, err = startProcess(p.dir, "ready to accept connections", syscall.SIGQUIT, filepath.Join(p.programs, "postgres"), args...)
	return err
}

// Stop stops the server as an operator does who does not wait for its clients:
// their transactions are undone and their connections closed.
func (p *Postgres) Stop() error {
	p.server.signal(syscall.SIGINT)
	return p.server.wait()
}

// Kill kills every process of the server, as at the end of the machine.
func (p *Postgres) Kill() error {
	all := p.Pause()
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err := p.server.wait(); err != nil {
		return err
	}
	// The next server does not start beside one of them.
	for deadline := time.Now().Add(patience); slices.ContainsFunc(all, alive); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("a process of postgres does not end")
		}
	}
	return nil
}

// Pause suspends every process of the server until Continue, and returns their
// numbers: connections stay, new ones are accepted by the system, and nobody
// answers.
func (p *Postgres) Pause() []int { return p.each(syscall.SIGSTOP) }

// Continue ends a Pause.
func (p *Postgres) Continue() { p.each(syscall.SIGCONT) }

// each sends a signal to every process of the server.
func (p *Postgres) each(s syscall.Signal) []int {
	pid := p.server.cmd.Process.Pid
	p.server.signal(s) // First, so that a suspended one starts no others meanwhile.
	all := append([]int{pid}, children(pid)...)
	for _, pid := range all {
		_ = syscall.Kill(pid, s)
	}
	return all
}

// Close ends the server, if it runs, and removes all that it has kept.
func (p *Postgres) Close() error {
	var err error
	if p.server != nil && !p.server.ended() {
		p.Continue()
		p.server.signal(syscall.SIGQUIT)
		err = p.server.wait()
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}
