package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cortex"
	"cortex/sched"
	"cortex/store"
)

// listHolds answers GET /holds: what is in force, from memory; with ?all=true also what was lifted, a page of it from the
// database, and before the first page what is in force and has no row.
func (s *Server) listHolds(w http.ResponseWriter, r *request) error {
	all, err := queryBool(r.query, "all")
	if err != nil {
		return err
	}
	inForce := s.Sched.Status().Holds
	if !all {
		if r.query.Has("limit") || r.query.Has("cursor") {
			return badQuery("limit and cursor are for a list of all holds", "add all=true, or leave them out")
		}
		writeJSON(w, http.StatusOK, HoldList{Holds: holdDetailsOf(inForce)}, s.log)
		return nil
	}
	limit, err := queryInt(r.query, "limit", 1, listMost, listDefault)
	if err != nil {
		return err
	}
	before, err := queryCursor(r.query)
	if err != nil {
		return err
	}
	list, err := s.allHolds(r.Context(), inForce, before, limit)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, list, s.log)
	return nil
}

func (s *Server) allHolds(ctx context.Context, inForce []cortex.Hold, before int64, limit int) (HoldList, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	rows, err := s.Store.AllHolds(ctx, before, limit+1)
	if err != nil {
		return HoldList{}, err
	}
	var next *string
	if len(rows) > limit {
		rows = rows[:limit]
		cursor := strconv.FormatInt(rows[limit-1].ID, 10)
		next = &cursor
	}
	var holds []cortex.Hold
	for _, h := range inForce {
		if before == 0 && h.ID == 0 {
			holds = append(holds, h)
		}
	}
	return HoldList{Holds: holdDetailsOf(append(holds, rows...)), NextCursor: next}, nil
}

// setHold answers POST /holds, when the hold is durable and nothing that it covers starts any more.
func (s *Server) setHold(w http.ResponseWriter, r *request) error {
	order := sched.HoldOrder{Scope: cortex.ScopeAll}
	if err := decodeBody(w, r.Request, holdFields(&order, time.Now())); err != nil {
		return err
	}
	if order.TTL > 0 && order.Until != nil {
		return badValue("until", "ttl is given, too")
	}
	order.By, order.Via = who(r, order.By)
	done, err := s.Sched.Hold(r.Context(), order)
	if err != nil {
		return err
	}
	answer := holdDetailOf(done.Hold)
	if done.Recorded != sched.RecordedDatabase {
		answer.Recorded = done.Recorded
	}
	writeJSON(w, http.StatusCreated, answer, s.log)
	return nil
}

func holdFields(order *sched.HoldOrder, now time.Time) fields {
	all := pauseFields(&order.PauseOrder)
	all["scope"] = takeScope(&order.Scope)
	all["until"] = takeUntil(&order.Until, now)
	all["kind"] = func(v value) error {
		var kind string
		if err := takeString(&kind)(v); err != nil {
			return err
		}
		if kind != string(cortex.HoldOperator) {
			return badValue(v.name, fmt.Sprintf("want %q, got %q: the other kinds are cortex's own", cortex.HoldOperator, clip(kind)))
		}
		return nil
	}
	return all
}

// maxScope is the longest scope in bytes: a name as any, and what stands before it.
const maxScope = len("provider:") + maxName

func takeScope(into *string) func(value) error {
	return func(v value) error {
		if err := takeText(into, maxScope)(v); err != nil {
			return err
		}
		if !cortex.ValidScope(*into) || strings.ContainsAny(*into, "\n\t") {
			return &cortex.Error{Reason: cortex.ReasonBadValue,
				Message: fmt.Sprintf("%s: want all, or %s: and a name, got %q", v.name, strings.Join(cortex.ScopeKinds, ":, "), clip(*into)),
				Hint:    `{"scope": "project:web"} holds the project web`}
		}
		return nil
	}
}

// takeUntil takes a time between now and maxTTL after it.
func takeUntil(into **time.Time, now time.Time) func(value) error {
	return func(v value) error {
		var text string
		if json.Unmarshal(v.raw, &text) != nil {
			return wrong(v.name, "a time such as 2026-02-18T06:01:00Z", v)
		}
		at, err := time.Parse(time.RFC3339, text)
		switch {
		case err != nil:
			return badValue(v.name, fmt.Sprintf("want a time such as 2026-02-18T06:01:00Z, got %q", clip(text)))
		case !at.After(now):
			return badValue(v.name, fmt.Sprintf("%s is past", clip(text)))
		case at.Sub(now) > maxTTL:
			return badValue(v.name, fmt.Sprintf("%s is more than %s from now", clip(text), FormatDuration(maxTTL)))
		}
		*into = &at
		return nil
	}
}

// liftHold answers DELETE /holds/{id}, when the hold is lifted in the database.
func (s *Server) liftHold(w http.ResponseWriter, r *request) error {
	var order sched.ResumeOrder
	if err := decodeBody(w, r.Request, resumeFields(&order)); err != nil {
		return err
	}
	id, isNumber := number(r.id)
	if !isNumber {
		return s.unliftable(r.id)
	}
	order.By, order.Via = who(r, order.By)
	done, err := s.lift(r, id, order)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, holdDetailOf(done.Hold), s.log)
	return nil
}

// resumeFields are those of every order that lifts something.
func resumeFields(order *sched.ResumeOrder) fields {
	return fields{
		"reason": takeText(&order.Reason, maxReason),
		"by":     takeText(&order.By, maxName),
	}
}

func (s *Server) lift(r *request, id int64, order sched.ResumeOrder) (sched.Lifted, error) {
	done, err := s.Sched.Lift(r.Context(), id, order)
	if errors.Is(err, store.ErrNotFound) {
		return done, noHold(strconv.FormatInt(id, 10))
	}
	return done, err
}

// unliftable is the error of lifting what has no number.
func (s *Server) unliftable(name string) error {
	for _, h := range s.Sched.Status().Holds {
		if h.Kind.Computed() && string(h.Kind) == name {
			return &cortex.Error{Reason: cortex.ReasonHoldComputed, Message: fmt.Sprintf("The hold of kind %s is cortex's own: %s", name, h.Reason),
				Hint: "it lifts itself when its cause is gone; cortex health says what to do"}
		}
	}
	return noHold(name)
}

func noHold(id string) error {
	return &cortex.Error{Reason: cortex.ReasonNotFound, Message: "No hold " + clip(id),
		Hint: "cortex holds list shows those that there are; one whose id is null gets its number when the database can be written"}
}
