package sched

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"cortex"
	"cortex/store"
)

// w is a dispatch that waits since it was accepted, one a second.
func w(id int64, priority int, project string) store.Waiter {
	return store.Waiter{
		ID: id, Bead: "b", Priority: priority, Since: t0.Add(time.Duration(id) * time.Second),
		Lane: cortex.Lane{Project: project, Agent: "a", Provider: "v"},
	}
}

func queueOf(ageing time.Duration, waiting ...store.Waiter) *queue {
	q := newQueue(ageing)
	q.replace(waiting)
	return q
}

func TestPick(t *testing.T) {
	t.Parallel()
	hold := func(scope string) []cortex.Hold { return []cortex.Hold{{Scope: scope}} }
	other := w(2, 2, "p")
	other.Bead = "other"
	type waiting = []store.Waiter
	for name, c := range map[string]struct {
		waiting waiting
		holds   []cortex.Hold
		free    int
		want    []int64
	}{
		"priority before age":         {waiting{w(1, 2, "p"), w(2, 0, "q"), w(3, 4, "p")}, nil, 9, []int64{2, 1, 3}},
		"age within a priority":       {waiting{w(3, 2, "p"), w(1, 2, "q"), w(2, 2, "r")}, nil, 2, []int64{1, 2}},
		"no slot":                     {waiting{w(1, 2, "p")}, nil, 0, nil},
		"less than no slot":           {waiting{w(1, 2, "p")}, nil, -3, nil},
		"a hold of all":               {waiting{w(1, 2, "p")}, hold("all"), 9, nil},
		"a hold of the project":       {waiting{w(1, 2, "p"), w(2, 2, "q")}, hold("project:p"), 1, []int64{2}},
		"a hold of another's":         {waiting{w(1, 2, "p")}, hold("project:pp"), 9, []int64{1}},
		"of the agent":                {waiting{w(1, 2, "p")}, hold("agent:a"), 9, nil},
		"of the provider":             {waiting{w(1, 2, "p")}, hold("provider:v"), 9, nil},
		"of the bead":                 {waiting{w(1, 2, "p"), other, w(3, 2, "p")}, hold("bead:b"), 9, []int64{2}},
		"of one dispatch":             {[]store.Waiter{w(1, 2, "p"), w(2, 2, "p"), w(11, 2, "p")}, hold("dispatch:1"), 9, []int64{2, 11}},
		"a scope that nobody knows":   {waiting{w(1, 2, "p")}, hold("moon:full"), 9, []int64{1}},
		"a held one takes no slot":    {waiting{w(1, 0, "p"), w(2, 2, "q"), w(3, 2, "q")}, hold("project:p"), 2, []int64{2, 3}},
		"nothing waits, nothing runs": {nil, nil, 5, nil},
	} {
		got, next := queueOf(0, c.waiting...).pick(c.holds, newUsage(Limits{}, nil, nil), c.free, t0)
		if !slices.Equal(got, c.want) || !next.IsZero() {
			t.Errorf("%s: %v, want %v; %v", name, got, c.want, next)
		}
	}
}

func TestPickWithinLimits(t *testing.T) {
	t.Parallel()
	lane := func(project, agent string) cortex.Lane { return cortex.Lane{Project: project, Agent: agent} }
	waiting := func(lanes ...cortex.Lane) (all []store.Waiter) {
		for i, l := range lanes {
			all = append(all, store.Waiter{ID: int64(i + 1), Priority: 2, Lane: l})
		}
		return all
	}
	ago := func(seconds int, l cortex.Lane) store.Start {
		return store.Start{At: t0.Add(-time.Duration(seconds) * time.Second), Lane: l}
	}
	for name, c := range map[string]struct {
		limits  Limits
		live    []cortex.Lane
		starts  []store.Start
		waiting []store.Waiter
		want    []int64
		next    time.Duration // after t0
	}{
		"one of each project": {Limits{Project: 1}, nil, nil,
			waiting(lane("p", ""), lane("p", ""), lane("q", ""), lane("q", "")), []int64{1, 3}, 0},
		"what lives counts": {Limits{Project: 1}, []cortex.Lane{lane("p", "")}, nil,
			waiting(lane("p", ""), lane("q", "")), []int64{2}, 0},
		"its own bound comes before that of all": {Limits{Project: 1, Projects: map[string]Bound{"p": {Concurrent: 2}}}, nil, nil,
			waiting(lane("p", ""), lane("p", ""), lane("p", "")), []int64{1, 2}, 0},
		"a bound of its own without a number": {Limits{Project: 1, Projects: map[string]Bound{"p": {}}}, nil, nil,
			waiting(lane("p", ""), lane("p", "")), []int64{1, 2}, 0},
		"an agent across projects": {Limits{Agent: 2}, []cortex.Lane{lane("x", "claude")}, nil,
			waiting(lane("p", "claude"), lane("q", "claude"), lane("q", "codex")), []int64{1, 3}, 0},
		"no agent, no limit": {Limits{Agent: 1}, []cortex.Lane{lane("x", "")}, nil,
			waiting(lane("p", ""), lane("q", "")), []int64{1, 2}, 0},
		"starts of the last minute": {Limits{PerMinute: 3}, nil, []store.Start{ago(50, lane("x", "")), ago(20, lane("x", ""))},
			waiting(lane("p", ""), lane("p", "")), []int64{1}, 10 * time.Second},
		"starts of one agent": {Limits{Agents: map[string]Bound{"claude": {PerMinute: 1}}}, nil, []store.Start{ago(59, lane("x", "claude"))},
			waiting(lane("p", "claude"), lane("p", "codex")), []int64{2}, time.Second},
		"what is picked counts as a start": {Limits{PerMinute: 1}, nil, nil,
			waiting(lane("p", ""), lane("q", "")), []int64{1}, time.Minute},
		"more starts than a lowered limit": {Limits{PerMinute: 1}, nil, []store.Start{ago(30, lane("x", "")), ago(5, lane("x", ""))},
			waiting(lane("p", "")), nil, 55 * time.Second},
		"a full project is not what is waited for": {Limits{PerMinute: 1, Project: 1}, []cortex.Lane{lane("p", "")}, []store.Start{ago(1, lane("p", ""))},
			waiting(lane("p", "")), nil, 0},
	} {
		got, next := queueOf(0, c.waiting...).pick(nil, newUsage(c.limits, c.live, c.starts), 9, t0)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if (c.next == 0) != next.IsZero() || c.next != 0 && next.Sub(t0) != c.next {
			t.Errorf("%s: next %v, want after %v", name, next.Sub(t0), c.next)
		}
	}
}

func TestAgeing(t *testing.T) {
	t.Parallel()
	at := func(id int64, priority int, waits time.Duration) store.Waiter {
		return store.Waiter{ID: id, Priority: priority, Since: t0.Add(-waits)}
	}
	for name, c := range map[string]struct {
		ageing  time.Duration
		waiting []store.Waiter
		want    []int64
	}{
		"not long enough":        {time.Hour, []store.Waiter{at(1, 2, 59*time.Minute), at(2, 1, 0)}, []int64{2, 1}},
		"long enough":            {time.Hour, []store.Waiter{at(1, 2, 61*time.Minute), at(2, 1, 0)}, []int64{1, 2}},
		"a step of each":         {time.Hour, []store.Waiter{at(1, 4, 3*time.Hour), at(2, 0, 0)}, []int64{2, 1}},
		"the last before all":    {time.Hour, []store.Waiter{at(1, 4, 5*time.Hour), at(2, 0, 0)}, []int64{1, 2}},
		"as old, as good":        {time.Hour, []store.Waiter{at(2, 2, 0), at(1, 2, 0)}, []int64{1, 2}},
		"a tie":                  {time.Hour, []store.Waiter{at(1, 2, time.Hour), at(2, 1, 0)}, []int64{2, 1}},
		"never":                  {0, []store.Waiter{at(1, 2, 1000*time.Hour), at(2, 1, 0)}, []int64{2, 1}},
		"an age nobody can tell": {time.Hour, []store.Waiter{{ID: 1, Priority: 4}, at(2, 0, 0)}, []int64{1, 2}},
	} {
		got, _ := queueOf(c.ageing, c.waiting...).pick(nil, newUsage(Limits{}, nil, nil), 9, t0)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// The queue follows what comes, goes and changes.
func TestQueueUpdate(t *testing.T) {
	t.Parallel()
	q := queueOf(0, w(1, 2, "p"), w(2, 2, "p"), w(3, 2, "q"))
	pick := func() string {
		ids, _ := q.pick(nil, newUsage(Limits{}, nil, nil), 9, t0)
		return fmt.Sprint(ids)
	}
	if got := pick() + pick(); got != "[1 2 3][1 2 3]" { // a pick takes nothing out
		t.Error(got)
	}
	q.update([]int64{1, 3, 4}, []store.Waiter{w(3, 0, "p"), w(4, 1, "r")}) // 1 is gone, 3 has another priority and lane, 4 is new
	if got := pick(); got != "[3 4 2]" {
		t.Error(got)
	}
	q.update([]int64{2, 3, 4, 9}, nil)
	if got := pick(); got != "[]" || len(q.lanes) != 0 || len(q.byID) != 0 {
		t.Errorf("%s %v", got, q)
	}
}

// What is not to be started yet has its turn when its time has come, and is gone when it is taken out before.
func TestNotBefore(t *testing.T) {
	t.Parallel()
	at := func(id int64, after time.Duration) store.Waiter {
		one := w(id, 0, "p")
		one.Until = t0.Add(after)
		return one
	}
	q := queueOf(0, at(1, time.Hour), at(2, time.Minute), at(3, 0), w(4, 2, "p"), at(5, time.Minute))
	pick := func(now time.Time) string {
		ids, next := q.pick(nil, newUsage(Limits{Concurrent: 9}, nil, nil), 9, now)
		if next.IsZero() {
			return fmt.Sprint(ids)
		}
		return fmt.Sprint(ids, next.Sub(t0))
	}
	if got := pick(t0); got != "[3 4] 1m0s" {
		t.Error(got)
	}
	q.update([]int64{5}, nil)
	if got := pick(t0.Add(time.Minute)); got != "[2 3 4] 1h0m0s" {
		t.Error(got)
	}
	q.update([]int64{1}, []store.Waiter{at(1, 2*time.Minute)})
	if got := pick(t0.Add(2 * time.Minute)); got != "[1 2 3 4]" {
		t.Error(got)
	}
	if got := pick(t0); got != "[3 4] 1m0s" { // the clock was set back
		t.Error(got)
	}
	pick(t0.Add(2 * time.Minute))
	if _, next := q.pick([]cortex.Hold{{Scope: cortex.ScopeAll}}, newUsage(Limits{}, nil, nil), 9, t0.Add(time.Hour)); !next.IsZero() {
		t.Error(next)
	}
}

// What a decision costs follows from the lanes, not from how many wait in them: as many allocations for a hundred times as many.
func TestPickDoesNotGrow(t *testing.T) {
	cost := func(n int) float64 {
		q, live, starts := loaded(n)
		return testing.AllocsPerRun(10, func() { q.pick(nil, newUsage(busyLimits, live, starts), 1, t0) })
	}
	if few, many := cost(1_000), cost(100_000); many > few*1.1 {
		t.Errorf("%v allocations with 1,000 that wait, %v with 100,000", few, many)
	}
}

// busyLimits are some of every kind.
var busyLimits = Limits{Concurrent: 100, PerMinute: 1000, Project: 5, Agent: 30, Provider: 60,
	Projects:  map[string]Bound{"p7": {3, 10}, "p8": {1, 1}},
	Providers: map[string]Bound{"v1": {50, 100}}}

// BenchmarkPick is the choice of the next dispatch of so many that wait, with every kind of limit. What to look at is that it
// does not grow with them.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			q, live, starts := loaded(n)
			b.ResetTimer()
			for b.Loop() {
				if ids, _ := q.pick(nil, newUsage(busyLimits, live, starts), 1, t0); len(ids) != 1 {
					b.Fatal(ids)
				}
			}
		})
	}
}

// loaded is a queue of n in 50 projects, 3 agents and 2 providers, with 40 that live and 200 starts in the last minute.
func loaded(n int) (q *queue, live []cortex.Lane, starts []store.Start) {
	lane := func(i int) cortex.Lane {
		return cortex.Lane{Project: fmt.Sprint("p", i%50), Agent: fmt.Sprint("a", i%3), Provider: fmt.Sprint("v", i%2)}
	}
	q = newQueue(24 * time.Hour)
	for i := range n {
		q.put(store.Waiter{ID: int64(i), Bead: fmt.Sprint(i), Priority: i % 5, Lane: lane(i), Since: t0.Add(time.Duration(i) * time.Second)})
	}
	for i := range 40 {
		live = append(live, lane(i))
	}
	for i := range 200 {
		starts = append(starts, store.Start{At: t0.Add(-time.Duration(200-i) * time.Second / 4), Lane: lane(i)})
	}
	return q, live, starts
}
