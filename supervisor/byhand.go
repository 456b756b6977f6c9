package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cortex"
	"cortex/runner"
	"cortex/runner/record"
)

// adoptEndedByHand stops what still has a session although its row says that it ended: a person wrote that while no daemon
// ran.
func (s *Supervisor) adoptEndedByHand(ctx context.Context, id int64) error {
	attempt, begun, err := s.begun(id)
	if err != nil || !begun {
		return err
	}
	facts, err := runner.Look(s.runs, id, attempt)
	if err != nil || facts.Exit != nil || facts.Verdict != nil {
		return err
	}
	d, err := s.store.Get(ctx, id)
	if err != nil {
		return err
	}
	f := adopted(s, d, attempt)
	if s.follow(f, (*follower).adopt) {
		f.stopByHand(ctx, d.Status)
	}
	return nil
}

// stopByHand carries out an order that a person gave by writing failed or cancelled into the row of a live dispatch. The
// status stays as written.
func (f *follower) stopByHand(ctx context.Context, status cortex.Status) {
	spec, err := runner.Spec(f.sup.runs, f.d.ID)
	if err != nil {
		f.log.Warn("can't read the grace of a dispatch; it gets none", "err", err)
	}
	f.byHand.Do(func() {
		event := cortex.Event{
			Type: cortex.EventStopByHand, Severity: cortex.Warning, DispatchID: &f.d.ID, BeadID: f.d.BeadID,
			Message: fmt.Sprintf("Dispatch %d (%s) is stopped: its row was set to %s by hand while it ran", f.d.ID, f.d.BeadID, status),
		}
		f.sup.write("stop by hand", f.d.ID, func(ctx context.Context) error { return f.sup.store.AddEvent(ctx, event) })
		_, err := f.stop(ctx, record.Order{
			By: string(cortex.ByOperator), Reason: fmt.Sprintf("its row was set to %s by hand", status),
			Actor: "sqlite", GraceMS: spec.GraceMS, At: time.Now().UTC(),
		})
		if err != nil && !errors.Is(err, ErrEnding) {
			f.log.Error("a stop by hand is not on record", "err", err)
		}
	})
}

// Reconcile compares the rows of what lives with what lives, after somebody else wrote into the database: failed or cancelled
// is an order to stop it, anything else is put back, since it could run twice.
func (s *Supervisor) Reconcile(ctx context.Context) error {
	if err := s.store.SettleByHand(ctx); err != nil {
		return err
	}
	rows, err := s.store.Statuses(ctx)
	if err != nil {
		return err
	}
	for _, f := range s.followers() {
		if _, ending := f.standing(); ending || f.stage() == cortex.StageStarting {
			continue // its own next write decides
		}
		switch status := rows[f.d.ID]; status {
		case cortex.Running:
		case cortex.Failed, cortex.Cancelled:
			f.stopByHand(ctx, status)
		default:
			if err := f.putBack(ctx, status); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *follower) putBack(ctx context.Context, status cortex.Status) error {
	was := "set to " + string(status)
	if status == "" {
		was = "deleted"
	}
	spec, err := runner.Spec(f.sup.runs, f.d.ID)
	if err != nil {
		return err
	}
	return f.sup.store.PutBack(ctx, spec, f.attempt, f.stage(), cortex.Event{
		Type: cortex.EventStatusPutBack, Severity: cortex.Warning, DispatchID: &f.d.ID, BeadID: f.d.BeadID,
		Message: fmt.Sprintf("Dispatch %d (%s) runs; its row was %s by hand and is put back (cancel it to end it)", f.d.ID, f.d.BeadID, was),
	})
}
