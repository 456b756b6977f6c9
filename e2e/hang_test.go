package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cortex/internal/testenv"
)

// A write transaction of the daemon's own hangs, before its commit or in it: dispatches end, a pause is ordered, two are
// cancelled, and the daemon is killed or stopped, as with a database that is locked from outside.
func TestHungWrite(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"store.fill", "store.commit"} {
		for name, end := range map[string]func(*testenv.Daemon){
			"and goes on":   nil,
			"and is killed": (*testenv.Daemon).Kill,
			"and is stopped": func(d *testenv.Daemon) { // with an error, since it can't close the database
				if err := syscall.Kill(d.PID(), syscall.SIGTERM); err != nil {
					t.Error(err)
				}
				if <-d.Done(); d.ExitCode() != 1 || !strings.Contains(d.Log(), "close the database: a write to the database hangs") {
					t.Errorf("exit status %d", d.ExitCode())
				}
			},
		} {
			t.Run(point+" "+name, func(t *testing.T) {
				t.Parallel()
				hungWrite(t, point, end)
			})
		}
	}
}

func hungWrite(t *testing.T, point string, end func(*testenv.Daemon)) {
	h := testenv.New(t)
	hang, gate := filepath.Join(h.Home, "hang"), filepath.Join(h.Home, "gate")
	h.Extra = []string{"CORTEX_FAULT=" + point + ":while", "CORTEX_FAULT_WHILE=" + hang, "CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=3"}
	d := h.Start()
	h.Run("mkfifo", gate)
	ends := h.Submit("ends", "sh", "-c", "read x < "+gate+"; exit 7")
	cancelled := h.Submit("cancelled", "sleep", "100000")
	runs := h.Submit("runs", "sleep", "100000")
	waits := h.Submit("waits", "sh", "-c", "echo ran >> "+h.Home+"/ran; exit 3")
	never := h.Submit("never", "sh", "-c", "echo ran >> "+h.Home+"/ran")
	h.WaitRunning(ends)
	cancelledAgent, agent := h.WaitRunning(cancelled), h.WaitRunning(runs)
	testenv.Eventually(t, "all starts in the database", func() bool {
		return h.SQL("SELECT count(*) FROM dispatches WHERE pid > 0") == "3"
	})
	if err := os.WriteFile(hang, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	h.Run("sh", "-c", "echo > "+gate)
	testenv.Eventually(t, "its end", func() bool { return h.Status(ends) == "failed" && h.Field(ends, "exit_code") == "7" })
	order := func(path, body string) {
		t.Helper()
		if code, a := h.Post(path, body); code != http.StatusOK || a["recorded"] != "journal" {
			t.Errorf("%s: %d %v", path, code, a)
		}
	}
	order("/scheduler/pause", `{"reason":"hung","by":"ann"}`)
	order("/dispatches/"+cancelled+"/cancel?wait=30s", `{"grace":"0s"}`)
	order("/dispatches/"+never+"/cancel", "")
	_, a := h.Get("/scheduler/status")
	if holds := fmt.Sprint(a["holds"]); a["state"] != "paused" || !strings.Contains(holds, "hangs") {
		t.Errorf("%v", a)
	}
	if code, a := h.Get("/health"); code != http.StatusServiceUnavailable || !strings.Contains(fmt.Sprint(a["checks"]), "A write to the database hangs") {
		t.Errorf("health %d %v", code, a)
	}
	if code, a := h.Post("/scheduler/resume", ""); code != http.StatusInternalServerError || a["reason"] != "db_hung" {
		t.Errorf("resume: %d %v", code, a)
	}
	if end != nil {
		end(d)
	}
	if err := os.Remove(hang); err != nil {
		t.Fatal(err)
	}
	if end != nil {
		h.Start()
	}
	testenv.Eventually(t, "all of it in the database", func() bool {
		return h.SQL("SELECT group_concat(status || ':' || COALESCE(exit_code, '')) FROM (SELECT * FROM dispatches ORDER BY id)") ==
			"failed:7,cancelled:143,running:,pending:,cancelled:"
	})
	testenv.Eventually(t, "health", func() bool { code, _ := h.Get("/health"); return code == http.StatusOK })
	if _, a := h.Get("/scheduler/status"); a["state"] != "paused" || a["paused_by"] != "ann" || strings.Contains(fmt.Sprint(a["holds"]), "hangs") {
		t.Errorf("%v", a)
	}
	if ran(h) != 0 || cancelledAgent.Alive() || !agent.Alive() {
		t.Errorf("ran %d, alive %v and %v", ran(h), cancelledAgent.Alive(), agent.Alive())
	}
	if code, a := h.Post("/scheduler/resume", ""); code != http.StatusOK {
		t.Errorf("resume: %d %v", code, a)
	}
	h.WaitStatus(waits, "failed")
	if ran(h) != 1 {
		t.Errorf("ran %d times", ran(h))
	}
	h.Post("/dispatches/"+runs+"/cancel?wait=30s", `{"grace":"0s"}`)
}
