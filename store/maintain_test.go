package store

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cortex"
)

func walSize(s *Store) int64 { return stampOf(s.path + "-wal").Size }

// Ends are recorded while an operator copies the file: each copy is a consistent database of the moment of the pause.
func TestCopyWhilePaused(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	s.SetLive(40)
	var live []int64
	for range 40 {
		live = append(live, run(t, s).Dispatch.ID)
	}
	pause(t, s)
	before := stampOf(s.path)
	var wg sync.WaitGroup
	for _, id := range live[:39] {
		wg.Go(func() {
			_, err := s.Finish(ctx, id, End{Attempt: 1, Status: cortex.Completed, Summary: strings.Repeat("x", 20_000)})
			if err != nil {
				t.Error(err)
			}
		})
	}
	for range 12 {
		copied := backup(t, s)
		if got := sqlite(t, copied, "PRAGMA integrity_check; SELECT count(*) FROM dispatches WHERE status = 'running'; "+
			"SELECT count(*) FROM holds WHERE lifted_at IS NULL"); got != "ok\n40\n1" {
			t.Errorf("copy: %q", got)
		}
	}
	wg.Wait()
	pause(t, s) // a second one keeps the first one's promise
	if got := stampOf(s.path); got != before {
		t.Errorf("the main file was written while paused: %+v, was %+v", got, before)
	}

	// The last end, and nothing runs any more: the file is written once, with all.
	s.SetLive(0) // before it is recorded, as the supervisor does
	check(t, s.AddEvent(ctx, cortex.Event{Type: "x"}))
	if got := stampOf(s.path); got != before {
		t.Error("the main file was written before the last end was recorded")
	}
	must[cortex.Dispatch](t)(s.Finish(ctx, live[39], End{Attempt: 1, Status: cortex.Failed}))
	eventually(t, "the checkpoint after the last end", func() bool { return walSize(s) == 0 })
	if got := sqlite(t, backup(t, s), "PRAGMA integrity_check; SELECT count(*) FROM dispatches WHERE status = 'running'"); got != "ok\n0" {
		t.Errorf("copy: %q", got)
	}
	after := stampOf(s.path)
	accept(t, s)
	if got := stampOf(s.path); got != after {
		t.Error("a submit wrote the main file while paused")
	}

	// Another program's change while nothing runs is taken into the file, too.
	sqlite(t, s.path, "UPDATE dispatches SET agent = 'by hand'")
	eventually(t, "the checkpoint after it", func() bool { return walSize(s) == 0 })
	if got := sqlite(t, backup(t, s), "SELECT count(*) FROM dispatches WHERE agent = 'by hand'"); got != "41" {
		t.Errorf("copy: %q", got)
	}
}

func TestRestartWhilePausedDoesNotWriteTheMainFile(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	id := run(t, s).Dispatch.ID
	pause(t, s)
	check(t, s.AddEvent(ctx, cortex.Event{Type: "in the WAL"}))
	home := copyHome(t, s.home)
	was := stampOf(home + "/cortex.db")
	again := openAt(t, home)
	must[cortex.Dispatch](t)(again.Finish(ctx, id, End{Attempt: 1, Status: cortex.Failed}))
	if !again.paused() || stampOf(again.path) != was || walSize(again) == 0 {
		t.Error("written before it is known what runs")
	}
	again.SetLive(0)
	eventually(t, "the checkpoint", func() bool { return walSize(again) == 0 })
}

func TestReaderBlocksThePausesCheckpoint(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	reader := outside(t, s.path, "BEGIN; SELECT count(*) FROM dispatches;")
	accept(t, s)
	_, _, err := s.Pause(ctx, cortex.Hold{})
	check(t, err)
	began := time.Now()
	wantErr(t, s.Checkpoint(ctx), ErrBlocked)
	if took := time.Since(began); took > 4*time.Second || took < checkpointPatience {
		t.Errorf("after %v", took)
	}
	if c := s.checkCheckpoint(); c.OK {
		t.Errorf("%+v", c)
	}
	check(t, s.AddEvent(ctx, cortex.Event{Type: "after"}))
	if n := count(t, s, cortex.EventCheckpointBlocked); n != 1 {
		t.Errorf("%d events", n)
	}
	reader.close()
	began = time.Now()
	pause(t, s) // a later one succeeds
	if c := s.checkCheckpoint(); !c.OK || time.Since(began) > checkpointPatience {
		t.Errorf("%+v after %v", c, time.Since(began))
	}
	if walSize(s) != 0 {
		t.Error("the WAL is not empty")
	}
}

func TestCheckpointOnALockGivesUp(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	pause(t, s)
	lockOut(t, s)
	began := time.Now()
	wantErr(t, s.Checkpoint(ctx), ErrLocked)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("after %v", took)
	}
}

// While a reader blocks the pause's checkpoint other writes go on.
func TestBlockedCheckpointDoesNotHoldUpWrites(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	outside(t, s.path, "BEGIN; SELECT count(*) FROM dispatches;")
	id := run(t, s).Dispatch.ID
	paused := make(chan error, 1)
	_, _, err := s.Pause(ctx, cortex.Hold{})
	check(t, err)
	go func() { paused <- s.Checkpoint(ctx) }()
	must[cortex.Dispatch](t)(s.Finish(ctx, id, End{Attempt: 1, Status: cortex.Failed}))
	select {
	case <-paused:
		t.Error("the end was not recorded before the checkpoint gave up")
	default:
	}
	wantErr(t, <-paused, ErrBlocked)
}

func TestWALStaysBoundedWhileRunning(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	largest := int64(0)
	for i := range 200 {
		check(t, s.AddEvent(ctx, cortex.Event{Type: "large", Details: strings.Repeat(fmt.Sprint(i%10), 50_000)}))
		largest = max(largest, walSize(s))
	}
	if largest < walCheckpoint || largest > walCheckpoint+1<<20 {
		t.Errorf("largest WAL %d", largest)
	}
}

// A VACUUM by hand, with dispatches coming and going.
func TestVacuumFromOutside(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	n := 0
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, _, err := s.Accept(ctx, testSpec("v")); err != nil {
				t.Error(err)
				return
			}
			n++
		}
	})
	for range 5 {
		sqlite(t, s.path, "VACUUM;")
	}
	close(stop)
	wg.Wait()
	if got := sqlite(t, s.path, "PRAGMA integrity_check; PRAGMA journal_mode; SELECT count(*) FROM dispatches"); got != fmt.Sprintf("ok\nwal\n%d", n) {
		t.Errorf("%q, want %d", got, n)
	}
	eventually(t, "the count", func() bool { return s.Counts()[cortex.Pending] == n })
}

func TestOutsideChangesAreSeen(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	accept(t, s)
	drain(s.Outside())
	accept(t, s)
	check(t, s.do(ctx, func(*tx) error { return nil }))
	sqlite(t, s.path, "UPDATE dispatches SET status = 'failed' WHERE id = 1; INSERT INTO holds (scope) VALUES ('all')")
	<-s.Outside()
	eventually(t, "the two changes", func() bool {
		c := s.Counts()
		return c[cortex.Failed] == 1 && c[cortex.Pending] == 1 && len(s.Holds()) == 1 && s.paused()
	})
}

// A look that comes between another's last write of a file and its commit is repeated: no event of a file comes after it.
func TestOutsideCommitAfterTheLook(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	accept(t, s)
	lock := outside(t, s.path, "BEGIN IMMEDIATE; UPDATE dispatches SET status = 'failed';")
	check(t, s.watcher.Close())
	s.outsidePoke.Store(true)
	s.poke()
	eventually(t, "a look", func() bool { s.locks.mu.Lock(); defer s.locks.mu.Unlock(); return len(s.locks.files) > 0 })
	lock.say(t, "COMMIT;")
	eventually(t, "the change", func() bool { return s.Counts()[cortex.Failed] == 1 })
}

func TestOwnWritesAreNotOutsideChanges(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	drain(s.Outside())
	accept(t, s)
	pause(t, s)
	for range 3 {
		s.outsidePoke.Store(true)
		s.poke()
		eventually(t, "a look at the files", func() bool { return !s.outsidePoke.Load() })
		accept(t, s)
	}
	check(t, s.AddEvent(ctx, cortex.Event{Type: "x"}))
	select {
	case <-s.Outside():
		t.Error("the store's own writes were taken for another's")
	default:
	}
}

func TestChecksWhenAllIsWell(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	names := ""
	for _, c := range s.Checks(ctx) {
		if !c.OK || c.Hint != "" {
			t.Errorf("%+v", c)
		}
		names += c.Name + " "
	}
	if names != "database wal checkpoint stop_journal " {
		t.Error(names)
	}
}

func BenchmarkAccept(b *testing.B) {
	s, err := Open(Options{Home: b.TempDir(), Log: discard})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(ctx)
	b.SetParallelism(32)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, _, err := s.Accept(ctx, testSpec("b")); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkGroup and BenchmarkFsync show what grouping gains over one fsync a write.
func BenchmarkGroup(b *testing.B) {
	s, err := Open(Options{Home: b.TempDir(), Log: discard})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(ctx)
	b.SetParallelism(32)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := s.AddEvent(ctx, cortex.Event{Type: "bench"}); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkFsync(b *testing.B) {
	f, err := os.Create(b.TempDir() + "/f")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for b.Loop() {
		if _, err := f.Write(make([]byte, 200)); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

// acceptForEver accepts, as a process of its own (see TestMain): each id is a line of output once it is answered.
func acceptForEver(home string) error {
	s, err := Open(Options{Home: home, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for range 8 {
		go func() {
			for {
				d, _, err := s.Accept(context.Background(), testSpec("k"))
				if err != nil {
					failed <- err
				}
				fmt.Println(d.ID)
			}
		}()
	}
	return <-failed
}

// What was answered survives a kill in the middle of everything.
func TestKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	child := exec.Command(must[string](t)(os.Executable()))
	child.Env = append(os.Environ(), acceptIn+"="+home)
	child.Stderr = t.Output()
	lines := bufio.NewScanner(must[io.ReadCloser](t)(child.StdoutPipe()))
	check(t, child.Start())
	var answered []int64
	for lines.Scan() {
		answered = append(answered, must[int64](t)(strconv.ParseInt(lines.Text(), 10, 64)))
		if len(answered) == 200 {
			check(t, child.Process.Kill())
		}
	}
	child.Wait()
	if len(answered) < 200 {
		t.Fatalf("%d were answered", len(answered))
	}
	have := must[map[int64]cortex.Status](t)(openAt(t, home).Statuses(ctx))
	for _, id := range answered {
		if have[id] != cortex.Pending {
			t.Errorf("dispatch %d was accepted and is lost", id)
		}
	}
}
