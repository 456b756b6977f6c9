package sched

import (
	"time"

	"cortex"
	"cortex/store"
)

// Limits is what bounds starts, by configuration.
type Limits struct {
	Concurrent, PerMinute       int // of all; PerMinute 0: no bound
	Project, Agent, Provider    int // at a time, of each that has no bound of its own; 0: none
	Projects, Agents, Providers map[string]Bound
}

// Bound is that of one project, agent or provider.
type Bound struct {
	Concurrent int // at a time; 0: no bound
	PerMinute  int // starts within any 60 seconds; 0: no bound
}

// of are the limits that a dispatch of the lane is under. One that names no agent or provider is under no limit of these.
func (l Limits) of(lane cortex.Lane) []cortex.Limit {
	all := []cortex.Limit{{Scope: cortex.ScopeAll, Concurrent: l.Concurrent, PerMinute: l.PerMinute}}
	for _, c := range []struct {
		kind, name string
		each       int
		own        map[string]Bound
	}{
		{"project", lane.Project, l.Project, l.Projects},
		{"agent", lane.Agent, l.Agent, l.Agents},
		{"provider", lane.Provider, l.Provider, l.Providers},
	} {
		b, ok := c.own[c.name]
		if !ok {
			b = Bound{Concurrent: c.each}
		}
		if c.name != "" && b != (Bound{}) {
			all = append(all, cortex.Limit{Scope: c.kind + ":" + c.name, Concurrent: b.Concurrent, PerMinute: b.PerMinute})
		}
	}
	return all
}

// For are the limits that d is under.
func (l Limits) For(d cortex.Dispatch) []cortex.Limit { return l.of(d.Lane()) }

// startSpan is what a limit of starts looks back.
const startSpan = time.Minute

// usage is what limits are compared with, by scope; only of scopes that have a limit. The starts are those of the last
// startSpan as the database has them, so that those that were given back, or seem to come from the future, count for nothing.
type usage struct {
	limits Limits
	live   map[string]int
	starts map[string][]time.Time // within startSpan, oldest first
}

func newUsage(limits Limits, live []cortex.Lane, starts []store.Start) usage {
	u := usage{limits, map[string]int{}, map[string][]time.Time{}}
	for _, lane := range live {
		for _, l := range limits.of(lane) {
			u.live[l.Scope]++
		}
	}
	for _, s := range starts {
		u.noteStart(limits.of(s.Lane), s.At)
	}
	return u
}

// of is what u counts, held against other limits.
func (u usage) of(limits Limits) usage {
	u.limits = limits
	return u
}

// rated reports whether there is any limit of starts.
func (l Limits) rated() bool {
	for _, named := range []map[string]Bound{l.Projects, l.Agents, l.Providers} {
		for _, b := range named {
			if b.PerMinute > 0 {
				return true
			}
		}
	}
	return l.PerMinute > 0
}

// free is how many slots there are.
func (u usage) free() int { return u.limits.Concurrent - u.live[cortex.ScopeAll] }

func (u usage) noteStart(limits []cortex.Limit, at time.Time) {
	for _, l := range limits {
		if l.PerMinute > 0 {
			u.starts[l.Scope] = append(u.starts[l.Scope], at)
		}
	}
}

// add counts one that is about to start.
func (u usage) add(limits []cortex.Limit, now time.Time) {
	for _, l := range limits {
		u.live[l.Scope]++
	}
	u.noteStart(limits, now)
}

// admits reports whether limits let one more start through; where only limits of starts a minute do not, when they will.
func (u usage) admits(limits []cortex.Limit) (until time.Time, open bool) {
	open = true
	for _, l := range limits {
		if l.Concurrent > 0 && u.live[l.Scope] >= l.Concurrent {
			return time.Time{}, false
		}
		starts := u.starts[l.Scope]
		if over := len(starts) - l.PerMinute; l.PerMinute > 0 && over >= 0 {
			open = false
			if at := starts[over].Add(startSpan); at.After(until) {
				until = at
			}
		}
	}
	return until, open
}
