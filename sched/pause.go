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

// Pause is durable and a barrier when it returns, as Hold is, for everything. A second one goes on with the first.
func (s *Scheduler) Pause(ctx context.Context, o PauseOrder) (Ordered, error) {
	held, recorded, err := s.hold(ctx, holdOf(HoldOrder{PauseOrder: o, Scope: cortex.ScopeAll}, time.Now()))
	if err != nil {
		return Ordered{}, err
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
	s.mu.Lock()
	s.backoff, s.failures = nil, 0
	s.mu.Unlock()
	s.turned(now)
	for _, h := range s.holds(now) {
		if h.Scope == cortex.ScopeAll && h.ID == 0 { // the computed ones, which are no rows
			remaining = append(remaining, h)
		}
	}
	s.Wake()
	return Resumed{At: now, Remaining: remaining}, nil
}

// turned notes that the operators' last hold of scope all is lifted.
func (s *Scheduler) turned(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resumedAt, s.held, s.starts = now, false, nil
}
