package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"cortex/internal/rlimit"
	"cortex/runner"
	"cortex/runner/record"
)

// reach connects to the runner, and reports whether it has ended instead.
func (f *follower) reach(l *link) (ended bool) {
	facts, err := f.look()
	if rlimit.Scarce(err) {
		f.cantReach(l, "its folder can't be read", err)
		return false
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.log.Warn("can't read the attempt's folder", "err", err)
	}
	if err := facts.Unknown(); err != nil {
		f.unknown(err)
		l.retry.Reset(reconnectMax)
		return false
	}
	f.sawFreeze(facts.Freeze, false)
	if facts.Claim == nil {
		facts.Claim = f.claimed() // the agent may have removed the file
	}
	if facts.Claim == nil && facts.Damaged[record.ClaimFile] != nil {
		facts.Claim = &record.Claim{} // whoever listens says who it is
	}
	if facts.Exit != nil || facts.Verdict != nil || facts.Claim == nil {
		return true
	}
	if facts.Claim.Runner.PID != 0 {
		f.setClaim(facts.Claim)
	}
	conn, err := f.connect(facts.Claim.Runner)
	if err == nil {
		l.conn, l.states, l.pause = conn, conn.States(), 0
		f.setTrouble("")
		return false
	}
	if errors.Is(err, runner.ErrGone) && runner.Dead(facts.Claim.Runner) {
		return true
	}
	// It lives, and can't be reached: it has claimed and does not listen yet, or is stopped, or there is no descriptor for
	// that. Unknown is not dead.
	if facts.Started != nil && !f.started {
		f.hasProcess(record.State{Agent: &facts.Started.Agent, TTY: facts.Started.TTY, Session: facts.Claim.Session})
	}
	f.setLimit(l)
	who := "its runner"
	if pid := facts.Claim.Runner.PID; pid != 0 {
		who = fmt.Sprintf("its runner (pid %d)", pid)
	}
	f.cantReach(l, who+" can't be reached", err)
	return false
}

func (f *follower) cantReach(l *link, what string, err error) {
	l.pause = min(max(2*l.pause, 10*time.Millisecond), reconnectMax)
	if l.pause == reconnectMax {
		f.setTrouble(what + ": " + err.Error())
	}
	l.retry.Reset(l.pause)
}

// connect connects to the runner, for as long as the dispatch lives, where that leaves enough descriptors for the daemon's
// own work. One that is to be stopped is spoken to in any case.
func (f *follower) connect(to record.Process) (*runner.Conn, error) {
	if order, _ := f.standing(); order == nil {
		if err := f.sup.mayConnect(); err != nil {
			return nil, err
		}
		defer f.sup.connected()
	}
	ctx, cancel := context.WithTimeout(f.sup.ctx, askPatience)
	defer cancel()
	return runner.Connect(ctx, f.sup.runs, f.d.ID, f.attempt, to)
}

// look reads the attempt's folder. What is damaged in it is reported, once, and left as it is.
func (f *follower) look() (runner.Facts, error) {
	facts, err := runner.Look(f.sup.runs, f.d.ID, f.attempt)
	for name, err := range facts.Damaged {
		if told := errors.Is(err, record.ErrTorn) || errors.Is(err, record.ErrNewer); told && !f.reported[name] {
			f.reported[name] = true
			f.sup.unreadable(f.d.ID, err)
		}
	}
	return facts, err
}

// mustLook is look that waits while that can't be done for want of descriptors or memory; only when the daemon stops meanwhile
// the error is of that.
func (f *follower) mustLook() (runner.Facts, error) {
	for {
		facts, err := f.look()
		if !rlimit.Scarce(err) {
			return facts, err
		}
		f.setTrouble("its folder can't be read: " + err.Error())
		if !f.wait(time.Second) {
			return facts, err
		}
	}
}

// unknown says why it can't be told whether the dispatch lives: it counts as running, and is left alone.
func (f *follower) unknown(err error) {
	f.settle() // it was begun
	text := err.Error()
	if errors.Is(err, record.ErrNewer) {
		text += "; run that one"
	}
	f.setTrouble(text)
}
