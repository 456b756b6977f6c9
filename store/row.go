package store

import (
	"fmt"
	"strings"
	"time"

	"cortex"
)

// timeLayout is how times are written: UTC text that SQLite's date functions read and that compares as text.
const timeLayout = "2006-01-02 15:04:05.000"

// timeText is t for a column; nil (NULL) for the zero time.
func timeText(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(timeLayout)
}

// timeTextOf is timeText of what t points to.
func timeTextOf(t *time.Time) any {
	if t == nil {
		return nil
	}
	return timeText(*t)
}

// A person may write a time in any form that SQLite's own functions take (sqlite.org/lang_datefunc.html).
var timeLayouts = []string{
	"2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", time.RFC3339Nano,
	"2006-01-02 15:04:05.999999999 Z07:00", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02",
}

// parseTime reads a column; nil for what is no time.
func parseTime(s *string) *time.Time {
	if s == nil {
		return nil
	}
	text := strings.TrimSpace(*s)
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, text); err == nil {
			t = t.UTC()
			return &t
		}
	}
	return nil
}

// Columns are read so that nothing a person wrote into them makes the read fail: SQLite keeps what does not fit a
// column's type as it is.
func textColumn(name string) string {
	return fmt.Sprintf(`COALESCE(CAST(%[1]s AS TEXT), '') AS "%[2]s"`, name, strings.Trim(name, `"`))
}

func timeColumn(name string) string { return fmt.Sprintf(`CAST(%[1]s AS TEXT) AS %[1]s`, name) }

func intColumn(name string) string {
	return fmt.Sprintf(`CASE typeof(%[1]s) WHEN 'integer' THEN %[1]s END AS %[1]s`, name)
}

func numberColumn(name string, otherwise int) string {
	return fmt.Sprintf(`CASE typeof(%[1]s) WHEN 'integer' THEN %[1]s ELSE %[2]d END AS %[1]s`, name, otherwise)
}

func realColumn(name string) string {
	return fmt.Sprintf(`CASE WHEN typeof(%[1]s) IN ('integer', 'real') THEN CAST(%[1]s AS REAL) END AS %[1]s`, name)
}

func columns(list ...[]string) string {
	var all []string
	for _, l := range list {
		all = append(all, l...)
	}
	return strings.Join(all, ", ")
}

func each(column func(string) string, names ...string) []string {
	var all []string
	for _, n := range names {
		all = append(all, column(n))
	}
	return all
}

var waiterColumns = columns([]string{"id"}, each(textColumn, "bead_id", "project", "agent", "provider"),
	each(timeColumn, "created_at", "not_before"), []string{numberColumn("priority", cortex.PriorityDefault)})

var startColumns = columns(each(textColumn, "project", "agent", "provider"), each(timeColumn, "dispatched_at"))

var dispatchColumns = columns([]string{"id"},
	each(textColumn, "bead_id", "project", "agent", "provider", "tier", "tty", "session_name", "status", "stage",
		"failure_category", "failure_summary", "stopped_by", "stop_order", "idempotency_key", "request_hash"),
	each(timeColumn, "created_at", "dispatched_at", "completed_at", "updated_at", "not_before"),
	each(intColumn, "pid", "exit_code", "signal", "input_tokens", "output_tokens"),
	each(realColumn, "duration_s", "cost_usd"),
	[]string{numberColumn("priority", cortex.PriorityDefault)},
	each(func(n string) string { return numberColumn(n, 0) },
		"retries", "attempts", "accepted", "given_back", "last_given_back", "finished_attempt"))

// dispatchRow is a row of dispatches as dispatchColumns reads it.
type dispatchRow struct {
	ID              int64    `db:"id"`
	BeadID          string   `db:"bead_id"`
	Project         string   `db:"project"`
	Agent           string   `db:"agent"`
	Provider        string   `db:"provider"`
	Tier            string   `db:"tier"`
	PID             *int64   `db:"pid"`
	TTY             string   `db:"tty"`
	SessionName     string   `db:"session_name"`
	Status          string   `db:"status"`
	Stage           string   `db:"stage"`
	Priority        int      `db:"priority"`
	CreatedAt       *string  `db:"created_at"`
	DispatchedAt    *string  `db:"dispatched_at"`
	CompletedAt     *string  `db:"completed_at"`
	UpdatedAt       *string  `db:"updated_at"`
	NotBefore       *string  `db:"not_before"`
	ExitCode        *int     `db:"exit_code"`
	Signal          *int     `db:"signal"`
	DurationS       *float64 `db:"duration_s"`
	Retries         int      `db:"retries"`
	FailureCategory string   `db:"failure_category"`
	FailureSummary  string   `db:"failure_summary"`
	StoppedBy       string   `db:"stopped_by"`
	InputTokens     *int64   `db:"input_tokens"`
	OutputTokens    *int64   `db:"output_tokens"`
	CostUSD         *float64 `db:"cost_usd"`
	Attempts        int      `db:"attempts"`
	Accepted        int      `db:"accepted"`
	GivenBack       int      `db:"given_back"`
	LastGivenBack   int      `db:"last_given_back"`
	FinishedAttempt int      `db:"finished_attempt"`
	StopOrder       string   `db:"stop_order"`
	IdempotencyKey  string   `db:"idempotency_key"`
	RequestHash     string   `db:"request_hash"`
}

func (r dispatchRow) dispatch() cortex.Dispatch {
	return cortex.Dispatch{
		ID: r.ID, BeadID: r.BeadID, Project: r.Project, Agent: r.Agent, Provider: r.Provider, Tier: r.Tier,
		PID: r.PID, TTY: r.TTY, SessionName: r.SessionName,
		Status: cortex.Status(r.Status), Stage: cortex.Stage(r.Stage), Priority: r.Priority,
		CreatedAt: parseTime(r.CreatedAt), DispatchedAt: parseTime(r.DispatchedAt),
		CompletedAt: parseTime(r.CompletedAt), UpdatedAt: parseTime(r.UpdatedAt), NotBefore: parseTime(r.NotBefore),
		ExitCode: r.ExitCode, Signal: r.Signal, DurationS: r.DurationS, Attempts: r.Attempts, Retries: r.Retries,
		FailureCategory: cortex.Category(r.FailureCategory), FailureSummary: r.FailureSummary,
		StoppedBy: cortex.Stopper(r.StoppedBy), InputTokens: r.InputTokens, OutputTokens: r.OutputTokens, CostUSD: r.CostUSD,
		Accepted: r.Accepted != 0, IdempotencyKey: r.IdempotencyKey,
	}
}

var holdColumns = columns([]string{"id"},
	each(textColumn, "kind", "scope", "reason", `"by"`, "via", "lifted_by", "lifted_reason"),
	each(timeColumn, "since", "until", "lifted_at"), []string{numberColumn("own", 0)})

// holdRow is a row of holds as holdColumns reads it.
type holdRow struct {
	ID           int64   `db:"id"`
	Kind         string  `db:"kind"`
	Scope        string  `db:"scope"`
	Reason       string  `db:"reason"`
	By           string  `db:"by"`
	Via          string  `db:"via"`
	Since        *string `db:"since"`
	Until        *string `db:"until"`
	LiftedAt     *string `db:"lifted_at"`
	LiftedBy     string  `db:"lifted_by"`
	LiftedReason string  `db:"lifted_reason"`
	Own          int     `db:"own"`
}

// hold reads a row. Where a person's text leaves it open, it holds: no scope means all, and an end that is no time never
// comes.
func (r holdRow) hold() cortex.Hold {
	h := cortex.Hold{ID: r.ID, Kind: cortex.HoldKind(r.Kind), Scope: r.Scope, Reason: r.Reason, By: r.By, Via: r.Via, Own: r.Own != 0,
		Until: parseTime(r.Until), LiftedAt: parseTime(r.LiftedAt), LiftedBy: r.LiftedBy, LiftedReason: r.LiftedReason}
	if h.Scope == "" {
		h.Scope = cortex.ScopeAll
	}
	if since := parseTime(r.Since); since != nil {
		h.Since = *since
	}
	return h
}

var eventColumns = columns([]string{"id"},
	each(textColumn, "event_type", "type", "message", "details", "bead_id"), each(timeColumn, "created_at"),
	each(intColumn, "dispatch_id"))

// eventRow is a row of events as eventColumns reads it.
type eventRow struct {
	ID         int64   `db:"id"`
	EventType  string  `db:"event_type"`
	Type       string  `db:"type"`
	Message    string  `db:"message"`
	Details    string  `db:"details"`
	DispatchID *int64  `db:"dispatch_id"`
	BeadID     string  `db:"bead_id"`
	CreatedAt  *string `db:"created_at"`
}

func (r eventRow) event() cortex.Event {
	return cortex.Event{ID: r.ID, Type: cortex.EventType(r.EventType), Severity: cortex.Severity(r.Type), Message: r.Message,
		Details: r.Details, DispatchID: r.DispatchID, BeadID: r.BeadID, CreatedAt: parseTime(r.CreatedAt)}
}
