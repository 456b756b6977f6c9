package store

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"cortex"
)

// SettleByHand follows up what people have written into rows of dispatches that do not live: one that waits and was made
// running or pending_retry waits again, since nothing would ever start it; one that waited and was deleted is cancelled, in
// runs/ too, so that no older copy of the database brings it back. Each with a warning event.
func (s *Store) SettleByHand(ctx context.Context) error {
	todo := false
	err := s.read(ctx, func(ctx context.Context, db *sqlx.DB) error {
		return db.GetContext(ctx, &todo, "SELECT EXISTS (SELECT 1 FROM dispatches WHERE "+misled+") OR "+
			"EXISTS (SELECT 1 FROM forgotten WHERE waited = 1)")
	})
	if err != nil || !todo {
		return err
	}
	return s.do(ctx, func(t *tx) error {
		if err := t.leadBack(); err != nil {
			return err
		}
		return t.cancelDeleted()
	})
}

// misled are rows that no attempt of lives or has ended, and whose status says otherwise. A claim's own row has an attempt
// that was neither given back nor ended.
const misled = `accepted = 1 AND status IN ('running', 'pending_retry') AND COALESCE(finished_attempt, 0) = 0 AND
	(COALESCE(attempts, 0) = 0 OR last_given_back >= attempts)`

func (t *tx) leadBack() error {
	var rows []dispatchRow
	if err := t.list(&rows, "SELECT "+dispatchColumns+" FROM dispatches WHERE "+misled); err != nil {
		return err
	}
	for _, r := range rows {
		_, err := t.exec("UPDATE dispatches SET status = 'pending', stage = '', updated_at = ? WHERE id = ?", timeText(t.now), r.ID)
		if err != nil {
			return err
		}
		t.move(r.ID, cortex.Status(r.Status), cortex.Pending)
		err = t.about(r.dispatch(), cortex.Event{Type: cortex.EventStatusPutBack, Severity: cortex.Warning,
			Message: fmt.Sprintf("Dispatch %d (%s) waits; its row was set to %s by hand and is put back (cancel it to end it)",
				r.ID, r.BeadID, r.Status)})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) cancelDeleted() error {
	var deleted []int64
	if err := t.list(&deleted, "SELECT dispatch_id FROM forgotten WHERE waited = 1"); err != nil {
		return err
	}
	for _, id := range deleted {
		if _, err := t.exec("UPDATE forgotten SET waited = 0 WHERE dispatch_id = ?", id); err != nil {
			return err
		}
		err := t.event(cortex.Event{Type: cortex.EventStopByHand, Severity: cortex.Warning, DispatchID: &id,
			Message: fmt.Sprintf("Dispatch %d was deleted by hand while it waited: it is cancelled", id)})
		if err != nil {
			return err
		}
	}
	for _, id := range deleted { // last, when nothing but the commit can fail any more
		t.s.writeCancelled(id, "sqlite", t.now)
	}
	return nil
}
