package cortex

import "slices"

// Severities are all severities, the lightest first.
var Severities = []Severity{Info, Warning, Err, Critical}

// Valid reports whether s is one of Severities.
func (s Severity) Valid() bool { return slices.Contains(Severities, s) }

// EventTypes are all events.
var EventTypes = []EventType{
	EventDaemonStarted, EventDaemonStopped, EventSchedulerPaused, EventSchedulerResumed,
	EventDispatchSubmitted, EventDispatchStarted, EventDispatchGivenBack, EventDispatchCompleted, EventDispatchFailed,
	EventDispatchChanged, EventDispatchFrozen, EventDispatchThawed, EventDispatchCancelling, EventDispatchCancelled, EventCancelFailed, EventDispatchRestored,
	EventStatusPutBack, EventStopByHand, EventRunUnreadable, EventNotProven,
	EventTmuxLost, EventTmuxUnavailable,
	EventDatabaseLocked, EventDatabaseUnlocked, EventDatabaseHung, EventDatabaseReplaced, EventCheckpointBlocked,
	EventDiskLow, EventDiskRecovered, EventJournalReplayed, EventDescriptorsLow, EventDescriptorsRecovered,
	EventMemoryLow, EventMemoryRecovered, EventLoadHigh, EventLoadRecovered,
	EventHoldSet, EventHoldLifted, EventPausedLong, EventConfigReloaded, EventConfigRefused,
}

// Valid reports whether t is one of EventTypes.
func (t EventType) Valid() bool { return slices.Contains(EventTypes, t) }
