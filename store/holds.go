package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cortex"
)

// Where an order was made durable.
const (
	RecordedDatabase = "database"
	RecordedJournal  = "journal"
)

// readHolds reads the rows that are not lifted, for the memory.
func (t *tx) readHolds() error {
	held, err := t.unlifted()
	if err == nil {
		t.held = &held
	}
	return err
}

func (t *tx) unlifted() ([]cortex.Hold, error) {
	var rows []holdRow
	err := t.list(&rows, "SELECT "+holdColumns+" FROM holds WHERE lifted_at IS NULL ORDER BY id")
	held := make([]cortex.Hold, 0, len(rows))
	for _, r := range rows {
		held = append(held, r.hold())
	}
	return held, err
}

// covers reports whether a hold in force covers d. It reads only those of a scope that could: there may be very many.
func (t *tx) covers(d cortex.Dispatch) (bool, error) {
	var rows []holdRow
	err := t.list(&rows, "SELECT "+holdColumns+" FROM holds WHERE lifted_at IS NULL AND COALESCE(scope, '') IN (?, ?, ?, ?, ?, ?, ?)",
		"", cortex.ScopeAll, "project:"+d.Project, "agent:"+d.Agent, "provider:"+d.Provider, "bead:"+d.BeadID, fmt.Sprint("dispatch:", d.ID))
	for _, r := range rows {
		if h := r.hold(); h.InForce(t.now) && h.Covers(d) {
			return true, nil
		}
	}
	return false, err
}

// inForce is what the database itself says at this moment.
func (t *tx) inForce() ([]cortex.Hold, error) {
	held, err := t.unlifted()
	return slices.DeleteFunc(held, func(h cortex.Hold) bool { return !h.InForce(t.now) }), err
}

// Pause sets h, of scope all where it names none, and returns it as it is then in force and where it was made durable. A
// second pause keeps the first one's hold and its time, and may only hold longer; one that is Own is always another hold.
// Where the database can't be written within 1 s the order goes into the stop journal, and is in force all the same: its id
// is then 0. ctx is not looked at: a pause is carried out though its caller hangs up. One of scope all Checkpoint follows,
// when what was on its way has come to rest.
func (s *Store) Pause(ctx context.Context, h cortex.Hold) (cortex.Hold, string, error) {
	now := s.now()
	h = normalHold(h, now)
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), stopTimeout, ErrLocked)
	defer cancel()
	// By its key the order is known where both the commit that hung and the journal have it.
	e := entry{Key: rand.Text(), Op: opPause, At: now, Hold: &h}
	var set cortex.Hold
	err := s.do(ctx, func(t *tx) (err error) {
		if _, err = t.once(e.Key); err != nil {
			return err
		}
		// A claim of the transaction before, or before it in this one, is not dated later than the pause.
		dated := h
		dated.Since = t.now
		set, err = t.pause(dated, t.now)
		return err
	})
	if err == nil {
		return set, RecordedDatabase, nil
	}
	if !s.journalHelps(err) {
		return cortex.Hold{}, "", fmt.Errorf("pause: %w", err)
	}
	set, jerr := s.journalPause(e)
	if jerr != nil {
		return cortex.Hold{}, "", errors.Join(err, jerr)
	}
	return set, RecordedJournal, nil
}

// journalHelps reports whether an order that failed with err may be journalled: the file could not be written now.
func (s *Store) journalHelps(err error) bool { return !errors.Is(err, ErrClosed) }

// journalPause is Pause without the database.
func (s *Store) journalPause(e entry) (cortex.Hold, error) {
	h := *e.Hold
	for _, old := range s.mem.stored(e.At) {
		if !h.Own && old.Scope == h.Scope && old.Kind.LiftedByResume() && old.Since.Before(h.Since) {
			h.Since = old.Since
		}
	}
	e.Hold = &h
	e, err := s.journal.append(e)
	if err != nil {
		return cortex.Hold{}, err
	}
	s.mem.addOrder(e)
	s.poke()
	return h, nil
}

func normalHold(h cortex.Hold, now time.Time) cortex.Hold {
	h.Scope = cmp.Or(h.Scope, cortex.ScopeAll)
	if h.Kind == "" {
		h.Kind = cortex.HoldOperator
		if h.Until != nil {
			h.Kind = cortex.HoldTTL
		}
	}
	h.ID, h.Since = 0, cmp.Or(h.Since, now)
	h.LiftedAt, h.LiftedBy, h.LiftedReason = nil, "", ""
	return h
}

// pause sets h, or extends the operator's hold that an earlier pause has set.
func (t *tx) pause(h cortex.Hold, at time.Time) (cortex.Hold, error) {
	held, err := t.inForce()
	if err != nil {
		return h, err
	}
	t.touched = true
	if h.Scope == cortex.ScopeAll && !slices.ContainsFunc(held, func(h cortex.Hold) bool { return h.Scope == cortex.ScopeAll }) {
		t.fresh = true
	}
	i := slices.IndexFunc(held, func(old cortex.Hold) bool {
		return !h.Own && !old.Own && old.Scope == h.Scope && sameHold(old.Kind, h.Kind)
	})
	if i < 0 {
		h, err = t.insertHold(h)
	} else {
		h, err = t.extendHold(held[i], h)
	}
	if err != nil {
		return h, err
	}
	return h, t.event(pausedEvent(h, at))
}

// sameHold reports whether a second order of kind b goes on with a hold of kind a. An operator's with and without an end
// are one.
func sameHold(a, b cortex.HoldKind) bool {
	plain := func(k cortex.HoldKind) bool { return k == cortex.HoldOperator || k == cortex.HoldTTL }
	return a == b || plain(a) && plain(b)
}

func (t *tx) insertHold(h cortex.Hold) (cortex.Hold, error) {
	h.ID = t.s.ids.take(holdIDs)
	_, err := t.exec(`INSERT INTO holds (id, kind, scope, reason, "by", via, since, until, own)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		h.ID, string(h.Kind), h.Scope, h.Reason, h.By, h.Via, timeText(h.Since), timeTextOf(h.Until), h.Own)
	return h, err
}

// extendHold keeps old and its time, takes what h says anew, and never ends it sooner.
func (t *tx) extendHold(old, h cortex.Hold) (cortex.Hold, error) {
	old.Reason, old.By, old.Via = cmp.Or(h.Reason, old.Reason), cmp.Or(h.By, old.By), cmp.Or(h.Via, old.Via)
	switch {
	case old.Until == nil:
	case h.Until == nil:
		old.Kind, old.Until = h.Kind, nil
	case h.Until.After(*old.Until):
		old.Until = h.Until
	}
	_, err := t.exec(`UPDATE holds SET kind = ?, reason = ?, "by" = ?, via = ?, until = ? WHERE id = ?`,
		string(old.Kind), old.Reason, old.By, old.Via, timeTextOf(old.Until), old.ID)
	return old, err
}

func pausedEvent(h cortex.Hold, at time.Time) cortex.Event {
	kind, message := cortex.EventSchedulerPaused, "Scheduler paused"
	if h.Scope != cortex.ScopeAll {
		kind, message = cortex.EventHoldSet, fmt.Sprintf("Hold %d set on %s", h.ID, h.Scope)
	}
	if h.By != "" {
		message += " by " + h.By
	}
	if h.Reason != "" {
		message += ": " + h.Reason
	}
	values := map[string]any{"hold": h.ID, "kind": string(h.Kind), "scope": h.Scope, "by": h.By, "via": h.Via,
		"reason": h.Reason}
	if h.Until != nil {
		values["until"] = h.Until.UTC().Format(time.RFC3339)
	}
	return cortex.Event{Type: kind, Message: message, Details: details(values), CreatedAt: &at}
}

// lifted is what a Resume did.
type lifted struct {
	at        time.Time
	lifted    []cortex.Hold
	remaining []cortex.Hold
}

// Resume lifts the holds of scope all that a plain resume lifts, those that are so far only in the stop journal included. It
// returns them, and the rows of scope all that are still in force. It waits for the database at most WriteTimeout; then
// nothing is changed, also not later, and the error is ErrLocked.
func (s *Store) Resume(ctx context.Context, by, via, reason string) (off, remaining []cortex.Hold, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, WriteTimeout, ErrLocked)
	defer cancel()
	var l lifted
	err = s.do(ctx, func(t *tx) (err error) {
		l, err = t.resume(by, reason)
		if err != nil {
			return err
		}
		return t.event(resumedEvent(l, by, via, reason))
	})
	if err != nil {
		return nil, nil, fmt.Errorf("resume: %w", err)
	}
	return l.lifted, l.remaining, nil
}

func (t *tx) resume(by, reason string) (lifted, error) {
	l := lifted{at: t.now, lifted: []cortex.Hold{}, remaining: []cortex.Hold{}}
	held, err := t.inForce()
	if err != nil {
		return l, err
	}
	for _, h := range held {
		switch {
		case h.Scope != cortex.ScopeAll:
		case !h.Kind.LiftedByResume():
			l.remaining = append(l.remaining, h)
		default:
			if h, err = t.lift(h, t.now, by, reason); err != nil {
				return l, err
			}
			l.lifted = append(l.lifted, h)
		}
	}
	return l, nil
}

func (t *tx) lift(h cortex.Hold, at time.Time, by, reason string) (cortex.Hold, error) {
	t.touched = true
	h.LiftedAt, h.LiftedBy, h.LiftedReason = &at, by, reason
	_, err := t.exec("UPDATE holds SET lifted_at = ?, lifted_by = ?, lifted_reason = ? WHERE id = ? AND lifted_at IS NULL",
		timeText(at), by, reason, h.ID)
	return h, err
}

func resumedEvent(l lifted, by, via, reason string) cortex.Event {
	message := "Scheduler resumed"
	if len(l.remaining) > 0 {
		var kinds []string
		for _, h := range l.remaining {
			kinds = append(kinds, string(h.Kind))
		}
		message = "Pause lifted; still held: " + strings.Join(kinds, ", ")
	}
	if by != "" {
		message += " by " + by
	}
	if reason != "" {
		message += ": " + reason
	}
	ids := []int64{}
	for _, h := range l.lifted {
		ids = append(ids, h.ID)
	}
	return cortex.Event{Type: cortex.EventSchedulerResumed, Message: message, CreatedAt: &l.at,
		Details: details(map[string]any{"holds": ids, "by": by, "via": via, "reason": reason})}
}

// Expire lifts the holds whose end is past at now, dated at that end, with an event each. Where none is, it does nothing; a
// locked database it gives 1 s, since those are no longer in force anyway.
func (s *Store) Expire(ctx context.Context, now time.Time) error {
	if due, ok := s.NextExpiry(); !ok || due.After(now) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, stopTimeout, ErrLocked)
	defer cancel()
	err := s.do(ctx, func(t *tx) error { return t.expire(now) })
	if err != nil {
		return fmt.Errorf("lift the holds that are over: %w", err)
	}
	return nil
}

func (t *tx) expire(now time.Time) error {
	held, err := t.unlifted()
	if err != nil {
		return err
	}
	for _, h := range held {
		if h.InForce(now) {
			continue
		}
		if _, err = t.liftExpired(h); err != nil {
			return err
		}
	}
	return nil
}

// liftExpired lifts a hold whose time is over, dated at its end.
func (t *tx) liftExpired(h cortex.Hold) (cortex.Hold, error) {
	h, err := t.lift(h, *h.Until, "cortex", "its time was over")
	if err != nil {
		return h, err
	}
	return h, t.event(expiredEvent(h))
}

func expiredEvent(h cortex.Hold) cortex.Event {
	kind := cortex.EventSchedulerResumed
	if h.Scope != cortex.ScopeAll {
		kind = cortex.EventHoldLifted
	}
	return cortex.Event{Type: kind, CreatedAt: h.LiftedAt,
		Message: fmt.Sprintf("Hold %d on %s ended by itself", h.ID, h.Scope),
		Details: details(map[string]any{"holds": []int64{h.ID}, "by": "cortex", "via": "auto", "reason": "ttl"})}
}
