package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cortex"
	"cortex/internal/fault"
	"cortex/runner/record"
)

// Change is what is to be different in a dispatch that waits; nil stays as it is.
type Change struct {
	Priority  *int
	TimeoutMS *int64     // 0: none
	NotBefore *time.Time // the zero time: at once
	By, Via   string
}

// Change changes a dispatch that waits: its row, and its spec in runs/, which a runner reads when it starts and from which a row
// can be made anew. The new spec is durable beside the old one before the commit and in its place after it; meanwhile the
// dispatch is not started. It waits for the database at most WriteTimeout, also for a caller that hangs up. ErrNotFound;
// ErrNotPending, also where it has no spec or is being changed. After ErrHung it may still be changed.
func (s *Store) Change(ctx context.Context, id int64, c Change) (d cortex.Dispatch, err error) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), WriteTimeout, ErrLocked)
	defer cancel()
	if _, err := s.Get(ctx, id); err != nil {
		return d, wrap(err, "change dispatch", id)
	}
	if !s.mem.beginChange(id) {
		return d, wrap(ErrNotPending, "change dispatch", id)
	}
	dir, was, err := s.openSpec(id)
	if err != nil {
		s.mem.setAccepting(id, false)
		return d, wrap(err, "change dispatch", id)
	}
	is := c.of(was, s.now())
	if err := dir.Write(record.SpecNew, is); err != nil {
		return d, wrap(s.roomError(errors.Join(err, s.settleChange(dir, id, err))), "change dispatch", id)
	}
	fault.Point("change.spec")
	err = s.doLate(ctx, func(t *tx) (err error) {
		d, err = t.change(id, c, was, is)
		return err
	}, func(err error) {
		if err := s.settleChange(dir, id, err); err != nil {
			s.log.Error("a change is in the database and not in runs/", "dispatch", id, "err", err)
		}
	})
	if !errors.Is(err, ErrHung) {
		err = errors.Join(err, s.settleChange(dir, id, err))
	}
	return d, wrap(err, "change dispatch", id)
}

// openSpec opens the folder of a dispatch and reads its spec; ErrNotPending where it has none.
func (s *Store) openSpec(id int64) (*record.Dir, record.Spec, error) {
	var spec record.Spec
	dir, err := record.OpenDir(s.runs, id, 0)
	if err != nil {
		return nil, spec, errors.Join(ErrNotPending, err)
	}
	if err := dir.Read(record.SpecFile, &spec); err != nil {
		return nil, spec, errors.Join(ErrNotPending, err, dir.Close())
	}
	return dir, spec, nil
}

// settleChange puts the new spec in its place, or takes it away where err says that the change was not made; then the dispatch
// may be started again.
func (s *Store) settleChange(dir *record.Dir, id int64, err error) error {
	defer s.mem.setAccepting(id, false)
	defer dir.Close()
	if err != nil {
		return errors.Join(dir.RemoveTemps(record.SpecNew), dir.Remove(record.SpecNew))
	}
	fault.Point("change.committed")
	return dir.Rename(record.SpecNew, record.SpecFile)
}

// FinishChange settles a Change of d, which waits, that a crash has cut off: the new spec takes its place where the row has the
// change, and is removed where it does not. By the time of the change, which both have, that is told whatever the clock did.
func (s *Store) FinishChange(d cortex.Dispatch) error {
	dir, err := record.OpenDir(s.runs, d.ID, 0)
	if err != nil {
		return wrap(err, "look for a change of dispatch", d.ID)
	}
	defer dir.Close()
	if !dir.Exists(record.SpecNew) || !dir.Exists(record.SpecFile) {
		return nil
	}
	var is record.Spec
	err = dir.Read(record.SpecNew, &is)
	if err == nil && is.ChangedAt != nil && d.UpdatedAt != nil && is.ChangedAt.Equal(*d.UpdatedAt) {
		return wrap(dir.Rename(record.SpecNew, record.SpecFile), "finish the change of dispatch", d.ID)
	}
	return wrap(dir.Remove(record.SpecNew), "drop a change of dispatch", d.ID)
}

// of is the spec with the change.
func (c Change) of(spec record.Spec, now time.Time) record.Spec {
	if c.Priority != nil {
		spec.Priority = *c.Priority
	}
	if c.TimeoutMS != nil {
		spec.TimeoutMS = *c.TimeoutMS
	}
	if c.NotBefore != nil {
		if spec.NotBefore = c.NotBefore; c.NotBefore.IsZero() {
			spec.NotBefore = nil
		}
	}
	at := now.UTC().Truncate(time.Millisecond) // as it stands in the row's updated_at
	spec.ChangedAt = &at
	return spec
}

func (t *tx) change(id int64, c Change, was, is record.Spec) (cortex.Dispatch, error) {
	r, err := t.row(id)
	if err != nil {
		return cortex.Dispatch{}, err
	}
	if r.Status != string(cortex.Pending) || r.Accepted != 1 || liveIn(r, r.Attempts) {
		return cortex.Dispatch{}, ErrNotPending
	}
	told := map[string]any{"by": c.By, "via": c.Via}
	notBefore := r.dispatch().NotBefore // what a person may have written there stays where the change does not speak of it
	if c.Priority != nil {
		told["priority"] = []int{r.Priority, *c.Priority}
	}
	if c.TimeoutMS != nil {
		told["timeout_ms"] = []int64{was.TimeoutMS, *c.TimeoutMS}
	}
	if c.NotBefore != nil {
		told["not_before"] = []*time.Time{notBefore, is.NotBefore}
		notBefore = is.NotBefore
	}
	_, err = t.exec("UPDATE dispatches SET priority = COALESCE(?, priority), not_before = ?, updated_at = ? WHERE id = ?",
		c.Priority, timeTextOf(notBefore), timeTextOf(is.ChangedAt), id)
	if err != nil {
		return cortex.Dispatch{}, err
	}
	err = t.about(r.dispatch(), cortex.Event{Type: cortex.EventDispatchChanged,
		Message: fmt.Sprintf("Dispatch %d (%s), which waits, was changed by %s", id, r.BeadID, c.By), Details: details(told)})
	if err != nil {
		return cortex.Dispatch{}, err
	}
	r, err = t.row(id)
	return r.dispatch(), err
}

// TakeChange brings the row of a dispatch that waits to a change of its spec that it does not know: an older copy of the
// database was restored. A row that was written later stays as it is.
func (s *Store) TakeChange(ctx context.Context, d cortex.Dispatch, spec record.Spec) error {
	if spec.ChangedAt == nil || d.UpdatedAt == nil || !d.UpdatedAt.Before(*spec.ChangedAt) {
		return nil
	}
	err := s.do(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE dispatches SET priority = ?, not_before = ?, updated_at = ? WHERE id = ? AND status = 'pending'`,
			spec.Priority, timeTextOf(spec.NotBefore), timeText(t.now), d.ID)
		if err != nil || n == 0 {
			return err
		}
		t.stirred = append(t.stirred, d.ID)
		return t.about(d, cortex.Event{Type: cortex.EventDispatchRestored, Severity: cortex.Warning,
			Message: fmt.Sprintf("The database did not know a change of dispatch %d; it is taken in from runs/", d.ID)})
	})
	return wrap(err, "take in a change of dispatch", d.ID)
}
