package servers

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

func dieWithParent(a *syscall.SysProcAttr, s syscall.Signal) { a.Pdeathsig = s }

// children returns the processes that a process has started, without those that
// have ended.
func children(pid int) []int {
	var all []int
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		child, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if parent, alive := stat(child); alive && parent == pid {
			all = append(all, child)
		}
	}
	return all
}

// stat returns the parent of a process, and whether it has not ended.
func stat(pid int) (parent int, alive bool) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, false
	}
	// The name, in parentheses, may have any characters.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	parent, _ = strconv.Atoi(fields[1])
	return parent, fields[0] != "Z" && fields[0] != "X"
}

// alive reports whether there is such a process.
func alive(pid int) bool {
	_, ok := stat(pid)
	return ok
}
