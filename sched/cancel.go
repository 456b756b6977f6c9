package sched

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cortex"
	"cortex/runner/record"
	"cortex/store"
	"cortex/supervisor"
)

// Cancel ends a dispatch: one that waits at once, one that runs in its own time (Gone and WaitEnded tell when nothing of it is
// left). It returns when the order is on record. Errors are *cortex.Error.
func (s *Scheduler) Cancel(ctx context.Context, id int64, o CancelOrder) (Cancelled, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), store.WriteTimeout)
	defer cancel()
	for try := 0; ; try++ {
		recorded, err := s.cancelLive(ctx, id, o)
		if err == nil {
			return s.cancelled(ctx, id, recorded)
		}
		if errors.Is(err, supervisor.ErrEnding) {
			return Cancelled{}, s.notRunning(ctx, id)
		}
		if !errors.Is(err, supervisor.ErrNotLive) {
			return Cancelled{}, err
		}
		done, c, err := s.cancelWaiting(ctx, id, o, try >= betweenTries)
		if done || err != nil && !errors.Is(err, store.ErrNotRunning) {
			return c, err
		}
		// It was claimed between the two looks, or is being given back: look again.
		if err := pauseFor(ctx, 5*time.Millisecond); err != nil {
			return Cancelled{}, err
		}
	}
}

// betweenTries is how often, 5 ms apart, a cancel looks again for a dispatch that is on its way into or out of what lives. One
// that stays between the two is being given back, and waits for a locked database.
const betweenTries = 40

func (s *Scheduler) cancelLive(ctx context.Context, id int64, o CancelOrder) (string, error) {
	return s.sup.Cancel(ctx, id, s.stopOrder(id, o))
}

// cancelWaiting cancels a dispatch that does not live. It reports false when it has begun to live meanwhile, or lives no more;
// with stays true that is taken for its state, and the order is put on record for whoever has it.
func (s *Scheduler) cancelWaiting(ctx context.Context, id int64, o CancelOrder, stays bool) (bool, Cancelled, error) {
	d, err := s.Get(ctx, id)
	if err != nil {
		return true, Cancelled{}, err
	}
	switch {
	case d.Status == cortex.Cancelled:
		return true, Cancelled{Dispatch: d, Recorded: RecordedDatabase}, nil
	case d.Status.Ended():
		return true, Cancelled{}, s.notRunning(ctx, id)
	case d.Status == cortex.Running && !d.Accepted:
		c, err := s.cancelByHand(ctx, d)
		return true, c, err
	case d.Status == cortex.Running && (stays || !s.isAdopted()):
		c, err := s.cancelUnknown(ctx, d, o)
		return !errors.Is(err, store.ErrNotRunning), c, err
	case d.Status == cortex.Running:
		return false, Cancelled{}, nil
	}
	d, recorded, err := s.store.CancelPending(ctx, id, o.By)
	switch {
	case errors.Is(err, store.ErrNotPending):
		return false, Cancelled{}, nil
	case err != nil:
		return true, Cancelled{}, err
	}
	return true, Cancelled{Dispatch: d, Recorded: recorded}, nil
}

// cancelUnknown puts the cancel of a dispatch on record that is in nobody's hands while the database is locked: the daemon has
// yet to take it in, or has given its start back. Whoever adopts it, or writes that, finds the order.
func (s *Scheduler) cancelUnknown(ctx context.Context, d cortex.Dispatch, o CancelOrder) (Cancelled, error) {
	order := s.stopOrder(d.ID, o)
	recorded, err := s.store.OrderStop(ctx, d.ID, d.Attempts, order, cortex.Event{
		Type: cortex.EventDispatchCancelling, Severity: cortex.Info, DispatchID: &d.ID, BeadID: d.BeadID,
		Message: fmt.Sprintf("Dispatch %d (%s) is being stopped: %s", d.ID, d.BeadID, order.Reason),
	})
	if err != nil {
		return Cancelled{}, err
	}
	d.Stage = cortex.StageCancelling
	return Cancelled{Dispatch: d, Recorded: recorded}, nil
}

func (s *Scheduler) isAdopted() bool {
	select {
	case <-s.adopted:
		return true
	default:
		return false
	}
}

// stopOrder is a cancel as it is put on record, with the dispatch's own grace where it asks for none.
func (s *Scheduler) stopOrder(id int64, o CancelOrder) record.Order {
	grace := o.Grace
	if grace == nil {
		own, err := s.sup.Grace(id)
		if err != nil {
			own = 0 // its spec is gone; it is stopped all the same
		}
		grace = &own
	}
	return record.Order{
		Format: record.Format, By: string(cortex.ByOperator), Reason: "cancelled by " + o.By, Actor: o.By,
		GraceMS: grace.Milliseconds(), At: time.Now().UTC(),
	}
}

// cancelByHand ends a row that a person wrote as running: it has no spec and was never started, so that nothing of it lives.
func (s *Scheduler) cancelByHand(ctx context.Context, d cortex.Dispatch) (Cancelled, error) {
	now := time.Now().UTC()
	d, err := s.store.Finish(ctx, d.ID, store.End{
		Attempt: d.Attempts, Status: cortex.Cancelled, StoppedBy: cortex.ByOperator, CompletedAt: now,
		Summary: "a row written by hand; nothing of it ran",
		Event: cortex.Event{
			Type: cortex.EventDispatchCancelled, Severity: cortex.Info, DispatchID: &d.ID, BeadID: d.BeadID, CreatedAt: &now,
			Message: fmt.Sprintf("Dispatch %d (%s), a row written by hand, was cancelled; nothing of it ran", d.ID, d.BeadID),
		},
	})
	return Cancelled{Dispatch: d, Recorded: RecordedDatabase}, err
}

// cancelled shows the dispatch after its cancel was ordered. Where the database can't be read the order stands all the same.
func (s *Scheduler) cancelled(ctx context.Context, id int64, recorded string) (Cancelled, error) {
	d, err := s.Get(ctx, id)
	if errors.Is(err, store.ErrLocked) {
		d = s.View().Of(cortex.Dispatch{ID: id, Status: cortex.Running, Stage: cortex.StageCancelling})
	} else if err != nil {
		return Cancelled{}, err
	}
	return Cancelled{Dispatch: d, Recorded: recorded}, nil
}

func (s *Scheduler) notRunning(ctx context.Context, id int64) error {
	how := "has ended"
	if d, err := s.Get(ctx, id); err == nil && d.Status.Ended() {
		if d.Status == cortex.Cancelled {
			how = "is cancelled"
		} else {
			how = "has ended: " + string(d.Status)
		}
	}
	return &cortex.Error{
		Reason: cortex.ReasonNotRunning, Message: fmt.Sprintf("Dispatch %d %s", id, how),
		Hint: fmt.Sprintf("there is nothing to cancel; GET /dispatches/%d shows how it ended", id),
	}
}

// Get is one dispatch as it is now, whether the database can be written or not. Errors as of store.Get.
func (s *Scheduler) Get(ctx context.Context, id int64) (cortex.Dispatch, error) {
	view := s.View()
	d, err := s.store.Get(ctx, id)
	return view.Of(d), err
}

// WaitEnded returns nil when the dispatch has ended and nothing of it is left, or ctx's error. The row says so, too, unless the
// database takes more than supervisor.RecordPatience for it.
func (s *Scheduler) WaitEnded(ctx context.Context, id int64) error {
	for {
		changed := s.store.Changed()
		if gone := s.sup.Gone(id); gone != nil {
			select {
			case <-gone:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue // given back, perhaps
		}
		d, err := s.Get(ctx, id)
		if err != nil {
			return err
		}
		if d.Status.Ended() {
			s.waitRecorded(ctx, id)
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Scheduler) waitRecorded(ctx context.Context, id int64) {
	ctx, cancel := context.WithTimeout(ctx, supervisor.RecordPatience)
	defer cancel()
	for {
		changed := s.store.Changed()
		if d, err := s.store.Get(ctx, id); err != nil || d.Status.Ended() {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// pauseFor waits, or returns ctx's error.
func pauseFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
