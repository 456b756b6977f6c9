package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cortex"
	"cortex/runner"
	"cortex/store"
)

// Pages of a list.
const (
	listDefault = 100
	listMost    = 1000
)

// readTime bounds a read of the database: readers are never locked out, but a disk may hang.
const readTime = 8 * time.Second

// listDispatches answers GET /dispatches.
func (s *Server) listDispatches(w http.ResponseWriter, r *request) error {
	filter, err := filterOf(r.query, time.Now())
	if err != nil {
		return err
	}
	list, err := s.list(r.Context(), filter)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, list, s.log)
	return nil
}

// list reads one page. One row more than asked for tells whether another page follows.
func (s *Server) list(ctx context.Context, filter store.Filter) (DispatchList, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	limit := filter.Limit
	filter.Limit++
	view := s.Sched.View()
	filter.Unwritten = view.Unwritten()
	rows, err := s.Store.List(ctx, filter)
	if err != nil {
		return DispatchList{}, err
	}
	list := DispatchList{Dispatches: make([]Dispatch, 0, len(rows))}
	for i, d := range rows {
		if i == limit {
			cursor := strconv.FormatInt(rows[i-1].ID, 10)
			list.NextCursor = &cursor
			break
		}
		list.Dispatches = append(list.Dispatches, dispatchOf(view.Of(d)))
	}
	return list, nil
}

func filterOf(q url.Values, now time.Time) (store.Filter, error) {
	f := store.Filter{Project: q.Get("project"), Bead: q.Get("bead")}
	for _, name := range []string{"project", "bead"} {
		if q.Has(name) && q.Get(name) == "" {
			return f, badQuery(name+" is empty", "leave it out, or name one")
		}
	}
	var err error
	if f.Statuses, err = statusesOf(q["status"]); err != nil {
		return f, err
	}
	if f.Since, err = querySince(q, now); err != nil {
		return f, err
	}
	if f.Limit, err = queryInt(q, "limit", 1, listMost, listDefault); err != nil {
		return f, err
	}
	f.Before, err = queryCursor(q)
	return f, err
}

// statusesOf reads ?status=: repeated, or a list with commas.
func statusesOf(given []string) ([]cortex.Status, error) {
	var statuses []cortex.Status
	for _, list := range given {
		for _, word := range strings.Split(list, ",") {
			status := cortex.Status(strings.TrimSpace(word))
			if !status.Valid() {
				return nil, badQuery(fmt.Sprintf("status: %q is none", clip(word)), "statuses are "+statusWords(cortex.Statuses))
			}
			statuses = append(statuses, status)
		}
	}
	return statuses, nil
}

func statusWords(statuses []cortex.Status) string {
	words := make([]string, len(statuses))
	for i, s := range statuses {
		words[i] = string(s)
	}
	return strings.Join(words, ", ")
}

// showDispatch answers GET /dispatches/{id}: one dispatch, with ?wait= when it has ended or the time is over; or, where
// {id} is no number, those of the bead of that name.
func (s *Server) showDispatch(w http.ResponseWriter, r *request) error {
	id, isNumber := number(r.id)
	if !isNumber {
		return s.showBead(w, r)
	}
	for _, name := range listQuery {
		if r.query.Has(name) {
			return badQuery(name+" filters a list, and this is one dispatch", "GET /dispatches takes it")
		}
	}
	wait, err := queryWait(r.query)
	if err != nil {
		return err
	}
	d, err := s.get(r.Context(), id)
	if err != nil {
		return err
	}
	if wait > 0 {
		if err := s.waitEnded(r, id, wait); err != nil && !errors.Is(err, errNotEnded) {
			return err
		}
		if d, err = s.get(r.Context(), id); err != nil {
			return err
		}
	}
	writeJSON(w, http.StatusOK, s.detail(d), s.log)
	return nil
}

func (s *Server) showBead(w http.ResponseWriter, r *request) error {
	if r.query.Has("wait") || r.query.Has("bead") {
		return badQuery("A bead's list takes neither wait nor bead", "wait for one dispatch, by its number")
	}
	filter, err := filterOf(r.query, time.Now())
	if err != nil {
		return err
	}
	filter.Bead = r.id
	list, err := s.list(r.Context(), filter)
	if err != nil {
		return err
	}
	if len(list.Dispatches) == 0 {
		// Filtered away, or unknown?
		any, err := s.list(r.Context(), store.Filter{Bead: r.id, Limit: 1})
		if err != nil {
			return err
		}
		if len(any.Dispatches) == 0 {
			return &cortex.Error{Reason: cortex.ReasonNotFound, Message: fmt.Sprintf("No dispatch of a bead %q", clip(r.id)),
				Hint: "cortex list shows those that there are"}
		}
	}
	writeJSON(w, http.StatusOK, list, s.log)
	return nil
}

// get reads one row; not_found names the id.
func (s *Server) get(ctx context.Context, id int64) (cortex.Dispatch, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	d, err := s.Sched.Get(ctx, id)
	return d, known(id, err)
}

// number is the dispatch of a path that takes no bead. how completes the hint "… by the number".
func (r *request) number(how string) (int64, error) {
	id, ok := number(r.id)
	if !ok {
		return 0, &cortex.Error{Reason: cortex.ReasonNotFound, Message: "No dispatch " + clip(r.id),
			Hint: fmt.Sprintf("%s by the number; cortex list --bead %s shows a bead's", how, clip(r.id))}
	}
	return id, nil
}

// known is err, in the API's words where it says that there is no such dispatch.
func known(id int64, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return noDispatch(strconv.FormatInt(id, 10))
	}
	return err
}

func noDispatch(id string) error {
	return &cortex.Error{Reason: cortex.ReasonNotFound, Message: "No dispatch " + clip(id), Hint: "cortex list shows those that there are"}
}

// detail adds what the spec says. A row that a person inserted has none, and one that can't be read any more is shown
// without: the row is the truth.
func (s *Server) detail(d cortex.Dispatch) DispatchDetail {
	if !d.Accepted {
		return detailOf(d, nil)
	}
	spec, err := runner.Spec(s.runs, d.ID)
	if err != nil {
		s.log.Debug("spec not read", "dispatch", d.ID, "err", err)
		return detailOf(d, nil)
	}
	return detailOf(d, &spec)
}

var errNotEnded = errors.New("has not ended in time")

// waitEnded waits until the dispatch has ended and nothing of it is left, for at most limit: then, and when the server
// stops, it is errNotEnded.
func (s *Server) waitEnded(r *request, id int64, limit time.Duration) error {
	ctx, cancel := s.waiting(r, limit)
	defer cancel()
	err := s.Sched.WaitEnded(ctx, id)
	if err != nil && ctx.Err() != nil {
		return errNotEnded
	}
	return err
}

// number reads an {id}: digits only. What is none is a bead's name; a number that no id can be is unknown.
func number(text string) (id int64, ok bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return math.MaxInt64, true // no id is so high, so that it will not be found
	}
	return id, true
}
