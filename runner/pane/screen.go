package pane

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Bounds of what is shown, in bytes.
const (
	maxPending = 256 << 10 // waits for a slow pane; more is dropped, for the pane only
	keepBuffer = 64 << 10  // a larger buffer is given back when it has been shown
)

// lastLook is how long the runner's end waits for the pane to take the agent's last words.
const lastLook = 200 * time.Millisecond

// screen is the pane that the runner runs in: where the agent's output is shown and typing comes from. It is never waited
// for. What is no terminal is written to, but not read from.
type screen struct {
	in     *os.File // nil where nobody can type
	out    *os.File
	before *term.State // of the terminal, to be restored

	wake    chan struct{} // closed by close
	written chan struct{} // closed when the writer has ended

	mu      sync.Mutex
	pending []byte // guarded by mu
	spare   []byte // guarded by mu
}

// openScreen takes the pane over. It is opened anew where it is a terminal: O_NONBLOCK, which lets reads and writes be
// interrupted, would else be set for everybody who has inherited it.
func openScreen() *screen {
	s := &screen{out: os.Stdout, wake: make(chan struct{}, 1), written: make(chan struct{})}
	if out, err := reopen("/proc/self/fd/1"); err == nil {
		s.out = out
	}
	if in, err := reopen("/proc/self/fd/0"); err == nil {
		s.in = in
		// Where it can't be made raw, the pane edits lines and echoes: of use still.
		if before, err := term.MakeRaw(0); err == nil {
			s.before = before
		}
	}
	go s.write()
	return s
}

var errNoTerminal = errors.New("not a terminal")

func reopen(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if !term.IsTerminal(fd) {
		return nil, errors.Join(errNoTerminal, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}

// size is 0, 0 where it has none.
func (s *screen) size() (columns, rows int) {
	ws, err := unix.IoctlGetWinsize(int(s.out.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(ws.Col), int(ws.Row)
}

// show queues p for the pane. It never waits.
func (s *screen) show(p []byte) {
	s.mu.Lock()
	if len(s.pending)+len(p) <= maxPending {
		if s.pending == nil {
			s.pending, s.spare = s.spare, nil
		}
		s.pending = append(s.pending, p...)
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write is the writer's goroutine. A pane that is gone takes nothing, and the agent's output goes on all the same.
func (s *screen) write() {
	defer close(s.written)
	gone := false
	for range s.wake {
		s.mu.Lock()
		p := s.pending
		s.pending = nil
		s.mu.Unlock()
		if !gone && len(p) > 0 {
			_, err := s.out.Write(p)
			gone = err != nil
		}
		if cap(p) <= keepBuffer {
			s.mu.Lock()
			s.spare = p[:0]
			s.mu.Unlock()
		}
	}
}

// close gives the pane back as it was, after a last moment to show what is left. Nobody may call show any more.
func (s *screen) close() error {
	// A pane that is no terminal has no deadlines, and may keep its writer: the program ends anyway.
	err := s.out.SetWriteDeadline(time.Now().Add(lastLook))
	select {
	case s.wake <- struct{}{}: // what is pending
	default:
	}
	close(s.wake)
	over := time.NewTimer(2 * lastLook)
	defer over.Stop()
	select {
	case <-s.written:
	case <-over.C:
	}
	if errors.Is(err, os.ErrNoDeadline) {
		err = nil
	}
	if s.before != nil {
		// Of a pane that is gone there is nothing to restore.
		if rerr := term.Restore(0, s.before); !errors.Is(rerr, unix.EIO) {
			err = errors.Join(err, rerr)
		}
	}
	if s.in != nil {
		err = errors.Join(err, s.in.Close())
	}
	return err
}
