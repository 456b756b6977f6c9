package cortex

import "time"

// Severity of an event (column type of the view health_events). A dispatch's own failure is a warning; error and
// critical are trouble of cortex or of the host.
type Severity string

// The severities.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Err      Severity = "error"
	Critical Severity = "critical"
)

// EventType is the stable word for what happened.
type EventType string

// The events. Operators filter by these words, so that they never change.
const (
	EventDaemonStarted      EventType = "daemon_started"
	EventDaemonStopped      EventType = "daemon_stopped"
	EventSchedulerPaused    EventType = "scheduler_paused"
	EventSchedulerResumed   EventType = "scheduler_resumed"
	EventPausedLong         EventType = "paused_long" // longer than scheduler.paused_warning; once per pause
	EventHoldSet            EventType = "hold_set"    // of a scope other than all: that is scheduler_paused
	EventHoldLifted         EventType = "hold_lifted" // or ended by itself
	EventDispatchSubmitted  EventType = "dispatch_submitted"
	EventDispatchStarted    EventType = "dispatch_started"
	EventDispatchGivenBack  EventType = "dispatch_given_back" // claimed, then put back to pending before anything started
	EventDispatchCompleted  EventType = "dispatch_completed"
	EventDispatchFailed     EventType = "dispatch_failed"
	EventDispatchChanged    EventType = "dispatch_changed" // while it waited, by an operator
	EventDispatchCancelling EventType = "dispatch_cancelling"
	EventDispatchCancelled  EventType = "dispatch_cancelled"
	EventCancelFailed       EventType = "cancel_failed" // processes survive; details name pid and command
	EventDispatchFrozen     EventType = "dispatch_frozen"
	EventDispatchThawed     EventType = "dispatch_thawed"
	EventDispatchRestored   EventType = "dispatch_restored"     // taken in from runs/, the database did not know it
	EventStatusPutBack      EventType = "status_put_back"       // a live dispatch's row was changed by hand and is restored
	EventStopByHand         EventType = "stop_ordered_by_hand"  // a live dispatch's row was set to failed or cancelled by hand
	EventRunUnreadable      EventType = "run_unreadable"        // a folder in runs/ that can't be taken in
	EventNotProven          EventType = "not_proven"            // an end whose leftovers could not be looked for everywhere
	EventTmuxLost           EventType = "tmux_lost"             // the tmux server went away while dispatches ran
	EventTmuxUnavailable    EventType = "tmux_unavailable"      // no session can be opened
	EventDatabaseLocked     EventType = "database_locked"       // writes wait for another process
	EventDatabaseUnlocked   EventType = "database_unlocked"     // and go on
	EventDatabaseHung       EventType = "database_hung"         // a write of our own did not come back for long
	EventDatabaseReplaced   EventType = "database_replaced"     // the main file changed under a left WAL, or is an older copy
	EventCheckpointBlocked  EventType = "checkpoint_blocked"    // a reader kept the pause's checkpoint from finishing
	EventDiskLow            EventType = "disk_low"              // below the floor: nothing starts
	EventDiskRecovered      EventType = "disk_recovered"        // above it again
	EventJournalReplayed    EventType = "stop_journal_replayed" // orders of a locked time are now in the database

	EventConfigReloaded EventType = "config_reloaded" // what counts now, and what from the next start on
	EventConfigRefused  EventType = "config_refused"  // the file has mistakes: what was in force stays

	EventDescriptorsLow       EventType = "descriptors_low"       // few are free: nothing starts
	EventDescriptorsRecovered EventType = "descriptors_recovered" // enough again
	EventMemoryLow            EventType = "memory_low"            // past scheduler.min_memory: nothing starts
	EventMemoryRecovered      EventType = "memory_recovered"
	EventLoadHigh             EventType = "load_high" // past scheduler.max_load: nothing starts
	EventLoadRecovered        EventType = "load_recovered"
)

// Event is one line of the audit trail, a row of the table events.
type Event struct {
	ID         int64
	Type       EventType
	Severity   Severity
	Message    string
	Details    string // JSON object, or empty
	DispatchID *int64
	BeadID     string
	CreatedAt  *time.Time
}
