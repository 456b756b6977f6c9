package pane

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"cortex/proc"
	"cortex/runner/record"
)

// hangUpGrace bounds the grace after a hangup: whoever closed the session may be shutting the host down.
const hangUpGrace = 3 * time.Second

// stuckSweep is how long one sweep tries while processes are stuck.
const stuckSweep = time.Second

// stop is the daemon's word: the signal to the agent's group, the grace, then the sweep. A second stop may shorten the
// grace, and send another signal; the same one again is not sent, since agents take that as an order to drop everything.
func (r *runner) stop(sig syscall.Signal, grace time.Duration) {
	r.reap() // an agent that has ended by itself was not stopped
	switch r.state.Phase {
	case record.PhaseRunning:
		r.cause = record.CauseStop
		r.signal(sig)
		r.unfreeze()
		r.endWithin(grace)
		r.enter(record.PhaseStopping)
	case record.PhaseStopping:
		if sig != r.sent {
			r.signal(sig)
		}
		r.endWithin(grace)
	}
}

// hangUp is the end of the pane, or somebody's kill of this process.
func (r *runner) hangUp() {
	r.reap()
	grace := min(time.Duration(r.spec.GraceMS)*time.Millisecond, hangUpGrace)
	switch r.state.Phase {
	case record.PhaseRunning:
		r.cause = record.CauseHangup
		r.signal(syscall.SIGHUP)
		r.unfreeze()
		r.endWithin(grace)
		r.enter(record.PhaseStopping)
	case record.PhaseStopping:
		r.endWithin(grace)
	}
}

// signal signals the agent's group, and continues it: a stopped process takes a signal only then.
func (r *runner) signal(sig syscall.Signal) {
	r.sent = sig
	if err := r.agent.signal(sig, syscall.SIGCONT); err != nil {
		r.trouble("signal the agent", err) // it runs as another user: the sweep will tell
	}
}

// endWithin bounds the grace; it is never made longer.
func (r *runner) endWithin(grace time.Duration) {
	deadline := time.Now().Add(grace)
	if r.deadline.IsZero() || deadline.Before(r.deadline) {
		r.deadline = deadline
		r.grace = time.After(grace)
	}
}

// reap takes the statuses of ended children. With the agent's own the end begins.
func (r *runner) reap() {
	r.agent.reap()
	if !r.agent.over() {
		return
	}
	if r.state.Phase == record.PhaseRunning || r.state.Phase == record.PhaseStopping {
		r.grace = nil
		r.sweep()
	}
}

// sweep kills all that is below this process, the agent included where it still runs, or finishes at once where nothing is.
// What is frozen is killed as it is.
func (r *runner) sweep() {
	r.giveUpFreeze()
	if r.alone() {
		r.finish()
		return
	}
	within := context.Background()
	cancel := context.CancelFunc(func() {})
	if r.state.Phase == record.PhaseStuck {
		within, cancel = context.WithTimeout(within, stuckSweep)
	} else {
		r.enter(record.PhaseSweeping)
	}
	var swept proc.Swept
	var err error
	group := r.group
	r.aside(func() {
		defer cancel()
		grouped, gerr := killGroup(group)
		swept, err = proc.Sweep(within, below, func() { r.agent.reap() })
		swept.Killed = append(grouped, swept.Killed...)
		err = errors.Join(gerr, err)
	}, func() { r.afterSweep(swept, err) })
}

// below finds every process below this one.
func below() ([]proc.Stat, error) {
	all, err := proc.All()
	if err != nil {
		return nil, err
	}
	return proc.Descendants(all, proc.Self().PID), nil
}

// afterSweep goes on to the end only where nothing is left: no survivor, and no child that can't be waited for.
func (r *runner) afterSweep(swept proc.Swept, err error) {
	for _, k := range swept.Killed {
		if k.PID != r.agent.pid {
			r.swept[k.Ident] = k
		}
	}
	if r.alone() {
		r.state.Survivors = nil
		r.finish()
		return
	}
	before := r.state
	r.state.Phase, r.state.Survivors, r.state.Error = record.PhaseStuck, survivors(swept.Survivors), ""
	switch {
	case err != nil:
		r.state.Error = cut("sweep: "+err.Error(), maxError)
	case len(swept.Survivors) == 0:
		r.state.Error = "children that are dead can't be waited for: is somebody tracing them?"
	}
	if before.Phase != record.PhaseStuck || before.Error != r.state.Error || !slices.Equal(before.Survivors, r.state.Survivors) {
		r.say()
	}
	r.retry = time.After(retryEvery)
}

func survivors(found []proc.Survivor) []record.Survivor {
	var out []record.Survivor
	for _, s := range found[:min(len(found), maxListed)] {
		out = append(out, record.Survivor{
			PID: s.PID, UID: s.UID, Command: cut(s.Command, maxError), Why: cut(s.Why, maxError),
		})
	}
	return out
}
