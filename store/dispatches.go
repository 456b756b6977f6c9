package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"cortex"
	"cortex/runner/record"
)

// row reads one dispatch within the transaction; ErrNotFound.
func (t *tx) row(id int64) (dispatchRow, error) {
	var r dispatchRow
	err := t.get(&r, "SELECT "+dispatchColumns+" FROM dispatches WHERE id = ?", id)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	return r, err
}

// Claim takes a pending dispatch for a start, in one transaction with the look at the holds and the counts of what runs and was
// started that limits bounds (for a dispatch as its row is then). Taken has to follow. ErrHeld, also before its time; ErrFull;
// ErrNotFound; ErrNotPending, also where it has no spec, while it is being changed, and where an operator wrote pending into
// the row of one that lives, which would run twice. After ErrHung late is called with the attempt when it is claimed after all.
func (s *Store) Claim(ctx context.Context, id int64, limits func(cortex.Dispatch) []cortex.Limit, late func(cortex.Attempt)) (
	cortex.Attempt, error) {
	var a cortex.Attempt
	err := s.doLate(ctx, func(t *tx) error {
		r, err := t.row(id)
		if err != nil {
			return err
		}
		if r.Status != string(cortex.Pending) || r.Accepted != 1 || liveIn(r, r.Attempts) {
			return ErrNotPending
		}
		if err := t.gate(r.dispatch(), limits); err != nil {
			return err
		}
		a, err = t.claim(r)
		return err
	}, func(err error) {
		if err == nil {
			late(a)
		}
	})
	if err != nil {
		return cortex.Attempt{}, fmt.Errorf("claim dispatch %d: %w", id, err)
	}
	return a, nil
}

// gate is what keeps d from being started now.
func (t *tx) gate(d cortex.Dispatch, limits func(cortex.Dispatch) []cortex.Limit) error {
	if held, err := t.covers(d); err != nil || held {
		return cmp.Or(err, ErrHeld)
	}
	if d.NotBefore != nil && t.now.Before(*d.NotBefore) {
		return ErrHeld
	}
	if err := t.s.mem.notStarted(d, t.now); err != nil {
		return err
	}
	for _, l := range limits(d) {
		if err := t.within(l); err != nil {
			return err
		}
	}
	return nil
}

// within is ErrFull where one more start would be beyond l.
func (t *tx) within(l cortex.Limit) error {
	where, args := "", []any{}
	if kind, name, named := strings.Cut(l.Scope, ":"); named {
		where, args = " AND COALESCE("+scopeColumns[kind]+", '') = ?", []any{name}
	}
	n := 0
	if l.Concurrent > 0 {
		// A row that a person wrote as running takes no slot: nothing of it runs.
		err := t.get(&n, "SELECT count(*) FROM dispatches WHERE status = 'running' AND accepted = 1"+where, args...)
		if err != nil || n >= l.Concurrent {
			return cmp.Or(err, ErrFull)
		}
	}
	if l.PerMinute > 0 {
		// One that seems to come from the future was started before the clock was set back.
		span := []any{timeText(t.now.Add(-time.Minute)), timeText(t.now)}
		err := t.get(&n, "SELECT count(*) FROM dispatches WHERE dispatched_at > ? AND dispatched_at <= ?"+where, append(span, args...)...)
		if err != nil || n >= l.PerMinute {
			return cmp.Or(err, ErrFull)
		}
	}
	return nil
}

func (t *tx) claim(r dispatchRow) (cortex.Attempt, error) {
	n := r.Attempts + 1
	changed, err := t.exec(`UPDATE dispatches SET status = 'running', stage = 'starting', attempts = ?, retries = ?,
			dispatched_at = ?, updated_at = ?, completed_at = NULL, pid = NULL, tty = NULL, session_name = NULL,
			exit_code = NULL, signal = NULL, duration_s = NULL, failure_category = NULL, failure_summary = NULL,
			stopped_by = NULL, stop_order = NULL
		WHERE id = ? AND status = 'pending'`,
		n, retries(n, r.GivenBack), timeText(t.now), timeText(t.now), r.ID)
	if err != nil {
		return cortex.Attempt{}, err
	}
	if changed == 0 {
		return cortex.Attempt{}, ErrNotPending
	}
	t.move(r.ID, cortex.Pending, cortex.Running)
	t.claimed++
	now, err := t.row(r.ID)
	return cortex.Attempt{Dispatch: now.dispatch(), Number: n}, err
}

// retries is how many attempts were used beyond the first.
func retries(attempts, givenBack int) int { return max(attempts-1-givenBack, 0) }

// Started records the process of an attempt, all of it in one update. ErrNotRunning where the row is not that of a running
// dispatch in this attempt any more; one of an older attempt (the copy of a database that was restored) is brought to it.
func (s *Store) Started(ctx context.Context, id int64, attempt int, pid int64, tty, session string) error {
	err := s.do(ctx, func(t *tx) error {
		before, err := t.row(id)
		if err != nil {
			return err
		}
		n, err := t.exec(`UPDATE dispatches SET pid = ?, tty = ?, session_name = ?, updated_at = ?, attempts = ?,
				stage = CASE WHEN stage IN ('starting', '') OR stage IS NULL THEN 'running' ELSE stage END
			WHERE id = ? AND status = 'running' AND attempts <= ? AND finished_attempt < ?`,
			pid, tty, session, timeText(t.now), attempt, id, attempt, attempt)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotRunning
		}
		if before.PID != nil && *before.PID == pid && before.Attempts == attempt {
			return nil // an adoption: its start is on record
		}
		r, err := t.row(id)
		if err != nil {
			return err
		}
		return t.about(r.dispatch(), cortex.Event{Type: cortex.EventDispatchStarted,
			Message: fmt.Sprintf("Dispatch %d started in session %s", id, session),
			Details: details(map[string]any{"attempt": attempt, "pid": pid, "tty": tty, "session": session})})
	})
	return wrap(err, "record the start of dispatch", id)
}

func wrap(err error, deed string, id int64) error {
	if err != nil {
		return fmt.Errorf("%s %d: %w", deed, id, err)
	}
	return nil
}

// GiveBack makes a claimed dispatch pending again, of which nothing was started; it uses up no retry. One whose stop was
// ordered meanwhile is cancelled. ErrNotRunning.
func (s *Store) GiveBack(ctx context.Context, id int64, attempt int, why string) error {
	err := s.do(ctx, func(t *tx) error {
		r, err := t.row(id)
		if err != nil {
			return err
		}
		n, err := t.exec(`UPDATE dispatches SET status = 'pending', stage = '', dispatched_at = NULL, pid = NULL, tty = NULL,
				session_name = NULL, stop_order = NULL, updated_at = ?, given_back = ?, last_given_back = ?, retries = ?
			WHERE id = ? AND status = 'running' AND attempts = ?`,
			timeText(t.now), r.GivenBack+1, attempt, retries(attempt, r.GivenBack+1), id, attempt)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotRunning
		}
		t.move(id, cortex.Running, cortex.Pending)
		if r.StopOrder != "" {
			var order record.Order
			if json.Unmarshal([]byte(r.StopOrder), &order) != nil {
				order.Actor = "" // scribbled over by hand: a stop all the same
			}
			_, err := t.cancelPending(id, order.Actor, t.now)
			return err
		}
		return t.about(r.dispatch(), cortex.Event{Type: cortex.EventDispatchGivenBack,
			Message: fmt.Sprintf("Dispatch %d is pending again, nothing of it was started: %s", id, why),
			Details: details(map[string]any{"attempt": attempt, "why": why})})
	})
	return wrap(err, "give back dispatch", id)
}

// SetStage sets the stage of a running dispatch, and records ev where it is not nil. A row that is not running, ended by
// hand say, keeps its own; ev is recorded all the same. ErrNotFound.
func (s *Store) SetStage(ctx context.Context, id int64, stage cortex.Stage, ev *cortex.Event) error {
	err := s.do(ctx, func(t *tx) error {
		_, err := t.exec("UPDATE dispatches SET stage = ?, updated_at = ? WHERE id = ? AND status = 'running'",
			string(stage), timeText(t.now), id)
		if err != nil {
			return err
		}
		r, err := t.row(id)
		if err != nil || ev == nil {
			return err
		}
		return t.about(r.dispatch(), *ev)
	})
	return wrap(err, "set the stage of dispatch", id)
}

// End is how an attempt ended.
type End struct {
	Attempt     int
	Status      cortex.Status // an ended one
	Category    cortex.Category
	Summary     string
	ExitCode    *int
	Signal      *int
	CompletedAt time.Time // now where zero
	DurationS   *float64
	StoppedBy   cortex.Stopper
	PID         *int64 // these three fill what Started could not write
	TTY         string
	Session     string
	Event       cortex.Event // none where it has no type
}

// Finish records the end of an attempt that lived, with its event, and returns the row as it is then. A status failed or
// cancelled that an operator has written into the row meanwhile stays, with stopped_by operator; what the operator left open
// is filled in. An end that is recorded already, of this attempt or a later one, is not recorded again. ErrNotFound where
// the row was deleted: PutBack first.
func (s *Store) Finish(ctx context.Context, id int64, e End) (cortex.Dispatch, error) {
	if !e.Status.Ended() {
		return cortex.Dispatch{}, fmt.Errorf("finish dispatch %d: status %q is no end", id, e.Status)
	}
	var d cortex.Dispatch
	err := s.do(ctx, func(t *tx) error {
		r, err := t.row(id)
		if err != nil {
			return err
		}
		// A row that a person wrote as running has no attempt, and no end of it can be on record.
		byHand := r.Accepted != 1 && !cortex.Status(r.Status).Ended()
		if !liveIn(r, e.Attempt) && !byHand {
			d = r.dispatch()
			return nil
		}
		if err := t.finish(r, e); err != nil {
			return err
		}
		ev := e.Event
		if stoppedByHand(r.Status) && ev.Type != "" {
			ev = endedByHand(r.dispatch(), ev)
		}
		if r, err = t.row(id); err != nil {
			return err
		}
		d = r.dispatch()
		return t.about(d, ev)
	})
	if err != nil {
		return cortex.Dispatch{}, fmt.Errorf("record the end of dispatch %d: %w", id, err)
	}
	return d, nil
}

// liveIn reports whether attempt is the row's newest and has neither an end on record nor was given back: whatever the
// status says, an operator may have written that. There is no attempt 0.
func liveIn(r dispatchRow, attempt int) bool {
	return attempt > 0 && r.FinishedAttempt < attempt && r.LastGivenBack < attempt && r.Attempts <= attempt
}

// stoppedByHand reports whether an operator's word in the row ends the dispatch.
func stoppedByHand(status string) bool {
	return status == string(cortex.Failed) || status == string(cortex.Cancelled)
}

// endedByHand is the event of an end whose status a person has written: what the row says is what is told.
func endedByHand(d cortex.Dispatch, ev cortex.Event) cortex.Event {
	ev.Type, ev.Severity = cortex.EventDispatchCancelled, cortex.Info
	if d.Status == cortex.Failed {
		ev.Type, ev.Severity = cortex.EventDispatchFailed, cortex.Warning
	}
	ev.Message = fmt.Sprintf("Dispatch %d (%s), whose row was set to %s by hand while it ran, has ended; nothing of it is left",
		d.ID, d.BeadID, d.Status)
	return ev
}

// Apply shows in d what Finish will record of it, for whoever asks while the database is locked.
func (e End) Apply(d cortex.Dispatch) cortex.Dispatch {
	d.Status, d.Stage, d.FailureCategory, d.FailureSummary = e.Status, cortex.StageNone, e.Category, e.Summary
	d.ExitCode, d.Signal, d.DurationS, d.StoppedBy = e.ExitCode, e.Signal, e.DurationS, e.StoppedBy
	d.CompletedAt = nil
	if !e.CompletedAt.IsZero() {
		at := e.CompletedAt
		d.CompletedAt = &at
	}
	if d.PID == nil {
		d.PID = e.PID
	}
	d.TTY, d.SessionName = cmp.Or(d.TTY, e.TTY), cmp.Or(d.SessionName, e.Session)
	return d
}

func (t *tx) finish(r dispatchRow, e End) error {
	if e.CompletedAt.IsZero() {
		e.CompletedAt = t.now
	}
	var began any // where a restored row does not know it
	if e.DurationS != nil {
		began = timeText(e.CompletedAt.Add(-time.Duration(*e.DurationS * float64(time.Second))))
	}
	t.ended = true
	facts := []any{int64OrNil(e.PID), e.TTY, e.Session, began, timeText(t.now), e.Attempt, max(e.Attempt, r.Attempts)}
	const common = `pid = COALESCE(pid, ?), tty = COALESCE(NULLIF(tty, ''), NULLIF(?, '')),
		session_name = COALESCE(NULLIF(session_name, ''), NULLIF(?, '')), dispatched_at = COALESCE(dispatched_at, ?),
		updated_at = ?, finished_attempt = ?, attempts = ?, stage = '', stop_order = NULL`
	if stoppedByHand(r.Status) {
		_, err := t.exec(`UPDATE dispatches SET `+common+`, stopped_by = 'operator',
				failure_category = COALESCE(NULLIF(failure_category, ''), NULLIF(?, '')),
				failure_summary = COALESCE(NULLIF(failure_summary, ''), NULLIF(?, '')),
				exit_code = COALESCE(exit_code, ?), signal = COALESCE(signal, ?), completed_at = COALESCE(completed_at, ?),
				duration_s = COALESCE(duration_s, ?)
			WHERE id = ?`, append(facts, string(e.Category), e.Summary, e.ExitCode, e.Signal, timeText(e.CompletedAt),
			e.DurationS, r.ID)...)
		return err
	}
	t.move(r.ID, cortex.Status(r.Status), e.Status)
	_, err := t.exec(`UPDATE dispatches SET `+common+`, status = ?, stopped_by = NULLIF(?, ''), failure_category = NULLIF(?, ''),
			failure_summary = NULLIF(?, ''), exit_code = ?, signal = ?, completed_at = ?, duration_s = ?
		WHERE id = ?`, append(facts, string(e.Status), string(e.StoppedBy), string(e.Category), e.Summary, e.ExitCode, e.Signal,
		timeText(e.CompletedAt), e.DurationS, r.ID)...)
	return err
}

func int64OrNil(p *int64) any {
	if p == nil {
		return nil
	}
	return *p
}

// PutBack makes the row of a dispatch that lives in attempt running again, after somebody has written another status than
// failed or cancelled into it or deleted it, and records ev. What a deleted row knew comes from spec and runs/. Where it is
// running, was stopped by hand or has ended meanwhile nothing is changed.
func (s *Store) PutBack(ctx context.Context, spec record.Spec, attempt int, stage cortex.Stage, ev cortex.Event) error {
	live := s.liveFacts(spec.ID, attempt)
	err := s.do(ctx, func(t *tx) error {
		r, err := t.row(spec.ID)
		switch {
		case errors.Is(err, ErrNotFound):
			if err := t.insertSpec(spec, cortex.Running, attempt); err != nil {
				return err
			}
		case err != nil:
			return err
		case r.Status == string(cortex.Running) || stoppedByHand(r.Status) || !liveIn(r, attempt):
			return nil
		default:
			t.move(spec.ID, cortex.Status(r.Status), cortex.Running)
		}
		_, err = t.exec(`UPDATE dispatches SET status = 'running', stage = ?, attempts = ?, completed_at = NULL, updated_at = ?,
				pid = COALESCE(pid, ?), tty = COALESCE(tty, ?), session_name = COALESCE(session_name, ?),
				dispatched_at = COALESCE(dispatched_at, ?)
			WHERE id = ?`, string(stage), attempt, timeText(t.now), live.pid, live.tty, live.session, live.began, spec.ID)
		if err != nil {
			return err
		}
		return t.about(RowOf(spec), ev)
	})
	return wrap(err, "put back dispatch", spec.ID)
}

// liveFacts is what runs/ knows of an attempt that lives; NULLs for what it does not.
func (s *Store) liveFacts(id int64, attempt int) (f struct{ pid, tty, session, began any }) {
	dir, err := record.OpenDir(s.runs, id, attempt)
	if err != nil {
		return f
	}
	defer dir.Close()
	var claim record.Claim
	if dir.Read(record.ClaimFile, &claim) == nil && !claim.Revoked {
		f.session, f.began = claim.Session, timeText(claim.At)
	}
	var started record.Started
	if dir.Read(record.StartedFile, &started) == nil {
		f.pid, f.tty = started.Agent.PID, started.TTY
	}
	return f
}
