package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cortex"
	"cortex/runner/record"
)

// Change is what is to be different in a dispatch that waits; nil stays as it is.
type Change struct {
	Priority  *int
	TimeoutMS *int64     // 0: none
	NotBefore *time.Time // the zero time: at once
	By        string
}

// Change changes a dispatch that waits: its spec, which a runner reads when it starts, and its row, in one transaction. It
// waits for the database at most WriteTimeout. ErrNotFound; ErrNotPending, also where it has no spec.
func (s *Store) Change(ctx context.Context, id int64, c Change) (cortex.Dispatch, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, WriteTimeout, ErrLocked)
	defer cancel()
	var d cortex.Dispatch
	var undo func() error
	err := s.doLate(ctx, func(t *tx) (err error) {
		d, undo, err = t.change(id, c)
		return err
	}, func(err error) { s.undoChange(id, undo, err) })
	if !errors.Is(err, ErrHung) {
		s.undoChange(id, undo, err)
	}
	return d, wrap(err, "change dispatch", id)
}

// undoChange puts the spec back that was written in a transaction which failed.
func (s *Store) undoChange(id int64, undo func() error, failed error) {
	if failed == nil || undo == nil {
		return
	}
	if err := undo(); err != nil {
		s.log.Error("a spec has a change whose commit failed", "dispatch", id, "err", err)
	}
}

func (t *tx) change(id int64, c Change) (d cortex.Dispatch, undo func() error, err error) {
	r, err := t.row(id)
	if err != nil {
		return d, nil, err
	}
	if r.Status != string(cortex.Pending) || r.Accepted != 1 || liveIn(r, r.Attempts) || t.s.mem.excluded()[id] {
		return d, nil, ErrNotPending
	}
	dir, err := record.OpenDir(t.s.runs, id, 0)
	if err != nil {
		return d, nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	var was record.Spec
	if err := dir.Read(record.SpecFile, &was); err != nil {
		return d, nil, err
	}
	is := was
	told := map[string]any{"by": c.By}
	if c.Priority != nil {
		is.Priority, told["priority"] = *c.Priority, []int{r.Priority, *c.Priority}
	}
	if c.TimeoutMS != nil {
		is.TimeoutMS, told["timeout_ms"] = *c.TimeoutMS, []int64{was.TimeoutMS, *c.TimeoutMS}
	}
	if c.NotBefore != nil {
		if is.NotBefore = c.NotBefore; c.NotBefore.IsZero() {
			is.NotBefore = nil
		}
		told["not_before"] = []*time.Time{r.dispatch().NotBefore, is.NotBefore}
	}
	if _, err := t.exec("UPDATE dispatches SET priority = COALESCE(?, priority), not_before = ?, updated_at = ? WHERE id = ?",
		c.Priority, timeTextOf(notBeforeOf(r, c, is)), timeText(t.now), id); err != nil {
		return d, nil, err
	}
	t.stirred = append(t.stirred, id)
	err = t.about(r.dispatch(), cortex.Event{Type: cortex.EventDispatchChanged,
		Message: fmt.Sprintf("Dispatch %d (%s), which waits, was changed by %s", id, r.BeadID, c.By), Details: details(told)})
	if err != nil {
		return d, nil, err
	}
	if r, err = t.row(id); err != nil {
		return d, nil, err
	}
	// Last, when nothing but the commit can fail any more.
	if err := dir.Write(record.SpecFile, is); err != nil {
		return d, nil, err
	}
	return r.dispatch(), func() error {
		dir, err := record.OpenDir(t.s.runs, id, 0)
		if err != nil {
			return err
		}
		defer dir.Close()
		return dir.Write(record.SpecFile, was)
	}, nil
}

// notBeforeOf is what the row says after the change: where it does not speak of it, what a person may have written there stays.
func notBeforeOf(r dispatchRow, c Change, is record.Spec) *time.Time {
	if c.NotBefore == nil {
		return r.dispatch().NotBefore
	}
	return is.NotBefore
}
