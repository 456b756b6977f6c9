package sched

import (
	"context"
	"slices"
	"time"

	"cortex"
	"cortex/internal/fault"
	"cortex/store"
)

// Hold sets a hold beside those that there are, to be lifted alone. It is durable and a barrier when it returns: of what it
// covers every earlier claim has got its process or was given back, so that nothing of that starts afterwards. It goes on when
// the caller's context ends.
func (s *Scheduler) Hold(ctx context.Context, o HoldOrder) (Held, error) {
	h := holdOf(o, time.Now())
	h.Own = true
	h, recorded, err := s.hold(ctx, h)
	return Held{Hold: h, Recorded: recorded}, err
}

// holdOf is the hold that o orders.
func holdOf(o HoldOrder, now time.Time) cortex.Hold {
	h := cortex.Hold{
		Kind: cortex.HoldOperator, Scope: o.Scope, Reason: o.Reason, By: o.By, Via: o.Via, Since: now, Until: o.Until,
	}
	if o.TTL > 0 {
		until := now.Add(o.TTL)
		h.Until = &until
	}
	if h.Until != nil {
		h.Kind = cortex.HoldTTL
	}
	return h
}

// hold sets h, and returns it as it is in force, and where it is on record, when nothing that it covers starts any more.
func (s *Scheduler) hold(ctx context.Context, h cortex.Hold) (cortex.Hold, string, error) {
	ctx = context.WithoutCancel(ctx)
	s.stopClaiming()
	defer s.claimAgain()
	fault.Point("pause.before")
	held, recorded, err := s.store.Pause(ctx, h)
	if err != nil {
		return cortex.Hold{}, "", err
	}
	fault.Point("pause.durable")
	s.awaitClaims()
	s.sup.Settle(h.Covers)
	fault.Point("pause.settled")
	if h.Scope != cortex.ScopeAll {
		return held, recorded, nil
	}
	s.forgetStarts()
	if recorded == RecordedDatabase {
		if err := s.store.Checkpoint(ctx); err != nil {
			s.log.Warn("a pause is in force, but the database's main file is not up to date", "err", err)
		}
	}
	return held, recorded, nil
}

// Lift lifts one hold by its id. It is durable when it returns; when the database stays locked nothing has changed.
// store.ErrNotFound.
func (s *Scheduler) Lift(ctx context.Context, id int64, o ResumeOrder) (Lifted, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), store.WriteTimeout)
	defer cancel()
	fault.Point("resume.before")
	l, err := s.store.Lift(ctx, id, o.By, o.Via, o.Reason)
	if err != nil {
		return Lifted{}, err
	}
	now := time.Now()
	done := Lifted{At: now, Hold: l.Hold, Remaining: slices.DeleteFunc(s.holds(now), func(h cortex.Hold) bool {
		return h.Scope != cortex.ScopeAll
	})}
	if l.Hold.Scope == cortex.ScopeAll && !l.Before && !operatorsPause(done.Remaining) {
		s.turned(now)
	}
	s.Wake()
	return done, nil
}

// operatorsPause reports whether a hold of scope all is in force that a resume lifts.
func operatorsPause(holds []cortex.Hold) bool {
	return slices.ContainsFunc(holds, func(h cortex.Hold) bool { return h.Scope == cortex.ScopeAll && h.Kind.LiftedByResume() })
}

// warnPaused has the audit trail say once that an operator's pause has been in force for long. One that is so far only in the
// stop journal has no id yet, and waits for the database.
func (s *Scheduler) warnPaused(ctx context.Context, holds []cortex.Hold, now time.Time) {
	h, _ := pause(holds)
	if !long(h, s.rulesNow().PausedWarning, now) || h.ID == s.warned {
		return
	}
	if err := s.store.WarnPaused(ctx, *h, now); err != nil {
		if ctx.Err() == nil {
			s.log.Warn("can't record that the pause is long", "hold", h.ID, "err", err)
		}
		return
	}
	s.warned = h.ID
}

// long reports whether h is an operator's pause that has been in force for longer than warning, which is never where it is 0.
func long(h *cortex.Hold, warning time.Duration, now time.Time) bool {
	return h != nil && warning > 0 && h.ID != 0 && h.Kind.LiftedByResume() && !h.Since.IsZero() && now.Sub(h.Since) > warning
}
