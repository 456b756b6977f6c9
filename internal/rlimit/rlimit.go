// Package rlimit says what the limits on this process and its user leave (getrlimit(2)), and which part of them is kept for
// cortex itself. It holds nothing back: that is for the callers.
package rlimit

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Scarce reports whether err is of a call that failed for want of descriptors or memory: it says nothing about what was asked.
func Scarce(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// Descriptors is how many descriptors this process has open, and how many it may have (RLIMIT_NOFILE).
func Descriptors() (used, limit int, err error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, 0, os.NewSyscallError("getrlimit", err)
	}
	limit = int(min(r.Cur, 1<<30)) // the kernel's own bound, fs.nr_open, is below
	st, err := os.Stat("/proc/self/fd")
	if err != nil {
		return 0, limit, fmt.Errorf("count open descriptors: %w", err)
	}
	if st.Size() > 0 { // since Linux 6.2 the number (proc(5))
		return int(st.Size()), limit, nil
	}
	open, err := os.ReadDir("/proc/self/fd")
	switch {
	case errors.Is(err, unix.EMFILE):
		return limit, limit, nil
	case err != nil:
		return 0, limit, fmt.Errorf("count open descriptors: %w", err)
	}
	return len(open) - 1, limit, nil // but for the one that this took
}

// DescriptorReserve is how many of a limit stay free for the daemon's own work: what is opened for a moment to read records
// and /proc, for tmux and for SQLite.
func DescriptorReserve(limit int) int { return min(limit/4, 32) }

// keptProcesses bounds the tasks of this user that no agent can use up: cortex needs threads, and tmux forks.
const keptProcesses = 64

// Agents is RLIMIT_NPROC for an agent: the soft limit is lowered, so that an agent that forks without end is refused while
// the daemon, tmux and the runners still get what they need. A Go program that gets no thread aborts.
func Agents() (own, agents unix.Rlimit, err error) {
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &own); err != nil {
		return own, own, os.NewSyscallError("getrlimit", err)
	}
	agents = own
	if own.Cur != unix.RLIM_INFINITY {
		agents.Cur -= min(own.Cur/4, keptProcesses)
	}
	return own, agents, nil
}
