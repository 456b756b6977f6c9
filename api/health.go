package api

import (
	"context"
	"net/http"
	"time"

	"cortex"
)

// What of the audit trail /health shows.
const (
	recentEvents    = 100
	recentEventTime = time.Hour
	checkTime       = 2 * time.Second // for the checks, and for reading the events: an answer comes also when the disk hangs
)

// health answers GET /health: 200, or 503 where a check fails that is no notice. Paused is healthy.
func (s *Server) health(w http.ResponseWriter, r *request) error {
	ctx, cancel := context.WithTimeout(r.Context(), checkTime)
	defer cancel()
	answer := Health{Healthy: true, Checks: []Check{}, RecentEvents: []Event{}}
	for _, c := range s.Sched.Checks(ctx) {
		answer.add(checkOf(c))
	}
	answer.add(checkOf(s.Configuration.Check()))
	events, err := s.Store.Events(ctx, time.Now().Add(-recentEventTime), recentEvents)
	if err != nil {
		s.log.Warn("events not read", "err", err)
		detail, hint := "the audit trail can't be read", "the daemon's log has the cause; sqlite3 ~/.cortex/cortex.db 'PRAGMA quick_check;'"
		answer.add(Check{Name: "events", Detail: &detail, Hint: &hint})
	} else {
		answer.RecentEvents = eventsOf(events)
	}
	code := http.StatusOK
	if !answer.Healthy {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, answer, s.log)
	return nil
}

func (h *Health) add(c Check) {
	h.Checks = append(h.Checks, c)
	h.Healthy = h.Healthy && (c.OK || c.Notice)
}

func checkOf(c cortex.Check) Check {
	return Check{Name: c.Name, OK: c.OK, Notice: c.Notice && !c.OK, Detail: wordOf(c.Detail), Hint: wordOf(c.Hint)}
}
