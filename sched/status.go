package sched

import (
	"context"
	"time"

	"cortex"
	"cortex/supervisor"
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
	st := Status{State: StateRunning, StartedAt: s.began, MaxConcurrent: s.rulesNow().Limits.Concurrent, Holds: s.holds(now)}
	// What waits is looked at twice: what moves meanwhile is counted twice, and else might be nowhere. A status of nothing is
	// taken for the end of all.
	waiting := s.store.Waiting()
	live := s.sup.Live()
	st.Running, st.Frozen, st.Unrecorded = live.Running, live.Frozen, live.Unrecorded
	st.Pending = max(waiting, s.store.Waiting()) + live.GivenBack
	st.Counts = s.counts(live)

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

// counts are the rows by status, with what lives as the running ones: an end that the database can't take does not live.
func (s *Scheduler) counts(live supervisor.Live) map[cortex.Status]int {
	counts := s.store.Counts()
	counts[cortex.Running] = live.Running
	for status, n := range live.Ended {
		counts[status] += n
	}
	withdrawn := len(s.store.CancelledInJournal())
	counts[cortex.Pending] = max(counts[cortex.Pending]-withdrawn, 0)
	counts[cortex.Cancelled] += withdrawn
	return counts
}

// View is what is known of dispatches at one moment and may not be in the database yet. Take it before the database is read.
type View struct {
	supervisor.View
	cancelled map[int64]bool // while they waited, and so far only in the stop journal
}

// View never waits.
func (s *Scheduler) View() View { return View{s.sup.View(), s.store.CancelledInJournal()} }

// Of is d as it was at that moment, or as its row says where that knows more.
func (v View) Of(d cortex.Dispatch) cortex.Dispatch {
	if (d.Status == cortex.Pending || d.Status == cortex.PendingRetry) && v.cancelled[d.ID] {
		d.Status, d.Stage, d.StoppedBy = cortex.Cancelled, cortex.StageNone, cortex.ByOperator
	}
	return v.View.Of(d)
}

// Unwritten is the status of the dispatches whose rows may say another one.
func (v View) Unwritten() map[int64]cortex.Status {
	all := v.Ended()
	for id := range v.cancelled {
		all[id] = cortex.Cancelled
	}
	return all
}

// Checks are all health checks, in a fixed order.
func (s *Scheduler) Checks(ctx context.Context) []cortex.Check {
	checks := s.store.Checks(ctx)
	return append(checks, s.diskCheck(), s.descriptorsCheck(), processesCheck(), s.tmux.Check(), s.startsCheck(time.Now()), s.sup.Check())
}

// startsCheck fails while nothing is started because the last start failed for a reason that is not a dispatch's own.
func (s *Scheduler) startsCheck(now time.Time) cortex.Check {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := cortex.Check{Name: "starts", OK: true, Detail: "the last ones succeeded"}
	if s.backoff != nil && s.backoff.InForce(now) {
		c.OK, c.Detail = false, s.backoff.Reason
		c.Hint = "it is tried again by itself; see that tmux and cortex-runner can be run (tmux.binary, runner.binary), ~/.tmux.conf, " +
			"and for processes that are used up (fork) the check processes"
	}
	return c
}
