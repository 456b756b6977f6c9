package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"cortex/internal/fault"
	"cortex/proc"
	"cortex/runner"
	"cortex/runner/record"
	"cortex/tmux"
)

var (
	errPaused    = errors.New("paused before it had a process")
	errLate      = errors.New("its claim hung in the database")
	errStopOrder = errors.New("the dispatch was cancelled before it had a process")
)

const (
	// startPatience bounds a start: a session that is open and a runner that says nothing for so long.
	startPatience = 30 * time.Second
	// claimPatience bounds the time between a runner's claim and its agent's process, once the start is to be given up.
	claimPatience = 5 * time.Second
)

// start brings a claimed attempt to its process. It reports whether there is something to follow.
func (f *follower) start() bool {
	spec, err := runner.Spec(f.sup.runs, f.d.ID)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, record.ErrTorn), errors.Is(err, record.ErrNewer):
		return f.neverStarted("its spec can't be read: " + err.Error())
	default: // the host's trouble (no free descriptor), not its own
		return f.resolve(fmt.Errorf("read the spec of dispatch %d: %w", f.d.ID, err))
	}
	f.limits(spec)
	ctx, cancel := context.WithTimeout(f.startCtx, startPatience)
	defer cancel()
	session, err := f.sup.launcher.Start(ctx, f.attempted())
	f.session, f.unopened = session, errors.Is(err, tmux.ErrUnavailable)
	if err == nil {
		return true
	}
	return f.resolve(err)
}

// unclaim is start for an attempt that comes too late: who ordered a pause meanwhile has his answer.
func (f *follower) unclaim() bool {
	f.unopened = true
	f.giveUp(errLate)
	return f.resolve(errLate)
}

// resolve finds out what became of a start that failed, by taking its claim: who has that, has the attempt.
func (f *follower) resolve(why error) bool {
	fault.Point("start.revoke")
	revoked, stopped := f.revoke(why)
	if stopped {
		return false
	}
	if !revoked {
		return true // a runner has it, or had it before its agent wrote there: follow that
	}
	if f.paneHasChildren() {
		// Its runner had claimed, and the claim was removed by the agent: it has begun, and is not begun again.
		f.cut = true
		return true
	}
	switch cause := context.Cause(f.startCtx); {
	case f.sup.ctx.Err() != nil: // the next daemon finds it revoked and gives it back
		return false
	case errors.Is(cause, errStopOrder):
		return f.concludeUnstarted()
	case errors.Is(cause, errPaused), errors.Is(cause, errLate):
		f.giveBack(cause.Error())
	case errors.Is(why, errNoClaim): // of an earlier daemon
		f.giveBack(why.Error())
	default:
		f.log.Error("a start failed", "err", why)
		f.sup.tellFailed(why) // first: the word of a free slot would bring the next start at once
		f.giveBack(why.Error())
	}
	return false
}

// revoke takes the attempt's claim, and tries until that is known; revoked is false where somebody has it. Stopped: the daemon
// stops first.
func (f *follower) revoke(why error) (revoked, stopped bool) {
	for {
		revoked, err := runner.Revoke(f.sup.runs, f.d.ID, f.attempt, record.Claim{Reason: why.Error(), At: time.Now()})
		if err == nil || errors.Is(err, record.ErrTorn) || errors.Is(err, record.ErrNewer) {
			return revoked, false
		}
		f.log.Error("can't revoke a start; trying again", "err", err)
		if !f.wait(time.Second) {
			return false, true
		}
	}
}

// paneHasChildren reports whether the process in the session that this start has opened has started something. While that
// can't be seen it waits.
func (f *follower) paneHasChildren() bool {
	if f.session.PanePID == 0 {
		return false
	}
	for {
		all, err := proc.All()
		if err == nil {
			return len(proc.Descendants(all, f.session.PanePID)) > 0
		}
		f.log.Error("can't see what a runner has started; trying again", "err", err)
		if !f.wait(time.Second) {
			return false
		}
	}
}

// endPane returns when the process in the session that this start has opened is gone: it has lost its claim, so that it ends
// by itself, unless it hangs. It reports false when the daemon stops first.
func (f *follower) endPane() bool {
	if f.session.PanePID == 0 {
		return true
	}
	pane, err := proc.Of(f.session.PanePID)
	for ; err != nil; pane, err = proc.Of(f.session.PanePID) {
		if errors.Is(err, proc.ErrGone) {
			return true
		}
		if !f.wait(time.Second) {
			return false
		}
	}
	for wait := time.Millisecond; pane.Alive(); wait = min(2*wait, time.Second) {
		if !f.wait(wait) {
			return false
		}
		if wait == time.Second {
			f.log.Warn("a runner that may not start does not end; ending it", "pid", pane.PID)
			if err := pane.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, proc.ErrGone) {
				f.log.Error("can't end a runner", "pid", pane.PID, "err", err)
			}
		}
	}
	return true
}

// giveBack puts a dispatch whose start was revoked back to pending.
func (f *follower) giveBack(why string) {
	f.settle() // whoever is still on his way loses against the claim; tmux may take its time
	if !f.unopened && !f.closeSession() || !f.endPane() {
		return // the next daemon finds it revoked
	}
	f.sup.leave(f, nil)
	err := f.sup.store.GiveBack(f.sup.ctx, f.d.ID, f.attempt, why)
	if err != nil && f.sup.ctx.Err() == nil {
		f.log.Error("can't record that a start was given back", "err", err)
	}
	f.sup.gaveBack()
}

// neverStarted ends a dispatch that is itself at fault that it can't be started.
func (f *follower) neverStarted(why string) bool {
	f.verdict = &record.Verdict{Kind: record.VerdictSpawnError, Detail: why, Proven: true}
	return true
}

// concludeUnstarted ends a dispatch that was cancelled before anything of it ran.
func (f *follower) concludeUnstarted() bool {
	f.verdict = &record.Verdict{
		Kind: record.VerdictCancelled, Detail: "cancelled before it had a process", Proven: true,
	}
	return true
}
