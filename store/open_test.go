package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cortex"
)

func TestCleanStopLeavesNoWAL(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	s := openAt(t, home)
	accept(t, s)
	for _, name := range []string{"cortex.db", "cortex.db-wal", "cortex.db-shm", "ids", "stop.journal"} {
		st := must[os.FileInfo](t)(os.Stat(filepath.Join(home, name)))
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
	}
	get(t, s, 1)
	closeWell(t, s)
	for _, name := range []string{"cortex.db-wal", "cortex.db-shm"} {
		if _, err := os.Stat(filepath.Join(home, name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
	closeWell(t, s) // twice is no error
	s = openAt(t, home)
	if d := get(t, s, 1); d.BeadID != "b-1" || !d.Accepted || d.CreatedAt == nil {
		t.Errorf("%+v", d)
	}
	if n := s.Counts()[cortex.Pending]; n != 1 {
		t.Errorf("%d pending", n)
	}
}

func TestEmptyFileIsNew(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	check(t, os.WriteFile(filepath.Join(home, "cortex.db"), nil, 0o644))
	s := openAt(t, home)
	accept(t, s)
	if st := must[os.FileInfo](t)(os.Stat(s.path)); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	if got := sqlite(t, s.path, "PRAGMA user_version; PRAGMA journal_mode;"); got != fmt.Sprintf("%d\nwal", latest()) {
		t.Errorf("%q", got)
	}
}

// The files of a refused database stay as they are, byte for byte, and nothing but an index of its WAL comes beside it.
func TestRefusals(t *testing.T) {
	t.Parallel()
	ours := func(t *testing.T, path string) { closeWell(t, openAt(t, filepath.Dir(path))) }
	write := func(data string) func(*testing.T, string) {
		return func(t *testing.T, path string) { check(t, os.WriteFile(path, []byte(data), 0o644)) }
	}
	sql := func(statements string) func(*testing.T, string) {
		return func(t *testing.T, path string) { sqlite(t, path, statements) }
	}
	for _, c := range []struct {
		name  string
		make  func(*testing.T, string)
		want  error
		words string
	}{
		{"newer", func(t *testing.T, p string) { ours(t, p); sqlite(t, p, "PRAGMA user_version = 99") }, ErrNewer, "newer cortex"},
		{"newer, only in a WAL", func(t *testing.T, p string) {
			ours(t, p)
			leaveWAL(t, p, "PRAGMA user_version = 99;")
		}, ErrNewer, "newer cortex"},
		{"tables", sql("CREATE TABLE t (a)"), ErrForeign, "Move it away"},
		{"tables, only in a WAL", func(t *testing.T, p string) {
			leaveWAL(t, p, "PRAGMA journal_mode = WAL; CREATE TABLE t (a);")
		}, ErrForeign, "Move it away"},
		{"WAL mode", sql("PRAGMA journal_mode = WAL; CREATE TABLE t (a)"), ErrForeign, "Move it away"},
		{"application id", sql("PRAGMA application_id = 77; CREATE TABLE t (a)"), ErrForeign, "0x4d"},
		{"text", write("hello, this is not a database, and it is longer than a header of one hundred bytes, which is " +
			strings.Repeat("what SQLite reads first. ", 10)), ErrCorrupt, "backup"},
		{"cut", func(t *testing.T, p string) {
			ours(t, p)
			data := must[[]byte](t)(os.ReadFile(p))
			check(t, os.WriteFile(p, data[:3000], 0o600))
		}, ErrCorrupt, "backup"},
		{"folder", func(t *testing.T, p string) { check(t, os.Mkdir(p, 0o700)) }, ErrForeign, "regular"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "cortex.db")
			c.make(t, path)
			before := sums(t, path)
			_, err := Open(Options{Home: filepath.Dir(path), Log: logTo(t)})
			wantErr(t, err, c.want)
			told := asTold(err)
			if text := told.Message + " " + told.Hint; !strings.Contains(text, c.words) || !strings.Contains(text, path) {
				t.Errorf("told %q", text)
			}
			if after := sums(t, path); after != before {
				t.Errorf("files changed: %s, were %s", after, before)
			}
		})
	}
}

func sums(t *testing.T, path string) string {
	var all []string
	for _, end := range []string{"", "-wal", "-journal"} {
		data, err := os.ReadFile(path + end)
		all = append(all, fmt.Sprintf("%x %v", sha256.Sum256(data), err == nil))
	}
	return strings.Join(all, " ")
}

// leaveWAL leaves what sql writes in a WAL, as a crash does.
func leaveWAL(t *testing.T, path, sql string) {
	t.Helper()
	other := path + ".being-made"
	if data, err := os.ReadFile(path); err == nil {
		check(t, os.WriteFile(other, data, 0o600))
	}
	o := outside(t, other, sql)
	for _, end := range []string{"", "-wal"} {
		data := must[[]byte](t)(os.ReadFile(other + end))
		check(t, os.WriteFile(path+end, data, 0o600))
	}
	o.close()
}

func TestOpenOnALockedDatabase(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, sql string }{
		{"exclusive transaction", "BEGIN EXCLUSIVE;"},
		{"exclusive locking mode", "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT;"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			s := openAt(t, home)
			id := accept(t, s).ID
			closeWell(t, s)
			lock := outside(t, s.path, c.sql)
			began := time.Now()
			s = openAt(t, home)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("Open took %v", took)
			}
			if s.isReady() {
				t.Fatal("ready on a locked database")
			}
			held := s.Holds()
			if len(held) != 1 || held[0].Kind != cortex.HoldDB || !strings.Contains(held[0].Reason, fmt.Sprint(lock.cmd.Process.Pid)) {
				t.Errorf("holds %+v", held)
			}
			if _, err := s.Get(ctx, id); err != nil {
				wantErr(t, err, ErrLocked)
			}
			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			_, _, err := s.Accept(short, testSpec("never"))
			wantErr(t, err, ErrLocked)
			done := make(chan error, 1)
			go func() { done <- s.AddEvent(ctx, cortex.Event{Type: "kept"}) }()
			lock.close()
			check(t, <-done)
			<-s.Ready()
			eventually(t, "no hold", func() bool { return len(s.Holds()) == 0 })
			get(t, s, id)
		})
	}
}

// A file that turns out to be newer once its lock is free.
func TestFatalAfterOpen(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	s := openAt(t, home)
	closeWell(t, s)
	lock := outside(t, s.path, "BEGIN EXCLUSIVE; PRAGMA user_version = 99;")
	s = openAt(t, home)
	done := make(chan error, 1)
	go func() { done <- s.AddEvent(ctx, cortex.Event{Type: "lost"}) }()
	lock.say(t, "COMMIT;")
	wantErr(t, <-s.Fatal(), ErrNewer)
	wantErr(t, <-done, ErrNewer)
	closeWell(t, s)
	if got := sqlite(t, s.path, "PRAGMA user_version; SELECT count(*) FROM events WHERE event_type = 'lost'"); got != "99\n0" {
		t.Errorf("%q", got)
	}
}

func TestIDsAreNeverUsedTwice(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	s := openAt(t, home)
	accept(t, s)
	pause(t, s)
	old := backup(t, s)
	for range 5 {
		accept(t, s)
	}
	resume(t, s)
	h, _, err := s.Pause(ctx, cortex.Hold{Reason: "second"})
	check(t, err)
	events := must[[]cortex.Event](t)(s.Events(ctx, time.Time{}, 1))
	closeWell(t, s)
	check(t, os.RemoveAll(filepath.Join(home, "runs")))
	copyFile(t, old, s.path)

	s = openAt(t, home)
	if len(s.Holds()) != 1 || s.Holds()[0].Reason != "" {
		t.Errorf("the restored copy's holds %+v", s.Holds())
	}
	eventually(t, "the event about the replaced file", func() bool { return count(t, s, cortex.EventDatabaseReplaced) == 1 })
	if got := sqlite(t, s.path, "INSERT INTO dispatches (bead_id) VALUES ('by hand'); SELECT last_insert_rowid()"); got != "7" {
		t.Errorf("by hand: id %s, want 7", got)
	}
	if d := accept(t, s); d.ID != 8 {
		t.Errorf("id %d, want 8", d.ID)
	}
	resume(t, s)
	if again, _, err := s.Pause(ctx, cortex.Hold{}); err != nil || again.ID <= h.ID {
		t.Errorf("hold %d after %d, %v", again.ID, h.ID, err)
	}
	for _, ev := range must[[]cortex.Event](t)(s.Events(ctx, time.Time{}, 3)) {
		if ev.ID <= events[0].ID {
			t.Errorf("event id %d after %d", ev.ID, events[0].ID)
		}
	}
}

func TestIDsSurviveACrashAndATornFile(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	first := accept(t, s)
	for _, ids := range []string{"keep", "{torn", ""} {
		home := copyHome(t, s.home)
		if ids != "keep" {
			check(t, os.WriteFile(filepath.Join(home, "ids"), []byte(ids), 0o600))
		}
		again := openAt(t, home)
		if d := accept(t, again); d.ID <= first.ID {
			t.Errorf("ids %q: id %d after %d", ids, d.ID, first.ID)
		}
	}
}

func TestHandInsertTakesAnID(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	accept(t, s)
	sqlite(t, s.path, "INSERT INTO dispatches (bead_id) VALUES ('x'), ('y')")
	if d := accept(t, s); d.ID != 4 {
		t.Errorf("id %d, want 4", d.ID)
	}
	entries := must[[]os.DirEntry](t)(os.ReadDir(s.runs))
	if len(entries) != 2 {
		t.Errorf("folders %v: those of taken ids must go", entries)
	}
}

func TestLeftWALBesideAnotherMainFile(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	accept(t, s)
	pause(t, s)
	accept(t, s)
	same := openAt(t, copyHome(t, s.home)) // a copy has another inode, too
	eventually(t, "the event", func() bool { return count(t, same, cortex.EventDatabaseReplaced) == 1 })
	evs := must[[]cortex.Event](t)(same.Events(ctx, time.Time{}, 10, cortex.Warning))
	if len(evs) != 1 || !strings.Contains(evs[0].Message, "write-ahead log") {
		t.Errorf("warnings %+v", evs)
	}
	home := same.home
	reader := outside(t, same.path, "BEGIN; SELECT count(*) FROM events;") // Close can't take the WAL away
	closeNow(same)
	check(t, reader.cmd.Process.Kill())
	reader.close()
	if st, err := os.Stat(same.path + "-wal"); err != nil || st.Size() == 0 {
		t.Fatalf("no WAL is left: %v", err)
	}
	again := openAt(t, home)
	check(t, again.do(ctx, func(*tx) error { return nil }))
	if n := must[[]cortex.Event](t)(again.Events(ctx, time.Time{}, 10, cortex.Warning)); len(n) != 1 {
		t.Errorf("the file is the one it left, but: %+v", n)
	}
}

func TestMainFileReplacedWhileOpen(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	accept(t, s)
	pause(t, s)
	other := backup(t, s)
	data := must[[]byte](t)(os.ReadFile(other))
	accept(t, s)
	check(t, os.Rename(other, s.path))
	wantErr(t, <-s.Fatal(), ErrReplaced)
	_, _, err := s.Accept(ctx, testSpec("late"))
	wantErr(t, err, ErrReplaced)
	closeWell(t, s)
	if now := must[[]byte](t)(os.ReadFile(s.path)); string(now) != string(data) {
		t.Error("the new file was written")
	}
	again := openAt(t, s.home)
	if n := len(must[map[int64]cortex.Status](t)(again.Statuses(ctx))); n != 1 {
		t.Errorf("%d rows, want the copy's", n)
	}
}
