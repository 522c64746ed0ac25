//go:build unix && !linux

package servers

import "syscall"

// Elsewhere a server outlives a test binary that is killed, and its processes are
// not found.

func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}
func children(int) []int                                 { return nil }
func alive(pid int) bool                                 { return syscall.Kill(pid, 0) == nil }
