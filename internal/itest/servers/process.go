package servers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// patience bounds every wait for a server.
const patience = 30 * time.Second

// A process is a running server.
type process struct {
	cmd  *exec.Cmd
	out  output
	done chan struct{} // closed when the process has ended and was waited for
}

// startProcess starts a program in dir, as the owner of dir, and returns when it
// has printed the text ready. The program gets the signal death when this process
// ends, however it does.
func startProcess(dir, ready string, death syscall.Signal, program string, args ...string) (*process, error) {
	cmd, err := command(dir, program, args...)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	cmd.WaitDelay = time.Second // for children that have the pipe still
	dieWithParent(cmd.SysProcAttr, death)
	started := make(chan error)
	go func() {
		// The kernel takes the thread that started a process for its parent.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); !p.out.contains(ready); time.Sleep(2 * time.Millisecond) {
		switch {
		case p.ended():
			return nil, fmt.Errorf("%s ended: %s", program, &p.out)
		case time.Now().After(deadline):
			p.signal(syscall.SIGKILL)
			return nil, fmt.Errorf("%s is not ready after %s: %s", program, patience, &p.out)
		}
	}
	return p, nil
}

// command returns a command that runs in dir, as the owner of dir, with an
// environment of its own.
func command(dir, program string, args ...string) (*exec.Cmd, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = new(syscall.SysProcAttr)
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}
	}
	return cmd, nil
}

// tempDir makes a directory for a server, with a name that is short enough for
// the path of a socket. If this process is run by root, the directory belongs to
// the first of the named users that exists, or to nobody: servers refuse to be
// run by root. It is not t.TempDir, since only root may enter that one.
func tempDir(users ...string) (string, error) {
	dir, err := os.MkdirTemp("", "keystile")
	if err != nil || os.Geteuid() != 0 {
		return dir, err
	}
	for _, name := range append(users, "nobody") {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		return dir, os.Chown(dir, uid, gid)
	}
	return dir, fmt.Errorf("no user to run a server as: none of %v and nobody", users)
}

// signal sends a signal. It does nothing if the process has ended.
func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait waits for the end of the process.
func (p *process) wait() error {
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s does not end: %s", p.cmd.Path, &p.out)
	}
}

// output keeps the end of what a process prints.
type output struct {
	mu   sync.Mutex
	text []byte
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, b...)
	o.text = o.text[max(0, len(o.text)-16<<10):]
	return len(b), nil
}

func (o *output) contains(s string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Contains(o.text, []byte(s))
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}
