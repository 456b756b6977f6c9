package store

import (
	"context"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"cortex"
)

// An EventFilter chooses events; what is empty does not restrict.
type EventFilter struct {
	Severities []cortex.Severity
	Types      []cortex.EventType
	Dispatch   int64
	Bead       string
	Since      time.Time // created at or after it
	Before     int64     // only ids below it: the last one of the page before
	Limit      int       // at most so many; all where it is not positive
}

// ListEvents is a page of the audit trail, newest first. Events that come meanwhile are on no later page. ErrLocked while the
// database can't be read.
func (s *Store) ListEvents(ctx context.Context, f EventFilter) ([]cortex.Event, error) {
	where, args, err := f.where()
	if err != nil {
		return nil, err
	}
	var rows []eventRow
	err = s.read(ctx, func(ctx context.Context, db *sqlx.DB) error {
		rows = nil
		return db.SelectContext(ctx, &rows, "SELECT "+eventColumns+" FROM events "+where+" ORDER BY id DESC LIMIT ?",
			append(args, f.limit())...)
	})
	return eventsOf(rows), err
}

// EventsAfter lists the events with ids above after, oldest first, at most n, of those that the filter's words choose (not its
// Since, Before and Limit). next is where to go on: up to it all was looked at. Ids rise in the order of the commits, since one
// loop gives them out in its transactions, so that nothing is ever added below it. ErrLocked while the database can't be read.
func (s *Store) EventsAfter(ctx context.Context, f EventFilter, after int64, n int) (events []cortex.Event, next int64, err error) {
	f.Since, f.Before = time.Time{}, 0
	where, args, err := f.where()
	if err != nil {
		return nil, after, err
	}
	var rows []eventRow
	var newest int64
	err = s.read(ctx, func(ctx context.Context, db *sqlx.DB) error {
		rows = nil
		// First the end, then what is before it: what comes in between is above the end, and is left for the next call.
		if err := db.GetContext(ctx, &newest, newestEvent); err != nil || newest <= after {
			return err
		}
		return db.SelectContext(ctx, &rows, "SELECT "+eventColumns+" FROM events "+where+" AND id > ? AND id <= ? ORDER BY id LIMIT ?",
			append(args, after, newest, n)...)
	})
	switch {
	case err != nil:
		return nil, after, err
	case len(rows) == n && n > 0:
		next = rows[n-1].ID
	default:
		next = max(after, newest)
	}
	return eventsOf(rows), next, nil
}

const newestEvent = "SELECT COALESCE(MAX(id), 0) FROM events"

// EventStart is the id after which a follower begins: with the filter's newest events, as many as its Limit, from its Since on;
// where there are none, or it has neither Limit nor Since, after the newest event of all. ErrLocked while the database can't be
// read.
func (s *Store) EventStart(ctx context.Context, f EventFilter) (int64, error) {
	query, args := newestEvent, []any{}
	if f.Limit > 0 || !f.Since.IsZero() {
		where, words, err := f.where()
		if err != nil {
			return 0, err
		}
		query = "SELECT COALESCE((SELECT MIN(id) - 1 FROM (SELECT id FROM events " + where + " ORDER BY id DESC LIMIT ?)), (" + newestEvent + "))"
		args = append(words, f.limit())
	}
	var id int64
	err := s.read(ctx, func(ctx context.Context, db *sqlx.DB) error { return db.GetContext(ctx, &id, query, args...) })
	return id, err
}

// HighestEvent is at least the highest id that an event has, or had before it was deleted: none that exists is above it. It
// never waits.
func (s *Store) HighestEvent() int64 { return s.ids.highest(eventIDs) }

// limit is Limit as SQL has it, where a negative number is no limit.
func (f EventFilter) limit() int {
	if f.Limit <= 0 {
		return -1
	}
	return f.Limit
}

func (f EventFilter) where() (string, []any, error) {
	conds, args := []string{"1"}, []any{}
	add := func(cond string, values ...any) { conds, args = append(conds, cond), append(args, values...) }
	if len(f.Severities) > 0 {
		in, list, err := sqlx.In("type IN (?)", f.Severities)
		if err != nil {
			return "", nil, err
		}
		add(in, list...)
	}
	if len(f.Types) > 0 {
		in, list, err := sqlx.In("event_type IN (?)", f.Types)
		if err != nil {
			return "", nil, err
		}
		add(in, list...)
	}
	if f.Dispatch != 0 {
		add("dispatch_id = ?", f.Dispatch)
	}
	if f.Bead != "" {
		add("bead_id = ?", f.Bead)
	}
	if !f.Since.IsZero() {
		add("created_at >= ?", timeText(f.Since))
	}
	if f.Before > 0 {
		add("id < ?", f.Before)
	}
	return "WHERE " + strings.Join(conds, " AND "), args, nil
}

func eventsOf(rows []eventRow) []cortex.Event {
	out := make([]cortex.Event, 0, len(rows))
	for _, r := range rows {
		out = append(out, r.event())
	}
	return out
}
