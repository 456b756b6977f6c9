package sched

import (
	"strings"
	"testing"
	"time"

	"cortex"
	"cortex/store"
)

func TestGates(t *testing.T) {
	t.Parallel()
	until := t0.Add(time.Hour)
	d := cortex.Dispatch{ID: 7, Project: "web", Agent: "claude", BeadID: "b"}
	pause := cortex.Hold{Scope: cortex.ScopeAll, By: "ann", Reason: "upgrade", Since: t0, Until: &until}
	limits := Limits{Concurrent: 2, PerMinute: 1, Project: 1, Agents: map[string]Bound{"claude": {PerMinute: 5}}}
	live := []cortex.Lane{{Project: "web"}}
	use := newUsage(limits, live, []store.Start{{At: t0.Add(-20 * time.Second), Lane: live[0]}})
	var told []string
	for _, g := range gatesOf(d, []cortex.Hold{pause, {Scope: "project:other"}}, use, t0) {
		line := g.Name + " shut: " + g.Detail
		if g.Open {
			line = g.Name + " open: " + g.Detail
		}
		if g.Until != nil {
			line += " until " + g.Until.Format(time.TimeOnly)
		}
		told = append(told, line)
	}
	want := []string{
		"hold shut: paused since " + t0.UTC().Format(time.RFC3339) + " by ann: upgrade until " + until.Format(time.TimeOnly),
		"slots open: 1 of at most 2 run",
		"starts shut: 1 of at most 1 starts a minute (all) until " + t0.Add(40*time.Second).Format(time.TimeOnly),
		"project shut: 1 of at most 1 of the project web run",
		"starts open: 0 of at most 5 starts a minute (agent:claude)",
	}
	if got := strings.Join(told, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestWhereItIs(t *testing.T) {
	t.Parallel()
	began, took := t0.Add(-90*time.Second), 1.5
	for want, d := range map[string]cortex.Dispatch{
		"is a row that was inserted by hand: it has no command, and is never started": {Status: cortex.Pending},
		"is being started for 1m30s":              {Status: cortex.Running, Stage: cortex.StageStarting, DispatchedAt: &began},
		"runs for 1m30s in the session ctx-p-b-1": {Status: cortex.Running, Stage: cortex.StageRunning, DispatchedAt: &began, SessionName: "ctx-p-b-1"},
		"is frozen since " + began.UTC().Format(time.RFC3339) + "; cortex thaw lets it go on": {Status: cortex.Running, Stage: cortex.StageRunning, FrozenSince: &began},
		"is being stopped; it ends when nothing of it is left":                                {Status: cortex.Running, Stage: cortex.StageCancelling},
		"can't be ended: processes of it survive, /health names them":                         {Status: cortex.Running, Stage: cortex.StageCancelFailed},
		"completed with exit status 0 after 1.5s":                                             {Status: cortex.Completed, DurationS: &took},
		"failed after 1.5s: exit_nonzero (exit status 3)":                                     {Status: cortex.Failed, DurationS: &took, FailureCategory: cortex.CategoryExitNonzero, FailureSummary: "exit status 3"},
		"failed: nobody knows why":                                                            {Status: cortex.Failed},
		"was cancelled":                                                                       {Status: cortex.Cancelled},
		"is pending_retry":                                                                    {Status: cortex.PendingRetry},
	} {
		if got := whereItIs(d, t0); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestHeldBackAndAhead(t *testing.T) {
	t.Parallel()
	q := queueOf(0, w(1, 2, "p"), w(2, 2, "p"), w(3, 0, "q"), w(4, 2, "q"), w(5, 2, "r"))
	held := w(6, 2, "r")
	held.Bead = "held"
	q.put(held)
	if got := q.ahead(w(4, 2, "q")); got != 3 {
		t.Errorf("%d ahead", got)
	}
	use := newUsage(Limits{Projects: map[string]Bound{"p": {Concurrent: 1}}}, []cortex.Lane{{Project: "p"}}, nil)
	got := q.heldBack([]cortex.Hold{{Scope: "project:q", By: "ann", Since: t0}, {Scope: "bead:held"}}, use, t0)
	if len(got) != 3 || got[0].Count != 2 || got[1].Count != 2 || got[2].Count != 1 || got[2].Detail != "held (bead:held)" {
		t.Errorf("%+v", got)
	}
	if other := (store.Waiter{ID: 1}); q.ahead(other) != 0 {
		t.Error("something is ahead of the first")
	}
}
