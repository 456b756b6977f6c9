package cortex

import "fmt"

// Reason is the stable word of an error: what scripts match and what the error reference explains. One is never renamed.
type Reason string

// The reasons. The API maps each to its HTTP status by one table (api/problem.go), and docs/errors.md explains each.
const (
	ReasonBadRequest       Reason = "bad_request"
	ReasonBadJSON          Reason = "bad_json"
	ReasonUnknownField     Reason = "unknown_field"
	ReasonBadValue         Reason = "bad_value"
	ReasonBadQuery         Reason = "bad_query"
	ReasonMissingCommand   Reason = "missing_command"
	ReasonBadWorkdir       Reason = "bad_workdir"
	ReasonNotAvailable     Reason = "not_available"
	ReasonTokenRequired    Reason = "token_required"
	ReasonTokenInvalid     Reason = "token_invalid"
	ReasonForeignHost      Reason = "foreign_host"
	ReasonForeignOrigin    Reason = "foreign_origin"
	ReasonPeerRefused      Reason = "peer_refused"
	ReasonNotFound         Reason = "not_found"
	ReasonMethodNotAllowed Reason = "method_not_allowed"
	ReasonNotRunning       Reason = "not_running"
	ReasonNotPending       Reason = "not_pending"
	ReasonHoldComputed     Reason = "hold_computed"
	ReasonBeingStopped     Reason = "being_stopped"
	ReasonNotSupported     Reason = "not_supported"
	ReasonFreezeFailed     Reason = "freeze_failed"
	ReasonKeyConflict      Reason = "idempotency_conflict"
	ReasonTooLarge         Reason = "too_large"
	ReasonDBLocked         Reason = "db_locked"
	ReasonDBHung           Reason = "db_hung"
	ReasonDiskFull         Reason = "disk_full"
	ReasonInternal         Reason = "internal"
	ReasonStopping         Reason = "stopping"
	ReasonWaitTimeout      Reason = "wait_timeout"
	ReasonOutputGone       Reason = "output_gone"
	ReasonConfigRefused    Reason = "config_refused"
	ReasonTooManyFollowers Reason = "too_many_followers"
)

// Error is the one error type for people: what went wrong, and what to do about it.
type Error struct {
	Reason  Reason
	Message string // one sentence: what is wrong
	Hint    string // what to do
	Err     error  // the cause, for the log; not shown by the API
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Message, e.Err)
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.Err }
