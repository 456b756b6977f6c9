package sched

import (
	"context"
	"time"

	"cortex"
	"cortex/internal/fault"
	"cortex/runner/record"
	"cortex/store"
)

// Submit accepts a dispatch: it is durable when this returns. The spec's id and time are filled in. Repeated is true where
// the same request was accepted before under the same key: that one's dispatch is returned.
func (s *Scheduler) Submit(ctx context.Context, spec record.Spec) (d cortex.Dispatch, repeated bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, store.WriteTimeout)
	defer cancel()
	d, repeated, err = s.store.Accept(ctx, spec)
	if err != nil {
		return cortex.Dispatch{}, false, err
	}
	s.Wake()
	return d, repeated, nil
}

// Pause is durable and a barrier when it returns: every earlier claim has got its process or was given back, so that nothing
// starts afterwards. It goes on when the caller's context ends: half a pause is none.
func (s *Scheduler) Pause(ctx context.Context, o PauseOrder) (Ordered, error) {
	ctx = context.WithoutCancel(ctx)
	s.stopClaiming()
	defer s.claimAgain()
	now := time.Now()
	hold := cortex.Hold{
		Kind: cortex.HoldOperator, Scope: cortex.ScopeAll, Reason: o.Reason, By: o.By, Via: o.Via, Since: now,
	}
	if o.TTL > 0 {
		until := now.Add(o.TTL)
		hold.Kind, hold.Until = cortex.HoldTTL, &until
	}
	fault.Point("pause.before")
	held, recorded, err := s.store.Pause(ctx, hold)
	if err != nil {
		return Ordered{}, err
	}
	fault.Point("pause.durable")
	s.awaitClaims()
	s.sup.Settle()
	fault.Point("pause.settled")
	s.forgetStarts()
	if recorded == RecordedDatabase {
		if err := s.store.Checkpoint(ctx); err != nil {
			s.log.Warn("a pause is in force, but the database's main file is not up to date", "err", err)
		}
	}
	return Ordered{At: held.Since, Recorded: recorded}, nil
}

// awaitClaims returns when every claim that came before the hold is with the supervisor.
func (s *Scheduler) awaitClaims() {
	s.claims.Lock()
	defer s.claims.Unlock()
}

// stopClaiming makes sure that no claim begins until claimAgain, and ends those that wait for the database.
func (s *Scheduler) stopClaiming() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pausing++
	if s.giveUp != nil {
		s.giveUp()
	}
}

func (s *Scheduler) claimAgain() {
	s.mu.Lock()
	s.pausing--
	s.mu.Unlock()
	s.Wake() // the pause may have failed, or been lifted meanwhile
}

func (s *Scheduler) forgetStarts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts = nil
}

// Resume lifts the holds of scope all that operators have set, whoever did. It is durable when it returns; when the database
// stays locked nothing has changed.
func (s *Scheduler) Resume(ctx context.Context, o ResumeOrder) (Resumed, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), store.WriteTimeout)
	defer cancel()
	fault.Point("resume.before")
	_, remaining, err := s.store.Resume(ctx, o.By, o.Via, o.Reason)
	if err != nil {
		return Resumed{}, err
	}
	now := time.Now()
	s.forgetStarts()
	s.mu.Lock()
	s.resumedAt, s.backoff, s.failures, s.held = now, nil, 0, false
	s.mu.Unlock()
	for _, h := range s.holds(now) {
		if h.Scope == cortex.ScopeAll && h.ID == 0 { // the computed ones, which are no rows
			remaining = append(remaining, h)
		}
	}
	s.Wake()
	return Resumed{At: now, Remaining: remaining}, nil
}
