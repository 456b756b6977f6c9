package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"cortex/internal/testenv"
	"cortex/proc"
)

// lock holds the database's lock with a statement, as an sqlite3 forgotten in another terminal does. It returns what ends it.
func lock(t testenv.TB, h *testenv.Host, statement string) func() {
	t.Helper()
	cmd := h.Command("sqlite3", "-bail", "-cmd", ".timeout 20000", filepath.Join(h.State, "cortex.db"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	unlock := func() {
		if !ended {
			ended = true
			in.Close()
			cmd.Wait() // rolls back
		}
	}
	t.Cleanup(unlock)
	if _, err := io.WriteString(in, statement+"\nSELECT 'held';\n"); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); ; {
		if !lines.Scan() {
			t.Fatal("sqlite3 did not get the lock")
		}
		if lines.Text() == "held" {
			return unlock
		}
	}
}

// fiveJobs are on their way when the database can't be written: three run, two wait.
type fiveJobs struct {
	d                                   *testenv.Daemon
	gate                                string // a FIFO; a line lets the first one end, with status 7
	ends, cancelled, runs, waits, never string // ids
	cancelledAgent, agent               proc.Ident
}

// startFive starts a daemon and the jobs. waits is the script of the one that starts at last.
func startFive(t *testing.T, h *testenv.Host, waits string) fiveJobs {
	t.Helper()
	h.Extra = append(h.Extra, "CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=3")
	f := fiveJobs{d: h.Start(), gate: filepath.Join(h.Home, "gate")}
	h.Run("mkfifo", f.gate)
	f.ends = h.Submit("ends", "sh", "-c", "read x < "+f.gate+"; exit 7")
	f.cancelled = h.Submit("cancelled", "sleep", "100000")
	f.runs = h.Submit("runs", "sleep", "100000")
	f.waits = h.Submit("waits", "sh", "-c", waits)
	f.never = h.Submit("never", "sh", "-c", "echo ran >> "+h.Home+"/ran")
	h.WaitRunning(f.ends)
	f.cancelledAgent, f.agent = h.WaitRunning(f.cancelled), h.WaitRunning(f.runs)
	startsKnown(t, h, 3)
	return f
}

// journalled gives an order that has to be in the stop journal when it is answered.
func journalled(t *testing.T, h *testenv.Host, path, body string) {
	t.Helper()
	if code, a := h.Post(path, body); code != http.StatusOK || a["recorded"] != "journal" {
		t.Errorf("%s: %d %v", path, code, a)
	}
}

// awaitFive waits until all that became of the jobs is in the database: one ended, two were cancelled.
func awaitFive(t *testing.T, h *testenv.Host) {
	t.Helper()
	got := ""
	defer func() { t.Log(got) }()
	testenv.Eventually(t, "all of it in the database", func() bool {
		got = h.SQL("SELECT group_concat(status || ':' || COALESCE(exit_code, '')) FROM (SELECT * FROM dispatches ORDER BY id)")
		return got == "failed:7,cancelled:143,running:,pending:,cancelled:"
	})
}

// While the database is locked from outside dispatches end, a pause is ordered, and two are cancelled: all takes effect at
// once, survives a kill -9, is known to a daemon that starts on the locked database, and is in the database when that opens.
func TestLockedDatabase(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	f := startFive(t, h, "echo ran >> "+h.Home+"/ran")
	unlock := lock(t, h, "BEGIN EXCLUSIVE;")

	journalled(t, h, "/scheduler/pause", `{"reason":"locked","by":"ann"}`)
	journalled(t, h, "/dispatches/"+f.cancelled+"/cancel", `{"grace":"0s"}`)
	journalled(t, h, "/dispatches/"+f.never+"/cancel", "")
	h.Run("sh", "-c", "echo > "+f.gate)
	state := func() {
		t.Helper()
		testenv.Eventually(t, "what ended to be gone", func() bool {
			_, a := h.Get("/status")
			return a["running_count"] == 1.0 && a["scheduler_state"] == "paused"
		})
		if f.cancelledAgent.Alive() || !f.agent.Alive() || ran(h) != 0 {
			t.Errorf("alive %v and %v, ran %d", f.cancelledAgent.Alive(), f.agent.Alive(), ran(h))
		}
		_, a := h.Get("/scheduler/status")
		if holds := fmt.Sprint(a["holds"]); a["reason"] != "locked" || !strings.Contains(holds, "kind:db") || !strings.Contains(holds, "sqlite3") {
			t.Errorf("%v", a)
		}
		awaitFault(t, h, "database", "lock", "sqlite3", "end it or wait for it")
	}
	testenv.Eventually(t, "its end", func() bool { return h.Status(f.ends) == "failed" })
	if x := h.Field(f.ends, "exit_code"); x != "7" {
		t.Errorf("exit code %q while locked", x)
	}
	state()
	refused := func(path, body string) {
		t.Helper()
		code, a := h.Post(path, body)
		if code != http.StatusInternalServerError || a["error"] != "Database lock timeout" || a["reason"] != "db_locked" ||
			!strings.Contains(fmt.Sprint(a["hint"]), "sqlite3") {
			t.Errorf("%s: %d %v", path, code, a)
		}
	}
	refused("/scheduler/resume", "")
	refused("/dispatches", `{"bead_id":"refused","command":["true"]}`)

	f.d.Kill()
	d := h.Start()
	state()
	d.Stop()
	h.Start()
	state()

	unlock()
	h.WaitStatus(f.ends, "failed")
	h.WaitStatus(f.cancelled, "cancelled")
	h.WaitStatus(f.never, "cancelled")
	awaitFive(t, h)
	awaitHealth(t, h)
	_, a := h.Get("/scheduler/status")
	if a["state"] != "paused" || a["paused_by"] != "ann" || strings.Contains(fmt.Sprint(a["holds"]), "kind:db") {
		t.Errorf("%v", a)
	}
	if n := h.SQL("SELECT count(*) FROM dispatches WHERE bead_id = 'refused'"); n != "0" {
		t.Error("what was refused was accepted later")
	}
	if n := h.SQL("SELECT count(*) FROM health_events WHERE event_type IN ('database_locked', 'stop_journal_replayed')"); n == "0" {
		t.Error("nothing tells that the database was locked")
	}
	h.Post("/scheduler/resume", "")
	h.WaitStatus(f.waits, "completed")
	if ran(h) != 1 || !f.agent.Alive() {
		t.Errorf("ran %d, alive %v", ran(h), f.agent.Alive())
	}
	h.Post("/dispatches/"+f.runs+"/cancel?wait=30s", `{"grace":"0s"}`)
}

// The drill's reader: in WAL mode nobody who reads is ever locked out, and VACUUM beside running dispatches loses nothing.
func TestVacuumBesideWork(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	var ids []string
	for i := range 20 {
		ids = append(ids, h.Submit(fmt.Sprint("b", i), "sh", "-c", fmt.Sprintf("exit %d", i)))
		if i%5 == 0 {
			h.SQL("VACUUM;")
			h.SQL("PRAGMA wal_checkpoint(TRUNCATE);")
		}
	}
	for i, id := range ids {
		want := map[bool]string{true: "completed", false: "failed"}[i == 0]
		h.WaitStatus(id, want)
		if x := h.Field(id, "exit_code"); x != fmt.Sprint(i) {
			t.Errorf("dispatch %s: exit code %s, want %d", id, x, i)
		}
	}
	if got := h.SQL("PRAGMA integrity_check;"); got != "ok" {
		t.Error(got)
	}
}
