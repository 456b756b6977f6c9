package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

// A database that is damaged or gone ends the start with an error that says what to do, and is made anew from runs/: what
// ended has its true end, what runs is adopted, what waits waits, and all of it under a pause.
func TestRebuild(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(db string) error{
		"damaged": func(db string) error {
			return os.WriteFile(db, []byte(strings.Repeat("this is no database. ", 1000)), 0o600)
		},
		"cut off": func(db string) error { return os.Truncate(db, 5000) },
		"gone":    os.Remove,
		"empty":   func(db string) error { return os.Truncate(db, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testenv.New(t)
			db := filepath.Join(h.State, "cortex.db")
			d := h.Start()
			failed := h.Submit("failed", "sh", "-c", "exit 7")
			done := h.Submit("done", "true")
			runs := h.Submit("runs", "sleep", "100000")
			agent := h.WaitRunning(runs)
			h.WaitStatus(failed, "failed")
			h.WaitStatus(done, "completed")
			if code, a := h.Post("/scheduler/pause", ""); code != 200 {
				t.Fatalf("pause: %d %v", code, a)
			}
			waits := h.Submit("waits", "true")
			d.Stop()
			if _, errout, code := h.Try(filepath.Join(h.Bin, "cortex"), "db", "rebuild"); code != 1 || !strings.Contains(errout, "in order") {
				t.Errorf("a rebuild of what is in order: exit %d, %s", code, errout)
			}
			if err := harm(db); err != nil {
				t.Fatal(err)
			}

			broken := h.Launch()
			<-broken.Done()
			if code := broken.ExitCode(); code != 1 || !strings.Contains(broken.Log(), "cortex db rebuild") {
				t.Fatalf("exit %d: %s", code, broken.Log())
			}
			out := h.Cortex("db", "rebuild")
			for _, want := range []string{"4 dispatches", "1 run, 1 wait, 1 completed, 1 failed", "cortex resume"} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in %q", want, out)
				}
			}
			if old, err := filepath.Glob(db + ".before-rebuild-*"); err != nil || (len(old) == 0) != (name == "gone") {
				t.Errorf("set aside: %v %v", old, err)
			}

			// A second time, for machines.
			if out := h.Cortex("db", "rebuild", "--force", "-o", "json"); !strings.Contains(out, `"failed":1`) || !strings.Contains(out, `"set_aside":"`+db) {
				t.Errorf("%s", out)
			}

			h.Start()
			if _, a := h.Get("/status"); a["scheduler_state"] != "paused" || a["running_count"] != 1.0 || a["pending_count"] != 1.0 {
				t.Errorf("%v", a)
			}
			if x := h.Field(failed, "exit_code"); h.Status(failed) != "failed" || x != "7" {
				t.Errorf("%s, exit code %s", h.Status(failed), x)
			}
			if h.Status(done) != "completed" || h.WaitRunning(runs) != agent {
				t.Errorf("%s, %v", h.Status(done), h.WaitRunning(runs))
			}
			if next := h.Submit("next", "true"); next <= waits {
				t.Errorf("id %s after %s", next, waits)
			}
			if code, a := h.Post("/scheduler/resume", ""); code != 200 || a["message"] != "Scheduler resumed" {
				t.Errorf("resume: %d %v", code, a)
			}
			h.WaitStatus(waits, "completed")
			if code, a := h.Post("/dispatches/"+runs+"/cancel?wait=30s", `{"grace":"0s"}`); code != 200 {
				t.Errorf("cancel: %d %v", code, a)
			}
		})
	}
}

// A daemon that runs keeps its database.
func TestRebuildIsRefusedWhileADaemonRuns(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	if _, errout, code := h.Try(filepath.Join(h.Bin, "cortex"), "db", "rebuild", "--force"); code != 1 || !strings.Contains(errout, "another cortex runs") {
		t.Errorf("exit %d, %s", code, errout)
	}
	h.WaitStatus(h.Submit("next", "true"), "completed")
}
