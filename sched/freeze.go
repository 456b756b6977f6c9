package sched

import (
	"context"
	"errors"
	"fmt"

	"cortex"
	"cortex/runner"
	"cortex/store"
	"cortex/supervisor"
)

// Freeze stops the whole tree of a dispatch that runs, and its timeout, or lets it go on. It returns when that is done, within
// some seconds, and does not wait for the database. Errors are *cortex.Error, or of the store where there is no such dispatch.
func (s *Scheduler) Freeze(ctx context.Context, id int64, o FreezeOrder) (cortex.Dispatch, error) {
	ctx = context.WithoutCancel(ctx) // half a freeze is none
	if err := s.sup.Freeze(ctx, id, o); err != nil {
		return cortex.Dispatch{}, s.freezeError(ctx, id, o, err)
	}
	ctx, cancel := context.WithTimeout(ctx, store.WriteTimeout)
	defer cancel()
	d, err := s.Get(ctx, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) { // it is done, whether the row can be read or not
		return s.View().Of(cortex.Dispatch{ID: id, Status: cortex.Running}), nil
	}
	return d, err
}

func (s *Scheduler) freezeError(ctx context.Context, id int64, o FreezeOrder, err error) error {
	verb := "frozen"
	if o.Thaw {
		verb = "thawed"
	}
	notRunning := func(how string) error {
		return &cortex.Error{Reason: cortex.ReasonNotRunning, Message: fmt.Sprintf("Dispatch %d %s", id, how),
			Hint: "only what runs can be " + verb}
	}
	switch {
	case errors.Is(err, supervisor.ErrNoProcess):
		return notRunning("has no process yet")
	case errors.Is(err, supervisor.ErrEnding):
		return notRunning("has ended")
	case errors.Is(err, supervisor.ErrNotLive):
		ctx, cancel := context.WithTimeout(ctx, store.WriteTimeout)
		defer cancel()
		d, err := s.Get(ctx, id)
		switch {
		case err != nil:
			return err
		case d.Status == cortex.Running && !d.Accepted:
			return notRunning("is a row written by hand: nothing of it runs")
		case d.Status == cortex.Running: // being taken in after a start, or on its way into or out of what lives
			return notRunning("is not in this daemon's hands at the moment; ask again")
		case d.Status.Ended():
			return notRunning("has ended: " + string(d.Status))
		}
		return notRunning("is " + string(d.Status))
	case errors.Is(err, supervisor.ErrStopped):
		return &cortex.Error{Reason: cortex.ReasonBeingStopped, Message: fmt.Sprintf("Dispatch %d is being stopped", id),
			Hint: "a stop ends what is frozen, too; look at its stage"}
	case errors.Is(err, runner.ErrOld):
		return &cortex.Error{Reason: cortex.ReasonNotSupported, Err: err,
			Message: fmt.Sprintf("Dispatch %d was started by an earlier cortex, whose runner can't freeze", id),
			Hint:    "wait for its end, or cancel it; what starts from now on can be frozen"}
	}
	return &cortex.Error{Reason: cortex.ReasonFreezeFailed, Message: fmt.Sprintf("Dispatch %d can't be %s: %v", id, verb, err),
		Hint: "frozen_since tells how it stands; see the process named (ps -o pid,stat,wchan,user,args -p PID), then try again"}
}
