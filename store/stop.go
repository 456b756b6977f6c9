package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"cortex"
	"cortex/runner/record"
)

// OrderStop records that an attempt is being stopped, within 1 s: in the database, else in the stop journal. It says which.
// ErrNotRunning where the row is not that of a running dispatch in this attempt; ev is recorded all the same where a person
// ended the row by hand. ctx is not looked at, as with Pause.
func (s *Store) OrderStop(ctx context.Context, id int64, attempt int, order record.Order, ev cortex.Event) (string, error) {
	now := s.now()
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), stopTimeout, ErrLocked)
	defer cancel()
	err := s.do(ctx, func(t *tx) error { return t.orderStop(id, attempt, order, ev) })
	switch {
	case err == nil:
		return RecordedDatabase, nil
	case errors.Is(err, ErrNotRunning) || errors.Is(err, ErrNotFound) || !s.journalHelps(err):
		return "", wrap(err, "order the stop of dispatch", id)
	}
	e, jerr := s.journal.append(entry{Op: opStop, At: now, ID: id, Attempt: attempt, Order: &order, Event: &ev})
	if jerr != nil {
		return "", wrap(errors.Join(err, jerr), "order the stop of dispatch", id)
	}
	s.mem.addOrder(e)
	s.poke()
	return RecordedJournal, nil
}

func (t *tx) orderStop(id int64, attempt int, order record.Order, ev cortex.Event) error {
	r, err := t.row(id)
	if err != nil {
		return err
	}
	if !liveIn(r, attempt) {
		return ErrNotRunning
	}
	text, err := json.Marshal(order)
	if err != nil {
		return err
	}
	_, err = t.exec(`UPDATE dispatches SET stage = CASE status WHEN 'running' THEN 'cancelling' ELSE stage END, stop_order = ?,
		updated_at = ? WHERE id = ?`, string(text), timeText(t.now), id)
	if err != nil {
		return err
	}
	return t.about(r.dispatch(), ev)
}

// StopOrders is the stop that is on record for each dispatch that is being stopped, by id: in its row or in the stop journal.
func (s *Store) StopOrders(ctx context.Context) (map[int64]*record.Order, error) {
	rows, err := s.stopRows(ctx)
	all := s.JournalOrders()
	for _, r := range rows {
		order := &record.Order{}
		if json.Unmarshal([]byte(r.StopOrder), order) != nil { // scribbled over by hand: a stop all the same
			order = &record.Order{Format: record.Format, By: string(cortex.ByOperator)}
		}
		all[r.ID] = order
	}
	return all, err
}

// CancelPending cancels a dispatch that has not started: runs/<id>/cancelled.json first (best effort, since it needs room),
// then the row, within 1 s; else the order goes into the stop journal, and Claim refuses the dispatch from then on. It
// returns the row and where the order was made durable. ErrNotPending, ErrNotFound.
func (s *Store) CancelPending(ctx context.Context, id int64, actor string) (cortex.Dispatch, string, error) {
	now := s.now()
	wctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), stopTimeout, ErrLocked)
	defer cancel()
	var d cortex.Dispatch
	err := s.do(wctx, func(t *tx) (err error) {
		d, err = t.cancelPending(id, actor, now)
		return err
	})
	if err == nil {
		return d, RecordedDatabase, nil
	}
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrNotPending) || !s.journalHelps(err) {
		return cortex.Dispatch{}, "", wrap(err, "cancel dispatch", id)
	}
	d, jerr := s.journalCancel(context.WithoutCancel(ctx), id, actor, now)
	if jerr != nil {
		s.removeCancelled(id)
		return cortex.Dispatch{}, "", wrap(errors.Join(jerr, err), "cancel dispatch", id)
	}
	return d, RecordedJournal, nil
}

// journalCancel is CancelPending without the database. What it can't read there it knows from runs/.
func (s *Store) journalCancel(ctx context.Context, id int64, actor string, now time.Time) (cortex.Dispatch, error) {
	d, err := s.Get(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return d, err
	case err != nil:
		dir, err := record.OpenDir(s.runs, id, 0)
		if err != nil {
			return d, ErrNotFound
		}
		defer dir.Close()
		if dir.Exists("1") {
			return d, ErrNotPending // an attempt was begun; its supervisor knows more
		}
		d = cortex.Dispatch{ID: id}
	case d.Status != cortex.Pending && d.Status != cortex.PendingRetry:
		return d, ErrNotPending
	}
	e, err := s.journal.append(entry{Op: opCancel, At: now, ID: id, Actor: actor})
	if err != nil {
		return d, err
	}
	s.mem.addOrder(e)
	s.writeCancelled(id, actor, now)
	s.poke()
	d.Status, d.Stage, d.CompletedAt, d.StoppedBy = cortex.Cancelled, cortex.StageNone, &now, cortex.ByOperator
	return d, nil
}

func (t *tx) cancelPending(id int64, actor string, at time.Time) (cortex.Dispatch, error) {
	r, err := t.row(id)
	if err != nil {
		return cortex.Dispatch{}, err
	}
	from := cortex.Status(r.Status)
	if (from != cortex.Pending && from != cortex.PendingRetry) || liveIn(r, r.Attempts) {
		return cortex.Dispatch{}, ErrNotPending
	}
	_, err = t.exec(`UPDATE dispatches SET status = 'cancelled', stage = '', completed_at = ?, updated_at = ?,
		stopped_by = 'operator' WHERE id = ?`, timeText(at), timeText(t.now), id)
	if err != nil {
		return cortex.Dispatch{}, err
	}
	t.move(id, from, cortex.Cancelled)
	if t.ended = true; r.Accepted != 1 {
		t.foreign--
	}
	if r, err = t.row(id); err != nil {
		return cortex.Dispatch{}, err
	}
	message := fmt.Sprintf("Dispatch %d cancelled before it started", id)
	if actor != "" {
		message += " by " + actor
	}
	if err := t.about(r.dispatch(), cortex.Event{Type: cortex.EventDispatchCancelled, Message: message, CreatedAt: &at,
		Details: details(map[string]any{"by": actor})}); err != nil {
		return cortex.Dispatch{}, err
	}
	// Last, when nothing but the commit can fail any more: a verdict must not stand beside a dispatch that is claimed.
	if r.Accepted == 1 {
		t.s.writeCancelled(id, actor, at)
	}
	return r.dispatch(), nil
}

// writeCancelled puts the verdict into runs/, so that the cancel is known without the database.
func (s *Store) writeCancelled(id int64, actor string, at time.Time) {
	dir, err := record.OpenDir(s.runs, id, 0)
	if err == nil {
		defer dir.Close()
		err = dir.Write(record.CancelledFile, record.Verdict{Format: record.Format, Kind: record.VerdictCancelled,
			Detail: "cancelled before it started", Proven: true, Actor: actor, At: at})
	}
	if err != nil {
		s.log.Warn("the verdict on a cancelled dispatch can't be written", "dispatch", id, "err", err)
	}
}

// removeCancelled takes the verdict of a cancel back that could not be recorded anywhere else.
func (s *Store) removeCancelled(id int64) {
	dir, err := record.OpenDir(s.runs, id, 0)
	if err == nil {
		defer dir.Close()
		err = dir.Remove(record.CancelledFile)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("the verdict of a cancel that failed can't be removed", "dispatch", id, "err", err)
	}
}
