package store

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cortex"
)

var ctx = context.Background()

func TestGroupCommitOfManyCallers(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 10 {
				d, _, err := s.Accept(ctx, testSpec("b"))
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := s.Get(ctx, d.ID); err != nil || got.Status != cortex.Pending {
					t.Errorf("read %v, %v after its commit", got, err)
				}
			}
		})
	}
	wg.Wait()
	if n := s.Counts()[cortex.Pending]; n != 640 {
		t.Errorf("%d pending, want 640", n)
	}
	if got := sqlite(t, s.path, "SELECT count(*), count(DISTINCT id), max(id) FROM dispatches"); got != "640|640|640" {
		t.Errorf("rows %s", got)
	}
}

func TestOneBadRequestInAGroup(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	lock := lockOut(t, s)
	bad := errors.New("bad")
	results := make([]chan error, 10)
	for i := range results {
		results[i] = make(chan error, 1)
		go func() {
			results[i] <- s.do(ctx, func(t *tx) error {
				if err := t.event(cortex.Event{Type: "test", Message: fmt.Sprint(i)}); err != nil {
					return err
				}
				t.move(0, "", cortex.Failed)
				switch i {
				case 3:
					return bad
				case 5:
					_, err := t.exec("INSERT INTO dispatches (status) VALUES ('nonsense')")
					return err
				}
				return nil
			})
		}()
	}
	eventually(t, "all to wait", func() bool { s.queue.mu.Lock(); defer s.queue.mu.Unlock(); return len(s.queue.waiting) == 10 })
	lock.close()
	for i, result := range results {
		err := <-result
		if failed := i == 3 || i == 5; failed != (err != nil) {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if n := sqlite(t, s.path, "SELECT count(*) FROM events WHERE event_type = 'test'"); n != "8" {
		t.Errorf("%s written, want 8", n)
	}
	if n := s.Counts()[cortex.Failed]; n != 8 {
		t.Errorf("%d counted, want 8", n)
	}
}

func TestEndedContextIsNeverApplied(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	lock := lockOut(t, s)
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	err := s.AddEvent(short, cortex.Event{Type: "never"})
	wantErr(t, err, ErrLocked)
	told := asTold(err)
	if told == nil || told.Reason != cortex.ReasonDBLocked || told.Message != "Database lock timeout" {
		t.Fatalf("told %+v", told)
	}
	if want := fmt.Sprintf("process %d (sqlite3 ", lock.cmd.Process.Pid); !strings.Contains(told.Hint, want) {
		t.Errorf("hint %q does not name %q", told.Hint, want)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	wantErr(t, s.AddEvent(gone, cortex.Event{Type: "never"}), context.Canceled)
	lock.close()
	check(t, s.AddEvent(ctx, cortex.Event{Type: "after"}))
	if slices.Contains(types(t, s), "never") {
		t.Error("a request that was taken back was applied")
	}
}

func TestUndatedRequestsWaitAndLockIsTold(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	lock := lockOut(t, s)
	done := make(chan error, 1)
	go func() { done <- s.AddEvent(ctx, cortex.Event{Type: "kept"}) }()
	eventually(t, "the db hold", func() bool {
		return slices.ContainsFunc(s.Holds(), func(h cortex.Hold) bool {
			return h.Kind == cortex.HoldDB && h.Scope == cortex.ScopeAll && strings.Contains(h.Reason, "sqlite3")
		})
	})
	for _, c := range s.Checks(ctx) {
		if c.Name == "database" && (c.OK || !strings.Contains(c.Hint, fmt.Sprint(lock.cmd.Process.Pid))) {
			t.Errorf("check %+v", c)
		}
	}
	drain(s.Outside())
	lock.close()
	check(t, <-done)
	<-s.Outside()
	eventually(t, "no hold", func() bool { return len(s.Holds()) == 0 })
	got := types(t, s)
	for _, want := range []cortex.EventType{cortex.EventDatabaseLocked, cortex.EventDatabaseUnlocked, "kept"} {
		if n := len(slices.DeleteFunc(slices.Clone(got), func(e cortex.EventType) bool { return e != want })); n != 1 {
			t.Errorf("%d events %s", n, want)
		}
	}
	for _, c := range s.Checks(ctx) {
		if !c.OK {
			t.Errorf("check %+v", c)
		}
	}
}

// A locked time that nobody waits for any more still ends: the hold must not stay.
func TestLongLockWithoutWaiters(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	lock := lockOut(t, s)
	short, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	wantErr(t, s.AddEvent(short, cortex.Event{Type: "never"}), ErrLocked)
	if len(s.Holds()) != 1 {
		t.Fatalf("holds %+v", s.Holds())
	}
	lock.close()
	eventually(t, "the hold to be lifted", func() bool { return len(s.Holds()) == 0 })
	if n := count(t, s, cortex.EventDatabaseLocked); n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestCloseNeverHangsOnALock(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	lockOut(t, s)
	done := make(chan error, 1)
	go func() { done <- s.AddEvent(ctx, cortex.Event{Type: "lost"}) }()
	eventually(t, "it to wait", func() bool { return !s.queue.empty() })
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	wantErr(t, s.Close(short), ErrLocked)
	wantErr(t, <-done, ErrClosed)
	wantErr(t, s.AddEvent(ctx, cortex.Event{Type: "late"}), ErrClosed)
	_, err := s.Get(ctx, 1)
	wantErr(t, err, ErrClosed)
}

func TestCloseWritesWhatWaits(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	lock := lockOut(t, s)
	done := make(chan error, 1)
	go func() { done <- s.AddEvent(ctx, cortex.Event{Type: "kept"}) }()
	eventually(t, "it to wait", func() bool { return !s.queue.empty() })
	closed := make(chan error, 1)
	go func() { closed <- s.Close(ctx) }()
	eventually(t, "it to close", s.closing.Load)
	lock.close()
	check(t, <-closed)
	check(t, <-done)
	if got := sqlite(t, s.path, "SELECT count(*) FROM events WHERE event_type = 'kept'"); got != "1" {
		t.Errorf("%s events", got)
	}
}

func drain(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}

// What holds the WAL's write lock, the main file's, and nobody; our own is none of them.
func TestHolderOfALock(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	wantHolder := func(want string) {
		t.Helper()
		if got, _ := s.holder(); !strings.HasPrefix(got, want) || (want == "" && got != "") {
			t.Errorf("holder %q, want %q", got, want)
		}
	}
	wantHolder("")
	check(t, s.do(ctx, func(*tx) error { wantHolder(""); return nil }))
	lock := lockOut(t, s)
	wantHolder(fmt.Sprintf("process %d (sqlite3 %s)", lock.cmd.Process.Pid, s.path))
	lock.close()
	wantHolder("")
	reader := outside(t, s.path, "BEGIN; SELECT count(*) FROM events;")
	wantHolder("")
	reader.close()
	check(t, s.do(ctx, func(*tx) error { // SQLite's own lock is still there
		out, err := exec.Command("sqlite3", s.path, "BEGIN IMMEDIATE").CombinedOutput()
		if err == nil {
			t.Errorf("two writers at once: %s", out)
		}
		return nil
	}))
	old := filepath.Join(t.TempDir(), "rollback.db")
	sqlite(t, old, "CREATE TABLE t (x)")
	lock = outside(t, old, "BEGIN EXCLUSIVE;")
	s = &Store{path: old}
	wantHolder(fmt.Sprintf("process %d ", lock.cmd.Process.Pid))
	lock.close()
	s.locks.close()
}
