package tmux

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// errNotSent: the connection has ended, and the command did not go over it.
var errNotSent = errors.New("the connection to tmux has ended")

const (
	// maxInFlight is how many requests wait for their answers at once. What is in the pipe of a server that hangs is done
	// when it goes on, whoever has given up meanwhile: so not too much is put there.
	maxInFlight = 16
	// drainTime is how long the rest of the output of a client that has ended is read: the server holds the pipe open,
	// too, and one that is stopped does not close it.
	drainTime = time.Second
	// closeTimeout is how long the control session gets to end, and then the client, before it is killed.
	closeTimeout = time.Second
)

// conn is one control-mode client: a process, a goroutine that writes to it, one that reads from it, and one that waits for
// its end and for the other two. Requests are answered in the order in which they are written.
type conn struct {
	log    *slog.Logger
	cmd    *exec.Cmd
	in     *os.File // its standard input: its end ends the client
	out    *os.File
	stderr *tail

	server         Server // these four are set by the handshake, before anybody else has the conn
	session        string // id of the control session
	socket         string
	exitUnattached bool // the server ends when its last client goes, with all sessions

	wake    chan struct{} // something may be written now
	ending  chan struct{} // closed when no more may be
	done    chan struct{} // closed when process and goroutines are over
	opened  chan struct{} // closed when the client is in a session
	opening sync.Once
	closing sync.Once

	mu     sync.Mutex
	queue  []*request  // guarded by mu: not yet written
	sent   []*request  // guarded by mu: written, not yet answered
	late   int         // guarded by mu: how many of sent nobody waits for any more
	over   bool        // guarded by mu: no more requests are taken
	killer *time.Timer // guarded by mu: kills the client; set when over
	said   []string    // guarded by mu: the last messages outside of answers, for the error
}

// request is one line of commands and what came back.
type request struct {
	line    string
	want    int // number of commands
	sentAt  time.Time
	late    bool // its caller has given up
	replies []reply
	err     error
	done    chan struct{} // closed when replies or err is set
}

// newConn starts the client process and takes over its pipes.
func newConn(cmd *exec.Cmd, log *slog.Logger) (*conn, error) {
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, childOut, err := os.Pipe()
	if err != nil {
		childIn.Close()
		in.Close()
		return nil, err
	}
	c := &conn{
		log: log, cmd: cmd, in: in, out: out, stderr: &tail{max: 2048},
		wake: make(chan struct{}, 1), ending: make(chan struct{}), done: make(chan struct{}), opened: make(chan struct{}),
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = childIn, childOut, c.stderr
	cmd.WaitDelay = drainTime
	err = cmd.Start()
	childIn.Close()
	childOut.Close()
	if err != nil {
		in.Close()
		out.Close()
		return nil, err
	}
	go c.own()
	return c, nil
}

// own waits for the process and for the goroutines, and then answers what is left. Who has the conn waits for done.
func (c *conn) own() {
	var wg sync.WaitGroup
	wg.Go(c.write)
	read := make(chan struct{})
	wg.Go(func() {
		defer close(read)
		c.read()
	})

	if err := c.cmd.Wait(); err != nil {
		c.note(err.Error())
	}
	c.stop().Stop()
	if err := c.out.SetReadDeadline(time.Now().Add(drainTime)); err != nil {
		c.log.Warn("can't bound reading from tmux", "err", err)
	}
	<-read
	wg.Wait()
	c.out.Close()
	c.failAll()
	close(c.done)
}

// stop lets no more requests in and closes the client's standard input, which ends it. It returns the timer that kills a
// client that does not end.
func (c *conn) stop() *time.Timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.over = true
		close(c.ending)
		c.in.Close()
		c.killer = time.AfterFunc(closeTimeout, c.kill)
	}
	return c.killer
}

// kill ends a client that hangs, as it does where its server is stopped. Its session goes as soon as the server notices.
func (c *conn) kill() {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		c.log.Error("can't kill the tmux client", "pid", c.cmd.Process.Pid, "err", err)
	}
}

func (c *conn) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

// do sends commands as one sequence and waits for their replies.
func (c *conn) do(ctx context.Context, commands ...[]string) ([]reply, error) {
	r := &request{line: sequence(commands...), want: len(commands), done: make(chan struct{})}
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return nil, errNotSent
	}
	c.queue = append(c.queue, r)
	c.mu.Unlock()
	c.poke()
	select {
	case <-r.done:
		return r.replies, r.err
	case <-ctx.Done():
		return c.giveUp(ctx, r)
	}
}

// giveUp takes r back where it was not written yet, and marks it as late otherwise: its answer is still matched.
func (c *conn) giveUp(ctx context.Context, r *request) ([]reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-r.done:
		return r.replies, r.err
	default:
	}
	for i, q := range c.queue {
		if q == r {
			c.queue = append(c.queue[:i:i], c.queue[i+1:]...)
			return nil, hung(ctx, "not sent")
		}
	}
	r.late = true
	c.late++
	return nil, fmt.Errorf("%w: %w (sent: %w)", ErrHung, ErrLostReply, context.Cause(ctx))
}

// awaitOpen waits until the client is in its session. Nothing may be written before: the server reads from the client's
// standard input as soon as it knows the client, and does what it finds there before the command that the client was started
// with (seen in 3.3a, in one of eight starts).
func (c *conn) awaitOpen(ctx context.Context) error {
	select {
	case <-c.opened:
		return nil
	case <-c.done:
		return errNotSent
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// poke wakes the writer.
func (c *conn) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// write is the only writer.
func (c *conn) write() {
	for {
		select {
		case <-c.wake:
		case <-c.ending:
			return
		}
		if text := c.next(); text != "" {
			if _, err := c.in.WriteString(text); err != nil {
				c.note(err.Error())
				c.stop()
				return
			}
		}
	}
}

// next moves what may be written from queue to sent. While an answer is overdue nothing more is: the server hangs, and
// would do all of it when it goes on, long after the callers have decided otherwise.
func (c *conn) next() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for len(c.queue) > 0 && len(c.sent) < maxInFlight && c.late == 0 {
		r := c.queue[0]
		c.queue = c.queue[1:]
		r.sentAt = time.Now()
		c.sent = append(c.sent, r)
		b.WriteString(r.line)
	}
	return b.String()
}

// read is the only reader.
func (c *conn) read() {
	defer c.stop()
	in := bufio.NewReaderSize(c.out, 64<<10)
	for p := (parser{}); ; {
		line, err := in.ReadString('\n')
		if err != nil { // the end of the output, or of the time for it; the process's own end tells why
			return
		}
		switch e := p.line(strings.TrimSuffix(line, "\n")); {
		case e.kind == eventReply && e.ours:
			c.answer(e.reply)
		case e.kind == eventReply && e.reply.failed, e.kind == eventText:
			c.note(e.reply.text() + e.text)
		case e.kind == eventNotification && strings.HasPrefix(e.text, "%session-changed "):
			c.opening.Do(func() { close(c.opened) })
		case e.kind == eventExit:
			c.note(e.text)
			return
		}
	}
}

// answer gives a reply to the oldest request, which is answered when all its commands are, or one failed: tmux drops the
// rest of a sequence then.
func (c *conn) answer(r reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sent) == 0 {
		c.log.Warn("tmux answered what was not asked", "text", r.text())
		return
	}
	q := c.sent[0]
	q.replies = append(q.replies, r)
	if len(q.replies) < q.want && !r.failed {
		return
	}
	c.sent = c.sent[1:]
	if q.late {
		c.late--
	}
	close(q.done)
	if len(c.queue) > 0 {
		c.poke()
	}
}

// failAll answers what never got an answer.
func (c *conn) failAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.sent {
		r.err = fmt.Errorf("%w: the connection ended%s", ErrLostReply, c.reason())
		close(r.done)
	}
	for _, r := range c.queue {
		r.err = errNotSent
		close(r.done)
	}
	c.sent, c.queue = nil, nil
}

// overdue returns for how long the oldest answer is awaited; 0 where none is.
func (c *conn) overdue() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sent) == 0 {
		return 0
	}
	return time.Since(c.sent[0].sentAt)
}

// close ends the control session, and with it the client, and waits for both.
func (c *conn) close() {
	c.closing.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if c.session != "" {
			_, err := c.do(ctx, []string{"kill-session", "-t", c.session})
			if errors.Is(err, ErrHung) { // else the end of the connection came before its answer
				c.log.Warn("the tmux control session stays until the next connection ends it", "err", err)
			}
		}
		c.stop()
	})
	<-c.done
}

// note keeps a message for the error that is made of the connection's end.
func (c *conn) note(text string) {
	if text == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.said = append(c.said, text); len(c.said) > 4 {
		c.said = c.said[1:]
	}
}

// reason is what the client said before it ended, to be appended to an error. The caller holds mu or waited for done.
func (c *conn) reason() string {
	said := c.said
	if text := strings.TrimSpace(c.stderr.String()); text != "" {
		said = append(said[:len(said):len(said)], text)
	}
	if len(said) == 0 {
		return ""
	}
	return ": " + strings.Join(said, "; ")
}

// tail is a Writer that keeps the last max bytes.
type tail struct {
	max int
	mu  sync.Mutex
	buf []byte // guarded by mu
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append([]byte(nil), t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
