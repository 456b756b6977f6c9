package pane

import (
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is the agent's process, and whoever else became this one's child: as a subreaper it is the parent of all that were
// orphaned below it. Any goroutine may use it: the loop and a sweep do.
type child struct {
	pid int // 0: never started

	mu     sync.Mutex
	ended  bool // reaped, so that its pid and group may be others' now; guarded by mu, as are the next three
	status unix.WaitStatus
	usage  unix.Rusage
	at     time.Time
}

// reap takes the status of every child that has ended. Alone: there is no child any more, and since whoever is orphaned
// below would be one, nothing at all is left.
func (c *child) reap() (alone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var status unix.WaitStatus
		var usage unix.Rusage
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG|unix.WALL, &usage)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return true // ECHILD: there is no other error for these arguments (wait(2))
		case pid <= 0:
			return false
		case pid == c.pid && !c.ended:
			c.ended, c.status, c.usage, c.at = true, status, usage, time.Now()
		}
	}
}

// over reports whether the agent has ended.
func (c *child) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid == 0 || c.ended
}

// signal sends sigs to the agent's process group. Errors: ESRCH when the agent has been reaped (the group's id may be
// another's), or of kill(2). EPERM means that not one member could be signalled.
func (c *child) signal(sigs ...syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pid == 0 || c.ended {
		return unix.ESRCH
	}
	for _, sig := range sigs {
		if err := unix.Kill(-c.pid, sig); err != nil {
			return err
		}
	}
	return nil
}
