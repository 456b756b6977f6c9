package api

import (
	"net/http"
	"os"
	"time"

	"cortex"
)

// status answers GET /status from memory alone: it never waits for the database.
func (s *Server) status(w http.ResponseWriter, _ *request) error {
	now := s.Sched.Status()
	counts := make(map[string]int, len(cortex.Statuses))
	for _, status := range cortex.Statuses {
		counts[string(status)] = now.Counts[status]
	}
	writeJSON(w, http.StatusOK, Status{
		RunningCount:        now.Running,
		PendingCount:        now.Pending,
		RecentDispatchCount: now.RecentDispatches,
		MaxConcurrent:       now.MaxConcurrent,
		SchedulerState:      now.State,
		Counts:              counts,
		Uptime:              FormatDuration(time.Since(s.Started)),
		Version:             s.Version,
		PID:                 os.Getpid(),
		ConfigPath:          wordOf(s.config.Load().Path),
	}, s.log)
	return nil
}

// metrics answers GET /metrics, the one path that every local user may read.
func (s *Server) metrics(w http.ResponseWriter, r *request) error {
	extendWrite(w)
	s.Metrics.ServeHTTP(w, r.Request)
	return nil
}
