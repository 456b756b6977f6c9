package sched

import (
	"context"
	"time"

	"cortex"
)

// recentSpan is how far back recent_dispatch_count looks.
const recentSpan = 5 * time.Minute

// recent drops the starts that are older than recentSpan.
func recent(starts []time.Time, now time.Time) []time.Time {
	i := 0
	for i < len(starts) && now.Sub(starts[i]) > recentSpan {
		i++
	}
	return starts[i:]
}

// Status never waits: it shows what is in memory.
func (s *Scheduler) Status() Status {
	now := time.Now()
	st := Status{State: StateRunning, StartedAt: s.began, MaxConcurrent: s.limit, Holds: s.holds(now)}
	st.Running, st.Unrecorded = s.sup.Live()
	st.Counts = s.counts(st.Running)
	st.Pending = s.store.Waiting()

	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts = recent(s.starts, now)
	st.LastTick, st.RecentDispatches = s.lastTick, len(s.starts)
	if h, until := pause(st.Holds); h != nil {
		since := h.Since
		st.State, st.PausedAt, st.PausedBy, st.Reason, st.ResumeAt = StatePaused, &since, h.By, h.Reason, until
	} else {
		resumed := s.resumedAt
		st.ResumedAt = &resumed
	}
	return st
}

// counts are the rows by status, with what lives as the running ones: an end that is not in the database yet does not live.
func (s *Scheduler) counts(live int) map[cortex.Status]int {
	counts := s.store.Counts()
	counts[cortex.Running] = live
	return counts
}

// Checks are all health checks, in a fixed order.
func (s *Scheduler) Checks(ctx context.Context) []cortex.Check {
	checks := s.store.Checks(ctx)
	return append(checks, s.diskCheck(), s.tmux.Check(), s.sup.Check())
}
