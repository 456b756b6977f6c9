package tmux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

var errGone = errors.New("the tmux server has ended")

// Server is one tmux server process. Start tells it from a later one with the same pid.
type Server struct {
	PID     int
	Start   uint64 // field 22 of /proc/<pid>/stat (proc(5)): clock ticks since boot; 0 where it can't be read
	Version string // "3.3a"
}

// same reports whether s and o are one process.
func (s Server) same(o Server) bool { return s.PID == o.PID && s.Start == o.Start }

// startTime reads field 22 of /proc/<pid>/stat. The second field is the command's name in parentheses, which may hold
// anything: the others are counted from its end.
func startTime(pid int) (uint64, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields after the name", pid, len(fields))
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// process is a server's process, held by a pidfd so that its pid can't become another's.
type process struct{ f *os.File }

// hold returns s's process, or errGone.
func hold(s Server) (*process, error) {
	fd, err := unix.PidfdOpen(s.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, errGone
	} else if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", s.PID, err)
	}
	// A non-blocking one is waited for by the runtime's poller instead of a thread (PIDFD_NONBLOCK is Linux 5.10).
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("pidfd of %d: %w", s.PID, err)
	}
	p := &process{os.NewFile(uintptr(fd), "pidfd")}
	start, err := startTime(s.PID)
	if err != nil || start != s.Start {
		p.close()
		return nil, errGone
	}
	return p, nil
}

func (p *process) close() { p.f.Close() }

// ended waits until the process ends (true), d is over (false; 0 is for ever) or ctx ends (its error). A pidfd becomes
// readable at the end (pidfd_open(2)).
func (p *process) ended(ctx context.Context, d time.Duration) (bool, error) {
	var end time.Time
	if d > 0 {
		end = time.Now().Add(d)
	}
	if err := p.f.SetReadDeadline(end); err != nil {
		return false, fmt.Errorf("wait for the tmux server: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		if err := p.f.SetReadDeadline(time.Unix(1, 0)); err != nil {
			p.f.Close() // ends the wait, too
		}
	})
	defer stop()
	raw, err := p.f.SyscallConn()
	if err != nil {
		return false, err
	}
	ended := false
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		ended = err == nil && n == 1
		return ended
	})
	switch {
	case ended:
		return true, nil
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	}
	return false, fmt.Errorf("wait for the tmux server: %w", err)
}

func (p *process) signal(sig unix.Signal) error {
	raw, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if errors.Is(sent, unix.ESRCH) {
		sent = errGone
	}
	return errors.Join(err, sent)
}

// watch reports s's end on c.lost, once, whether or not a connection stands then. The caller holds c.mu.
func (c *Client) watch(s Server, conn *conn) {
	if c.watched[s] {
		return
	}
	c.watched[s] = true
	c.wg.Go(func() {
		if !c.awaitEnd(s, conn) {
			return
		}
		c.mu.Lock()
		delete(c.watched, s)
		c.mu.Unlock()
		c.log.Warn("the tmux server has ended", "pid", s.PID)
		select {
		case c.lost <- s:
		default:
			c.log.Error("nobody takes note of tmux servers that have ended", "pid", s.PID)
		}
	})
}

// awaitEnd returns true when s has ended, false when the Client is closed. A server that can't be watched (in another pid
// namespace, say) counts as ended when its connection is.
func (c *Client) awaitEnd(s Server, conn *conn) bool {
	proc, err := hold(s)
	if err == nil {
		defer proc.close()
		var ended bool
		if ended, err = proc.ended(c.life, 0); ended {
			return true
		}
	}
	switch {
	case c.life.Err() != nil:
		return false
	case errors.Is(err, errGone):
		return true
	}
	c.log.Warn("can't watch the tmux server, only the connection to it", "pid", s.PID, "err", err)
	select {
	case <-conn.done:
		return c.life.Err() == nil
	case <-c.life.Done():
		return false
	}
}
