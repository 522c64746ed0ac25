package servers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// A PgBouncer is a pooler in front of a [Postgres], in transaction mode: two
// transactions of one client may have two connections of the server, and one
// connection serves many clients.
type PgBouncer struct {
	dir    string
	server *process
}

// StartPgBouncer starts a pooler with size connections to p.
func StartPgBouncer(p *Postgres, size int) (*PgBouncer, error) {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		return nil, fmt.Errorf("pgbouncer: %w", ErrMissing)
	}
	dir, err := tempDir("postgres")
	if err != nil {
		return nil, err
	}
	b := &PgBouncer{dir: dir}
	config := fmt.Sprintf(`[databases]
* = host=%s
[pgbouncer]
unix_socket_dir = %s
listen_addr =
auth_type = trust
auth_file = users
pool_mode = transaction
default_pool_size = %d
max_client_conn = 500
`, p.dir, dir, size)
	for name, text := range map[string]string{"config": config, "users": "\"test\" \"\"\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	b.server, err = startProcess(dir, "process up", syscall.SIGKILL, program, "config")
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// DSN returns a data source name of the pooler.
func (b *PgBouncer) DSN() string {
	return "host=" + b.dir + " port=6432 user=test dbname=postgres sslmode=disable"
}

// Close ends the pooler and removes its files.
func (b *PgBouncer) Close() error {
	var err error
	if b.server != nil {
		b.server.signal(syscall.SIGKILL)
		err = b.server.wait()
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}
