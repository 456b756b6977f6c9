package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"cortex"
	"cortex/runner/record"
)

const acceptIn = "CORTEX_TEST_ACCEPT_IN" // the home of a process that a test kills

func TestMain(m *testing.M) {
	if home := os.Getenv(acceptIn); home != "" {
		fmt.Fprintln(os.Stderr, acceptForEver(home))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// eventually waits until ok, and fails the test after a time that no healthy machine needs.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
		<-tick.C
	}
}

// atMost is a limit of what runs.
func atMost(n int) func(cortex.Dispatch) []cortex.Limit {
	return func(cortex.Dispatch) []cortex.Limit { return []cortex.Limit{{Scope: cortex.ScopeAll, Concurrent: n}} }
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// logTo writes to the test's log, and is silent once the test has ended.
func logTo(t *testing.T) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(func() { w.mu.Lock(); w.t = nil; w.mu.Unlock() })
	return slog.New(slog.NewTextHandler(w, nil))
}

type testWriter struct {
	mu sync.Mutex
	t  *testing.T
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func openAt(t *testing.T, home string) *Store {
	t.Helper()
	s := must[*Store](t)(Open(Options{Home: home, Log: logTo(t)}))
	t.Cleanup(func() { closeNow(s) })
	return s
}

func openNew(t *testing.T) *Store { return openAt(t, t.TempDir()) }

// closeNow closes without waiting for any lock.
func closeNow(s *Store) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return s.Close(ctx)
}

func closeWell(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	check(t, s.Close(ctx))
}

// sqlite runs the sqlite3 command line, the outside party.
func sqlite(t *testing.T, path, sql string) string {
	t.Helper()
	out, err := exec.Command("sqlite3", "-cmd", ".timeout 5000", path, sql).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 %q: %v: %s", sql, err, out)
	}
	return strings.TrimSpace(string(out))
}

// session is an sqlite3 that stays.
type session struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	end sync.Once
}

func outside(t *testing.T, path string, sql string) *session {
	t.Helper()
	o := &session{cmd: exec.Command("sqlite3", path)}
	o.in = must[io.WriteCloser](t)(o.cmd.StdinPipe())
	check(t, o.cmd.Start())
	t.Cleanup(o.close)
	o.say(t, sql)
	return o
}

// say runs sql and returns when it is done.
func (o *session) say(t *testing.T, sql string) {
	t.Helper()
	done := filepath.Join(t.TempDir(), "done")
	_, err := io.WriteString(o.in, sql+"\n.output "+done+"\nSELECT 'done';\n.output\n")
	check(t, err)
	eventually(t, "sqlite3 to run "+sql, func() bool { data, _ := os.ReadFile(done); return len(data) > 0 })
}

func (o *session) close() {
	o.end.Do(func() {
		o.in.Close()
		o.cmd.Wait()
	})
}

// lockOut has another process hold the write lock until the session is closed.
func lockOut(t *testing.T, s *Store) *session {
	t.Helper()
	return outside(t, s.path, "BEGIN EXCLUSIVE;")
}

func testSpec(bead string) record.Spec {
	return record.Spec{Bead: bead, Project: "p", Priority: 2, Command: []string{"true"}, Env: []record.Raw{}, Workdir: "/"}
}

func accept(t *testing.T, s *Store) cortex.Dispatch {
	t.Helper()
	return acceptSpec(t, s, testSpec("b-1"))
}

func acceptSpec(t *testing.T, s *Store, spec record.Spec) cortex.Dispatch {
	t.Helper()
	d, repeated, err := s.Accept(context.Background(), spec)
	check(t, err)
	if repeated {
		t.Fatalf("dispatch %d was there before", d.ID)
	}
	return d
}

// run accepts and claims a dispatch.
func run(t *testing.T, s *Store) cortex.Attempt {
	t.Helper()
	return must[cortex.Attempt](t)(s.Claim(context.Background(), accept(t, s).ID, atMost(1000), nil))
}

func get(t *testing.T, s *Store, id int64) cortex.Dispatch {
	t.Helper()
	return must[cortex.Dispatch](t)(s.Get(context.Background(), id))
}

func types(t *testing.T, s *Store) []cortex.EventType {
	t.Helper()
	var all []cortex.EventType
	for _, ev := range must[[]cortex.Event](t)(s.Events(context.Background(), time.Time{}, 10000)) {
		all = append(all, ev.Type)
	}
	return all
}

func count(t *testing.T, s *Store, typ cortex.EventType) int {
	t.Helper()
	n := 0
	for _, have := range types(t, s) {
		if have == typ {
			n++
		}
	}
	return n
}

// copyHome copies a home as kill -9 would leave it: the files as they are, nothing closed. It is another process that does
// it, since to close a file of an open database here would drop this process's locks on it.
func copyHome(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "h")
	copyFile(t, from, to)
	return to
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp %s: %v: %s", from, err, out)
	}
}

// backup is an operator's cp of the database.
func backup(t *testing.T, s *Store) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "backup.db")
	copyFile(t, s.path, to)
	return to
}

func resume(t *testing.T, s *Store) {
	t.Helper()
	_, _, err := s.Resume(ctx, "", "", "")
	check(t, err)
}

// pause pauses as the scheduler does, with the checkpoint.
func pause(t *testing.T, s *Store) cortex.Hold {
	t.Helper()
	h, recorded, err := s.Pause(ctx, cortex.Hold{})
	check(t, err)
	if recorded != RecordedDatabase {
		t.Fatalf("recorded in the %s", recorded)
	}
	check(t, s.Checkpoint(ctx))
	return h
}

var discard = slog.New(slog.DiscardHandler)

func ptr[T any](v T) *T { return &v }
