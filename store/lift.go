package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"cortex"
)

// Lifted is what became of the hold that Lift was told to lift.
type Lifted struct {
	Hold      cortex.Hold
	Before    bool          // it was lifted before, or its time was over: nothing has changed
	Remaining []cortex.Hold // the rows of scope all that are still in force
}

// Lift lifts one hold, whatever its scope and kind. One that is lifted already stays as it is. It waits for the database at
// most WriteTimeout; then nothing is changed, also not later, and the error is ErrLocked. ErrNotFound.
func (s *Store) Lift(ctx context.Context, id int64, by, via, reason string) (Lifted, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, WriteTimeout, ErrLocked)
	defer cancel()
	var l Lifted
	err := s.do(ctx, func(t *tx) (err error) {
		l, err = t.liftOne(id, by, via, reason)
		return err
	})
	if err != nil {
		return Lifted{}, wrap(err, "lift hold", id)
	}
	return l, nil
}

func (t *tx) liftOne(id int64, by, via, reason string) (Lifted, error) {
	var r holdRow
	err := t.get(&r, "SELECT "+holdColumns+" FROM holds WHERE id = ?", id)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return Lifted{}, err
	}
	l := Lifted{Hold: r.hold()}
	switch {
	case l.Hold.LiftedAt != nil:
		l.Before = true
		return l, nil
	case !l.Hold.InForce(t.now):
		l.Before = true
		l.Hold, err = t.liftExpired(l.Hold)
		return l, err
	}
	if l.Hold, err = t.lift(l.Hold, t.now, by, reason); err != nil {
		return l, err
	}
	held, err := t.inForce()
	if err != nil {
		return l, err
	}
	for _, h := range held {
		if h.Scope == cortex.ScopeAll {
			l.Remaining = append(l.Remaining, h)
		}
	}
	return l, t.event(liftedEvent(l, by, via, reason))
}

func liftedEvent(l Lifted, by, via, reason string) cortex.Event {
	message := fmt.Sprintf("Hold %d on %s lifted", l.Hold.ID, l.Hold.Scope)
	if by != "" {
		message += " by " + by
	}
	if reason != "" {
		message += ": " + reason
	}
	kind := cortex.EventHoldLifted
	if l.Hold.Scope == cortex.ScopeAll {
		kind = cortex.EventSchedulerResumed
		var ids []string
		for _, h := range l.Remaining {
			ids = append(ids, fmt.Sprint(h.ID))
		}
		if len(ids) > 0 {
			message += " (still paused by hold " + strings.Join(ids, ", ") + ")"
		}
	}
	return cortex.Event{Type: kind, Message: message, CreatedAt: l.Hold.LiftedAt,
		Details: details(map[string]any{"holds": []int64{l.Hold.ID}, "scope": l.Hold.Scope, "by": by, "via": via, "reason": reason})}
}

// AllHolds is a page of the rows of holds, those that are lifted included, newest first: at most limit, with ids below before
// where that is not 0.
func (s *Store) AllHolds(ctx context.Context, before int64, limit int) ([]cortex.Hold, error) {
	var rows []holdRow
	err := s.read(ctx, func(ctx context.Context, db *sqlx.DB) error {
		rows = nil
		return db.SelectContext(ctx, &rows, "SELECT "+holdColumns+" FROM holds WHERE ? = 0 OR id < ? ORDER BY id DESC LIMIT ?",
			before, before, limit)
	})
	held := make([]cortex.Hold, 0, len(rows))
	for _, r := range rows {
		held = append(held, r.hold())
	}
	return held, err
}

// WarnPaused writes one event that the pause by h has been in force for long: once per hold, whichever daemon asks.
func (s *Store) WarnPaused(ctx context.Context, h cortex.Hold, now time.Time) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stopTimeout, ErrLocked)
	defer cancel()
	err := s.do(ctx, func(t *tx) error {
		var n int // details may have been edited by hand into what is no JSON
		err := t.get(&n, `SELECT count(*) FROM events WHERE event_type = ? AND created_at >= ?
			AND CASE WHEN json_valid(details) THEN json_extract(details, '$.hold') END = ?`,
			string(cortex.EventPausedLong), timeText(h.Since), h.ID)
		if err != nil || n > 0 {
			return err
		}
		return t.event(pausedLongEvent(h, now))
	})
	return wrap(err, "warn of the pause by hold", h.ID)
}

func pausedLongEvent(h cortex.Hold, now time.Time) cortex.Event {
	message := fmt.Sprintf("The scheduler has been paused for %s", now.Sub(h.Since).Round(time.Second))
	if h.By != "" {
		message += " by " + h.By
	}
	if h.Reason != "" {
		message += ": " + h.Reason
	}
	return cortex.Event{Type: cortex.EventPausedLong, Severity: cortex.Warning, Message: message, Details: details(map[string]any{
		"hold": h.ID, "since": h.Since.UTC().Format(time.RFC3339), "by": h.By, "reason": h.Reason})}
}
