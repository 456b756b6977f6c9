package supervisor

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"cortex"
	"cortex/runner"
	"cortex/runner/record"
	"cortex/store"
)

// outcome says how an attempt ended, by what is on record of it: it has an exit record or a verdict. It is pure, so that the
// same runs/ gives the same row whichever daemon reads it, and whenever.
//
// A run that cortex signalled is never completed, whatever its exit status says: some agents exit 0 on TERM or INT.
func outcome(f runner.Facts) store.End {
	end := store.End{Attempt: f.Attempt}
	if f.Started != nil {
		pid := int64(f.Started.Agent.PID)
		end.PID, end.TTY = &pid, f.Started.TTY
	}
	if f.Claim != nil {
		end.Session = f.Claim.Session
	}
	switch {
	case f.Exit != nil:
		ofExit(&end, *f.Exit, f.Order)
	case f.Verdict != nil:
		ofVerdict(&end, *f.Verdict)
	}
	return end
}

func ofExit(end *store.End, exit record.Exit, order *record.Order) {
	end.CompletedAt = exit.EndedAt
	if exit.Cause == record.CauseSpawnError {
		failed(end, cortex.CategorySpawnError, exit.Error)
		return
	}
	end.DurationS = &exit.Seconds
	code, how := exit.Code, fmt.Sprintf("exit status %d", exit.Code)
	if exit.Signal != 0 {
		signal := exit.Signal
		end.Signal = &signal
		code, how = 128+signal, fmt.Sprintf("ended by signal %d (%s)", signal, unix.SignalName(unix.Signal(signal)))
	}
	end.ExitCode = &code
	switch {
	case order != nil && exit.Cause != record.CauseExit:
		stopped(end, *order, how)
	case exit.Cause == record.CauseStop: // its order was lost with a disk; who else may ask a runner to stop
		end.Status, end.StoppedBy, end.Summary = cortex.Cancelled, cortex.ByOperator, how
	case exit.Cause == record.CauseHangup:
		failed(end, cortex.CategorySignal, "its tmux session was closed or its runner was told to end; "+how)
	case exit.Signal != 0:
		failed(end, cortex.CategorySignal, how)
	case exit.Code != 0:
		failed(end, cortex.CategoryExitNonzero, how)
	default:
		end.Status = cortex.Completed
	}
}

func ofVerdict(end *store.End, v record.Verdict) {
	end.CompletedAt = v.At
	end.DurationS = v.Seconds
	switch v.Kind {
	case record.VerdictCancelled:
		end.Status, end.StoppedBy, end.Summary = cortex.Cancelled, cortex.ByOperator, v.Detail
	case record.VerdictTimeout:
		failed(end, cortex.CategoryTimeout, v.Detail)
		end.StoppedBy = cortex.ByTimeout
	case record.VerdictSpawnError:
		failed(end, cortex.CategorySpawnError, v.Detail)
	default:
		failed(end, cortex.CategoryLost, v.Detail)
	}
}

func stopped(end *store.End, order record.Order, how string) {
	if order.By == string(cortex.ByTimeout) {
		failed(end, cortex.CategoryTimeout, order.Reason+"; "+how)
		end.StoppedBy = cortex.ByTimeout
		return
	}
	end.Status, end.StoppedBy, end.Summary = cortex.Cancelled, cortex.Stopper(order.By), how
}

func failed(end *store.End, why cortex.Category, summary string) {
	end.Status, end.Category, end.Summary = cortex.Failed, why, summary
}

// verdictKind is the verdict on an attempt that ended without an exit record, and of which nothing is left.
func verdictKind(order *record.Order) string {
	switch {
	case order == nil:
		return record.VerdictLost
	case order.By == string(cortex.ByTimeout):
		return record.VerdictTimeout
	}
	return record.VerdictCancelled
}

// endEvent is the line of the audit trail that goes with an end.
func endEvent(d cortex.Dispatch, end store.End, now time.Time) cortex.Event {
	e := cortex.Event{DispatchID: &d.ID, BeadID: d.BeadID, CreatedAt: &now, Severity: cortex.Info}
	what := fmt.Sprintf("Dispatch %d (%s) ", d.ID, d.BeadID)
	switch end.Status {
	case cortex.Completed:
		e.Type, e.Message = cortex.EventDispatchCompleted, what+"completed"
	case cortex.Cancelled:
		e.Type, e.Message = cortex.EventDispatchCancelled, what+"was cancelled; nothing of it is left"
	default:
		e.Type, e.Severity = cortex.EventDispatchFailed, cortex.Warning
		e.Message = fmt.Sprintf("%sfailed: %s: %s", what, end.Category, end.Summary)
	}
	return e
}
