package store

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"cortex"
)

// own sets a hold that stands for itself.
func own(t *testing.T, s *Store, scope string) cortex.Hold {
	t.Helper()
	h, recorded, err := s.Pause(ctx, cortex.Hold{Scope: scope, Own: true, By: "ann"})
	check(t, err)
	if recorded != RecordedDatabase || h.ID == 0 || h.Scope != scope || !h.Own {
		t.Fatalf("%s %+v", recorded, h)
	}
	return h
}

// Each hold of its own is lifted alone, and a pause neither goes on with it nor is lifted with it.
func TestHoldsStack(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	d := accept(t, s)
	project, bead, first := own(t, s, "project:p"), own(t, s, "bead:b-1"), own(t, s, "all")
	second := pause(t, s)
	third := pause(t, s)
	if second.ID == first.ID || third.ID != second.ID {
		t.Errorf("pauses %+v and %+v beside %+v", second, third, first)
	}
	lift := func(id int64, remaining ...int64) {
		t.Helper()
		_, err := s.Claim(ctx, d.ID, atMost(10), nil)
		wantErr(t, err, ErrHeld)
		l, err := s.Lift(ctx, id, "bob", "http", "over")
		check(t, err)
		var left []int64
		for _, h := range l.Remaining {
			left = append(left, h.ID)
		}
		if l.Before || l.Hold.ID != id || l.Hold.LiftedBy != "bob" || l.Hold.LiftedAt == nil || !slices.Equal(left, remaining) {
			t.Errorf("lifted %+v", l)
		}
	}
	lift(first.ID, second.ID)
	lift(project.ID, second.ID)
	resume(t, s)
	lift(bead.ID)
	must[cortex.Attempt](t)(s.Claim(ctx, d.ID, atMost(10), nil))

	again, err := s.Lift(ctx, bead.ID, "eve", "http", "again")
	check(t, err)
	if !again.Before || again.Hold.LiftedBy != "bob" || again.Hold.LiftedReason != "over" {
		t.Errorf("lifted twice: %+v", again)
	}
	_, err = s.Lift(ctx, 99, "", "", "")
	wantErr(t, err, ErrNotFound)
	for typ, want := range map[cortex.EventType]int{cortex.EventHoldSet: 2, cortex.EventHoldLifted: 2, cortex.EventSchedulerPaused: 3,
		cortex.EventSchedulerResumed: 2} {
		if n := count(t, s, typ); n != want {
			t.Errorf("%d events %s, want %d", n, typ, want)
		}
	}
}

// Lifting one whose time is over changes nothing but that it is lifted: at its end, by itself.
func TestLiftOfAnEndedHold(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	until := time.Now().Add(-time.Minute).UTC().Truncate(time.Millisecond)
	h, _, err := s.Pause(ctx, cortex.Hold{Scope: "project:p", Own: true, Until: &until})
	check(t, err)
	l, err := s.Lift(ctx, h.ID, "ann", "http", "")
	check(t, err)
	if !l.Before || !l.Hold.LiftedAt.Equal(until) || l.Hold.LiftedBy != "cortex" || count(t, s, cortex.EventHoldLifted) != 1 {
		t.Errorf("%+v, events %v", l, types(t, s))
	}
	check(t, s.Expire(ctx, time.Now()))
	if n := count(t, s, cortex.EventHoldLifted); n != 1 {
		t.Errorf("told %d times", n)
	}
}

func TestLiftOnALockIsRefusedAndNeverApplied(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	h := own(t, s, "project:p")
	lock := lockOut(t, s)
	_, err := s.Lift(soon(t), h.ID, "", "", "")
	if err == nil {
		t.Error("lifted while locked")
	}
	lock.close()
	check(t, s.AddEvent(ctx, cortex.Event{Type: "after"}))
	if held := s.Holds(); len(held) != 1 || held[0].ID != h.ID {
		t.Errorf("holds %+v", held)
	}
}

// A hold whose commit hung, so that it is in the stop journal as well, is one hold in the end.
func TestHoldInAHungCommit(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	d := accept(t, s)
	release := hangCommits(t, s)
	h, recorded, err := s.Pause(ctx, cortex.Hold{Scope: "project:p", Own: true})
	check(t, err)
	if recorded != RecordedJournal || h.ID != 0 {
		t.Errorf("%s %+v", recorded, h)
	}
	wantErr(t, s.mem.notStarted(d, time.Now()), ErrHeld)
	release()
	eventually(t, "the order in the database", func() bool { return len(s.mem.waitingOrders()) == 0 })
	if got := sqlite(t, s.path, "SELECT count(*), sum(own) FROM holds"); got != "1|1" {
		t.Errorf("holds %s", got)
	}
	_, err = s.Claim(ctx, d.ID, atMost(10), nil)
	wantErr(t, err, ErrHeld)
}

func TestAllHolds(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	for i := range 5 {
		own(t, s, fmt.Sprintf("project:p%d", i))
	}
	_, err := s.Lift(ctx, 4, "ann", "http", "")
	check(t, err)
	ids := func(before int64, limit int) (all []int64) {
		for _, h := range must[[]cortex.Hold](t)(s.AllHolds(ctx, before, limit)) {
			all = append(all, h.ID)
			if (h.LiftedAt != nil) != (h.ID == 4) {
				t.Errorf("%+v", h)
			}
		}
		return all
	}
	if got := ids(0, 3); !slices.Equal(got, []int64{5, 4, 3}) {
		t.Errorf("first page %v", got)
	}
	if got := ids(3, 3); !slices.Equal(got, []int64{2, 1}) {
		t.Errorf("second page %v", got)
	}
}

// What no hold covers is claimed, however many holds there are.
func TestClaimBesideManyHolds(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	held, free := testSpec("b-1"), testSpec("b-2")
	held.Project = "p777"
	accept, want := acceptSpec(t, s, held), acceptSpec(t, s, free)
	sqlite(t, s.path, `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 39999)
		INSERT INTO holds (scope) SELECT iif(i % 2, 'project:p', 'bead:it''s "') || i FROM n`)
	eventually(t, "the holds to be seen", func() bool { return len(s.Holds()) == 40000 })
	_, err := s.Claim(ctx, accept.ID, atMost(10), nil)
	wantErr(t, err, ErrHeld)
	must[cortex.Attempt](t)(s.Claim(ctx, want.ID, atMost(10), nil))
}

// A pause is told to be long once, whatever is in the trail.
func TestWarnPaused(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	h := pause(t, s)
	check(t, s.AddEvent(ctx, cortex.Event{Type: cortex.EventPausedLong, Details: "no JSON"}))
	for range 2 {
		check(t, s.WarnPaused(ctx, h, time.Now().Add(5*time.Hour)))
	}
	if n := count(t, s, cortex.EventPausedLong); n != 2 {
		t.Errorf("%d events, one was by hand", n)
	}
	resume(t, s)
	next := pause(t, s)
	check(t, s.WarnPaused(ctx, next, time.Now().Add(5*time.Hour)))
	if n := count(t, s, cortex.EventPausedLong); n != 3 {
		t.Errorf("%d events", n)
	}
	if got := sqlite(t, s.path, "SELECT message, type FROM events WHERE event_type = 'paused_long' ORDER BY id DESC LIMIT 1"); got !=
		"The scheduler has been paused for 5h0m0s|warning" {
		t.Errorf("%s", got)
	}
}

// A database of the schema before is brought to this one: its holds are in force, and a pause goes on with its pause.
func TestHoldsOfTheSchemaBefore(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	before := pause(t, s)
	home := s.home
	closeWell(t, s)
	sqlite(t, filepath.Join(home, "cortex.db"), "ALTER TABLE holds DROP COLUMN own; PRAGMA user_version = 2;")
	s = openAt(t, home)
	if after := pause(t, s); after.ID != before.ID || !after.Since.Equal(before.Since.Truncate(time.Millisecond)) {
		t.Errorf("%+v, before %+v", after, before)
	}
	if h := own(t, s, "all"); h.ID == before.ID {
		t.Errorf("%+v", h)
	}
}
