// Package cortex holds the nouns that the rest of the program speaks of: dispatches, holds, events, errors and health
// checks. It does nothing with them, reads and writes nothing, and imports only the standard library.
package cortex

import (
	"slices"
	"time"
)

// Status is where a dispatch is on its way. Operators read these words from the database, the API and the metrics, so
// that they never change.
type Status string

// The statuses of a dispatch.
const (
	Pending      Status = "pending"       // accepted, durable, not started
	PendingRetry Status = "pending_retry" // failed, will be started again
	Running      Status = "running"       // claimed for a start, and not ended
	Completed    Status = "completed"     // ended with exit status 0, and not by a signal of ours
	Failed       Status = "failed"        // ended otherwise
	Cancelled    Status = "cancelled"     // ended by an operator through cortex; nothing of it is left
)

// Statuses lists every status in the order of a dispatch's way.
var Statuses = []Status{Pending, PendingRetry, Running, Completed, Failed, Cancelled}

// moves is the table of allowed status changes. The store makes them on conditions in SQL (WHERE status = ...), since operators
// write the same table by hand; this is what its results are held against in tests.
var moves = map[Status][]Status{
	Pending:      {Running, Cancelled},
	PendingRetry: {Running, Cancelled},
	Running:      {Completed, Failed, Cancelled, Pending, PendingRetry},
	Failed:       {Pending},
	Cancelled:    {Pending},
}

// May reports whether a dispatch may go from s to next.
func (s Status) May(next Status) bool { return slices.Contains(moves[s], next) }

// Ended reports whether s is final: nothing of the dispatch lives, and only a retry moves it on.
func (s Status) Ended() bool { return s == Completed || s == Failed || s == Cancelled }

// Valid reports whether s is one of Statuses.
func (s Status) Valid() bool { return slices.Contains(Statuses, s) }

// Stage refines Running.
type Stage string

// The stages of a running dispatch; one that does not run has none.
const (
	StageNone         Stage = ""
	StageStarting     Stage = "starting"      // claimed, no process yet
	StageRunning      Stage = "running"       // its process is there; pid, tty and session_name are set
	StageCancelling   Stage = "cancelling"    // a stop is ordered and on record; not yet verified
	StageCancelFailed Stage = "cancel_failed" // processes survive SIGKILL, or can't be signalled; tried again
)

// Category says why a failed dispatch failed (column failure_category).
type Category string

// The failure categories that are recorded today.
const (
	CategoryNone        Category = ""
	CategoryExitNonzero Category = "exit_nonzero"
	CategorySignal      Category = "signal"
	CategoryTimeout     Category = "timeout"
	CategorySpawnError  Category = "spawn_error"
	CategoryLost        Category = "lost" // session, runner or host went away and left no exit record
)

// Stopper says on whose word a dispatch was stopped (column stopped_by); empty when it ended by itself.
type Stopper string

// Who stops dispatches.
const (
	ByNobody   Stopper = ""
	ByOperator Stopper = "operator"
	ByTimeout  Stopper = "timeout"
)

// Priorities as in beads: 0 is started first, 4 last.
const (
	PriorityFirst   = 0
	PriorityDefault = 2
	PriorityLast    = 4
)

// Dispatch is one run of one command for one work item, a row of the table dispatches. Pointers are nil where the
// column is null.
type Dispatch struct {
	ID          int64
	BeadID      string
	Project     string
	Agent       string
	Provider    string
	Tier        string
	PID         *int64 // the agent's, in the daemon's pid namespace
	TTY         string // the agent's pty
	SessionName string
	Status      Status
	Stage       Stage
	Priority    int

	CreatedAt    *time.Time // null only where a person wrote something that is no time
	DispatchedAt *time.Time // the claim
	CompletedAt  *time.Time
	UpdatedAt    *time.Time
	NotBefore    *time.Time // it is not started before; nil: at once

	FrozenSince *time.Time // of a running one that is frozen; no column: the supervisor knows it

	ExitCode        *int // 128 + n where signal n ended it; nil where unknown
	Signal          *int // number of the signal that ended it
	DurationS       *float64
	Attempts        int // starts so far, given back ones included: the number of the folder runs/<id>/<attempt>
	Retries         int // attempts used beyond the first
	FailureCategory Category
	FailureSummary  string
	StoppedBy       Stopper

	InputTokens  *int64
	OutputTokens *int64
	CostUSD      *float64

	IdempotencyKey string // the submitter's name for the request; empty where it gave none

	// Accepted is true for what came in through cortex and has a spec in runs/; a row that a person inserted has none and
	// is never started.
	Accepted bool
}

// Attempt is one claimed start of a dispatch: what the claiming transaction hands to the supervisor.
type Attempt struct {
	Dispatch Dispatch
	Number   int // the folder runs/<id>/<Number>
}
