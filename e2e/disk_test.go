package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

// fill leaves no byte free on the host's small disk.
func fill(t *testing.T, h *testenv.Host) (free func()) {
	t.Helper()
	path := filepath.Join(h.State, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// A disk without a byte free: nothing starts, a pause and a cancel take effect, ends are kept with their exit status, also
// through a kill -9 and a start on the full disk; and when there is room all goes on by itself.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if !testenv.Namespace(t) {
		return
	}
	h := testenv.New(t)
	h.SmallDisk("24m")
	d := h.Start()
	gate := h.Home + "/gate"
	h.Run("mkfifo", gate)
	ends := h.Submit("ends", "sh", "-c", "read x < "+gate+"; exit 7")
	cancelled := h.Submit("cancelled", "sh", "-c", "while :; do echo filling; sleep 0.01; done")
	h.WaitRunning(ends)
	agent := h.WaitRunning(cancelled)
	testenv.Eventually(t, "both starts in the database", func() bool {
		return h.SQL("SELECT count(*) FROM dispatches WHERE pid > 0") == "2"
	})
	free := fill(t, h)
	held := func(want bool) {
		t.Helper()
		testenv.Eventually(t, fmt.Sprint("a hold of kind disk: ", want), func() bool {
			_, a := h.Get("/scheduler/status")
			return strings.Contains(fmt.Sprint(a["holds"]), "kind:disk") == want
		})
	}
	held(true)
	awaitFault(t, h, "disk", "MiB free, the floor is", "free room on the file system of "+h.State)
	if code, a := h.Post("/dispatches", `{"bead_id":"no-room","command":["true"]}`); code != http.StatusInsufficientStorage || a["reason"] != "disk_full" {
		t.Errorf("submit: %d %v", code, a)
	}
	if code, a := h.Post("/scheduler/pause", `{"by":"ann"}`); code != http.StatusOK {
		t.Errorf("pause: %d %v", code, a)
	}
	if code, a := h.Post("/dispatches/"+cancelled+"/cancel", `{"grace":"0s"}`); code != http.StatusOK {
		t.Errorf("cancel: %d %v", code, a)
	}
	h.Run("sh", "-c", "echo > "+gate)
	gone := func() {
		t.Helper()
		testenv.Eventually(t, "both to be gone", func() bool {
			_, a := h.Get("/status")
			return a["running_count"] == 0.0 && a["scheduler_state"] == "paused"
		})
		if agent.Alive() || len(h.Sessions()) != 0 {
			t.Errorf("alive %v, sessions %v", agent.Alive(), h.Sessions())
		}
	}
	gone()
	testenv.Eventually(t, "its end", func() bool { return h.Field(ends, "exit_code") == "7" })
	_, failed := h.Get("/dispatches?status=failed")
	_, running := h.Get("/dispatches?status=running,pending")
	_, a := h.Get("/status")
	counts, _ := a["counts"].(map[string]any)
	if len(failed["dispatches"].([]any)) != 1 || len(running["dispatches"].([]any)) != 0 || counts["failed"] != 1.0 || counts["cancelled"] != 1.0 {
		t.Errorf("while nothing can be written: %v, %v, %v", failed, running, a)
	}
	d.Kill()
	h.Start()
	gone()
	awaitFault(t, h, "disk", "free room")

	free()
	held(false)
	h.WaitStatus(ends, "failed")
	h.WaitStatus(cancelled, "cancelled")
	testenv.Eventually(t, "the ends in the database", func() bool {
		got := h.SQL("SELECT group_concat(status || ':' || COALESCE(exit_code, '')) FROM (SELECT * FROM dispatches ORDER BY id)")
		return got == "failed:7,cancelled:143" || got == "failed:7,cancelled:137" // with no grace KILL may come as soon as TERM
	})
	awaitHealth(t, h)
	if _, a := h.Get("/scheduler/status"); a["state"] != "paused" || a["paused_by"] != "ann" {
		t.Errorf("%v", a)
	}
	h.Post("/scheduler/resume", "")
	h.WaitStatus(h.Submit("next", "true"), "completed")
}
