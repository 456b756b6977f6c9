// Package tmux opens, lists and ends sessions on the user's tmux server, over one control-mode connection. It is the only
// caller of the tmux binary and the only place that may start a tmux server. It knows nothing of dispatches, changes nothing
// global of the server that it talks to, and ends no session but the ones it is told to end and its own control session.
package tmux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Errors that callers tell apart.
var (
	// ErrUnavailable: no tmux binary, a server that won't start, a socket folder that can't be used, or a configuration
	// that ends every new session. Nothing was opened.
	ErrUnavailable = errors.New("tmux is not available")
	// ErrVersion: the server that runs speaks the protocol of another version than the binary, which was replaced under it.
	// It comes with ErrUnavailable.
	ErrVersion = errors.New("the tmux server is of another version than the program")
	// ErrHung: no answer within the caller's context or answerTimeout. Where the command was already on its way the error
	// is ErrLostReply, too.
	ErrHung = errors.New("tmux does not answer")
	// ErrLostReply: the connection or the server went away, or the caller stopped waiting, after the command was sent and
	// before its answer came. The session may or may not exist.
	ErrLostReply = errors.New("unknown whether tmux has done it")
	// ErrRefused: tmux answered, and said no.
	ErrRefused = errors.New("tmux refused")
	// ErrNotOurs: Kill was given a session whose owner or tag is another now.
	ErrNotOurs = errors.New("the session is not the one it was")
	// ErrClosed: the Client was closed.
	ErrClosed = errors.New("tmux client closed")
)

// answerTimeout bounds each call: a server that is alive answers within milliseconds. Its configuration counts, too, where
// the server must be started first; the start then goes on, and a later call finds it.
const answerTimeout = 5 * time.Second

// Options of a Client. The zero value means the user's default server.
type Options struct {
	Binary  string       // tmux where empty; looked up in PATH
	Socket  string       // path of a server's socket (tmux -S); empty: the default server (tmux -L default)
	Owner   string       // value of the user option @cortex on our sessions: the state folder
	Environ []string     // environment of the tmux client and of a server that it starts; nil: os.Environ()
	Log     *slog.Logger // nil: slog.Default()
}

// Client talks to one tmux server, and to the next one after that went away. Its methods may be called from anywhere.
type Client struct {
	binary, socket, owner string
	environ               []string
	log                   *slog.Logger
	lost                  chan Server

	life context.Context // ended by Close
	end  context.CancelFunc
	wg   sync.WaitGroup // connection attempts, watchers, connections

	mu       sync.Mutex
	closed   bool            // guarded by mu
	attempt  *attempt        // guarded by mu: the connection, the way to it, or why there is none
	last     Server          // guarded by mu: the server that was last connected to
	watched  map[Server]bool // guarded by mu: servers whose end somebody waits for
	sessions int             // guarded by mu: how many the last list had
}

// attempt is one try to connect, and what came of it. Callers that come meanwhile share it; it outlives their contexts, so
// that a server that takes long over its configuration is connected to once and not over and over.
type attempt struct {
	mayStart bool // a server is started where none runs
	since    time.Time
	ready    chan struct{} // closed when conn or err is set
	conn     *conn
	err      error
}

// over reports whether a new attempt is due. A connection that is about to end is waited for: its control session has the
// name that the next one wants.
func (a *attempt) over() bool {
	select {
	case <-a.ready:
	default:
		return false
	}
	if a.err != nil {
		return true
	}
	select {
	case <-a.conn.done:
		return true
	default:
		return false
	}
}

// NewClient returns a Client that is not connected: the first call that needs a server connects.
func NewClient(o Options) *Client {
	if o.Binary == "" {
		o.Binary = "tmux"
	}
	if o.Environ == nil {
		o.Environ = os.Environ()
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	c := &Client{
		binary:  o.Binary,
		socket:  o.Socket,
		owner:   optionValue(o.Owner),
		environ: environment(o.Environ),
		log:     o.Log,
		lost:    make(chan Server, 16),
		watched: map[Server]bool{},
	}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// Lost gives each server that the Client was connected to and whose process has ended. It is never closed.
func (c *Client) Lost() <-chan Server { return c.lost }

// Close ends the connection and its control session, and returns when nothing of it is left. Other sessions run on. Calls
// that are under way fail. It takes a few seconds where the server does not answer.
func (c *Client) Close() error {
	c.mu.Lock()
	a, first := c.attempt, !c.closed
	c.closed = true
	c.mu.Unlock()
	if a != nil && first {
		c.closeAttempt(a)
	}
	c.end()
	c.wg.Wait()
	return nil
}

// closeAttempt ends what a came to. One that is still on its way is ended with life.
func (c *Client) closeAttempt(a *attempt) {
	select {
	case <-a.ready:
		if a.err == nil {
			a.conn.close()
		}
	default:
	}
}

// connect returns the connection, and makes one where there is none. Without mayStart it is errNoServer where no server runs.
func (c *Client) connect(ctx context.Context, mayStart bool) (*conn, error) {
	for {
		a, err := c.current(mayStart)
		if err != nil {
			return nil, err
		}
		select {
		case <-a.ready:
		case <-ctx.Done():
			return nil, hung(ctx, "connecting")
		}
		if mayStart && !a.mayStart && errors.Is(a.err, errNoServer) {
			continue // somebody only looked; current makes an attempt that may start one
		}
		return a.conn, a.err
	}
}

// current returns the attempt that is under way or stands, and begins one where there is none.
func (c *Client) current(mayStart bool) (*attempt, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if c.attempt == nil || c.attempt.over() {
		a := &attempt{mayStart: mayStart, since: time.Now(), ready: make(chan struct{})}
		c.attempt = a
		c.wg.Go(func() {
			a.conn, a.err = c.establish(c.life, mayStart)
			close(a.ready)
			if errors.Is(a.err, ErrVersion) {
				c.wg.Go(c.lookAgain)
			}
			if a.err != nil {
				return
			}
			select {
			case <-a.conn.done:
			case <-c.life.Done():
				a.conn.close()
			}
		})
	}
	return c.attempt, nil
}

// lookAgain makes another attempt after a while: nobody tells when the old server has ended or the old binary is back.
func (c *Client) lookAgain() {
	t := time.NewTimer(answerTimeout)
	defer t.Stop()
	select {
	case <-t.C:
		c.current(false) // whatever comes of it, Check tells
	case <-c.life.Done():
	}
}

// run sends commands as one sequence and returns their replies, fewer than there are commands where one failed, and the
// connection they went over. What was surely not sent, because the connection had ended, goes over the next one.
func (c *Client) run(ctx context.Context, mayStart bool, commands ...[]string) ([]reply, *conn, error) {
	for {
		conn, err := c.connect(ctx, mayStart)
		if err != nil {
			return nil, nil, err
		}
		replies, err := conn.do(ctx, commands...)
		if !errors.Is(err, errNotSent) {
			return replies, conn, err
		}
		select {
		case <-conn.done:
		case <-ctx.Done():
			return nil, nil, hung(ctx, "the connection ended")
		}
	}
}

// deadline bounds a call.
func deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, answerTimeout)
}

// hung is the error of a caller that waited until its context ended, before anything was sent.
func hung(ctx context.Context, what string) error {
	return fmt.Errorf("%w (%s: %w)", ErrHung, what, context.Cause(ctx))
}
