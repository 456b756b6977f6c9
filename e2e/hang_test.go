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

// hangWhile makes the daemon hang at fault points while the file is there whose path it returns.
func hangWhile(h *testenv.Host, points ...string) string {
	file := filepath.Join(h.Home, "hang")
	h.Extra = append(h.Extra, "CORTEX_FAULT="+strings.Join(points, ":while,")+":while", "CORTEX_FAULT_WHILE="+file)
	return file
}

func hungWrite(t *testing.T, point string, end func(*testenv.Daemon)) {
	h := testenv.New(t)
	hang := hangWhile(h, point)
	f := startFive(t, h, "echo ran >> "+h.Home+"/ran; exit 3")
	if err := os.WriteFile(hang, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	h.Run("sh", "-c", "echo > "+f.gate)
	testenv.Eventually(t, "its end", func() bool { return h.Status(f.ends) == "failed" && h.Field(f.ends, "exit_code") == "7" })
	journalled(t, h, "/scheduler/pause", `{"reason":"hung","by":"ann"}`)
	journalled(t, h, "/dispatches/"+f.cancelled+"/cancel?wait=30s", `{"grace":"0s"}`)
	journalled(t, h, "/dispatches/"+f.never+"/cancel", "")
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
		end(f.d)
	}
	if err := os.Remove(hang); err != nil {
		t.Fatal(err)
	}
	if end != nil {
		h.Start()
	}
	awaitFive(t, h)
	awaitHealth(t, h)
	if n := h.SQL("SELECT count(*) FROM health_events WHERE event_type = 'database_hung'"); end == nil && n != "1" {
		t.Errorf("%s events tell of it", n)
	}
	if _, a := h.Get("/scheduler/status"); a["state"] != "paused" || a["paused_by"] != "ann" || strings.Contains(fmt.Sprint(a["holds"]), "hangs") {
		t.Errorf("%v", a)
	}
	if ran(h) != 0 || f.cancelledAgent.Alive() || !f.agent.Alive() {
		t.Errorf("ran %d, alive %v and %v", ran(h), f.cancelledAgent.Alive(), f.agent.Alive())
	}
	if code, a := h.Post("/scheduler/resume", ""); code != http.StatusOK {
		t.Errorf("resume: %d %v", code, a)
	}
	h.WaitStatus(f.waits, "failed")
	if ran(h) != 1 {
		t.Errorf("ran %d times", ran(h))
	}
	h.Post("/dispatches/"+f.runs+"/cancel?wait=30s", `{"grace":"0s"}`)
}

// All of the file system hangs, the stop journal's too: nothing can be made durable, and so a pause is not answered. What needs
// no write is, /health names both, the daemon can be stopped, and the pause is in force when the file system answers.
func TestHungFileSystem(t *testing.T) {
	t.Parallel()
	for _, stopped := range []bool{false, true} {
		t.Run(fmt.Sprint("stopped ", stopped), func(t *testing.T) {
			t.Parallel()
			h := testenv.New(t)
			hang := hangWhile(h, "store.commit", "journal.write")
			d := h.Start()
			id := h.Submit("runs", "sleep", "100000")
			agent := h.WaitRunning(id)
			startsKnown(t, h, 1)
			if err := os.WriteFile(hang, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			answered := make(chan int, 1)
			go func() {
				code, _ := h.Post("/scheduler/pause", "")
				answered <- code
			}()
			awaitFault(t, h, "stop_journal", "hung since", "does not answer")
			awaitFault(t, h, "database", "hangs", "has not answered since")
			if _, a := h.Get("/status"); a["running_count"] != 1.0 {
				t.Errorf("%v", a)
			}
			select {
			case code := <-answered:
				t.Errorf("a pause that is not durable was answered: %d", code)
			default:
			}
			if stopped {
				if err := syscall.Kill(d.PID(), syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				<-d.Done()
			}
			if err := os.Remove(hang); err != nil {
				t.Fatal(err)
			}
			if stopped {
				<-answered
				h.Start()
			} else {
				if code := <-answered; code != http.StatusOK {
					t.Errorf("pause: %d", code)
				}
				if _, a := h.Get("/status"); a["scheduler_state"] != "paused" {
					t.Errorf("%v", a)
				}
			}
			awaitHealth(t, h)
			if !agent.Alive() {
				t.Error("what ran was ended")
			}
			h.Post("/dispatches/"+id+"/cancel?wait=30s", `{"grace":"0s"}`)
			h.WaitStatus(id, "cancelled")
		})
	}
}
