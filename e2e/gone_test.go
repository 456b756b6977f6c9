package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"cortex/internal/testenv"
)

// A dispatch whose folder in runs/ is removed, by its agent or by a person, holds nothing up: it ends, with its exit status
// where a daemon speaks to its runner, and a pause and a cancel never wait for it.
func TestRunFolderRemoved(t *testing.T) {
	t.Parallel()
	t.Run("and it ends by itself", func(t *testing.T) {
		t.Parallel()
		h := testenv.New(t)
		h.Start()
		id := h.Submit("b", "sh", "-c", `rm -rf "$(dirname "$CORTEX_RUN_DIR")"; exit 3`)
		h.WaitStatus(id, "failed")
		if x := h.Field(id, "exit_code"); x != "3" {
			t.Errorf("exit code %q", x)
		}
	})
	t.Run("as the first thing", func(t *testing.T) {
		t.Parallel()
		h := testenv.New(t)
		h.Start()
		for range 5 { // whether the daemon has spoken to the runner by then or not
			id := h.Submit("b", "sh", "-c", `echo ran >> ~/ran; rm -rf "$(dirname "$CORTEX_RUN_DIR")"; sleep 100000`)
			testenv.Eventually(t, "its folder to be gone", func() bool {
				_, err := os.Stat(filepath.Join(h.State, "runs", id, "spec.json"))
				return os.IsNotExist(err)
			})
			if code, a := h.Post("/dispatches/"+id+"/cancel?wait=30s", `{"grace":"0s"}`); code != http.StatusOK && code != http.StatusConflict {
				t.Errorf("%d %v", code, a)
			}
			testenv.Eventually(t, "its end", func() bool { s := h.Status(id); return s == "cancelled" || s == "failed" })
		}
		if ran(h) != 5 || len(h.Sessions()) != 0 {
			t.Errorf("ran %d times, sessions %v", ran(h), h.Sessions())
		}
	})
	t.Run("and it is cancelled", func(t *testing.T) {
		t.Parallel()
		h := testenv.New(t)
		h.Start()
		id := h.Submit("b", "sh", "-c", `until [ -e ~/go ]; do sleep 0.02; done; rm -rf "$(dirname "$CORTEX_RUN_DIR")"; sleep 100000`)
		agent := h.WaitRunning(id)
		h.Run("touch", h.Home+"/go")
		testenv.Eventually(t, "its folder to be gone", func() bool {
			_, err := os.Stat(filepath.Join(h.State, "runs", id))
			return os.IsNotExist(err)
		})
		if code, a := h.Post("/dispatches/"+id+"/cancel?wait=30s", `{"grace":"0s"}`); code != http.StatusOK || agent.Alive() {
			t.Errorf("%d %v, alive %v", code, a, agent.Alive())
		}
		h.WaitStatus(id, "cancelled")
	})
	t.Run("and the daemon is started anew", func(t *testing.T) {
		t.Parallel()
		h := testenv.New(t)
		d := h.Start()
		id := h.Submit("b", "sh", "-c", `until [ -e ~/go ]; do sleep 0.02; done; rm -rf "$(dirname "$CORTEX_RUN_DIR")"; sleep 100000`)
		agent := h.WaitRunning(id)
		h.Run("touch", h.Home+"/go")
		testenv.Eventually(t, "its start in the database", func() bool {
			return h.SQL("SELECT pid FROM dispatches WHERE id = "+id) != ""
		})
		d.Stop()
		h.Start()
		if code, a := h.Post("/scheduler/pause", ""); code != http.StatusOK {
			t.Fatalf("pause: %d %v", code, a)
		}
		h.WaitStatus(id, "failed")
		if agent.Alive() || len(h.Sessions()) != 0 {
			t.Errorf("alive %v, sessions %v", agent.Alive(), h.Sessions())
		}
	})
	t.Run("with all of runs, while it waits and while it runs", func(t *testing.T) {
		t.Parallel()
		h := testenv.New(t)
		h.Extra = []string{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=1"}
		d := h.Start()
		runs := h.Submit("runs", "sleep", "100000")
		agent := h.WaitRunning(runs)
		waits := h.Submit("waits", "true")
		testenv.Eventually(t, "its start in the database", func() bool {
			return h.SQL("SELECT pid FROM dispatches WHERE id = "+runs) != ""
		})
		d.Stop()
		if err := os.RemoveAll(filepath.Join(h.State, "runs")); err != nil {
			t.Fatal(err)
		}
		h.Start()
		h.WaitStatus(runs, "failed")
		if agent.Alive() {
			t.Error("it lives")
		}
		h.WaitStatus(waits, "failed")
		if c := h.Field(waits, "failure_category"); c != "spawn_error" {
			t.Errorf("category %s", c)
		}
		if code, a := h.Post("/scheduler/pause", ""); code != http.StatusOK {
			t.Errorf("pause: %d %v", code, a)
		}
		h.Post("/scheduler/resume", "")
		h.WaitStatus(h.Submit("next", "true"), "completed")
	})
}

// That nothing can be started is no health, and no dispatch is lost by it.
func TestNoTmux(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_TMUX__BINARY=" + h.Home + "/tmux"}
	d := h.Start()
	id := h.Submit("b", "true")
	awaitFault(t, h, "tmux", h.Home+"/tmux", "tmux.binary")
	awaitFault(t, h, "starts", "a start failed", h.Home+"/tmux", "tmux.binary")
	if s := h.Status(id); s != "pending" && s != "running" {
		t.Errorf("it is %s", s)
	}
	d.Stop()
	h.Extra = nil
	h.Start()
	h.WaitStatus(id, "completed")
	awaitHealth(t, h)
	if got := h.SQL("SELECT retries FROM dispatches"); got != "0" {
		t.Errorf("%s retries", got)
	}
}

// A runner that can't be executed loses no dispatch, and all goes on when it can.
func TestNoRunner(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	binary := filepath.Join(h.Home, "cortex-runner")
	h.Run("cp", filepath.Join(h.Bin, "cortex-runner"), binary)
	h.Extra = []string{"CORTEX_RUNNER__BINARY=" + binary}
	h.Start()
	h.Run("chmod", "-x", binary)
	id := h.Submit("b", "true")
	awaitFault(t, h, "starts", "can "+binary+" be executed?", "runner.binary")
	if s := h.Status(id); s != "pending" && s != "running" {
		t.Errorf("it is %s", s)
	}
	h.Run("chmod", "+x", binary)
	h.WaitStatus(id, "completed")
	awaitHealth(t, h)
}

// A daemon that is killed with starts on their way alarms nobody: they are given back, and start again.
func TestCrashWithStartsOnTheirWay(t *testing.T) {
	t.Parallel()
	h := faulty(t, "start.session:kill:3")
	h.Extra = append(h.Extra, "CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=50")
	d := h.Start()
	for i := range 10 {
		h.Try(filepath.Join(h.Bin, "cortex"), "submit", "--bead", fmt.Sprint("b", i), "--", "true")
	}
	dead(t, d)
	whole(h)
	h.Start()
	testenv.Eventually(t, "all to complete", func() bool {
		_, a := h.Get("/status")
		return a["running_count"] == 0.0 && a["pending_count"] == 0.0
	})
	if got := h.SQL("SELECT group_concat(message, '; ') FROM health_events WHERE type IN ('error', 'critical')"); got != "" {
		t.Error(got)
	}
}
