package sched

import (
	"context"
	"fmt"
	"time"

	"cortex"
	"cortex/internal/rlimit"
)

const (
	startDescriptors = 4 // that a start has open at once; what runs has one
	liftDescriptors  = 2 // starts for which there must be descriptors again before the hold lifts, so that it does not flap
)

// startsFor is for how many more starts there are descriptors, where so many are on their way. The rest is the daemon's own.
func startsFor(used, limit, starting int) int {
	return (limit-rlimit.DescriptorReserve(limit)-used)/startDescriptors - starting
}

// descriptorHold decides about the hold of descriptors that run out, from the one in force (nil: none).
func descriptorHold(held *cortex.Hold, used, limit int, now time.Time) *cortex.Hold {
	fits := startsFor(used, limit, 0)
	if fits >= liftDescriptors || held == nil && fits > 0 {
		return nil
	}
	return computedHold(held, cortex.HoldDescriptors, inUse(used, limit), now)
}

func inUse(used, limit int) string {
	return fmt.Sprintf("%d of %d descriptors are in use, %d are kept free", used, limit, rlimit.DescriptorReserve(limit))
}

// lookAtDescriptors sets and lifts the hold of descriptors, and returns how many starts there are descriptors for. What starts
// on their way have open is no reason for a hold: they give it back.
func (s *Scheduler) lookAtDescriptors(ctx context.Context, now time.Time) int {
	used, limit, err := rlimit.Descriptors()
	if err != nil {
		s.log.Warn("can't count the open descriptors", "err", err)
		return 0
	}
	starting := s.sup.Starting()
	s.mu.Lock()
	was := s.descriptors
	if was != nil || starting == 0 {
		s.descriptors = descriptorHold(was, used, limit, now)
	}
	is := s.descriptors
	s.mu.Unlock()
	switch {
	case was == nil && is != nil:
		s.event(ctx, cortex.Event{
			Type: cortex.EventDescriptorsLow, Severity: cortex.Err, Message: "Nothing starts: " + is.Reason,
		})
	case was != nil && is == nil:
		s.event(ctx, cortex.Event{
			Type: cortex.EventDescriptorsRecovered, Severity: cortex.Info,
			Message: fmt.Sprintf("There are descriptors again: %d of %d are in use", used, limit),
		})
	}
	return startsFor(used, limit, starting)
}

// descriptorsCheck fails as long as the hold is in force.
func (s *Scheduler) descriptorsCheck() cortex.Check {
	s.mu.Lock()
	held := s.descriptors != nil
	s.mu.Unlock()
	used, limit, err := rlimit.Descriptors()
	c := cortex.Check{Name: "descriptors", OK: true, Detail: inUse(used, limit)}
	switch {
	case err != nil:
		c.OK, c.Detail, c.Hint = false, err.Error(), "see whether /proc is mounted"
	case held:
		c.OK = false
		c.Hint = "raise the limit (LimitNOFILE= of the unit, or ulimit -Hn before cortex is started), or end clients that only " +
			"keep connections open; starts go on by themselves"
	}
	return c
}
