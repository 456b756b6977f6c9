package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"cortex"
	"cortex/sched"
)

// schedulerStatus answers GET /scheduler/status, from memory.
func (s *Server) schedulerStatus(w http.ResponseWriter, _ *request) error {
	writeJSON(w, http.StatusOK, schedulerStatusOf(s.Sched.Status(), time.Now()), s.log)
	return nil
}

const maxTTL = 30 * day

// pause answers POST /scheduler/pause, when the pause is durable and nothing starts any more.
func (s *Server) pause(w http.ResponseWriter, r *request) error {
	var order sched.PauseOrder
	if err := decodeBody(w, r.Request, pauseFields(&order)); err != nil {
		return err
	}
	order.By, order.Via = who(r, order.By)
	done, err := s.Sched.Pause(r.Context(), order)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, doneAt(done.At, "Scheduler paused", done.Recorded), s.log)
	return nil
}

func pauseFields(order *sched.PauseOrder) fields {
	return fields{
		"reason": takeText(&order.Reason, maxReason),
		"by":     takeText(&order.By, maxName),
		"ttl":    takeDuration(&order.TTL, time.Millisecond, maxTTL),
	}
}

// resume answers POST /scheduler/resume: it lifts every operator's hold of scope all, or the one that the body names.
func (s *Server) resume(w http.ResponseWriter, r *request) error {
	var order sched.ResumeOrder
	var hold int64
	known := resumeFields(&order)
	known["hold"] = takeID(&hold)
	known["limit"], known["ramp"] = notAvailable, notAvailable
	if err := decodeBody(w, r.Request, known); err != nil {
		return err
	}
	order.By, order.Via = who(r, order.By)
	if hold != 0 {
		return s.resumeOne(w, r, hold, order)
	}
	done, err := s.Sched.Resume(r.Context(), order)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, ResumeDone{
		Done:           doneAt(done.At, resumeMessage(done.Remaining), ""),
		RemainingHolds: holdsOf(done.Remaining),
	}, s.log)
	return nil
}

func (s *Server) resumeOne(w http.ResponseWriter, r *request, hold int64, order sched.ResumeOrder) error {
	done, err := s.lift(r, hold, order)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, ResumeDone{
		Done:           doneAt(done.At, liftMessage(done.Hold, done.Remaining), ""),
		RemainingHolds: holdsOf(done.Remaining),
	}, s.log)
	return nil
}

// liftMessage says what the lifting of one hold has changed.
func liftMessage(h cortex.Hold, remaining []cortex.Hold) string {
	if h.Scope == cortex.ScopeAll && len(remaining) == 0 {
		return "Scheduler resumed"
	}
	message := fmt.Sprintf("Hold %d lifted", h.ID)
	if len(remaining) > 0 {
		message += "; still held: " + kindsOf(remaining)
	}
	return message
}

// resumeMessage says what keeps the scheduler paused, if something does: holds of scope all that a resume does not lift.
func resumeMessage(remaining []cortex.Hold) string {
	if len(remaining) == 0 {
		return "Scheduler resumed"
	}
	return "Pause lifted; still held: " + kindsOf(remaining)
}

// kindsOf are the kinds of holds of scope all, each once.
func kindsOf(holds []cortex.Hold) string {
	var kinds []string
	for _, h := range holds {
		if !slices.Contains(kinds, string(h.Kind)) {
			kinds = append(kinds, string(h.Kind))
		}
	}
	return strings.Join(kinds, ", ")
}

// doneAt is the answer to an order. That it is recorded in the database goes without saying.
func doneAt(at time.Time, message, recorded string) Done {
	if recorded == sched.RecordedDatabase {
		recorded = ""
	}
	return Done{Status: "success", Message: message, Timestamp: Time{at}, Recorded: recorded}
}

// who is the actor of an order and the way it came; by is what the caller calls himself.
func who(r *request, by string) (name, via string) {
	name, via = actor(r.Request)
	if by != "" {
		name = by
	}
	return name, via
}

// Lengths of what people write, in bytes.
const (
	maxName   = 256
	maxReason = 4096
)

// takeText takes what is shown to people: at most limit bytes, no control characters but newlines and tabs, which could
// rewrite the terminal of whoever looks.
func takeText(into *string, limit int) func(value) error {
	return func(v value) error {
		if err := takeString(into)(v); err != nil {
			return err
		}
		if len(*into) > limit {
			return tooLong(v.name, len(*into), limit)
		}
		if strings.ContainsFunc(*into, func(c rune) bool { return unicode.IsControl(c) && c != '\n' && c != '\t' }) {
			return badValue(v.name, "control characters are not allowed")
		}
		return nil
	}
}
