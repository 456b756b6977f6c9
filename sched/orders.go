package sched

import (
	"time"

	"cortex"
	"cortex/supervisor"
)

// Status is what the scheduler knows of itself and of what lives: from memory, so that asking never waits for the database.
type Status struct {
	State      string // StateRunning or StatePaused
	StartedAt  time.Time
	LastTick   time.Time // last pass of the loop
	PausedAt   *time.Time
	ResumedAt  *time.Time // nil while paused; the start of the daemon when that was not paused
	PausedBy   string
	Reason     string
	ResumeAt   *time.Time // when the pause ends by itself
	Holds      []cortex.Hold
	Counts     map[cortex.Status]int
	Running    int // what lives, and what ended so lately that its commit may be under way (supervisor.RecordPatience)
	Frozen     int // of those that live
	Pending    int // what waits, retries included
	Unrecorded int // ends that are on disk and not yet in the database

	MaxConcurrent    int
	RecentDispatches int // started since the last pause or resume, within the last 5 minutes
}

// States of the scheduler.
const (
	StateRunning = "running"
	StatePaused  = "paused"
)

// PauseOrder is an operator's word to start nothing more.
type PauseOrder struct {
	Reason string
	By     string
	Via    string
	TTL    time.Duration // 0: until it is lifted
}

// HoldOrder is an operator's word to start nothing that it covers.
type HoldOrder struct {
	PauseOrder
	Scope string
	Until *time.Time // when it ends by itself, where there is no TTL
}

// Held is the answer to a hold that is in force, durable, and past which nothing that it covers starts. Its id is 0 where it
// is so far only in the stop journal.
type Held struct {
	Hold     cortex.Hold
	Recorded string
}

// Where an order was made durable.
const (
	RecordedDatabase = "database"
	RecordedJournal  = "journal"
)

// Ordered is the answer to a pause that is in force, durable, and past which nothing starts.
type Ordered struct {
	At       time.Time
	Recorded string
}

// ResumeOrder is an operator's word to go on, or to lift one hold.
type ResumeOrder struct {
	Reason string
	By     string
	Via    string
}

// Resumed is the answer to a resume. Remaining are the holds of scope all that a resume does not lift.
type Resumed struct {
	At        time.Time
	Remaining []cortex.Hold
}

// Lifted is the answer to the lifting of one hold. Remaining are the holds of scope all that are still in force.
type Lifted struct {
	At        time.Time
	Hold      cortex.Hold
	Remaining []cortex.Hold
}

// CancelOrder is an operator's word to end a dispatch.
type CancelOrder struct {
	By    string
	Via   string
	Grace *time.Duration // between the cancel signal and SIGKILL; nil: the dispatch's own
}

// Cancelled is the answer to a cancel that is on record. The dispatch is shown as it is now: one that runs is being
// cancelled, and cancelled only when nothing of it is left.
type Cancelled struct {
	Dispatch cortex.Dispatch
	Recorded string
}

// FreezeOrder is an operator's word to freeze a dispatch, or to let it go on.
type FreezeOrder = supervisor.FreezeOrder
