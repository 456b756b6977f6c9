package runner

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cortex/runner/record"
)

// Errors of a connection.
var (
	// ErrGone says that nobody listens on the runner's socket: it has ended or died, or has not begun.
	ErrGone = errors.New("the runner does not listen")
	// ErrSilent says that the runner has not answered in time: it may be stopped, and is not known to be dead.
	ErrSilent = errors.New("the runner does not answer")
)

// Refusal is the error of a runner that understands what it is asked for, and does not do it.
type Refusal struct {
	Op  string // of record
	Why string
}

func (e *Refusal) Error() string { return "the runner refuses to " + e.Op + ": " + e.Why }

// maxMessage bounds a line of the runner's, so that whoever else listens on its socket can't fill the daemon's memory.
const maxMessage = 1 << 20

// Conn is a connection to a runner. Its methods may be called from any goroutine.
type Conn struct {
	conn   *net.UnixConn
	states chan record.State
	done   chan struct{} // closed when the reader has ended

	mu      sync.Mutex
	seq     int64                 // guarded by mu
	replies map[int64]chan string // guarded by mu; the error text of a reply, "" for none
}

// Connect connects to the runner of an attempt. want is the runner's identity by its claim: another process behind the
// socket is refused as ErrGone, unless the claim is damaged and want empty. ctx bounds the connecting alone.
func Connect(ctx context.Context, runs string, id int64, attempt int, want record.Process) (*Conn, error) {
	dir, err := record.OpenDir(runs, id, attempt)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", dir.SocketPath(record.Socket))
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTSOCK):
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("%w: %w", ErrSilent, err) // its backlog is full
	case err != nil:
		return nil, fmt.Errorf("connect to %s: %w", dir.Path(), err)
	}
	uc := c.(*net.UnixConn)
	if pid, err := peerPID(uc); err != nil || (pid != 0 && want.PID != 0 && pid != want.PID) {
		uc.Close()
		return nil, fmt.Errorf("%w: process %d listens there, the claim names %d (%v)", ErrGone, pid, want.PID, err)
	}
	conn := &Conn{
		conn: uc, states: make(chan record.State, 1), done: make(chan struct{}), replies: map[int64]chan string{},
	}
	go conn.read()
	return conn, nil
}

// peerPID is the pid of the process that listens, as seen from here; 0 when it is in a pid namespace that isn't ours.
func peerPID(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if cerr != nil {
		return 0, cerr
	}
	return int(cred.Pid), nil
}

// States carries what the runner says of itself, the newest only: a reader that is slow misses older ones. It is closed
// when the connection ends, which is how the runner's end is learnt at once.
func (c *Conn) States() <-chan record.State { return c.states }

// Close closes the connection and waits for its reader. The runner is not disturbed.
func (c *Conn) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

func (c *Conn) read() {
	defer close(c.done)
	defer c.hangUp()
	defer close(c.states)
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(make([]byte, 0, 4096), maxMessage)
	for lines.Scan() {
		var m record.Message
		if json.Unmarshal(lines.Bytes(), &m) != nil || m.Format > record.Format {
			return // whoever this is, it is no runner that can be understood; its files are read when it ends
		}
		if m.State != nil {
			c.publish(*m.State)
		}
		if m.Seq != 0 {
			c.reply(m.Seq, m.Error)
		}
	}
}

// publish replaces a state that nobody has read yet. There is one reader goroutine, so that the second send can't block.
func (c *Conn) publish(s record.State) {
	select {
	case <-c.states:
	default:
	}
	c.states <- s
}

func (c *Conn) reply(seq int64, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch, ok := c.replies[seq]; ok {
		ch <- text
		delete(c.replies, seq)
	}
}

// forget drops a question that nobody waits for any more.
func (c *Conn) forget(seq int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.replies, seq)
}

// hangUp tells whoever still waits for a reply that none will come.
func (c *Conn) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for seq, ch := range c.replies {
		close(ch)
		delete(c.replies, seq)
	}
	c.replies = nil
}

// Stop asks the runner to end its dispatch: signal (0: SIGTERM) to the agent's process group, grace, then the whole tree.
// It returns when the runner has taken the order. Errors: ErrGone, ErrSilent when ctx ends first, or the runner's refusal.
func (c *Conn) Stop(ctx context.Context, signal syscall.Signal, grace time.Duration) error {
	ms := grace.Milliseconds()
	if ms <= 0 {
		ms = record.NoGrace
	}
	return c.ask(ctx, record.Request{Op: record.OpStop, Signal: int(signal), GraceMS: ms})
}

func (c *Conn) ask(ctx context.Context, req record.Request) error {
	answer := make(chan string, 1)
	c.mu.Lock()
	if c.replies == nil {
		c.mu.Unlock()
		return ErrGone
	}
	c.seq++
	req.Format, req.Seq = record.Format, c.seq
	c.replies[req.Seq] = answer
	c.mu.Unlock()
	defer c.forget(req.Seq)

	line, err := json.Marshal(req)
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		c.conn.SetWriteDeadline(deadline)
	}
	switch _, err := c.conn.Write(append(line, '\n')); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrSilent, err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	select {
	case text, ok := <-answer:
		switch {
		case !ok:
			return ErrGone
		case text != "":
			return &Refusal{Op: req.Op, Why: text}
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrSilent, context.Cause(ctx))
	}
}
