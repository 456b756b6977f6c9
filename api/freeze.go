package api

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"cortex"
	"cortex/sched"
)

// freezesAtOnce bounds the freezes of one request: each looks through /proc.
const freezesAtOnce = 8

// freezeOne answers POST /dispatches/{id}/freeze when its whole tree has stopped.
func (s *Server) freezeOne(w http.ResponseWriter, r *request) error {
	return s.changeOne(w, r, sched.FreezeOrder{})
}

// thawOne answers POST /dispatches/{id}/thaw when it runs again.
func (s *Server) thawOne(w http.ResponseWriter, r *request) error {
	return s.changeOne(w, r, sched.FreezeOrder{Thaw: true})
}

func (s *Server) changeOne(w http.ResponseWriter, r *request, order sched.FreezeOrder) error {
	id, err := r.number(freezeVerb(order))
	if err != nil {
		return err
	}
	if err := decodeBody(w, r.Request, freezeFields(&order)); err != nil {
		return err
	}
	order.By, order.Via = who(r, order.By)
	d, err := s.freezeOrThaw(r.Context(), id, order)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, CancelDone{Done: doneAt(time.Now(), freezeMessage(d), ""), Dispatch: dispatchOf(d)}, s.log)
	return nil
}

func (s *Server) freezeOrThaw(ctx context.Context, id int64, order sched.FreezeOrder) (cortex.Dispatch, error) {
	d, err := s.Sched.Freeze(ctx, id, order)
	return d, known(id, err)
}

func freezeFields(order *sched.FreezeOrder) fields {
	return fields{
		"reason": takeText(&order.Reason, maxReason),
		"by":     takeText(&order.By, maxName),
	}
}

func freezeVerb(order sched.FreezeOrder) string {
	if order.Thaw {
		return "thaw"
	}
	return "freeze"
}

func freezeMessage(d cortex.Dispatch) string {
	if d.FrozenSince != nil {
		return fmt.Sprintf("Dispatch %d is frozen", d.ID)
	}
	return fmt.Sprintf("Dispatch %d is not frozen", d.ID)
}

// freezeMany answers POST /dispatches/freeze, with a result for each dispatch.
func (s *Server) freezeMany(w http.ResponseWriter, r *request) error {
	return s.changeMany(w, r, sched.FreezeOrder{})
}

// thawMany answers POST /dispatches/thaw.
func (s *Server) thawMany(w http.ResponseWriter, r *request) error {
	return s.changeMany(w, r, sched.FreezeOrder{Thaw: true})
}

func (s *Server) changeMany(w http.ResponseWriter, r *request, order sched.FreezeOrder) error {
	var choice choice
	body := freezeFields(&order)
	body["ids"] = takeIDs(&choice.ids, maxCancelled)
	body["project"] = takeName(&choice.project)
	body["status"] = func(v value) error {
		var word string
		if err := takeString(&word)(v); err != nil {
			return err
		}
		if choice.status = cortex.Status(word); choice.status != cortex.Running {
			return badValue(v.name, "only what is running can be frozen or thawed")
		}
		return nil
	}
	if err := decodeBody(w, r.Request, body); err != nil {
		return err
	}
	if choice.ids == nil && choice.status == "" && choice.project == "" {
		return &cortex.Error{Reason: cortex.ReasonBadValue, Message: "The body says not which dispatches to " + freezeVerb(order),
			Hint: `give {"ids": [12, 13]}, {"status": "running"} or {"project": "name"}`}
	}
	order.By, order.Via = who(r, order.By)
	ids := choice.ids
	if choice.status != "" || choice.project != "" { // what is chosen fits all that is given
		choice.status = cortex.Running
		rounds, err := s.choose(r.Context(), choice)
		if err != nil {
			return err
		}
		ids = rounds[1]
	}
	writeJSON(w, http.StatusOK, CancelResults{s.changeEach(r, ids, order)}, s.log)
	return nil
}

// changeEach freezes or thaws ids side by side and has the results in their order.
func (s *Server) changeEach(r *request, ids []int64, order sched.FreezeOrder) []CancelResult {
	results := make([]CancelResult, len(ids))
	slots := make(chan struct{}, freezesAtOnce)
	var all sync.WaitGroup
	for i, id := range ids {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if s.isStopping() {
				results[i] = s.manyError(r, id, freezeVerb(order), &cortex.Error{Reason: cortex.ReasonStopping,
					Message: "Cortex stops", Hint: "ask the next daemon"})
				return
			}
			d, err := s.freezeOrThaw(r.Context(), id, order)
			if err != nil {
				results[i] = s.manyError(r, id, freezeVerb(order), err)
				return
			}
			shown := dispatchOf(d)
			results[i] = CancelResult{ID: id, Status: "success", Message: freezeMessage(d), Dispatch: &shown}
		})
	}
	all.Wait()
	return results
}
