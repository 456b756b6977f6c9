package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"cortex"
	"cortex/internal/fault"
	"cortex/runner/record"
)

// Accept takes a dispatch in: its spec is durable in runs/<id>/ before its row is committed, and in its final place before
// Accept returns, so that neither a crash nor a lost database loses it. The id, the format and, where it has none, the
// time of spec are set here. On an error nothing of it is left, but for ErrHung: then it may still be accepted.
// It waits for the database at most WriteTimeout.
//
// Where the spec has a key that was used, nothing is taken in: for the same request its dispatch is returned as repeated, for
// another the error is ErrKeyUsed.
func (s *Store) Accept(ctx context.Context, spec record.Spec) (d cortex.Dispatch, repeated bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, WriteTimeout, ErrLocked)
	defer cancel()
	select {
	case <-s.ready: // only now are the ids known that the database has used
	case <-ctx.Done():
		return cortex.Dispatch{}, false, fmt.Errorf("accept: %w", s.gaveUp(ctx))
	}
	if err := s.contention.fatal(); err != nil {
		return cortex.Dispatch{}, false, err
	}
	spec.Format = record.Format
	if spec.CreatedAt.IsZero() {
		spec.CreatedAt = s.now()
	}
	for {
		spec.ID = s.ids.take(dispatchIDs)
		d, err := s.acceptAs(ctx, spec)
		switch {
		case isTaken(err) || errors.Is(err, record.ErrTaken):
			continue // somebody has just inserted a row with this id by hand, or made a folder of its name
		case errors.Is(err, errRepeated):
			return d, true, nil
		case err != nil:
			return cortex.Dispatch{}, false, fmt.Errorf("accept: %w", s.roomError(err))
		}
		return d, false, nil
	}
}

// errRepeated says that the key of a spec was used for the same request.
var errRepeated = errors.New("the same request was accepted before")

// keyed looks for the dispatch that has the key of spec: errRepeated with that, ErrKeyUsed, or nil where there is none.
func (t *tx) keyed(spec record.Spec) (cortex.Dispatch, error) {
	if spec.Key == "" {
		return cortex.Dispatch{}, nil
	}
	var r dispatchRow
	err := t.get(&r, "SELECT "+dispatchColumns+" FROM dispatches WHERE idempotency_key = ?", spec.Key)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return cortex.Dispatch{}, nil
	case err != nil:
		return cortex.Dispatch{}, err
	case r.RequestHash == spec.Request:
		return r.dispatch(), errRepeated
	}
	return cortex.Dispatch{}, &cortex.Error{Reason: cortex.ReasonKeyConflict, Err: ErrKeyUsed,
		Message: fmt.Sprintf("The idempotency key was used for another request, which is dispatch %d", r.ID),
		Hint:    "a new request needs a new key"}
}

// acceptAs is Accept with the id that spec has.
func (s *Store) acceptAs(ctx context.Context, spec record.Spec) (d cortex.Dispatch, err error) {
	s.mem.setFresh(spec.ID, true)
	dir, err := record.MakeDir(s.runs, spec.ID, 0)
	if err != nil {
		return d, err
	}
	if dir.Exists(record.SpecFile) || dir.Exists(record.SpecNew) {
		s.mem.setFresh(spec.ID, false)
		return d, errors.Join(fmt.Errorf("dispatch %d: %w", spec.ID, record.ErrTaken), dir.Close())
	}
	if err := dir.Write(record.SpecNew, spec); err != nil {
		return d, errors.Join(err, s.removeRun(dir, spec.ID), dir.Close())
	}
	fault.Point("accept.spec")
	// From the commit to the rename the row is there and the spec is not yet where a runner looks for it.
	s.mem.setAccepting(spec.ID, true)
	var row cortex.Dispatch
	err = s.doLate(ctx, func(t *tx) (err error) {
		row, err = t.insertAccepted(spec)
		return err
	}, func(err error) {
		if err := s.settleAccept(dir, spec.ID, err); err != nil {
			s.log.Error("what was not accepted is left in runs/", "dispatch", spec.ID, "err", err)
		}
	})
	if errors.Is(err, ErrHung) {
		return d, err
	}
	if err == nil || errors.Is(err, errRepeated) {
		d = row
	}
	return d, errors.Join(err, s.settleAccept(dir, spec.ID, err))
}

// settleAccept puts the spec of a dispatch in its place, or takes it away where err says that it was not accepted.
func (s *Store) settleAccept(dir *record.Dir, id int64, err error) error {
	defer dir.Close()
	defer s.mem.setAccepting(id, false)
	if err != nil {
		return s.removeRun(dir, id)
	}
	fault.Point("accept.committed")
	if err := dir.Rename(record.SpecNew, record.SpecFile); err != nil {
		// It is accepted: row and spec.new are durable, and the next start of cortex renames that.
		s.log.Error("a spec can't be put in its place", "dispatch", id, "err", err)
	}
	return nil
}

// removeRun takes the folder of a dispatch that was not accepted away.
func (s *Store) removeRun(dir *record.Dir, id int64) error {
	err := errors.Join(dir.Remove(record.SpecNew), dir.RemoveTemps(record.SpecNew))
	if rerr := os.Remove(filepath.Join(s.runs, strconv.FormatInt(id, 10))); err == nil {
		err = rerr
	}
	return err
}

func (t *tx) insertAccepted(spec record.Spec) (cortex.Dispatch, error) {
	if d, err := t.keyed(spec); err != nil {
		return d, err
	}
	if err := t.insertSpec(spec, cortex.Pending, 0); err != nil {
		return cortex.Dispatch{}, err
	}
	r, err := t.row(spec.ID)
	if err != nil {
		return cortex.Dispatch{}, err
	}
	d := r.dispatch()
	return d, t.about(d, cortex.Event{Type: cortex.EventDispatchSubmitted, Message: fmt.Sprintf("Dispatch %d accepted", d.ID)})
}

// insertSpec inserts the row that a spec describes; without its key where another row has that, as a restored copy may.
func (t *tx) insertSpec(spec record.Spec, status cortex.Status, attempts int) error {
	stage, idle := cortex.StageNone, attempts // of one that waits no attempt lives
	if status == cortex.Running {
		stage, idle = cortex.StageRunning, 0
	}
	_, err := t.exec(`INSERT INTO dispatches (id, bead_id, project, agent, provider, tier, status, stage, priority, created_at,
			updated_at, not_before, retries, attempts, last_given_back, idempotency_key, request_hash, accepted)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
			CASE WHEN EXISTS (SELECT 1 FROM dispatches WHERE idempotency_key = ?) THEN NULL ELSE NULLIF(?, '') END,
			NULLIF(?, ''), 1)`,
		spec.ID, spec.Bead, spec.Project, spec.Agent, spec.Provider, spec.Tier, string(status), string(stage), spec.Priority,
		timeText(spec.CreatedAt), timeText(t.now), timeTextOf(spec.NotBefore), max(attempts-1, 0), attempts, idle, spec.Key, spec.Key, spec.Request)
	if err != nil {
		return err
	}
	t.s.ids.see(dispatchIDs, spec.ID)
	t.move(spec.ID, "", status)
	return nil
}

// RowOf is the row that Accept makes of spec.
func RowOf(spec record.Spec) cortex.Dispatch {
	created := spec.CreatedAt
	return cortex.Dispatch{
		ID: spec.ID, BeadID: spec.Bead, Project: spec.Project, Agent: spec.Agent, Provider: spec.Provider, Tier: spec.Tier,
		Status: cortex.Pending, Priority: spec.Priority, CreatedAt: &created, UpdatedAt: &created, NotBefore: spec.NotBefore,
		Accepted:       true,
		IdempotencyKey: spec.Key,
	}
}

// FinishAccept puts the spec of a row in its place where a crash came between the commit and that.
func (s *Store) FinishAccept(id int64) error {
	dir, err := record.OpenDir(s.runs, id, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a row written by hand
	}
	if err != nil {
		return wrap(err, "look for the spec of dispatch", id)
	}
	defer dir.Close()
	if dir.Exists(record.SpecFile) || !dir.Exists(record.SpecNew) {
		return nil
	}
	return wrap(dir.Rename(record.SpecNew, record.SpecFile), "put in its place the spec of dispatch", id)
}

// Discard removes the folder of a dispatch that was never committed, and so never answered: it has a spec.new and no row. A
// folder with anything else in it stays.
func (s *Store) Discard(id int64) error {
	dir, err := record.OpenDir(s.runs, id, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return wrap(err, "discard dispatch", id)
	}
	defer dir.Close()
	return wrap(s.removeRun(dir, id), "discard dispatch", id)
}

// Restore takes in what runs/ knows of a dispatch and the database does not (an older copy was restored, or the daemon ended
// between two steps): attempt is its newest, status Running where a runner had that, else Pending. A row that is not there
// is inserted with its id; one that waits is brought to that attempt. Any other stays as it is. It returns the row.
func (s *Store) Restore(ctx context.Context, spec record.Spec, attempt int, status cortex.Status) (cortex.Dispatch, error) {
	var d cortex.Dispatch
	live := s.liveFacts(spec.ID, attempt)
	err := s.do(ctx, func(t *tx) error {
		changed, err := t.restore(spec, attempt, status)
		if err != nil {
			return err
		}
		if changed && status == cortex.Running {
			_, err := t.exec("UPDATE dispatches SET dispatched_at = COALESCE(dispatched_at, ?) WHERE id = ?", live.began, spec.ID)
			if err != nil {
				return err
			}
		}
		r, err := t.row(spec.ID)
		if d = r.dispatch(); err != nil || !changed {
			return err
		}
		return t.about(d, cortex.Event{Type: cortex.EventDispatchRestored, Severity: cortex.Warning,
			Message: fmt.Sprintf("The database did not know dispatch %d as it is; it is taken in from runs/ as %s", d.ID, status)})
	})
	if err != nil {
		return cortex.Dispatch{}, fmt.Errorf("restore dispatch %d: %w", spec.ID, err)
	}
	return d, nil
}

func (t *tx) restore(spec record.Spec, attempt int, status cortex.Status) (bool, error) {
	r, err := t.row(spec.ID)
	if errors.Is(err, ErrNotFound) {
		return true, t.insertSpec(spec, status, attempt)
	}
	was := cortex.Status(r.Status)
	if err != nil || (was != cortex.Pending && was != cortex.PendingRetry) {
		return false, err
	}
	switch {
	case status == cortex.Running && liveIn(r, attempt):
		t.move(spec.ID, was, cortex.Running)
		_, err = t.exec(`UPDATE dispatches SET status = 'running', stage = 'running', attempts = ?, retries = ?, updated_at = ?
			WHERE id = ?`, attempt, retries(attempt, r.GivenBack), timeText(t.now), spec.ID)
	case status != cortex.Running && attempt > r.Attempts:
		_, err = t.exec("UPDATE dispatches SET attempts = ?, last_given_back = ?, updated_at = ? WHERE id = ?",
			attempt, attempt, timeText(t.now), spec.ID)
	default:
		return false, nil
	}
	return true, err
}
