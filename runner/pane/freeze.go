package pane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cortex/cgroup"
	"cortex/proc"
	"cortex/runner/record"
)

// freezeWithin bounds a freeze: what has not come to a stop by then hangs in the kernel.
const freezeWithin = 5 * time.Second

var errRestive = fmt.Errorf("not all of it has come to a stop within %v", freezeWithin)

// freezer is what the runner has of a freeze.
type freezer struct {
	stopped *proc.Frozen       // by signals: all where there is no group, else what has left it; nil unless frozen
	giveUp  context.CancelFunc // of a freeze under way; nil where none is
	later   []call             // that came meanwhile
	stale   bool               // a child has ended, stopped or gone on meanwhile
	unsaid  bool               // freeze.json could not be written yet
}

// changeFreeze freezes or thaws the agent's tree, and replies when that is done. To ask for what is already so is no error.
func (r *runner) changeFreeze(l call) {
	r.reap()
	freeze := l.req.Op == record.OpFreeze
	switch {
	case r.freezer.giveUp != nil:
		r.freezer.later = append(r.freezer.later, l)
	case r.state.Phase != record.PhaseRunning:
		r.reply(l, "it is "+r.state.Phase)
	case freeze == r.state.Freeze.Frozen():
		r.reply(l, "")
	case freeze:
		r.freeze(l)
	default:
		r.reply(l, refusal(r.thaw()))
	}
}

func refusal(err error) string {
	if err == nil {
		return ""
	}
	return cut(err.Error(), maxError)
}

// freeze stops all that is below this process. An end that begins meanwhile goes before.
func (r *runner) freeze(l call) {
	within, cancel := context.WithTimeoutCause(context.Background(), freezeWithin, errRestive)
	r.freezer.giveUp = cancel
	group := r.group
	var stopped *proc.Frozen
	var err error
	r.aside(func() { stopped, err = freezeTree(within, group) }, func() {
		cancel()
		r.freezer.giveUp = nil
		switch {
		case err == nil && r.state.Phase == record.PhaseRunning:
			r.freezer.stopped = stopped
			r.sayFreeze(true)
		case err == nil:
			if r.state.Phase == record.PhaseStopping { // its grace is for running; a sweep kills it as it is
				err = thawTree(group, stopped)
			}
			err = errors.Join(errors.New("it is "+r.state.Phase), err)
		}
		r.reply(l, refusal(err))
		r.afterFreeze()
	})
}

// afterFreeze does what came while a freeze was under way.
func (r *runner) afterFreeze() {
	later := r.freezer.later
	r.freezer.later = nil
	for _, l := range later { // first, so that no thaw waits for one who goes on and on being continued
		r.changeFreeze(l)
	}
	if r.freezer.stale {
		r.freezer.stale = false
		r.keepFrozen()
	}
}

// keepFrozen stops again what has been continued, though it was stopped by signals: by somebody, or by the kernel, which sends
// SIGHUP and SIGCONT to a process group that somebody's kill has orphaned (setpgid(2)). Whoever is continued is this one's
// child by then, or below one that is, and each change of a child is a SIGCHLD. A frozen group needs no such care.
func (r *runner) keepFrozen() {
	switch {
	case r.freezer.giveUp != nil:
		r.freezer.stale = true
		return
	case r.group != nil || r.state.Phase != record.PhaseRunning || !r.state.Freeze.Frozen():
		return
	}
	within, cancel := context.WithTimeoutCause(context.Background(), freezeWithin, errRestive)
	r.freezer.giveUp = cancel
	var again *proc.Frozen
	var err error
	r.aside(func() { again, err = proc.Freeze(within, below) }, func() {
		cancel()
		r.freezer.giveUp = nil
		switch {
		case err != nil && r.state.Phase == record.PhaseRunning:
			r.trouble("keep frozen", err)
		case err == nil && r.state.Freeze.Frozen():
			r.freezer.stopped.Add(again)
		case err == nil && r.state.Phase == record.PhaseStopping:
			if err := again.Thaw(); err != nil {
				r.trouble("thaw", err)
			}
		}
		r.afterFreeze()
	})
}

// freezeTree freezes the group, where there is one, and stops by signals what is below this process and not in it.
func freezeTree(ctx context.Context, group *cgroup.Group) (*proc.Frozen, error) {
	if group == nil {
		return proc.Freeze(ctx, below)
	}
	if err := group.Freeze(ctx); err != nil {
		return nil, err
	}
	stopped, err := proc.Freeze(ctx, func() ([]proc.Stat, error) {
		all, err := below()
		if err != nil {
			return nil, err
		}
		members, err := group.Members()
		return slices.DeleteFunc(all, func(s proc.Stat) bool { return slices.Contains(members, s.PID) }), err
	})
	if err != nil {
		return nil, errors.Join(err, group.Thaw())
	}
	return stopped, nil
}

func thawTree(group *cgroup.Group, stopped *proc.Frozen) error {
	var err error
	if group != nil {
		err = group.Thaw()
	}
	return errors.Join(err, stopped.Thaw())
}

// thaw lets the frozen tree go on. Where not all of it can it counts as frozen, so that it can be tried again.
func (r *runner) thaw() error {
	if err := thawTree(r.group, r.freezer.stopped); err != nil {
		return err
	}
	r.freezer.stopped = nil
	r.sayFreeze(false)
	return nil
}

// unfreeze lets what is frozen, or about to be, go on to end: it has its signal already.
func (r *runner) unfreeze() {
	r.giveUpFreeze()
	if !r.state.Freeze.Frozen() {
		return
	}
	if err := r.thaw(); err != nil {
		r.trouble("thaw", err) // the sweep kills it as it is
	}
}

func (r *runner) giveUpFreeze() {
	if r.freezer.giveUp != nil {
		r.freezer.giveUp()
	}
}

// sayFreeze records a freeze or a thaw, and tells.
func (r *runner) sayFreeze(frozen bool) {
	now, _ := proc.Uptime() // it can't fail for this clock, and 0 would do
	var next record.Freeze
	if before := r.state.Freeze; before != nil {
		next = *before
	}
	next.Format = record.Format
	next.Changes++
	if frozen {
		next.Since, next.SinceMS = time.Now().UTC(), now.Milliseconds()
	} else {
		next.TotalMS += now.Milliseconds() - next.SinceMS
		next.Since, next.SinceMS = time.Time{}, 0
	}
	r.state.Freeze = &next
	r.writeFreeze()
	r.say()
}

// writeFreeze writes freeze.json, and tries again where it can't: until then the socket alone tells.
func (r *runner) writeFreeze() {
	err := r.dir.Write(record.FreezeFile, r.state.Freeze)
	if err != nil {
		r.state.Error = cut("freeze record: "+err.Error(), maxError)
		r.retry = time.After(retryEvery)
	} else if r.freezer.unsaid {
		r.state.Error = ""
		r.say()
	}
	r.freezer.unsaid = err != nil
}
