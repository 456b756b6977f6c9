package store

import (
	"slices"
	"testing"
	"time"

	"cortex"
)

// What a claim is held to is counted in its own transaction, of the dispatch as its row is then.
func TestClaimWithinLimits(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	take := func(project, agent string) cortex.Dispatch {
		spec := testSpec("b")
		spec.Project, spec.Agent = project, agent
		return acceptSpec(t, s, spec)
	}
	claim := func(d cortex.Dispatch, limits ...cortex.Limit) error {
		_, err := s.Claim(ctx, d.ID, func(cortex.Dispatch) []cortex.Limit { return limits }, nil)
		return err
	}
	web, api := cortex.Limit{Scope: "project:web", Concurrent: 1}, cortex.Limit{Scope: "agent:claude", Concurrent: 2}
	check(t, claim(take("web", "claude"), web, api))
	wantErr(t, claim(take("web", "claude"), web, api), ErrFull)
	check(t, claim(take("other", "claude"), api))
	wantErr(t, claim(take("third", "claude"), api), ErrFull)
	check(t, claim(take("third", "")))

	// A project called like the scope of all, or with quotes and colons, is a name like another.
	for _, name := range []string{"all", "a:b", "it's"} {
		own := cortex.Limit{Scope: "project:" + name, Concurrent: 1}
		check(t, claim(take(name, ""), own))
		wantErr(t, claim(take(name, ""), own), ErrFull)
	}
}

func TestClaimWithinStartsPerMinute(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	two := cortex.Limit{Scope: cortex.ScopeAll, PerMinute: 2}
	claim := func() (cortex.Attempt, error) {
		return s.Claim(ctx, accept(t, s).ID, func(cortex.Dispatch) []cortex.Limit { return []cortex.Limit{two} }, nil)
	}
	first := must[cortex.Attempt](t)(claim())
	must[cortex.Attempt](t)(claim())
	_, err := claim()
	wantErr(t, err, ErrFull)
	check(t, s.GiveBack(ctx, first.Dispatch.ID, first.Number, "test")) // it started nothing
	must[cortex.Attempt](t)(claim())
	_, err = claim()
	wantErr(t, err, ErrFull)
	sqlite(t, s.path, "UPDATE dispatches SET dispatched_at = datetime('now', '-61 seconds') WHERE dispatched_at IS NOT NULL")
	must[cortex.Attempt](t)(claim())
	sqlite(t, s.path, "UPDATE dispatches SET dispatched_at = datetime('now', '+1 hour') WHERE dispatched_at IS NOT NULL")
	must[cortex.Attempt](t)(claim()) // the clock was set back
}

// Whoever keeps the queue is told of each dispatch that comes, goes or waits differently.
func TestStirred(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	if _, all := s.Stirred(); !all {
		t.Error("what a new database has is not told")
	}
	told := func(what string, want ...int64) {
		t.Helper()
		ids, all := s.Stirred()
		slices.Sort(ids)
		if all || !slices.Equal(slices.Compact(ids), want) {
			t.Errorf("%s: %v %v, want %v", what, ids, all, want)
		}
	}
	d, other := accept(t, s), accept(t, s)
	told("accepted", d.ID, other.ID)
	told("nothing")
	at := must[cortex.Attempt](t)(s.Claim(ctx, d.ID, atMost(1), nil))
	told("claimed", d.ID)
	check(t, s.GiveBack(ctx, d.ID, at.Number, "test"))
	told("given back", d.ID)
	_, _, err := s.CancelPending(ctx, other.ID, "me")
	check(t, err)
	told("cancelled", other.ID)
	sqlite(t, s.path, "UPDATE dispatches SET priority = 0")
	eventually(t, "a change by hand to be told", func() bool {
		_, all := s.Stirred()
		return all
	})
	if got := must[[]Waiter](t)(s.Startable(ctx, nil)); len(got) != 1 || got[0].Priority != 0 || time.Since(got[0].Since) > time.Minute {
		t.Errorf("%+v", got)
	}
}
