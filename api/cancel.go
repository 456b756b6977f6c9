package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"cortex"
	"cortex/sched"
	"cortex/store"
)

const (
	maxGrace      = day
	maxCancelled  = 10_000 // ids in one request
	cancelsAtOnce = 16     // of many: the store takes what waits in one transaction
)

// live are the statuses of what can be cancelled, those that start nothing first: what waits is cancelled before what
// runs, or the slots that get free would start it.
var live = []cortex.Status{cortex.Pending, cortex.PendingRetry, cortex.Running}

// cancelOne answers POST /dispatches/{id}/cancel: when the order is on record, or with ?wait= when nothing is left.
func (s *Server) cancelOne(w http.ResponseWriter, r *request) error {
	id, err := r.number("cancel")
	if err != nil {
		return err
	}
	wait, err := queryWait(r.query)
	if err != nil {
		return err
	}
	var grace graceField
	if err := decodeBody(w, r.Request, fields{"grace": grace.take}); err != nil {
		return err
	}
	done, err := s.cancel(r, id, grace.asked)
	if err == nil && wait > 0 {
		done.Dispatch, err = s.waitGone(r, done.Dispatch, time.Now().Add(wait))
	}
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, CancelDone{
		Done:     doneAt(time.Now(), cancelMessage(done.Dispatch), done.Recorded),
		Dispatch: dispatchOf(done.Dispatch),
	}, s.log)
	return nil
}

// cancel orders one cancel. The scheduler answers within a second, by the journal if need be.
func (s *Server) cancel(r *request, id int64, grace *time.Duration) (sched.Cancelled, error) {
	order := sched.CancelOrder{Grace: grace}
	order.By, order.Via = actor(r.Request)
	done, err := s.Sched.Cancel(r.Context(), id, order)
	return done, known(id, err)
}

// waitGone waits until nothing is left of a dispatch that is being cancelled, and is its row then.
func (s *Server) waitGone(r *request, d cortex.Dispatch, until time.Time) (cortex.Dispatch, error) {
	limit := time.Until(until)
	err := s.waitEnded(r, d.ID, limit)
	switch {
	case errors.Is(err, errNotEnded) && s.isStopping():
		return d, &cortex.Error{Reason: cortex.ReasonStopping, Message: fmt.Sprintf("Cortex stops, and dispatch %d is not gone yet", d.ID),
			Hint: "the cancel is on record: the next daemon finishes it"}
	case errors.Is(err, errNotEnded):
		return d, &cortex.Error{Reason: cortex.ReasonWaitTimeout, Message: fmt.Sprintf("Dispatch %d is not gone yet", d.ID),
			Hint: "the cancel goes on; ask again, and look at its stage and at /health"}
	case err != nil:
		return d, err
	}
	return s.get(r.Context(), d.ID)
}

func cancelMessage(d cortex.Dispatch) string {
	switch {
	case d.Status == cortex.Cancelled:
		return fmt.Sprintf("Dispatch %d is cancelled", d.ID)
	case d.Status.Ended():
		return fmt.Sprintf("Dispatch %d has ended: %s", d.ID, d.Status)
	}
	return fmt.Sprintf("Dispatch %d is being cancelled", d.ID)
}

// graceField takes the field grace; asked stays nil where it is not given, and the dispatch's own counts.
type graceField struct{ asked *time.Duration }

func (g *graceField) take(v value) error {
	var d time.Duration
	if err := takeDuration(&d, 0, maxGrace)(v); err != nil {
		return err
	}
	g.asked = &d
	return nil
}

// cancelMany answers POST /dispatches/cancel, with a result for each dispatch. What is chosen fits all that is given.
func (s *Server) cancelMany(w http.ResponseWriter, r *request) error {
	wait, err := queryWait(r.query)
	if err != nil {
		return err
	}
	var choice choice
	var grace graceField
	if err := decodeBody(w, r.Request, choice.fields(&grace)); err != nil {
		return err
	}
	if choice.ids == nil && choice.status == "" && choice.project == "" {
		return &cortex.Error{Reason: cortex.ReasonBadValue, Message: "The body says not which dispatches to cancel",
			Hint: `give {"ids": [12, 13]}, {"status": "running"} or {"project": "name"}`}
	}
	until := time.Now().Add(wait)
	results := []CancelResult{}
	// In two rounds, what waits before what runs; ids that are neither come last, for their errors.
	rounds, err := s.choose(r.Context(), choice)
	if err != nil {
		return err
	}
	for _, ids := range rounds {
		results = append(results, s.cancelRound(r, ids, grace.asked)...)
	}
	if wait > 0 {
		s.waitAll(r, results, until)
	}
	writeJSON(w, http.StatusOK, CancelResults{results}, s.log)
	return nil
}

// choice is what a cancel of many is about.
type choice struct {
	ids     []int64
	status  cortex.Status
	project string
}

func (c *choice) fields(grace *graceField) fields {
	return fields{
		"ids":     takeIDs(&c.ids, maxCancelled),
		"status":  c.takeStatus,
		"project": takeName(&c.project),
		"grace":   grace.take,
	}
}

func (c *choice) takeStatus(v value) error {
	var word string
	if err := takeString(&word)(v); err != nil {
		return err
	}
	if c.status = cortex.Status(word); !slices.Contains(live, c.status) {
		return &cortex.Error{Reason: cortex.ReasonBadValue, Message: fmt.Sprintf("status: %q can't be cancelled", clip(word)),
			Hint: "these can: " + statusWords(live)}
	}
	return nil
}

// choose finds the ids of each round. Ids alone are taken as they are: those that are unknown or have ended get their
// own error.
func (s *Server) choose(ctx context.Context, c choice) (rounds [2][]int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	if c.status == "" && c.project == "" {
		return s.chooseIDs(ctx, c.ids), nil
	}
	wanted := make(map[int64]bool, len(c.ids))
	for _, id := range c.ids {
		wanted[id] = true
	}
	seen := map[int64]bool{} // one may begin to run between the two looks
	for round, statuses := range [][]cortex.Status{{cortex.Pending, cortex.PendingRetry}, {cortex.Running}} {
		if c.status != "" {
			if !slices.Contains(statuses, c.status) {
				continue
			}
			statuses = []cortex.Status{c.status}
		}
		err := s.each(ctx, store.Filter{Statuses: statuses, Project: c.project}, func(d cortex.Dispatch) {
			if (c.ids == nil || wanted[d.ID]) && !seen[d.ID] {
				seen[d.ID] = true
				rounds[round] = append(rounds[round], d.ID)
			}
		})
		if err != nil {
			return rounds, err
		}
	}
	return rounds, nil
}

// chooseIDs orders given ids into rounds. Where the database can't be read they are one round: a cancel never waits for
// the database.
func (s *Server) chooseIDs(ctx context.Context, ids []int64) (rounds [2][]int64) {
	waiting := map[int64]bool{}
	filter := store.Filter{Statuses: []cortex.Status{cortex.Pending, cortex.PendingRetry}}
	if err := s.each(ctx, filter, func(d cortex.Dispatch) { waiting[d.ID] = true }); err != nil {
		s.log.Warn("waiting dispatches not read", "err", err)
	}
	for _, id := range ids {
		round := 1
		if waiting[id] {
			round = 0
		}
		rounds[round] = append(rounds[round], id)
	}
	return rounds
}

// each calls found for every dispatch of a filter, page by page.
func (s *Server) each(ctx context.Context, filter store.Filter, found func(cortex.Dispatch)) error {
	filter.Limit = listMost
	for {
		rows, err := s.Store.List(ctx, filter)
		if err != nil {
			return err
		}
		for _, d := range rows {
			found(d)
		}
		if len(rows) < filter.Limit {
			return nil
		}
		filter.Before = rows[len(rows)-1].ID
	}
}

// cancelRound cancels ids side by side and has the results in their order.
func (s *Server) cancelRound(r *request, ids []int64, grace *time.Duration) []CancelResult {
	results := make([]CancelResult, len(ids))
	slots := make(chan struct{}, cancelsAtOnce)
	var all sync.WaitGroup
	for i, id := range ids {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			done, err := s.cancel(r, id, grace)
			if err != nil {
				results[i] = s.manyError(r, id, "cancel", err)
				return
			}
			d := dispatchOf(done.Dispatch)
			results[i] = CancelResult{ID: id, Status: "success", Message: cancelMessage(done.Dispatch), Dispatch: &d}
			if done.Recorded == sched.RecordedJournal {
				results[i].Recorded = done.Recorded
			}
		})
	}
	all.Wait()
	return results
}

// manyError is the result of one dispatch of many for which what was asked for failed.
func (s *Server) manyError(r *request, id int64, what string, err error) CancelResult {
	p := problemOf(err)
	if statuses[p.Reason] == http.StatusInternalServerError && r.Context().Err() == nil {
		s.log.Error("a dispatch of many failed", "what", what, "dispatch", id, "reason", string(p.Reason), "err", err)
	}
	return CancelResult{ID: id, Status: "error", Message: p.Message, Reason: string(p.Reason), Hint: p.Hint}
}

// waitAll waits, to one deadline, for all that is being cancelled, and brings the results up to date.
func (s *Server) waitAll(r *request, results []CancelResult, until time.Time) {
	for i := range results {
		result := &results[i]
		if result.Dispatch == nil {
			continue
		}
		d, err := s.waitGone(r, cortex.Dispatch{ID: result.ID}, until)
		if err != nil {
			shown := result.Dispatch
			*result = s.manyError(r, result.ID, "cancel", err)
			result.Dispatch = shown
			continue
		}
		shown := dispatchOf(d)
		result.Message, result.Dispatch = cancelMessage(d), &shown
	}
}
