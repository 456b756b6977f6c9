// Package runner is the daemon's side of the runner: it starts one in a tmux session, talks to it over its socket, and
// reads what it left in runs/. It decides nothing about a dispatch, and writes nothing but an attempt's
// folder, its FIFO and its revocation.
package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"cortex"
	"cortex/internal/fault"
	"cortex/runner/record"
	"cortex/tmux"
)

// ErrNotReady says that a started runner has not answered. Whether the attempt runs, or may still run, is for the claim to
// say: Revoke it or find it taken.
var ErrNotReady = errors.New("the runner has not answered")

// sessionLook is how often a start looks whether its session is still there while it waits for the runner's word.
const sessionLook = time.Second

// Launcher starts runners.
type Launcher struct {
	Runs   string // the folder runs/
	Binary string // cortex-runner
	Tmux   *tmux.Client
	Log    *slog.Logger
}

// Start makes the attempt's folder and opens its session. It returns once the runner's socket answers, or with the
// session that was opened, if one was, and an error: then only the claim tells what became of the attempt.
func (l *Launcher) Start(ctx context.Context, at cortex.Attempt) (tmux.Session, error) {
	d := at.Dispatch
	dir, err := record.MakeDir(l.Runs, d.ID, at.Number)
	if err != nil {
		return tmux.Session{}, err
	}
	defer dir.Close()
	ready, err := openReady(dir)
	if err != nil {
		return tmux.Session{}, err
	}
	defer ready.Close()

	fault.Point("start.session")
	session, err := l.Tmux.NewSession(ctx, tmux.New{
		Name: SessionName(d.Project, d.BeadID, d.ID),
		Argv: func(name string) []string {
			return []string{l.Binary, l.Runs, strconv.FormatInt(d.ID, 10), strconv.Itoa(at.Number), name}
		},
		Tag: dir.Path(),
	})
	if err != nil {
		return tmux.Session{}, fmt.Errorf("open a session for dispatch %d: %w", d.ID, err)
	}
	fault.Point("start.ready")
	return session, l.awaitReady(ctx, ready, session)
}

// openReady makes the FIFO through which the runner says that its socket answers, and opens it for both ways, so that
// reading it waits for that word instead of ending when nobody has it open (fifo(7)).
func openReady(dir *record.Dir) (*os.File, error) {
	if err := dir.Remove(record.ReadyFIFO); err != nil {
		return nil, err
	}
	if err := unix.Mkfifo(dir.SocketPath(record.ReadyFIFO), 0o600); err != nil {
		return nil, &os.PathError{Op: "mkfifo", Path: dir.Path(), Err: err}
	}
	return dir.Open(record.ReadyFIFO, unix.O_RDWR|unix.O_NONBLOCK, 0)
}

// awaitReady waits for the runner's word. A runner that could not even be executed leaves no word, only a session that is
// gone: that is looked for now and then.
func (l *Launcher) awaitReady(ctx context.Context, ready *os.File, session tmux.Session) error {
	stop := context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for gone := false; ; {
		ready.SetReadDeadline(time.Now().Add(sessionLook))
		if ctx.Err() != nil { // the line above may have overwritten the deadline that says so
			return fmt.Errorf("%w: %w", ErrNotReady, context.Cause(ctx))
		}
		_, err := ready.Read(make([]byte, 1))
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("wait for the runner: %w", err)
		case gone: // one more look at the FIFO after the session was seen to be gone, and still nothing
			return fmt.Errorf("%w: its session ended (can %s be executed?)", ErrNotReady, l.Binary)
		}
		gone = ctx.Err() == nil && l.sessionGone(ctx, session)
	}
}

func (l *Launcher) sessionGone(ctx context.Context, want tmux.Session) bool {
	sessions, err := l.Tmux.Sessions(ctx)
	if err != nil {
		l.Log.Warn("can't list tmux sessions", "session", want.Name, "err", err)
		return false
	}
	for _, s := range sessions {
		if s.Server == want.Server && s.ID == want.ID {
			return false
		}
	}
	return true
}
