package store

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"cortex"
	"cortex/runner/record"
)

// hangCommits makes each commit of the store hang (sqlite.org/c3ref/commit_hook.html) until release is called.
func hangCommits(t *testing.T, s *Store) (release func()) {
	t.Helper()
	hang := make(chan struct{})
	s.conn.Raw(func(driver any) error {
		driver.(*sqlite3.SQLiteConn).RegisterCommitHook(func() int { <-hang; return 0 })
		return nil
	})
	done := false
	release = func() {
		if !done {
			done = true
			close(hang)
		}
	}
	t.Cleanup(release)
	return release
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// While a commit hangs, what is in it is told as unknown and settled when it is known; what comes after is given up for
// certain; a pause and a stop are in the stop journal and hold at once.
func TestHungCommit(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	pending := accept(t, s)
	live := run(t, s).Dispatch
	release := hangCommits(t, s)

	late := make(chan cortex.Attempt, 1)
	claimed := make(chan error, 1)
	go func() {
		_, err := s.Claim(soon(t), pending.ID, atMost(10), func(a cortex.Attempt) { late <- a })
		claimed <- err
	}()
	wantErr(t, <-claimed, ErrHung)
	_, _, err := s.Accept(soon(t), testSpec("never"))
	wantErr(t, err, ErrLocked)
	if _, recorded, err := s.Pause(ctx, cortex.Hold{}); err != nil || recorded != RecordedJournal || !s.paused() {
		t.Errorf("pause: %s, %v, paused %v", recorded, err, s.paused())
	}
	if recorded, err := s.OrderStop(ctx, live.ID, 1, record.Order{By: "operator"}, cortex.Event{}); err != nil || recorded != RecordedJournal {
		t.Errorf("stop: %s, %v", recorded, err)
	}
	held := s.Holds()
	if len(held) != 2 || held[0].Kind != cortex.HoldDB && held[1].Kind != cortex.HoldDB {
		t.Errorf("holds %+v", held)
	}
	if c := s.checkDatabase(ctx); c.OK || c.Hint == "" {
		t.Errorf("check %+v", c)
	}

	release()
	if a := <-late; a.Dispatch.ID != pending.ID || a.Number != 1 {
		t.Errorf("claimed late: %+v", a)
	}
	eventually(t, "the orders in the database", func() bool {
		return sqlite(t, s.path, "SELECT count(*) FROM holds; SELECT count(*) FROM dispatches WHERE stop_order <> ''") == "1\n1"
	})
	eventually(t, "health", func() bool { return s.checkDatabase(ctx).OK && len(s.Holds()) == 1 })
	if got := sqlite(t, s.path, "SELECT count(*) FROM dispatches WHERE bead_id = 'never'"); got != "0" {
		t.Error("what was told as not done was done later")
	}
}

// What was being accepted when its commit began to hang is whole when that comes to an end.
func TestAcceptedInAHungCommit(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	release := hangCommits(t, s)
	_, _, err := s.Accept(soon(t), testSpec("late"))
	wantErr(t, err, ErrHung)
	release()
	eventually(t, "its spec", func() bool {
		_, err := os.Stat(filepath.Join(s.runs, "1", record.SpecFile))
		return err == nil
	})
	eventually(t, "its claim", func() bool {
		_, err := s.Claim(ctx, 1, atMost(10), nil)
		return err == nil
	})
}

// A transaction that hangs before its commit: who gives up is taken out of it, and the others' part is done.
func TestHungTransaction(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	hang, begun := make(chan struct{}), make(chan struct{}, 10)
	given := make(chan error, 1)
	go func() {
		given <- s.do(soon(t), func(tx *tx) error {
			begun <- struct{}{}
			<-hang
			return tx.event(cortex.Event{Type: "withdrawn"})
		})
	}()
	<-begun
	wantErr(t, <-given, context.DeadlineExceeded)
	kept := make(chan error, 1)
	go func() { kept <- s.AddEvent(ctx, cortex.Event{Type: "kept"}) }()
	close(hang)
	check(t, <-kept)
	if w, k := count(t, s, "withdrawn"), count(t, s, "kept"); w != 0 || k != 1 || len(begun) != 0 {
		t.Errorf("%d withdrawn, %d kept, run %d times more", w, k, len(begun))
	}
}

func TestCloseDoesNotWaitForAHungCommit(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	s := must[*Store](t)(Open(Options{Home: home, Log: logTo(t)}))
	release := hangCommits(t, s)
	wantErr(t, s.AddEvent(soon(t), cortex.Event{Type: "x"}), ErrHung)
	wantErr(t, s.Close(soon(t)), ErrHung)
	release()
	<-s.written // what it left open is for the process's end
	check(t, s.stopWatching())
	s.readers.Close()
	s.conn.Close()
	s.db.Close()
}
