package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"cortex/internal/testenv"
)

// The folders of the first released format (testdata/format1: what was in runs/ after a kill -9 of the daemon, on a host that
// was restarted since) are understood by every later version. They are never changed; a new format gets a folder of its own.
func TestFirstFormat(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	if err := os.MkdirAll(h.State, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(h.State, "runs"), os.DirFS("testdata/format1")); err != nil {
		t.Fatal(err)
	}
	h.Cortex("db", "rebuild")
	h.Start()
	for id, want := range map[string]string{
		"1": "completed  0  old",
		"2": "failed exit_nonzero 7  old",
		"3": "failed signal 137  old",
		"4": "failed spawn_error   old",
		"5": "cancelled  143 operator old",
		"6": "failed lost   old",
		"7": "cancelled   operator old",
		"8": "pending    old",
	} {
		testenv.Eventually(t, "dispatch "+id+" to be taken in", func() bool { return h.Status(id) != "running" })
		got := h.Status(id)
		for _, field := range []string{"failure_category", "exit_code", "stopped_by", "project"} {
			got += " " + h.Field(id, field)
		}
		if got != want {
			t.Errorf("dispatch %s: %q, want %q", id, got, want)
		}
	}
	if out := h.Cortex("logs", "1"); out != "said\r" {
		t.Errorf("log %q", out)
	}
	if p, key := h.Field("2", "priority"), h.Field("2", "idempotency_key"); p != "1" || key != "night-1" {
		t.Errorf("priority %s, key %s", p, key)
	}
	if _, a := h.Get("/dispatches/5"); a["timeout"] != "1h" {
		t.Errorf("timeout %v", a["timeout"])
	}
	h.Post("/scheduler/resume", "")
	h.WaitStatus("8", "completed")
	if next := h.Submit("next", "true"); next != "9" {
		t.Errorf("next id %s", next)
	}
}
