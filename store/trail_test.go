package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"cortex"
)

// numbers are the ids of events, relative to the first of a test's own.
func numbers(events []cortex.Event, first int64) string {
	var all []int64
	for _, ev := range events {
		all = append(all, ev.ID-first+1)
	}
	return fmt.Sprint(all)
}

// addEvents adds 7 events, every second of them a warning, every third of dispatch 3 and bead b-3, a minute apart; it returns the
// first one's id.
func addEvents(t *testing.T, s *Store) int64 {
	t.Helper()
	start := time.Now().Add(-time.Hour)
	for i := range 7 {
		at := start.Add(time.Duration(i) * time.Minute)
		ev := cortex.Event{Type: cortex.EventDiskLow, Message: fmt.Sprint(i), CreatedAt: &at}
		if i%2 == 1 {
			ev.Type, ev.Severity = cortex.EventTmuxLost, cortex.Warning
		}
		if i%3 == 2 {
			ev.DispatchID, ev.BeadID = ptr(int64(3)), "b-3"
		}
		check(t, s.AddEvent(ctx, ev))
	}
	return must[int64](t)(s.EventStart(ctx, EventFilter{})) - 6
}

func TestListEvents(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	first := addEvents(t, s)
	for _, c := range []struct {
		name string
		f    EventFilter
		want string
	}{
		{"all", EventFilter{Since: time.Now().Add(-2 * time.Hour)}, "[7 6 5 4 3 2 1]"},
		{"severity", EventFilter{Severities: []cortex.Severity{cortex.Warning, cortex.Critical}}, "[6 4 2]"},
		{"word", EventFilter{Types: []cortex.EventType{cortex.EventDiskLow}}, "[7 5 3 1]"},
		{"words", EventFilter{Types: []cortex.EventType{cortex.EventDiskLow, cortex.EventTmuxLost}, Limit: 2}, "[7 6]"},
		{"dispatch", EventFilter{Dispatch: 3}, "[6 3]"},
		{"bead", EventFilter{Bead: "b-3"}, "[6 3]"},
		{"both", EventFilter{Dispatch: 3, Severities: []cortex.Severity{cortex.Info}}, "[3]"},
		{"since", EventFilter{Since: time.Now().Add(-57*time.Minute - 30*time.Second)}, "[7 6 5 4]"},
		{"before", EventFilter{Before: first + 2}, "[2 1]"},
		{"none", EventFilter{Bead: "b-4"}, "[]"},
	} {
		got := must[[]cortex.Event](t)(s.ListEvents(ctx, c.f))
		got = slices.DeleteFunc(got, func(ev cortex.Event) bool { return ev.ID < first })
		if numbers(got, first) != c.want || got == nil {
			t.Errorf("%s: %s, want %s", c.name, numbers(got, first), c.want)
		}
	}
}

// A follower is told of each event once, in the order of the ids, and what its filter leaves out is not looked at again.
func TestEventsAfter(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	first := addEvents(t, s)
	after := func(f EventFilter, at int64, n int) (string, int64) {
		t.Helper()
		events, next, err := s.EventsAfter(ctx, f, first-1+at, n)
		check(t, err)
		return numbers(events, first), next - first + 1
	}
	bead := EventFilter{Bead: "b-3", Since: time.Now(), Limit: 1, Before: 1} // the last three are a list's
	for _, c := range []struct {
		f    EventFilter
		at   int64
		n    int
		want string
		next int64
	}{
		{EventFilter{}, 0, 3, "[1 2 3]", 3},
		{EventFilter{}, 3, 3, "[4 5 6]", 6},
		{EventFilter{}, 6, 3, "[7]", 7},
		{EventFilter{}, 7, 3, "[]", 7},
		{EventFilter{}, 100, 3, "[]", 100},
		{bead, 0, 3, "[3 6]", 7},
		{bead, 0, 1, "[3]", 3},
		{bead, 6, 1, "[]", 7},
	} {
		if got, next := after(c.f, c.at, c.n); got != c.want || next != c.next {
			t.Errorf("%+v after %d: %s, next %d, want %s, next %d", c.f, c.at, got, next, c.want, c.next)
		}
	}
	changed := s.Changed()
	check(t, s.AddEvent(ctx, cortex.Event{Type: cortex.EventDiskLow}))
	<-changed
	if got, next := after(EventFilter{}, 7, 3); got != "[8]" || next != 8 {
		t.Errorf("the new one: %s, next %d", got, next)
	}
	if high := s.HighestEvent(); high < first+7 {
		t.Errorf("highest %d", high)
	}
}

// What another program writes wakes a follower, too.
func TestEventsOfOthers(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	after := must[int64](t)(s.EventStart(ctx, EventFilter{}))
	changed := s.Changed()
	sqlite(t, s.path, "INSERT INTO events (event_type, message) VALUES ('daemon_started', 'by hand')")
	<-changed
	eventually(t, "the event by hand", func() bool {
		events, _, err := s.EventsAfter(ctx, EventFilter{}, after, 10)
		check(t, err)
		return len(events) == 1 && events[0].Message == "by hand"
	})
}

func TestEventStart(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	first := addEvents(t, s)
	for _, c := range []struct {
		name string
		f    EventFilter
		want int64
	}{
		{"with new ones", EventFilter{Bead: "b-3"}, 7},
		{"the newest two", EventFilter{Limit: 2}, 5},
		{"the newest of a bead", EventFilter{Limit: 1, Bead: "b-3"}, 5},
		{"all of a bead", EventFilter{Limit: 100, Bead: "b-3"}, 2},
		{"since", EventFilter{Since: time.Now().Add(-57*time.Minute - 30*time.Second)}, 3},
		{"the newest since", EventFilter{Since: time.Now().Add(-57*time.Minute - 30*time.Second), Limit: 1}, 6},
		{"none since", EventFilter{Since: time.Now().Add(time.Hour)}, 7},
	} {
		if got := must[int64](t)(s.EventStart(ctx, c.f)) - first + 1; got != c.want {
			t.Errorf("%s: after %d, want %d", c.name, got, c.want)
		}
	}
	sqlite(t, s.path, "DELETE FROM events")
	if got := must[int64](t)(s.EventStart(ctx, EventFilter{})); got != 0 {
		t.Errorf("without events: after %d", got)
	}
}
