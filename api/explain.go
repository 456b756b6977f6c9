package api

import (
	"context"
	"net/http"

	"cortex/sched"
)

// Gate is one thing that may keep a dispatch from starting.
type Gate struct {
	Name   string `json:"name"`
	Open   bool   `json:"open"`
	Detail string `json:"detail"`
	Until  *Time  `json:"until"` // when it opens by itself; null where nobody can say
}

// Explanation is the answer of GET /dispatches/{id}/explain.
type Explanation struct {
	ID      int64   `json:"id"`
	Status  string  `json:"status"`
	Stage   *string `json:"stage"`
	Summary string  `json:"summary"`
	Gates   []Gate  `json:"gates"` // of one that waits
	Ahead   *int    `json:"ahead"` // how many have their turn before it; null where it does not wait
}

// Queue is the answer of GET /scheduler/queue.
type Queue struct {
	Waiting int        `json:"waiting"`
	Gates   []Gate     `json:"gates"`
	Next    []Waiter   `json:"next"`
	Held    []HeldBack `json:"held"`
}

// Waiter is a dispatch that waits for its turn.
type Waiter struct {
	ID       int64   `json:"id"`
	BeadID   string  `json:"bead_id"`
	Project  string  `json:"project"`
	Agent    *string `json:"agent"`
	Provider *string `json:"provider"`
	Priority int     `json:"priority"`
}

// HeldBack is how many wait behind a gate.
type HeldBack struct {
	Gate
	Count int `json:"count"`
}

func gateOf(g sched.Gate) Gate { return Gate{g.Name, g.Open, g.Detail, timeOf(g.Until)} }

func gatesOf(all []sched.Gate) []Gate {
	gates := make([]Gate, 0, len(all))
	for _, g := range all {
		gates = append(gates, gateOf(g))
	}
	return gates
}

// explain answers GET /dispatches/{id}/explain.
func (s *Server) explain(w http.ResponseWriter, r *request) error {
	id, err := r.number("ask")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTime)
	defer cancel()
	e, err := s.Sched.Explain(ctx, id)
	if err != nil {
		return known(id, err)
	}
	answer := Explanation{ID: id, Status: string(e.Dispatch.Status), Stage: wordOf(e.Dispatch.Stage), Summary: e.Summary, Gates: gatesOf(e.Gates)}
	if len(e.Gates) > 0 {
		answer.Ahead = &e.Ahead
	}
	writeJSON(w, http.StatusOK, answer, s.log)
	return nil
}

const defaultNext = 20

// queue answers GET /scheduler/queue.
func (s *Server) queue(w http.ResponseWriter, r *request) error {
	n, err := queryInt(r.query, "limit", 1, 1000, defaultNext)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTime)
	defer cancel()
	b, err := s.Sched.Backlog(ctx, n)
	if err != nil {
		return err
	}
	answer := Queue{Waiting: b.Waiting, Gates: gatesOf(b.Gates), Next: []Waiter{}, Held: []HeldBack{}}
	for _, w := range b.Next {
		answer.Next = append(answer.Next, Waiter{w.ID, w.Bead, w.Lane.Project, wordOf(w.Lane.Agent), wordOf(w.Lane.Provider), w.Priority})
	}
	for _, h := range b.Held {
		answer.Held = append(answer.Held, HeldBack{gateOf(h.Gate), h.Count})
	}
	writeJSON(w, http.StatusOK, answer, s.log)
	return nil
}
