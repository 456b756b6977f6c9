package pane

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cortex/runner/record"
)

const (
	bufferSize  = 32 << 10 // bytes read from the agent at once
	typedSize   = 1 << 10  // bytes read from the pane at once
	drainAtMost = 4 << 20  // bytes taken after the end: a process that isn't ours may hold the pty and write for ever
	quiet       = 100 * time.Millisecond
)

// copier carries what the agent says from its pty to the log, and then to the pane; and what is typed from the pane to the
// pty. It has two goroutines, which finish and close wait for.
type copier struct {
	pty    *terminal
	log    *record.LogWriter
	screen *screen
	began  time.Time

	gone     chan struct{} // closed when the pane is
	trouble  chan error    // what the log lost last; nil when it goes on
	stop     chan struct{} // closed by finish
	said     chan struct{} // closed when the log is
	typed    chan struct{} // closed when typing has ended
	closeErr error         // of the log; to be read after said
}

func startCopying(p *terminal, log *record.LogWriter, s *screen, began time.Time) *copier {
	c := &copier{
		pty: p, log: log, screen: s, began: began,
		gone: make(chan struct{}), trouble: make(chan error, 1),
		stop: make(chan struct{}), said: make(chan struct{}), typed: make(chan struct{}),
	}
	go c.fromAgent()
	go c.fromPane()
	return c
}

// fromAgent is a goroutine. Only the log's disk can make it wait, never the pane.
func (c *copier) fromAgent() {
	defer close(c.said)
	conn, err := c.pty.master.SyscallConn()
	if err == nil {
		err = c.copyAll(conn)
	}
	c.closeErr = errors.Join(err, c.log.Close())
}

func (c *copier) copyAll(conn syscall.RawConn) error {
	buf := make([]byte, bufferSize)
	var n int
	var lost bool
	var rerr error
	fill := func(fd uintptr) bool {
		n, rerr = fillFrom(int(fd), buf)
		return n > 0 || rerr != unix.EAGAIN
	}
	for {
		err := conn.Read(fill)
		if err != nil { // the deadline that finish sets
			break
		}
		lost = c.keep(buf[:n], lost)
		if rerr != nil && rerr != unix.EAGAIN && !c.pause() {
			break
		}
	}
	// What the agent wrote before it ended is there: a read that finds nothing waits for the kernel's worker that carries
	// it over (n_tty_read: tty_buffer_flush_work).
	for drained := 0; drained < drainAtMost; drained += n {
		if err := conn.Control(func(fd uintptr) { n, _ = fillFrom(int(fd), buf) }); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		lost = c.keep(buf[:n], lost)
	}
	return nil
}

// fillFrom reads until there is no more, or no more room: the fewer writes the better for log and timing.
func fillFrom(fd int, buf []byte) (int, error) {
	n := 0
	for n < len(buf) {
		got, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		if got == 0 {
			return n, unix.EIO
		}
		n += got
	}
	return n, nil
}

// keep writes p to the log and shows it. It tells the loop when the log begins to lose bytes, and when it goes on.
func (c *copier) keep(p []byte, lost bool) bool {
	if len(p) == 0 {
		return lost
	}
	err := c.log.Write(p, time.Since(c.began))
	if (err != nil) != lost {
		select {
		case <-c.trouble: // not taken yet, and not so any more
		default:
		}
		c.trouble <- err
	}
	c.screen.show(p)
	return err != nil
}

// pause waits a moment after an error of the pty (the agent has hung it up, say with vhangup(2)); false when copying is to
// end.
func (c *copier) pause() bool {
	t := time.NewTimer(quiet)
	defer t.Stop()
	select {
	case <-c.stop:
		return false
	case <-t.C:
		return true
	}
}

// fromPane is a goroutine. An agent that does not read makes it wait, and nothing else.
func (c *copier) fromPane() {
	defer close(c.typed)
	if c.screen.in == nil {
		return
	}
	buf := make([]byte, typedSize)
	for {
		n, err := c.screen.in.Read(buf)
		if n > 0 {
			// An error is that of a pty that was hung up or closed: there is nobody to type to.
			c.pty.master.Write(buf[:n])
		}
		if err != nil {
			select {
			case <-c.stop:
			default:
				close(c.gone) // its other side is closed
			}
			return
		}
	}
}

// finish takes the rest of what was said into the log, closes that, and ends both goroutines. The error is the log's.
func (c *copier) finish() error {
	close(c.stop)
	now := time.Now()
	err := c.pty.master.SetDeadline(now)
	if c.screen.in != nil {
		// Where that is not possible the pane's end ends the reader.
		if derr := c.screen.in.SetReadDeadline(now); !errors.Is(derr, os.ErrNoDeadline) {
			err = errors.Join(err, derr)
		}
	}
	<-c.said
	return errors.Join(err, c.closeErr)
}

// close waits for the typing to end, after the pty and the pane were closed.
func (c *copier) close() { <-c.typed }
