package api

import (
	"net/http"
	"time"

	"cortex"
	"cortex/store"
)

// change answers PATCH /dispatches/{id}: what waits gets another priority, timeout or time.
func (s *Server) change(w http.ResponseWriter, r *request) error {
	id, err := r.number("change it")
	if err != nil {
		return err
	}
	var c store.Change
	err = decodeBody(w, r.Request, fields{
		"priority": func(v value) error {
			c.Priority = new(int)
			return takeInt(c.Priority, cortex.PriorityFirst, cortex.PriorityLast)(v)
		},
		"timeout": func(v value) error {
			var timeout time.Duration
			if err := takeDuration(&timeout, 0, maxTimeout)(v); err != nil {
				return err
			}
			ms := timeout.Milliseconds()
			if timeout > 0 && ms == 0 {
				return badValue(v.name, `want "0s" for none, or at least 1ms`)
			}
			c.TimeoutMS = &ms
			return nil
		},
		"not_before": func(v value) error {
			c.NotBefore = new(time.Time)
			return takeTime(c.NotBefore, time.Now())(v)
		},
		"by": takeText(&c.By, maxName),
	})
	if err != nil {
		return err
	}
	if c.Priority == nil && c.TimeoutMS == nil && c.NotBefore == nil {
		return &cortex.Error{Reason: cortex.ReasonBadValue, Message: "There is nothing to change", Hint: `give priority, timeout or not_before: {"priority": 0}`}
	}
	c.By, c.Via = who(r, c.By)
	d, err := s.Sched.Change(r.Context(), id, c)
	if err != nil {
		return known(id, err)
	}
	writeJSON(w, http.StatusOK, s.detail(d), s.log)
	return nil
}
