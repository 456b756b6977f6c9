package sched

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"cortex"
	"cortex/store"
)

// Gate is one thing that may keep a dispatch from starting.
type Gate struct {
	Name   string // hold, time, slots, project, agent, provider, starts or turn
	Open   bool
	Detail string     // why it is open or shut
	Until  *time.Time // when it opens by itself; nil where nobody can say
}

// Explanation is why a dispatch is where it is.
type Explanation struct {
	Dispatch cortex.Dispatch
	Summary  string // one sentence
	Gates    []Gate // of one that waits; none of any other
	Ahead    int    // how many that wait have their turn before it
}

// Explain looks why a dispatch is where it is, as a decision now would. Errors as of Get.
func (s *Scheduler) Explain(ctx context.Context, id int64) (Explanation, error) {
	now := time.Now()
	d, err := s.Get(ctx, id)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Dispatch: d, Gates: []Gate{}}
	if d.Status != cortex.Pending || !d.Accepted {
		e.Summary = fmt.Sprintf("Dispatch %d %s", d.ID, whereItIs(d, now))
		return e, nil
	}
	use, err := s.usage(ctx, s.rulesNow().Limits, now)
	if err != nil {
		return Explanation{}, err
	}
	holds := s.holds(now)
	if !s.isAdopted() {
		e.Gates = append(e.Gates, Gate{Name: "adoption", Detail: "the daemon has just started, and takes in what runs"})
	}
	e.Gates = append(e.Gates, gatesOf(d, holds, use, now)...)
	if err := s.sync(ctx); err != nil {
		return Explanation{}, err
	}
	s.waiting.Lock()
	s.queue.ripen(now)
	e.Ahead = s.queue.ahead(store.WaiterOf(d))
	picked, _ := s.queue.pick(holds, use, use.free(), now)
	s.waiting.Unlock()
	e.Gates = append(e.Gates, turnGate(e, slices.Contains(picked, id)))
	e.Summary = fmt.Sprintf("Dispatch %d waits: %s", d.ID, why(e.Gates))
	return e, nil
}

// turnGate is shut for one whose gates are all open, and that others go before.
func turnGate(e Explanation, picked bool) Gate {
	g := Gate{Name: "turn", Open: true, Detail: fmt.Sprintf("%d that wait have their turn before it", e.Ahead)}
	if !picked && !slices.ContainsFunc(e.Gates, func(g Gate) bool { return !g.Open }) {
		g.Open = e.Ahead == 0 // else it is about to start, or its row was read a moment ago
	}
	return g
}

// why sums up the gates: the first that is shut, and how many more are.
func why(gates []Gate) string {
	var shut []Gate
	for _, g := range gates {
		if !g.Open {
			shut = append(shut, g)
		}
	}
	switch len(shut) {
	case 0:
		return "nothing is in its way, it is about to start"
	case 1:
		return shut[0].Detail
	}
	return fmt.Sprintf("%s (and %d more)", shut[0].Detail, len(shut)-1)
}

// gatesOf are all that d has to pass but its turn. Pure.
func gatesOf(d cortex.Dispatch, holds []cortex.Hold, use usage, now time.Time) []Gate {
	gates := []Gate{}
	for _, h := range holds {
		if h.Covers(d) {
			gates = append(gates, Gate{Name: "hold", Detail: holdDetail(h), Until: h.Until})
		}
	}
	if len(gates) == 0 {
		gates = append(gates, Gate{Name: "hold", Open: true, Detail: "no hold covers it"})
	}
	if d.NotBefore != nil {
		g := Gate{Name: "time", Open: true, Detail: "not before " + d.NotBefore.UTC().Format(time.RFC3339)}
		if now.Before(*d.NotBefore) {
			g.Open, g.Until = false, d.NotBefore
		}
		gates = append(gates, g)
	}
	return append(gates, limitGates(d.Lane(), use)...)
}

// limitGates are those of the limits that a lane is under.
func limitGates(lane cortex.Lane, use usage) (gates []Gate) {
	for _, l := range use.limits.of(lane) {
		name, of := "slots", "run"
		if kind, called, ok := strings.Cut(l.Scope, ":"); ok {
			name, of = kind, fmt.Sprintf("of the %s %s run", kind, called)
		}
		if l.Concurrent > 0 {
			n := use.live[l.Scope]
			gates = append(gates, Gate{Name: name, Open: n < l.Concurrent, Detail: fmt.Sprintf("%d of at most %d %s", n, l.Concurrent, of)})
		}
		if l.PerMinute > 0 {
			one := l
			one.Concurrent = 0
			until, open := use.admits([]cortex.Limit{one})
			g := Gate{Name: "starts", Open: open,
				Detail: fmt.Sprintf("%d of at most %d starts a minute (%s)", len(use.starts[l.Scope]), l.PerMinute, l.Scope)}
			if !open {
				g.Until = &until
			}
			gates = append(gates, g)
		}
	}
	return gates
}

func holdDetail(h cortex.Hold) string {
	what := "held (" + h.Scope + ")"
	if h.Scope == cortex.ScopeAll {
		what = "paused"
	}
	what += " since " + h.Since.UTC().Format(time.RFC3339) + " by " + h.By
	if h.Reason != "" {
		what += ": " + h.Reason
	}
	return what
}

// whereItIs says of a dispatch that does not wait for a start what it does, or how it ended.
func whereItIs(d cortex.Dispatch, now time.Time) string {
	switch d.Status {
	case cortex.Pending:
		return "is a row that was inserted by hand: it has no command, and is never started"
	case cortex.Running:
		return whatItDoes(d, now)
	case cortex.Completed:
		return "completed with exit status 0" + afterWhat(d)
	case cortex.Failed:
		how := "failed" + afterWhat(d) + ": " + cmp.Or(string(d.FailureCategory), "nobody knows why")
		if d.FailureSummary != "" {
			how += " (" + d.FailureSummary + ")"
		}
		return how
	case cortex.Cancelled:
		return "was cancelled" + afterWhat(d)
	}
	return "is " + string(d.Status)
}

func whatItDoes(d cortex.Dispatch, now time.Time) string {
	since := ""
	if d.DispatchedAt != nil {
		since = " for " + now.Sub(*d.DispatchedAt).Round(time.Second).String()
	}
	switch d.Stage {
	case cortex.StageStarting:
		return "is being started" + since
	case cortex.StageCancelling:
		return "is being stopped; it ends when nothing of it is left"
	case cortex.StageCancelFailed:
		return "can't be ended: processes of it survive, /health names them"
	}
	if d.FrozenSince != nil {
		return "is frozen since " + d.FrozenSince.UTC().Format(time.RFC3339) + "; cortex thaw lets it go on"
	}
	return "runs" + since + " in the session " + d.SessionName
}

func afterWhat(d cortex.Dispatch) string {
	if d.DurationS == nil {
		return ""
	}
	return " after " + time.Duration(*d.DurationS*float64(time.Second)).Round(time.Millisecond).String()
}

// Backlog is what would start next, and what holds the rest.
type Backlog struct {
	Waiting int
	Gates   []Gate         // of all: holds of scope all, slots, starts
	Next    []store.Waiter // in the order of their turns, as slots come free
	Held    []HeldBack     // the most first
}

// HeldBack is how many wait behind a gate that is not one of all.
type HeldBack struct {
	Gate
	Count int
}

// Backlog looks at all that waits, and tells at most n of what starts next.
func (s *Scheduler) Backlog(ctx context.Context, n int) (Backlog, error) {
	now := time.Now()
	limits := s.rulesNow().Limits
	use, err := s.usage(ctx, limits, now)
	if err == nil {
		err = s.sync(ctx)
	}
	if err != nil {
		return Backlog{}, err
	}
	holds := s.holds(now)
	b := Backlog{Next: []store.Waiter{}}
	b.Gates = gatesOf(cortex.Dispatch{}, ofAll(holds), use.of(Limits{Concurrent: limits.Concurrent, PerMinute: limits.PerMinute}), now)
	// What keeps all back is told once; the order of the others is looked at without it.
	limits.Concurrent, limits.PerMinute = 0, 0
	holds = slices.DeleteFunc(holds, func(h cortex.Hold) bool { return h.Scope == cortex.ScopeAll })
	s.waiting.Lock()
	defer s.waiting.Unlock()
	b.Waiting = len(s.queue.byID)
	own := use.of(limits)
	b.Held = s.queue.heldBack(holds, own, now)
	ids, _ := s.queue.pick(holds, own, n, now)
	for _, id := range ids {
		b.Next = append(b.Next, s.queue.byID[id])
	}
	return b, nil
}

func ofAll(holds []cortex.Hold) []cortex.Hold {
	return slices.DeleteFunc(slices.Clone(holds), func(h cortex.Hold) bool { return h.Scope != cortex.ScopeAll })
}

// heldBack counts what waits behind the first gate of its own that is shut.
func (q *queue) heldBack(holds []cortex.Hold, use usage, now time.Time) []HeldBack {
	counts := map[string]*HeldBack{}
	count := func(g Gate, n int) {
		if counts[g.Detail] == nil {
			counts[g.Detail] = &HeldBack{Gate: g}
		}
		counts[g.Detail].Count += n
	}
	if next := q.ripen(now); !next.IsZero() {
		g := Gate{Name: "time", Detail: "not before a time of its own", Until: &next}
		counts[g.Detail] = &HeldBack{g, q.later.Len()}
	}
	held := heldScopes(holds)
	ones := holdsOnes(holds)
	for lane, waiting := range q.lanes {
		gates := gatesOf(dispatchIn(lane), holds, use, now)
		if shut := slices.IndexFunc(gates, func(g Gate) bool { return !g.Open }); shut >= 0 {
			count(gates[shut], waiting.Len())
			continue
		}
		if !ones {
			continue
		}
		waiting.Scan(func(w store.Waiter) bool {
			if scope := heldAlone(w, held); scope != "" {
				count(Gate{Name: "hold", Detail: "held (" + scope + ")"}, 1)
			}
			return true
		})
	}
	all := []HeldBack{}
	for _, h := range counts {
		all = append(all, *h)
	}
	slices.SortFunc(all, func(a, b HeldBack) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Detail, b.Detail))
	})
	return all
}

func dispatchIn(lane cortex.Lane) cortex.Dispatch {
	return cortex.Dispatch{Project: lane.Project, Agent: lane.Agent, Provider: lane.Provider}
}

// ahead counts those that have their turn before w.
func (q *queue) ahead(w store.Waiter) int {
	n := 0
	for _, lane := range q.lanes {
		lane.Scan(func(other store.Waiter) bool {
			if !q.before(other, w) {
				return false
			}
			n++
			return true
		})
	}
	return n
}
