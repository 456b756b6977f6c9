package supervisor

import (
	"context"
	"errors"
	"time"

	"cortex/internal/fault"
	"cortex/runner"
	"cortex/runner/record"
)

var (
	errPaused    = errors.New("the scheduler was paused")
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
	if err != nil {
		return f.neverStarted("its spec can't be read: " + err.Error())
	}
	f.limits(spec)
	ctx, cancel := context.WithTimeout(f.startCtx, startPatience)
	defer cancel()
	session, err := f.sup.launcher.Start(ctx, f.attempted())
	f.session = session
	if err == nil {
		return true
	}
	return f.resolve(err)
}

// resolve finds out what became of a start that failed, by taking its claim: who has that, has the attempt.
func (f *follower) resolve(why error) bool {
	fault.Point("start.revoke")
	revoked, err := runner.Revoke(f.sup.runs, f.d.ID, f.attempt, record.Claim{Reason: why.Error(), At: time.Now()})
	for ; err != nil; revoked, err = runner.Revoke(f.sup.runs, f.d.ID, f.attempt, record.Claim{Reason: why.Error(), At: time.Now()}) {
		f.log.Error("can't revoke a start; trying again", "err", err)
		if !f.wait(time.Second) {
			return false
		}
	}
	if !revoked {
		return true // a runner has it: follow that
	}
	switch cause := context.Cause(f.startCtx); {
	case f.sup.ctx.Err() != nil: // the next daemon finds it revoked and gives it back
		return false
	case errors.Is(cause, errStopOrder):
		return f.concludeUnstarted()
	case errors.Is(cause, errPaused):
		f.giveBack("paused before it had a process")
	default:
		f.log.Error("a start failed", "err", why)
		f.giveBack(why.Error())
		f.sup.tellFailed(why)
	}
	return false
}

// giveBack puts a dispatch whose start was revoked back to pending.
func (f *follower) giveBack(why string) {
	f.settle() // whoever is still on his way loses against the claim; tmux may take its time
	f.closeSession()
	f.sup.leave(f, nil)
	err := f.sup.store.GiveBack(f.sup.ctx, f.d.ID, f.attempt, why)
	if err != nil && f.sup.ctx.Err() == nil {
		f.log.Error("can't record that a start was given back", "err", err)
	}
	f.sup.tellFreed()
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
