package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jmoiron/sqlx"

	"cortex"
)

// event inserts ev. Its time is the transaction's where it has none.
func (t *tx) event(ev cortex.Event) error {
	at := t.now
	if ev.CreatedAt != nil {
		at = *ev.CreatedAt
	}
	if ev.Severity == "" {
		ev.Severity = cortex.Info
	}
	_, err := t.exec(`INSERT INTO events (id, event_type, type, message, details, dispatch_id, bead_id, created_at)
		VALUES (?, ?, ?, ?, ?, ?, NULLIF(?, ''), ?)`,
		t.s.ids.take(eventIDs), string(ev.Type), string(ev.Severity), ev.Message, ev.Details, ev.DispatchID, ev.BeadID, timeText(at))
	return err
}

// about inserts ev as one about d; nothing where ev has no type.
func (t *tx) about(d cortex.Dispatch, ev cortex.Event) error {
	if ev.Type == "" {
		return nil
	}
	if ev.DispatchID == nil {
		ev.DispatchID = &d.ID
	}
	if ev.BeadID == "" {
		ev.BeadID = d.BeadID
	}
	return t.event(ev)
}

// details is the JSON of an event's details; values are strings and numbers, which always have one.
func details(values map[string]any) string {
	data, err := json.Marshal(values)
	if err != nil {
		return ""
	}
	return string(data)
}

func asTold(err error) *cortex.Error {
	var told *cortex.Error
	if errors.As(err, &told) {
		return told
	}
	return nil
}

// Events lists the audit trail from since on, newest first, at most limit; of the severities given, or of all.
func (s *Store) Events(ctx context.Context, since time.Time, limit int, severities ...cortex.Severity) ([]cortex.Event, error) {
	query := "SELECT " + eventColumns + " FROM events WHERE created_at >= ?"
	args := []any{since.UTC().Format(timeLayout)}
	if len(severities) > 0 {
		in, list, err := sqlx.In(" AND type IN (?)", severities)
		if err != nil {
			return nil, err
		}
		query, args = query+in, append(args, list...)
	}
	var rows []eventRow
	err := s.read(ctx, func(ctx context.Context, db *sqlx.DB) error {
		rows = nil
		return db.SelectContext(ctx, &rows, query+" ORDER BY created_at DESC, id DESC LIMIT ?", append(args, limit)...)
	})
	return eventsOf(rows), err
}
