package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"cortex"
	"cortex/runner/record"
)

func TestAcceptIsDurableInBothPlaces(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	spec := testSpec("bead é")
	spec.Agent, spec.Provider, spec.Tier, spec.Priority = "a", "pr", "fast", 0
	d := acceptSpec(t, s, spec)
	if d.ID != 1 || d.Status != cortex.Pending || !d.Accepted || d.Priority != 0 || d.BeadID != "bead é" || d.Tier != "fast" {
		t.Errorf("%+v", d)
	}
	if got := get(t, s, 1); fmt.Sprint(got) == "" || got.BeadID != d.BeadID || !got.CreatedAt.Equal(*d.CreatedAt) {
		t.Errorf("%+v", got)
	}
	dir := must[*record.Dir](t)(record.OpenDir(s.runs, 1, 0))
	defer dir.Close()
	var back record.Spec
	check(t, dir.Read(record.SpecFile, &back))
	if back.ID != 1 || back.Bead != "bead é" || back.CreatedAt.IsZero() || dir.Exists(record.SpecNew) {
		t.Errorf("%+v", back)
	}
	if n := count(t, s, cortex.EventDispatchSubmitted); n != 1 {
		t.Errorf("%d events", n)
	}
	if got := sqlite(t, s.path, "SELECT julianday('now') - julianday(created_at) < 0.01, created_at > datetime('now', '-1 minute') "+
		"FROM dispatches"); got != "1|1" {
		t.Errorf("times %s", got)
	}
}

func TestAcceptThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	fill(t, s, true)
	_, _, err := s.Accept(ctx, testSpec(strings.Repeat("long", 100_000)))
	wantErr(t, err, ErrDiskFull)
	if told := asTold(err); told == nil || told.Reason != cortex.ReasonDiskFull {
		t.Errorf("told %+v", told)
	}
	if left := must[[]os.DirEntry](t)(os.ReadDir(s.runs)); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	fill(t, s, false)
	if d := accept(t, s); d.ID != 2 || s.Counts()[cortex.Pending] != 1 {
		t.Errorf("%+v %v", d, s.Counts())
	}
}

// fill lets the database grow no more, or again.
func fill(t *testing.T, s *Store, on bool) {
	t.Helper()
	pages := 1
	if !on {
		pages = 1 << 30
	}
	_, err := s.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages))
	check(t, err)
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	a := run(t, s)
	fill(t, s, true)
	long := strings.Repeat("x", 100_000)
	done := make(chan error, 1)
	go func() {
		_, err := s.Finish(ctx, a.Dispatch.ID, End{Attempt: 1, Status: cortex.Completed, Summary: long, ExitCode: ptr(0)})
		done <- err
	}()
	eventually(t, "the failure to be known", func() bool { return troubleOf(s.contention.err()) == full })
	for _, c := range s.Checks(ctx) {
		if c.Name == "database" && c.OK {
			t.Errorf("%+v", c)
		}
	}
	_, recorded, err := s.Pause(ctx, cortex.Hold{Reason: long[:1000]})
	check(t, err)
	if recorded != RecordedJournal || len(s.mem.stored(time.Now())) != 1 {
		t.Errorf("%s %+v", recorded, s.Holds())
	}
	fill(t, s, false)
	check(t, <-done)
	if d := get(t, s, a.Dispatch.ID); d.Status != cortex.Completed {
		t.Errorf("%+v", d)
	}
	eventually(t, "the pause's row", func() bool { return len(s.mem.waitingOrders()) == 0 })
	if held := s.Holds(); len(held) != 1 || held[0].ID != 1 {
		t.Errorf("the tries used up ids: %+v", held)
	}
	for _, c := range s.Checks(ctx) {
		if !c.OK {
			t.Errorf("%+v", c)
		}
	}
}

func TestClaim(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	one, two, three := accept(t, s), accept(t, s), accept(t, s)
	a := must[cortex.Attempt](t)(s.Claim(ctx, one.ID, atMost(1), nil))
	if a.Number != 1 || a.Dispatch.Status != cortex.Running || a.Dispatch.Stage != cortex.StageStarting || a.Dispatch.DispatchedAt == nil {
		t.Errorf("%+v", a)
	}
	_, err := s.Claim(ctx, one.ID, atMost(10), nil)
	wantErr(t, err, ErrNotPending)
	_, err = s.Claim(ctx, two.ID, atMost(1), nil)
	wantErr(t, err, ErrFull)
	_, err = s.Claim(ctx, 99, atMost(10), nil)
	wantErr(t, err, ErrNotFound)
	sqlite(t, s.path, "INSERT INTO dispatches (bead_id, status) VALUES ('hand', 'running'), ('hand', 'pending')")
	must[cortex.Attempt](t)(s.Claim(ctx, two.ID, atMost(2), nil)) // a row by hand takes no slot
	_, err = s.Claim(ctx, 5, atMost(10), nil)
	wantErr(t, err, ErrNotPending) // and is never started
	for _, scope := range []string{"project:p", "bead:b-1", "all", "provider:", "agent:"} {
		sqlite(t, s.path, "INSERT INTO holds (scope) VALUES ('"+scope+"')")
		_, err = s.Claim(ctx, three.ID, atMost(10), nil) // at once: the gate reads the table itself
		wantErr(t, err, ErrHeld)
		sqlite(t, s.path, "UPDATE holds SET lifted_at = '2020-01-01'")
	}
	sqlite(t, s.path, `INSERT INTO holds (scope, until) VALUES ('project:q', NULL), ('all', '2020-01-01 00:00:00'), ('nonsense', NULL)`)
	must[cortex.Attempt](t)(s.Claim(ctx, three.ID, atMost(10), nil))
	sqlite(t, s.path, `INSERT INTO holds (scope, until) VALUES (NULL, 'some day')`)
	_, err = s.Claim(ctx, accept(t, s).ID, atMost(10), nil)
	wantErr(t, err, ErrHeld)
}

func TestStartedAndGiveBack(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	a := run(t, s)
	id := a.Dispatch.ID
	wantErr(t, s.Started(ctx, id, 0, 1, "x", "y"), ErrNotRunning)
	check(t, s.GiveBack(ctx, id, 1, "paused"))
	d := get(t, s, id)
	if d.Status != cortex.Pending || d.Stage != "" || d.DispatchedAt != nil || d.Attempts != 1 || d.Retries != 0 {
		t.Errorf("%+v", d)
	}
	wantErr(t, s.GiveBack(ctx, id, 1, "again"), ErrNotRunning)
	if all := must[[]Start](t)(s.StartsBetween(ctx, time.Now().Add(-time.Hour), time.Now())); len(all) != 0 {
		t.Errorf("starts %v", all)
	}
	a = must[cortex.Attempt](t)(s.Claim(ctx, id, atMost(10), nil))
	if a.Number != 2 || a.Dispatch.Retries != 0 {
		t.Errorf("%+v", a)
	}
	check(t, s.SetStage(ctx, id, cortex.StageCancelling, &cortex.Event{Type: "x"}))
	check(t, s.Started(ctx, id, 2, 4242, "/dev/pts/7", "ctx-p-b-1-1"))
	d = get(t, s, id)
	if d.Stage != cortex.StageCancelling || *d.PID != 4242 || d.TTY != "/dev/pts/7" || d.SessionName != "ctx-p-b-1-1" {
		t.Errorf("%+v", d)
	}
	if all := must[[]Start](t)(s.StartsBetween(ctx, time.Now().Add(-time.Hour), time.Now())); len(all) != 1 || time.Since(all[0].At) > time.Minute || all[0].Lane != d.Lane() {
		t.Errorf("starts %v", all)
	}
	if got := s.Counts(); got[cortex.Running] != 1 || got[cortex.Pending] != 0 {
		t.Errorf("%v", got)
	}
	wantErr(t, s.SetStage(ctx, 99, cortex.StageRunning, nil), ErrNotFound)
}

func TestFinish(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	a := run(t, s)
	id := a.Dispatch.ID
	end := End{Attempt: 1, Status: cortex.Failed, Category: cortex.CategorySignal, Summary: "killed", ExitCode: ptr(137), Signal: ptr(9),
		CompletedAt: time.Now(), DurationS: ptr(1.5), PID: ptr(int64(7)), TTY: "/dev/pts/1", Session: "s",
		Event: cortex.Event{Type: cortex.EventDispatchFailed, Severity: cortex.Warning}}
	d := must[cortex.Dispatch](t)(s.Finish(ctx, id, end))
	if d.Status != cortex.Failed || *d.ExitCode != 137 || *d.Signal != 9 || *d.DurationS != 1.5 || *d.PID != 7 || d.SessionName != "s" ||
		d.FailureCategory != cortex.CategorySignal || d.StoppedBy != "" || d.Stage != "" || d.CompletedAt == nil {
		t.Errorf("%+v", d)
	}
	end.Status, end.Category = cortex.Completed, ""
	if again := must[cortex.Dispatch](t)(s.Finish(ctx, id, end)); again.Status != cortex.Failed {
		t.Errorf("recorded twice: %+v", again)
	}
	if n := count(t, s, cortex.EventDispatchFailed); n != 1 {
		t.Errorf("%d events", n)
	}
	if c := s.Counts(); c[cortex.Failed] != 1 || c[cortex.Running] != 0 || c[cortex.Completed] != 0 {
		t.Errorf("%v", c)
	}
	_, err := s.Finish(ctx, id, End{Attempt: 1, Status: cortex.Running})
	if err == nil {
		t.Error("running is an end")
	}
	_, err = s.Finish(ctx, 99, end)
	wantErr(t, err, ErrNotFound)
	b := run(t, s)
	check(t, s.GiveBack(ctx, b.Dispatch.ID, 1, "x"))
	end.Attempt = 1
	if d := must[cortex.Dispatch](t)(s.Finish(ctx, b.Dispatch.ID, end)); d.Status != cortex.Pending {
		t.Errorf("given back and finished: %+v", d)
	}
}

func TestStatusWrittenByHand(t *testing.T) {
	t.Parallel()
	end := End{Attempt: 1, Status: cortex.Completed, ExitCode: ptr(0), DurationS: ptr(2.0), CompletedAt: time.Now(),
		Event: cortex.Event{Type: cortex.EventDispatchCompleted}}
	for _, c := range []struct {
		sql     string
		status  cortex.Status
		stopper cortex.Stopper
		summary string
	}{
		{"status = 'failed', failure_summary = 'my own words'", cortex.Failed, cortex.ByOperator, "my own words"},
		{"status = 'cancelled'", cortex.Cancelled, cortex.ByOperator, ""},
		{"status = 'pending'", cortex.Completed, "", ""},
		{"status = 'completed'", cortex.Completed, "", ""},
	} {
		t.Run(c.sql, func(t *testing.T) {
			t.Parallel()
			s := openNew(t)
			id := run(t, s).Dispatch.ID
			drain(s.Outside())
			sqlite(t, s.path, "UPDATE dispatches SET "+c.sql)
			<-s.Outside()
			_, err := s.Claim(ctx, id, atMost(10), nil)
			wantErr(t, err, ErrNotPending) // it lives, and must not run twice
			if got := must[[]Waiter](t)(s.Startable(ctx, nil)); len(got) != 0 {
				t.Errorf("pending %+v", got)
			}
			_, _, err = s.CancelPending(ctx, id, "")
			wantErr(t, err, ErrNotPending)
			d := must[cortex.Dispatch](t)(s.Finish(ctx, id, end))
			if d.Status != c.status || d.StoppedBy != c.stopper || *d.ExitCode != 0 || d.CompletedAt == nil || d.FailureSummary != c.summary {
				t.Errorf("%+v", d)
			}
			must[cortex.Dispatch](t)(s.Finish(ctx, id, end))
			told := map[cortex.Status]cortex.EventType{cortex.Failed: cortex.EventDispatchFailed,
				cortex.Cancelled: cortex.EventDispatchCancelled, cortex.Completed: cortex.EventDispatchCompleted}
			if n := count(t, s, told[c.status]); n != 1 { // what the row says, not what the exit record would
				t.Errorf("%d events", n)
			}
			for status, n := range s.Counts() {
				if want := map[bool]int{true: 1}[status == c.status]; n != want {
					t.Errorf("%d %s counted", n, status)
				}
			}
		})
	}
}

func TestPutBack(t *testing.T) {
	t.Parallel()
	ev := cortex.Event{Type: cortex.EventStatusPutBack, Severity: cortex.Warning}
	for _, c := range []struct {
		sql    string
		status cortex.Status
		events int
	}{
		{"UPDATE dispatches SET status = 'completed'", cortex.Running, 1},
		{"UPDATE dispatches SET status = 'pending', pid = NULL, attempts = NULL", cortex.Running, 1},
		{"DELETE FROM dispatches", cortex.Running, 1},
		{"UPDATE dispatches SET status = 'failed'", cortex.Failed, 0},
		{"SELECT 1", cortex.Running, 0},
	} {
		t.Run(c.sql, func(t *testing.T) {
			t.Parallel()
			s := openNew(t)
			id := run(t, s).Dispatch.ID
			check(t, s.Started(ctx, id, 1, 77, "/dev/pts/1", "s"))
			spec := testSpec("b-1")
			spec.ID, spec.CreatedAt = id, time.Now()
			dir := must[*record.Dir](t)(record.MakeDir(s.runs, id, 1))
			defer dir.Close()
			check(t, dir.Write(record.ClaimFile, record.Claim{Format: 1, Session: "s", At: time.Now()}))
			check(t, dir.Write(record.StartedFile, record.Started{Format: 1, Agent: record.Process{PID: 77}, TTY: "/dev/pts/1"}))
			sqlite(t, s.path, c.sql)
			check(t, s.PutBack(ctx, spec, 1, cortex.StageRunning, ev))
			got := get(t, s, id)
			if got.TTY != "/dev/pts/1" || got.SessionName != "s" || got.Status != c.status || got.Attempts != 1 || *got.PID != 77 || !got.Accepted || got.DispatchedAt == nil || got.BeadID != "b-1" {
				t.Errorf("%+v", got)
			}
			if n := count(t, s, cortex.EventStatusPutBack); n != c.events {
				t.Errorf("%d events", n)
			}
			if s.Counts()[c.status] != 1 {
				t.Errorf("%v", s.Counts())
			}
			must[cortex.Dispatch](t)(s.Finish(ctx, id, End{Attempt: 1, Status: cortex.Failed}))
			check(t, s.PutBack(ctx, spec, 1, cortex.StageRunning, ev))
			if got := get(t, s, id); got.Status != cortex.Failed {
				t.Errorf("an ended one put back: %+v", got)
			}
		})
	}
}

func TestRestore(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	spec := testSpec("old")
	spec.ID, spec.CreatedAt = 41, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d := must[cortex.Dispatch](t)(s.Restore(ctx, spec, 2, cortex.Running))
	if d.Status != cortex.Running || d.Attempts != 2 || d.ID != 41 || !d.CreatedAt.Equal(spec.CreatedAt) || !d.Accepted {
		t.Errorf("%+v", d)
	}
	must[cortex.Dispatch](t)(s.Restore(ctx, spec, 2, cortex.Pending))
	if n := count(t, s, cortex.EventDispatchRestored); n != 1 {
		t.Errorf("%d events", n)
	}
	d = must[cortex.Dispatch](t)(s.Finish(ctx, 41, End{Attempt: 2, Status: cortex.Completed, DurationS: ptr(10.0),
		CompletedAt: spec.CreatedAt.Add(time.Minute)}))
	if d.DispatchedAt == nil || !d.DispatchedAt.Equal(spec.CreatedAt.Add(50*time.Second)) {
		t.Errorf("began %v", d.DispatchedAt)
	}
	spec.ID = 43
	must[cortex.Dispatch](t)(s.Restore(ctx, spec, 3, cortex.Pending))
	if a := must[cortex.Attempt](t)(s.Claim(ctx, 43, atMost(10), nil)); a.Number != 4 {
		t.Errorf("%+v", a)
	}
	if d := accept(t, s); d.ID != 44 {
		t.Errorf("id %d", d.ID)
	}
}

// An older copy of the database knows a dispatch as it was then.
func TestRestoreOfAnOlderRow(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	d := accept(t, s)
	spec := testSpec("b-1")
	spec.ID = d.ID
	got := must[cortex.Dispatch](t)(s.Restore(ctx, spec, 2, cortex.Pending)) // 1 and 2 were given back
	if got.Attempts != 2 || got.Status != cortex.Pending || got.Retries != 0 {
		t.Errorf("%+v", got)
	}
	got = must[cortex.Dispatch](t)(s.Restore(ctx, spec, 3, cortex.Running))
	if got.Attempts != 3 || got.Status != cortex.Running {
		t.Errorf("%+v", got)
	}
	must[cortex.Dispatch](t)(s.Finish(ctx, d.ID, End{Attempt: 3, Status: cortex.Failed}))
	sqlite(t, s.path, "UPDATE dispatches SET status = 'pending'")
	if got = must[cortex.Dispatch](t)(s.Restore(ctx, spec, 3, cortex.Running)); got.Status != cortex.Pending {
		t.Errorf("an ended attempt lives again: %+v", got)
	}
	if n := count(t, s, cortex.EventDispatchRestored); n != 2 {
		t.Errorf("%d events", n)
	}
	if c := s.Counts(); s.Failures() != 1 {
		t.Errorf("%v, %v failures", c, s.Failures())
	}
}

func TestFailuresNeverFall(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	s := openAt(t, home)
	a := run(t, s)
	must[cortex.Dispatch](t)(s.Finish(ctx, a.Dispatch.ID, End{Attempt: 1, Status: cortex.Failed}))
	accept(t, s)
	sqlite(t, s.path, "UPDATE dispatches SET status = 'failed' WHERE id = 2; DELETE FROM dispatches")
	eventually(t, "the deletion", func() bool { return s.Failures() == 2 && s.Counts()[cortex.Failed] == 0 })
	closeWell(t, s)
	if s = openAt(t, home); s.Failures() != 2 {
		t.Errorf("%v failures after a restart", s.Failures())
	}
}

func TestCrashDuringAccept(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	d := accept(t, s)
	dir := must[*record.Dir](t)(record.OpenDir(s.runs, d.ID, 0))
	defer dir.Close()
	check(t, dir.Rename(record.SpecFile, record.SpecNew)) // committed, not renamed
	check(t, s.FinishAccept(d.ID))
	check(t, s.FinishAccept(d.ID))
	check(t, s.FinishAccept(99))
	if !dir.Exists(record.SpecFile) || dir.Exists(record.SpecNew) {
		t.Error("the spec is not in its place")
	}
	other := must[*record.Dir](t)(record.MakeDir(s.runs, 50, 0))
	defer other.Close()
	check(t, other.Write(record.SpecNew, testSpec("never answered")))
	check(t, s.Discard(50))
	check(t, s.Discard(50))
	if _, err := os.Stat(filepath.Join(s.runs, "50")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	if err := s.Discard(d.ID); err == nil {
		t.Error("a folder with a spec was discarded")
	}
}

func TestFinishOfARowByHand(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	sqlite(t, s.path, "INSERT INTO dispatches (bead_id, status) VALUES ('x', 'running')")
	d := must[cortex.Dispatch](t)(s.Finish(ctx, 1, End{Status: cortex.Cancelled, StoppedBy: cortex.ByOperator}))
	if d.Status != cortex.Cancelled || d.StoppedBy != cortex.ByOperator {
		t.Errorf("%+v", d)
	}
	if d = must[cortex.Dispatch](t)(s.Finish(ctx, 1, End{Status: cortex.Failed})); d.Status != cortex.Cancelled {
		t.Errorf("%+v", d)
	}
}

func TestApplyShowsWhatFinishRecords(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	a := run(t, s)
	at := time.Now().UTC().Truncate(time.Millisecond)
	end := End{Attempt: 1, Status: cortex.Failed, Category: cortex.CategorySignal, Summary: "s", ExitCode: ptr(137), Signal: ptr(9),
		CompletedAt: at, DurationS: ptr(2.5), StoppedBy: cortex.ByTimeout, PID: ptr(int64(3)), TTY: "t", Session: "n"}
	shown := end.Apply(a.Dispatch)
	d := must[cortex.Dispatch](t)(s.Finish(ctx, a.Dispatch.ID, end))
	shown.UpdatedAt = d.UpdatedAt
	if !reflect.DeepEqual(shown, d) {
		t.Errorf("shown %+v, recorded %+v", shown, d)
	}
}

func TestCancelPending(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	d := accept(t, s)
	got, recorded, err := s.CancelPending(ctx, d.ID, "me")
	check(t, err)
	if got.Status != cortex.Cancelled || got.StoppedBy != cortex.ByOperator || got.CompletedAt == nil || recorded != RecordedDatabase {
		t.Errorf("%s %+v", recorded, got)
	}
	dir := must[*record.Dir](t)(record.OpenDir(s.runs, d.ID, 0))
	defer dir.Close()
	var v record.Verdict
	check(t, dir.Read(record.CancelledFile, &v))
	if v.Kind != record.VerdictCancelled || v.Actor != "me" {
		t.Errorf("%+v", v)
	}
	_, _, err = s.CancelPending(ctx, d.ID, "me")
	wantErr(t, err, ErrNotPending)
	a := run(t, s)
	_, _, err = s.CancelPending(ctx, a.Dispatch.ID, "me")
	wantErr(t, err, ErrNotPending)
	if _, err := os.Stat(filepath.Join(s.runs, "2", record.CancelledFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a verdict beside a running one: %v", err)
	}
	_, _, err = s.CancelPending(ctx, 99, "me")
	wantErr(t, err, ErrNotFound)
}

func TestOrderStop(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	a := run(t, s)
	order := record.Order{Format: 1, By: "timeout", At: time.Now()}
	if where, err := s.OrderStop(ctx, a.Dispatch.ID, 1, order, cortex.Event{Type: "stop"}); err != nil || where != RecordedDatabase {
		t.Fatal(where, err)
	}
	if d := get(t, s, a.Dispatch.ID); d.Stage != cortex.StageCancelling {
		t.Errorf("%+v", d)
	}
	if o := must[map[int64]*record.Order](t)(s.StopOrders(ctx)); len(o) != 1 || o[a.Dispatch.ID].By != "timeout" {
		t.Errorf("%+v", o)
	}
	must[cortex.Dispatch](t)(s.Finish(ctx, a.Dispatch.ID, End{Attempt: 1, Status: cortex.Failed}))
	_, err := s.OrderStop(ctx, a.Dispatch.ID, 1, order, cortex.Event{Type: "stop"})
	wantErr(t, err, ErrNotRunning)
	if o := must[map[int64]*record.Order](t)(s.StopOrders(ctx)); len(o) != 0 {
		t.Errorf("%+v", o)
	}
}

func TestForgotten(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	live, ended := run(t, s).Dispatch.ID, run(t, s).Dispatch.ID
	must[cortex.Dispatch](t)(s.Finish(ctx, ended, End{Attempt: 1, Status: cortex.Failed}))
	sqlite(t, s.path, "DELETE FROM dispatches")
	got := must[map[int64]bool](t)(s.Forgotten(ctx))
	if len(got) != 1 || !got[ended] || got[live] {
		t.Errorf("%v", got)
	}
	spec := testSpec("x")
	spec.ID = ended
	must[cortex.Dispatch](t)(s.Restore(ctx, spec, 1, cortex.Running))
	if got := must[map[int64]bool](t)(s.Forgotten(ctx)); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestRowsByHandWithRubbish(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	drain(s.Outside())
	sqlite(t, s.path, `
INSERT INTO dispatches (bead_id) VALUES ('plain');
INSERT INTO dispatches (bead_id, status, created_at, dispatched_at, completed_at) VALUES ('times', 'failed', '2026-02-18 06:00:00', '2026-02-18T06:00Z', 'yesterday');
INSERT INTO dispatches (bead_id, project, agent, provider, tier, stage, priority, retries, attempts, accepted, created_at, updated_at)
	VALUES ('nulls', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO dispatches (bead_id, status, pid, exit_code, signal, duration_s, priority, cost_usd, tty, accepted)
	VALUES (x'ff00', 'running', 'many', '1', 'KILL', 'long', 'high', '', 1.5, 'yes');`)
	eventually(t, "all four to be seen", func() bool {
		c := s.Counts()
		return c[cortex.Pending] == 2 && c[cortex.Running] == 1 && c[cortex.Failed] == 1
	})
	all, err := s.List(ctx, Filter{})
	check(t, err)
	if len(all) != 4 || all[3].BeadID != "plain" || all[3].CreatedAt == nil || all[3].Priority != cortex.PriorityDefault {
		t.Fatalf("%+v", all)
	}
	times, nulls, odd := all[2], all[1], all[0]
	if times.CreatedAt == nil || times.CreatedAt.Hour() != 6 || times.CompletedAt != nil {
		t.Errorf("%+v", times)
	}
	if nulls.CreatedAt != nil || nulls.Priority != cortex.PriorityDefault || nulls.Accepted {
		t.Errorf("%+v", nulls)
	}
	if odd.PID != nil || *odd.ExitCode != 1 || odd.Signal != nil || odd.CostUSD != nil || odd.Accepted {
		t.Errorf("%+v", odd)
	}
	if got := must[[]Waiter](t)(s.Startable(ctx, nil)); len(got) != 0 {
		t.Errorf("pending %+v", got)
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	for i := range 7 {
		spec := testSpec(fmt.Sprintf("bead-%d", i%2))
		spec.Priority, spec.Project = 4-i%3, fmt.Sprint("p", i%3)
		acceptSpec(t, s, spec)
	}
	var waiting []string
	for _, w := range must[[]Waiter](t)(s.Startable(ctx, nil)) {
		waiting = append(waiting, fmt.Sprintf("%d:%d:%s:%s", w.ID, w.Priority, w.Bead, w.Lane.Project))
	}
	if got := strings.Join(waiting, " "); got != "1:4:bead-0:p0 2:3:bead-1:p1 3:2:bead-0:p2 4:4:bead-1:p0 5:3:bead-0:p1 6:2:bead-1:p2 7:4:bead-0:p0" {
		t.Errorf("startable %s", got)
	}
	if got := must[[]Waiter](t)(s.Startable(ctx, []int64{3, 99, 6})); len(got) != 2 || got[0].ID != 3 || got[1].ID != 6 {
		t.Errorf("startable of three ids: %+v", got)
	}
	var ids []int64
	pages := 0
	for before := int64(0); ; {
		page := must[[]cortex.Dispatch](t)(s.List(ctx, Filter{Limit: 3, Before: before}))
		accept(t, s) // what comes meanwhile is on no later page
		for _, d := range page {
			ids = append(ids, d.ID)
			before = d.ID
		}
		if pages++; len(page) < 3 {
			break
		}
	}
	if fmt.Sprint(ids) != "[7 6 5 4 3 2 1]" || pages != 3 {
		t.Errorf("%v in %d pages", ids, pages)
	}
	since := time.Now().Add(time.Hour)
	for i, f := range []Filter{{Project: "p1", Statuses: []cortex.Status{cortex.Pending, cortex.Running}}, {Bead: "bead-1"}, {Since: since}} {
		got := must[[]cortex.Dispatch](t)(s.List(ctx, f))
		if want := []int{2, 3, 0}[i]; len(got) != want || got == nil {
			t.Errorf("%+v: %d, want %d", f, len(got), want)
		}
	}
	_, err := s.Get(ctx, 99)
	wantErr(t, err, ErrNotFound)
	if got := must[map[int64]cortex.Status](t)(s.Statuses(ctx)); len(got) != 10 || got[1] != cortex.Pending {
		t.Errorf("%v", got)
	}
	if got := must[[]cortex.Dispatch](t)(s.Running(ctx)); len(got) != 0 || got == nil {
		t.Errorf("%v", got)
	}
	evs := must[[]cortex.Event](t)(s.Events(ctx, time.Now().Add(-time.Hour), 3, cortex.Info, cortex.Err))
	if len(evs) != 3 || evs[0].ID <= evs[1].ID || *evs[0].DispatchID != 10 || evs[0].BeadID != "b-1" {
		t.Errorf("%+v", evs)
	}
	if got := sqlite(t, s.path, "SELECT event_type, type, dispatch_id, bead_id FROM health_events ORDER BY id LIMIT 1"); got !=
		"dispatch_submitted|info|1|bead-0" {
		t.Errorf("%s", got)
	}
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"2026-02-18 06:01:02.345": "06:01:02.345", "2026-02-18 06:01:02": "06:01:02", "2026-02-18": "00:00:00",
		"2026-02-18T06:01:02Z": "06:01:02", "2026-02-18 06:01": "06:01:00", "2026-02-18 06:01:02+02:00": "04:01:02",
		" 2026-02-18 06:01:02 ": "06:01:02", "soon": "", "": "", "2461089.5": "", "2026-13-01 00:00:00": "",
	} {
		got := ""
		if at := parseTime(&text); at != nil {
			got = at.Format("15:04:05.999")
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
