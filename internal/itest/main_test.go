package itest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// processVar names the program that a copy of the test binary is to run instead
// of the tests.
const processVar = "KEYSTILE_ITEST_PROCESS"

// processes are the programs that tests run in processes of their own, by name.
// They print what they have to say, a line at a time.
var processes = map[string]program{
	"sqlite add":      on(openSQLite, addProgram),
	"sqlite insert":   on(openSQLite, insertProgram),
	"sqlite write":    on(openSQLite, writeProgram),
	"postgres add":    on(openPostgres, addProgram),
	"postgres insert": on(openPostgres, insertProgram),
	"postgres write":  on(openPostgres, writeProgram),
	"postgres server": serverProgram,
	"fleet node":      nodeProgram,
	"sqlite lease":    backendLeases(openSQLite),
	"postgres lease":  backendLeases(openPostgres),
	"redis lease":     leaseProgram(redisLender),
	"redis add":       redisProgram(addProgram),
	"redis server":    redisServerProgram,
}

// A program is run by a process, with its arguments.
type program func(ctx context.Context, args []string) error

// atExit is called when all tests are over.
var atExit struct {
	mu    sync.Mutex
	calls []func() error
}

// whenOver has f called when all tests are over, such as to end a server that
// they share.
func whenOver(f func() error) {
	atExit.mu.Lock()
	defer atExit.mu.Unlock()
	atExit.calls = append(atExit.calls, f)
}

func TestMain(m *testing.M) {
	name, ok := os.LookupEnv(processVar)
	if !ok {
		code := m.Run()
		for _, f := range atExit.calls {
			if err := f(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = max(code, 1)
			}
		}
		os.Exit(code)
	}
	run, ok := processes[name]
	if !ok {
		run = func(context.Context, []string) error { return errors.New("no such process: " + name) }
	}
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A process is a running copy of the test binary.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Scanner
	stderr strings.Builder
}

// start starts one of processes. It is killed when the test is over, should it
// still run.
func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	p := &process{cmd: exec.CommandContext(t.Context(), exe, args...)}
	p.cmd.Env = append(os.Environ(), processVar+"="+name)
	p.cmd.Stderr = &p.stderr
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.stdout = bufio.NewScanner(stdout)
	require.NoError(t, p.cmd.Start())
	return p
}

// line returns the next line that p prints, and false if there are no more.
func (p *process) line() (string, bool) {
	ok := p.stdout.Scan()
	return p.stdout.Text(), ok
}

// wait returns the lines that p prints until its end, which must be a good one.
func (p *process) wait(t *testing.T) []string {
	t.Helper()
	var lines []string
	for line, ok := p.line(); ok; line, ok = p.line() {
		lines = append(lines, line)
	}
	require.NoError(t, p.cmd.Wait(), "stderr: %s", &p.stderr)
	return lines
}

// together starts n copies of a process, lets them go on when all of them have
// called ready, and returns the lines that they print from there on.
func together(t *testing.T, n int, name string, args ...string) []string {
	t.Helper()
	var all []*process
	for i := range n {
		p := start(t, name, append(args, fmt.Sprint(i))...)
		line, _ := p.line()
		require.Equal(t, "ready", line, "stderr: %s", &p.stderr)
		all = append(all, p)
	}
	for _, p := range all {
		require.NoError(t, p.stdin.Close())
	}
	var lines []string
	for _, p := range all {
		lines = append(lines, p.wait(t)...)
	}
	return lines
}

// ready is called by a process that is to go on together with others.
func ready() error {
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
