package api

import (
	"bytes"
	"encoding/json"
	"time"

	"cortex"
	"cortex/runner/record"
	"cortex/sched"
)

// This file is what goes over the wire: the JSON of every answer, in the order in which it is written. The command line
// decodes the same types, so that there is one definition of each. Optional words are null when empty, lists never.

// Time is a point in time as the API writes it: RFC 3339, UTC, to the second.
type Time struct{ time.Time }

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"` + time.RFC3339 + `"`)), nil
}

// UnmarshalJSON implements json.Unmarshaler; fractions of a second and other zones are understood.
func (t *Time) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &t.Time) }

func timeOf(t *time.Time) *Time {
	if t == nil || t.IsZero() {
		return nil
	}
	return &Time{*t}
}

func wordOf[S ~string](s S) *string {
	if s == "" {
		return nil
	}
	w := string(s)
	return &w
}

// Dispatch is a dispatch: every column of its row by its name, and since when it is frozen.
type Dispatch struct {
	ID              int64    `json:"id"`
	BeadID          string   `json:"bead_id"`
	Project         string   `json:"project"`
	Agent           *string  `json:"agent"`
	Provider        *string  `json:"provider"`
	Tier            *string  `json:"tier"`
	PID             *int64   `json:"pid"`
	TTY             *string  `json:"tty"`
	SessionName     *string  `json:"session_name"`
	Status          string   `json:"status"`
	Stage           *string  `json:"stage"`
	FrozenSince     *Time    `json:"frozen_since"` // null where it is not frozen
	Priority        int      `json:"priority"`
	CreatedAt       *Time    `json:"created_at"`
	DispatchedAt    *Time    `json:"dispatched_at"`
	CompletedAt     *Time    `json:"completed_at"`
	UpdatedAt       *Time    `json:"updated_at"`
	NotBefore       *Time    `json:"not_before"`
	ExitCode        *int     `json:"exit_code"`
	Signal          *int     `json:"signal"`
	DurationS       *float64 `json:"duration_s"`
	Attempts        int      `json:"attempts"`
	Retries         int      `json:"retries"`
	FailureCategory *string  `json:"failure_category"`
	FailureSummary  *string  `json:"failure_summary"`
	StoppedBy       *string  `json:"stopped_by"`
	InputTokens     *int64   `json:"input_tokens"`
	OutputTokens    *int64   `json:"output_tokens"`
	CostUSD         *float64 `json:"cost_usd"`
	IdempotencyKey  *string  `json:"idempotency_key"`
}

func dispatchOf(d cortex.Dispatch) Dispatch {
	return Dispatch{
		ID: d.ID, BeadID: d.BeadID, Project: d.Project,
		Agent: wordOf(d.Agent), Provider: wordOf(d.Provider), Tier: wordOf(d.Tier),
		PID: d.PID, TTY: wordOf(d.TTY), SessionName: wordOf(d.SessionName),
		Status: string(d.Status), Stage: wordOf(d.Stage), FrozenSince: timeOf(d.FrozenSince), Priority: d.Priority,
		CreatedAt: timeOf(d.CreatedAt), DispatchedAt: timeOf(d.DispatchedAt),
		CompletedAt: timeOf(d.CompletedAt), UpdatedAt: timeOf(d.UpdatedAt), NotBefore: timeOf(d.NotBefore),
		ExitCode: d.ExitCode, Signal: d.Signal, DurationS: d.DurationS,
		Attempts: d.Attempts, Retries: d.Retries,
		FailureCategory: wordOf(d.FailureCategory), FailureSummary: wordOf(d.FailureSummary), StoppedBy: wordOf(d.StoppedBy),
		InputTokens: d.InputTokens, OutputTokens: d.OutputTokens, CostUSD: d.CostUSD,
		IdempotencyKey: wordOf(d.IdempotencyKey),
	}
}

// DispatchDetail is one dispatch with what its spec says. Of the environment the names are told, never the values.
type DispatchDetail struct {
	Dispatch
	Command  []string `json:"command"` // empty for a row that was inserted by hand
	Workdir  *string  `json:"workdir"`
	Timeout  *string  `json:"timeout"`
	EnvNames []string `json:"env_names"`
}

func detailOf(d cortex.Dispatch, spec *record.Spec) DispatchDetail {
	detail := DispatchDetail{Dispatch: dispatchOf(d), Command: []string{}, EnvNames: []string{}}
	if spec == nil {
		return detail
	}
	detail.Command = append(detail.Command, spec.Command...)
	detail.Workdir = wordOf(spec.Workdir)
	if spec.TimeoutMS > 0 {
		detail.Timeout = wordOf(FormatDuration(time.Duration(spec.TimeoutMS) * time.Millisecond))
	}
	detail.EnvNames = envNames(spec.Env)
	return detail
}

// DispatchList is a page of dispatches, newest first. NextCursor, where it is not null, asks for the page after it.
type DispatchList struct {
	Dispatches []Dispatch `json:"dispatches"`
	NextCursor *string    `json:"next_cursor"`
}

// Status is the answer of GET /status.
type Status struct {
	RunningCount        int            `json:"running_count"`
	PendingCount        int            `json:"pending_count"`
	RecentDispatchCount int            `json:"recent_dispatch_count"`
	MaxConcurrent       int            `json:"max_concurrent"`
	SchedulerState      string         `json:"scheduler_state"`
	Counts              map[string]int `json:"counts"`
	Uptime              string         `json:"uptime"`
	Version             string         `json:"version"`
	PID                 int            `json:"pid"`
	ConfigPath          *string        `json:"config_path"` // null: built-in defaults
}

// Hold is one reason why nothing, or not everything, starts.
type Hold struct {
	ID     *int64  `json:"id"` // null for one that is computed at the gate, or so far only in the stop journal
	Kind   string  `json:"kind"`
	Scope  string  `json:"scope"`
	Reason *string `json:"reason"`
	By     *string `json:"by"`
	Since  *Time   `json:"since"`
	Until  *Time   `json:"until"`
}

func holdOf(h cortex.Hold) Hold {
	w := Hold{
		Kind: string(h.Kind), Scope: h.Scope, Reason: wordOf(h.Reason), By: wordOf(h.By),
		Since: timeOf(&h.Since), Until: timeOf(h.Until),
	}
	if h.ID != 0 {
		w.ID = &h.ID
	}
	return w
}

func holdsOf(holds []cortex.Hold) []Hold {
	list := make([]Hold, 0, len(holds))
	for _, h := range holds {
		list = append(list, holdOf(h))
	}
	return list
}

// HoldDetail is a hold with how it came and went.
type HoldDetail struct {
	Hold
	Via          *string `json:"via"`
	LiftedAt     *Time   `json:"lifted_at"` // null while it is in force
	LiftedBy     *string `json:"lifted_by"`
	LiftedReason *string `json:"lifted_reason"`
	Recorded     string  `json:"recorded,omitempty"` // journal, where the database could not be written in time
}

func holdDetailOf(h cortex.Hold) HoldDetail {
	return HoldDetail{Hold: holdOf(h), Via: wordOf(h.Via), LiftedAt: timeOf(h.LiftedAt), LiftedBy: wordOf(h.LiftedBy),
		LiftedReason: wordOf(h.LiftedReason)}
}

func holdDetailsOf(holds []cortex.Hold) []HoldDetail {
	list := make([]HoldDetail, 0, len(holds))
	for _, h := range holds {
		list = append(list, holdDetailOf(h))
	}
	return list
}

// HoldList is the answer of GET /holds.
type HoldList struct {
	Holds      []HoldDetail `json:"holds"`
	NextCursor *string      `json:"next_cursor"`
}

// SchedulerStatus is the answer of GET /scheduler/status.
type SchedulerStatus struct {
	State          string  `json:"state"`
	Uptime         string  `json:"uptime"`
	LastTick       *Time   `json:"last_tick"`
	PausedAt       *Time   `json:"paused_at"`
	PausedDuration *string `json:"paused_duration,omitempty"` // only while paused
	ResumedAt      *Time   `json:"resumed_at"`                // null while paused
	PausedBy       *string `json:"paused_by"`
	Reason         *string `json:"reason"`
	ResumeAt       *Time   `json:"resume_at"`
	Holds          []Hold  `json:"holds"`
}

func schedulerStatusOf(s sched.Status, now time.Time) SchedulerStatus {
	w := SchedulerStatus{
		State: s.State, Uptime: FormatDuration(now.Sub(s.StartedAt)), LastTick: timeOf(&s.LastTick),
		PausedAt: timeOf(s.PausedAt), ResumedAt: timeOf(s.ResumedAt),
		PausedBy: wordOf(s.PausedBy), Reason: wordOf(s.Reason), ResumeAt: timeOf(s.ResumeAt),
		Holds: holdsOf(s.Holds),
	}
	if s.PausedAt != nil {
		w.PausedDuration = wordOf(FormatDuration(now.Sub(*s.PausedAt)))
	}
	return w
}

// Done is the answer to an order that is in force.
type Done struct {
	Status    string `json:"status"` // success
	Message   string `json:"message"`
	Timestamp Time   `json:"timestamp"`
	Recorded  string `json:"recorded,omitempty"` // journal, where the database could not be written in time
}

// ResumeDone is the answer of POST /scheduler/resume.
type ResumeDone struct {
	Done
	RemainingHolds []Hold `json:"remaining_holds,omitempty"`
}

// CancelDone is the answer of POST /dispatches/{id}/cancel, and of freeze and thaw there.
type CancelDone struct {
	Done
	Dispatch Dispatch `json:"dispatch"`
}

// CancelResult is what became of one dispatch of a cancel, a freeze or a thaw of many.
type CancelResult struct {
	ID       int64     `json:"id"`
	Status   string    `json:"status"` // success or error
	Message  string    `json:"message"`
	Reason   string    `json:"reason,omitempty"` // of an error
	Hint     string    `json:"hint,omitempty"`
	Recorded string    `json:"recorded,omitempty"`
	Dispatch *Dispatch `json:"dispatch,omitempty"`
}

// CancelResults is the answer of POST /dispatches/cancel, and of freeze and thaw there.
type CancelResults struct {
	Results []CancelResult `json:"results"`
}

// Check is one health check.
type Check struct {
	Name   string  `json:"name"`
	OK     bool    `json:"ok"`
	Notice bool    `json:"notice,omitempty"` // not ok, and healthy all the same
	Detail *string `json:"detail"`
	Hint   *string `json:"hint"`
}

// Event is one line of the audit trail.
type Event struct {
	ID         int64           `json:"id"`
	Type       string          `json:"type"` // severity: info, warning, error or critical
	Event      string          `json:"event"`
	Message    string          `json:"message"`
	CreatedAt  *Time           `json:"created_at"`
	DispatchID *int64          `json:"dispatch_id"`
	BeadID     *string         `json:"bead_id"`
	Details    json.RawMessage `json:"details"`
}

// EventList is a page of the audit trail, newest first. NextCursor, where it is not null, asks for the page after it.
type EventList struct {
	Events     []Event `json:"events"`
	NextCursor *string `json:"next_cursor"`
}

func eventsOf(events []cortex.Event) []Event {
	list := make([]Event, 0, len(events))
	for _, e := range events {
		w := Event{
			ID: e.ID, Type: string(e.Severity), Event: string(e.Type), Message: e.Message,
			CreatedAt: timeOf(e.CreatedAt), DispatchID: e.DispatchID, BeadID: wordOf(e.BeadID),
		}
		// Rows may be written by hand, so that details need not be JSON: a text is shown as one.
		switch {
		case e.Details == "":
		case json.Valid([]byte(e.Details)):
			w.Details = json.RawMessage(e.Details)
		default:
			w.Details, _ = json.Marshal(e.Details) // a string always marshals
		}
		list = append(list, w)
	}
	return list
}

// Health is the answer of GET /health.
type Health struct {
	Healthy      bool    `json:"healthy"`
	Checks       []Check `json:"checks"`
	RecentEvents []Event `json:"recent_events"`
}

// Problem is the body of every error.
type Problem struct {
	Error  string `json:"error"`
	Code   int    `json:"code"` // the HTTP status
	Reason string `json:"reason"`
	Hint   string `json:"hint"`

	Problems []Mistake `json:"problems,omitempty"` // of a configuration that is refused: all of them
}

// encode is one JSON value and a newline. Of <, > and & nothing is escaped: commands hold them, and no browser renders
// an answer as HTML (application/json, nosniff).
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}
