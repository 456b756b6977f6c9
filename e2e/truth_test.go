package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cortex/internal/testenv"
)

// A cancel without grace kills at once, and its runner writes how it ended. (It once took the dispatch's own grace for none,
// and the runner was killed in place of its dispatch.)
func TestCancelWithoutGrace(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	pids := filepath.Join(h.Home, "pids")
	id := h.Submit("stubborn", "sh", "-c", escapees["ignores"], "x", pids)
	testenv.Eventually(t, "it to ignore signals", func() bool { return len(readPids(pids)) == 1 })
	if code, a := h.Post("/dispatches/"+id+"/cancel?wait=30s", `{"grace":"0s"}`); code != 200 {
		t.Fatalf("cancel: %d %v", code, a)
	}
	if s, x, sig := h.Status(id), h.Field(id, "exit_code"), h.Field(id, "signal"); s != "cancelled" || x != "137" || sig != "9" {
		t.Errorf("%s, exit code %q, signal %q", s, x, sig)
	}
}

// A pause that ends by itself is a resume: it has a time, and what is recent counts from there.
func TestPauseEndsByItself(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	h.WaitStatus(h.Submit("before", "true"), "completed")
	_, before := h.Get("/scheduler/status")
	if code, a := h.Post("/scheduler/pause", `{"ttl":"1200ms"}`); code != 200 {
		t.Fatalf("pause: %d %v", code, a)
	}
	_, paused := h.Get("/scheduler/status")
	if paused["resume_at"] == nil || paused["resumed_at"] != nil {
		t.Errorf("%v", paused)
	}
	testenv.Eventually(t, "it to end", func() bool {
		_, a := h.Get("/scheduler/status")
		return a["state"] == "running" && a["resumed_at"] != before["resumed_at"] && a["paused_at"] == nil
	})
	if _, a := h.Get("/status"); a["recent_dispatch_count"] != 0.0 {
		t.Errorf("recent: %v", a["recent_dispatch_count"])
	}
	if got := h.SQL("SELECT count(*) FROM health_events WHERE event_type = 'scheduler_resumed'"); got != "1" {
		t.Errorf("%s events", got)
	}
}

// What is recent counts from the last pause, also for a daemon that was started since.
func TestRecentAfterARestart(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	for range 3 {
		h.WaitStatus(h.Submit("b", "true"), "completed")
	}
	recent := func(want float64) {
		t.Helper()
		testenv.Eventually(t, "the count of what is recent", func() bool {
			_, a := h.Get("/status")
			return a["recent_dispatch_count"] == want
		})
	}
	recent(3)
	d.Stop()
	d = h.Start()
	recent(3)
	h.Post("/scheduler/pause", "")
	recent(0)
	d.Stop()
	d = h.Start()
	tookIn(t, h, d)
	recent(0)
	d.Stop()
}

// Rows that a person inserts are shown, and wait for nothing.
func TestRowsByHand(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	h.SQL("INSERT INTO dispatches (bead_id) VALUES ('by-hand')")
	h.SQL("INSERT INTO dispatches (bead_id, status, created_at) VALUES ('old', 'completed', '2020-01-01')")
	testenv.Eventually(t, "the rows to be seen", func() bool {
		_, a := h.Get("/status")
		counts, _ := a["counts"].(map[string]any)
		return counts["pending"] == 1.0 && counts["completed"] == 1.0 && a["pending_count"] == 0.0
	})
	if code, a := h.Get("/dispatches/by-hand"); code != 200 || len(a["dispatches"].([]any)) != 1 {
		t.Errorf("%d %v", code, a)
	}
	if code, a := h.Post("/dispatches/1/cancel", ""); code != 200 {
		t.Errorf("cancel: %d %v", code, a)
	}
	if _, a := h.Get("/status"); a["pending_count"] != 0.0 {
		t.Errorf("%v", a)
	}
}

// An order by hand: failed or cancelled written into the row of a live one stops it, and stays; anything else is put back.
// Both are told.
func TestStatusByHand(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	events := func(id, kind string) string {
		return h.SQL("SELECT count(*) FROM health_events WHERE event_type = '" + kind + "' AND dispatch_id = " + id)
	}
	for _, status := range []string{"failed", "cancelled"} {
		id := h.Submit(status, "sleep", "100000")
		agent := h.WaitRunning(id)
		testenv.Eventually(t, "its start in the database", func() bool {
			return h.SQL("SELECT pid FROM dispatches WHERE id = "+id) != ""
		})
		h.SQL("UPDATE dispatches SET status = '" + status + "' WHERE id = " + id)
		testenv.Eventually(t, "it to be stopped", func() bool { return !agent.Alive() && len(h.Sessions()) == 0 })
		testenv.Eventually(t, "its end", func() bool { return events(id, "dispatch_"+status) == "1" })
		if s, by := h.Status(id), h.Field(id, "stopped_by"); s != status || by != "operator" || events(id, "stop_ordered_by_hand") != "1" {
			t.Errorf("%s: %s, stopped by %s, %s warnings", status, s, by, events(id, "stop_ordered_by_hand"))
		}
	}
	for _, status := range []string{"pending", "completed", "pending_retry"} {
		id := h.Submit(status, "sleep", "100000")
		agent := h.WaitRunning(id)
		testenv.Eventually(t, "its start in the database", func() bool {
			return h.SQL("SELECT pid FROM dispatches WHERE id = "+id) != ""
		})
		h.SQL("UPDATE dispatches SET status = '" + status + "' WHERE id = " + id)
		testenv.Eventually(t, "it to be put back", func() bool { return events(id, "status_put_back") == "1" })
		if h.Status(id) != "running" || !agent.Alive() {
			t.Errorf("%s: %s, alive %v", status, h.Status(id), agent.Alive())
		}
		h.Post("/dispatches/"+id+"/cancel?wait=30s", `{"grace":"0s"}`)
	}
}

// A backup that is restored over a running history: what ended meanwhile is taken in from runs/, what runs is adopted with
// its start, and no id is used twice.
func TestRestoreOfAnOlderBackup(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	db := filepath.Join(h.State, "cortex.db")
	early := h.Submit("early", "true")
	h.WaitStatus(early, "completed")
	if code, a := h.Post("/scheduler/pause", ""); code != 200 {
		t.Fatalf("pause: %d %v", code, a)
	}
	h.Run("cp", db, h.Home+"/backup")
	h.Post("/scheduler/resume", "")
	ended := h.Submit("ended", "sh", "-c", "exit 9")
	runs := h.Submit("runs", "sleep", "100000")
	h.WaitStatus(ended, "failed")
	agent := h.WaitRunning(runs)
	d.Stop()
	h.Run("cp", h.Home+"/backup", db)
	h.Start()
	if _, a := h.Get("/status"); a["scheduler_state"] != "paused" || a["running_count"] != 1.0 {
		t.Errorf("%v", a)
	}
	h.WaitStatus(ended, "failed")
	if x := h.Field(ended, "exit_code"); x != "9" {
		t.Errorf("exit code %s", x)
	}
	if h.WaitRunning(runs) != agent {
		t.Error("another process")
	}
	at := h.Field(runs, "dispatched_at")
	if when, err := time.Parse(time.RFC3339, at); err != nil || time.Since(when) > time.Hour {
		t.Errorf("dispatched_at %q", at)
	}
	if next := h.Submit("next", "true"); len(next) != 1 || next <= runs {
		t.Errorf("id %s after %s", next, runs)
	}
	if out := h.SQL("PRAGMA integrity_check"); strings.TrimSpace(out) != "ok" {
		t.Error(out)
	}
	h.Post("/dispatches/"+runs+"/cancel?wait=30s", `{"grace":"0s"}`)
}

// Rows of dispatches that wait: one that was made running by hand waits again, one that was deleted is cancelled for good.
func TestWaitingRowsByHand(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	h.Post("/scheduler/pause", "")
	misled := h.Submit("misled", "true")
	retried := h.Submit("retried", "true")
	deleted := h.Submit("deleted", "sh", "-c", "echo ran >> "+h.Home+"/ran")
	h.SQL("UPDATE dispatches SET status = 'running' WHERE id = " + misled)
	h.SQL("UPDATE dispatches SET status = 'pending_retry' WHERE id = " + retried)
	h.SQL("DELETE FROM dispatches WHERE id = " + deleted)
	testenv.Eventually(t, "the warnings", func() bool {
		return h.SQL("SELECT group_concat(event_type) FROM (SELECT * FROM health_events WHERE type = 'warning' ORDER BY dispatch_id)") ==
			"status_put_back,status_put_back,stop_ordered_by_hand"
	})
	if h.Status(misled) != "pending" || h.Status(retried) != "pending" {
		t.Errorf("%s, %s", h.Status(misled), h.Status(retried))
	}
	// The same while no daemon runs.
	d.Stop()
	later := filepath.Join(h.State, "cortex.db")
	h.Run("sqlite3", later, "UPDATE dispatches SET status = 'running' WHERE id = "+misled)
	d = h.Start()
	h.Post("/scheduler/resume", "")
	h.WaitStatus(misled, "completed")
	h.WaitStatus(retried, "completed")
	d.Stop()
	h.Start()
	if code, _ := h.Get("/dispatches/" + deleted); code != 404 || ran(h) != 0 {
		t.Errorf("the deleted one: %d, ran %d times", code, ran(h))
	}
}

// A wait that has begun outlives a kill -9 of the daemon.
func TestWaitOverAKill(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	id := h.Submit("b", "sh", "-c", "until [ -e ~/go ]; do sleep 0.02; done; exit 7")
	h.WaitRunning(id)
	cmd := h.Command(filepath.Join(h.Bin, "cortex"), "wait", id)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "its long poll", func() bool {
		return strings.Contains(h.Run("ss", "-xpH", "state", "established"), fmt.Sprintf("pid=%d,", cmd.Process.Pid))
	})
	d.Kill()
	h.Start()
	h.Run("touch", h.Home+"/go")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "failed (exit 7)") {
		t.Errorf("%v: %s", err, out.String())
	}
}

// Whoever has seen an end sees it from then on, whole: also in the moment in which it comes into the database.
func TestAnEndIsNeverTakenBack(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	for range 20 {
		id := h.Submit("b", "sh", "-c", "exit 7")
		for seen := 0; seen < 20; {
			_, a := h.Get("/dispatches/" + id)
			_, list := h.Get("/dispatches?status=failed&limit=1")
			ended := a["status"] == "failed" && a["exit_code"] == 7.0
			if ended {
				seen++
			} else if seen > 0 {
				t.Fatalf("after %d looks at its end: %v", seen, a)
			}
			if all := list["dispatches"].([]any); seen > 0 && (len(all) == 0 || all[0].(map[string]any)["exit_code"] != 7.0) {
				t.Fatalf("after %d looks at its end: %v", seen, list)
			}
		}
	}
}

// Who waited for an end reads it in the database then, unless that stays locked. (A wait was once answered by what is in
// runs/ alone, and sqlite3 said "running" for a moment longer.)
func TestWaitedForIsOnRecord(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	id := h.Submit("b", "sh", "-c", "until [ -e ~/go ]; do sleep 0.02; done")
	h.WaitRunning(id)
	unlock := lock(t, h, "BEGIN IMMEDIATE;")
	h.Run("touch", h.Home+"/go")
	h.WaitStatus(id, "completed") // which the database can't know yet

	begun, waited := time.Now(), make(chan time.Duration)
	go func() {
		h.Get("/dispatches/" + id + "?wait=30s")
		waited <- time.Since(begun)
	}()
	unlock()
	if d := <-waited; d < time.Second && h.SQL("SELECT status FROM dispatches") != "completed" {
		t.Errorf("told after %v, and the database says that it is running", d)
	}
}
