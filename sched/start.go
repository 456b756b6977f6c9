package sched

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cortex"
	"cortex/internal/fault"
	"cortex/store"
)

const (
	// claimPatience bounds the wait of a claim for the database; what could not be claimed is tried in a later pass.
	claimPatience = 2 * time.Second
	// backoffMax is the longest pause after starts failed for a reason that is not a dispatch's own.
	backoffMax = 30 * time.Second
)

// claimAll claims what was picked, all at once so that one commit serves them, and hands each attempt to the supervisor.
func (s *Scheduler) claimAll(ctx context.Context, ids []int64) {
	if len(ids) == 0 {
		return
	}
	s.claims.Lock()
	defer s.claims.Unlock()
	ctx, ok := s.mayClaim(ctx)
	if !ok {
		return
	}
	defer s.endClaims()
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() { s.claim(ctx, id) })
	}
	wg.Wait()
}

// mayClaim begins a round of claims, which a pause that is ordered meanwhile ends.
func (s *Scheduler) mayClaim(ctx context.Context) (context.Context, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pausing > 0 {
		return nil, false
	}
	ctx, s.giveUp = context.WithTimeout(ctx, claimPatience)
	return ctx, true
}

func (s *Scheduler) endClaims() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveUp()
	s.giveUp = nil
}

func (s *Scheduler) claim(ctx context.Context, id int64) {
	limits := s.rulesNow().Limits // until it is over: SetRules waits for that
	fault.Point("claim.before")
	at, err := s.store.Claim(ctx, id, limits.For, s.giveBack)
	switch {
	case err == nil:
		fault.Point("claim.after")
		s.started(time.Now())
		s.sup.Start(at)
		s.store.Taken()
	case errors.Is(err, store.ErrNotPending), errors.Is(err, store.ErrNotFound):
		// The row has changed since it was read; the next pass reads it again, so that it is not in the others' way for ever.
		s.waiting.Lock()
		s.doubted = append(s.doubted, id)
		s.waiting.Unlock()
	case errors.Is(err, store.ErrHeld), errors.Is(err, store.ErrFull):
		// The gate has changed since the pick: whoever changed it wakes the loop.
	case errors.Is(err, store.ErrLocked), errors.Is(err, store.ErrHung), ctx.Err() != nil:
		// It stays pending, or is given back when it was claimed after all; the next pass tries again.
	default:
		s.log.Error("can't claim", "dispatch", id, "err", err)
	}
}

// giveBack is for a claim that the database had not confirmed when it was wanted: a pause may have been answered since.
func (s *Scheduler) giveBack(at cortex.Attempt) {
	s.sup.GiveBack(at)
	s.store.Taken()
}

// started notes a start, for recent_dispatch_count.
func (s *Scheduler) started(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts = append(recent(s.starts, now), now)
}

// backOff holds all starts for a while after one failed because of tmux or the host: the next ones would fail too.
func (s *Scheduler) backOff(err error, now time.Time) {
	s.mu.Lock()
	if s.backoff != nil && s.backoff.InForce(now) {
		s.mu.Unlock()
		return
	}
	if s.backoff != nil && now.Sub(*s.backoff.Until) > 2*backoffMax {
		s.failures = 0
	}
	s.failures++
	until := now.Add(backoff(s.failures))
	s.backoff = &cortex.Hold{
		Kind: cortex.HoldTmux, Scope: cortex.ScopeAll, Reason: fmt.Sprintf("a start failed: %v", err),
		By: "cortex", Via: "auto", Since: now, Until: &until,
	}
	first := s.failures == 1
	s.mu.Unlock()
	if first {
		s.event(context.Background(), cortex.Event{
			Type: cortex.EventTmuxUnavailable, Severity: cortex.Critical,
			Message: fmt.Sprintf("No dispatch can be started; trying again: %v", err),
		})
	}
}

// backoff is the pause after the n-th failure in a row: 1 s, doubled each time.
func backoff(n int) time.Duration {
	return min(time.Second<<min(n-1, 10), backoffMax)
}
