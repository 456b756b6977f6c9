package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

// What waits gets another turn and another timeout; both are in runs/, too, from which the database can be made anew.
func TestChangeWhatWaits(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=1"}
	d := h.Start()
	h.Post("/scheduler/pause", "")
	submit := func(name string, command string) string {
		return strings.TrimSpace(h.Cortex("submit", "--bead", name, "--workdir", h.Home, "--timeout", "1h", "--", "sh", "-c", command))
	}
	first := submit("first", "echo first >> order")
	second := submit("second", "echo second >> order")
	endless := submit("endless", "echo endless >> order; exec sleep 100000")
	code, a := h.Ask("PATCH", "/dispatches/"+second, `{"priority":0,"by":"ann"}`)
	if code != 200 || a["priority"] != 0.0 || a["timeout"] != "1h" || a["status"] != "pending" {
		t.Fatalf("%d %v", code, a)
	}
	if got := h.Cortex("update", endless, "--timeout", "1s", "--priority", "4"); got != "Dispatch "+endless+" waits with priority 4, timeout 1s, at once" {
		t.Errorf("cortex update: %q", got)
	}
	if got := h.SQL("SELECT json_extract(details, '$.by', '$.priority') FROM health_events WHERE event_type = 'dispatch_changed' AND dispatch_id = " + second); got != `["ann",[2,0]]` {
		t.Errorf("event: %s", got)
	}

	d.Stop()
	h.Cortex("db", "rebuild", "--force")
	h.Start()
	if got := h.SQL("SELECT group_concat(id || ':' || priority) FROM (SELECT * FROM dispatches ORDER BY id)"); got != fmt.Sprintf("%s:2,%s:0,%s:4", first, second, endless) {
		t.Errorf("after the rebuild: %s", got)
	}
	h.Post("/scheduler/resume", "")
	h.WaitStatus(endless, "failed")
	if got := h.Field(endless, "failure_category"); got != "timeout" {
		t.Errorf("the new timeout: %s", got)
	}
	if got := strings.Fields(h.Run("cat", h.Home+"/order")); fmt.Sprint(got) != "[second first endless]" {
		t.Errorf("started in the order %v", got)
	}

	for _, c := range []struct{ path, body, reason string }{
		{first, `{"priority":1}`, "not_pending"},
		{"99", `{"priority":1}`, "not_found"},
		{"second", `{"priority":1}`, "not_found"},
		{first, `{"priority":5}`, "bad_value"},
		{first, `{"priority":"high"}`, "bad_value"},
		{first, `{"timeout":"-1s"}`, "bad_value"},
		{first, `{"timeout":"1us"}`, "bad_value"},
		{first, `{}`, "bad_value"},
		{first, `{"command":["true"]}`, "unknown_field"},
		{first, `{"not_before":"tomorrow"}`, "bad_value"},
		{first, `{"not_before":"9999-12-31T23:59:59-01:00"}`, "bad_value"},
		{first, `{"not_before":"0000-01-01T00:00:00+01:00"}`, "bad_value"},
	} {
		if _, a := h.Ask("PATCH", "/dispatches/"+c.path, c.body); a["reason"] != c.reason || a["hint"] == "" {
			t.Errorf("%s %s: %v", c.path, c.body, a)
		}
	}
	if _, stderr, code := cli(h, "update", first); code != 2 || !strings.Contains(stderr, "--priority, --timeout or --not-before") {
		t.Errorf("nothing to change: %d %s", code, stderr)
	}
	if _, stderr, code := cli(h, "update", first, "--priority", "1"); code != 1 || !strings.Contains(stderr, "is completed") {
		t.Errorf("what has ended: %d %s", code, stderr)
	}
}

// What is not to be started before a time waits for it, and is out of the others' way; the time can be changed.
func TestNotBefore(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=1"}
	d := h.Start()
	submit := func(at string) string {
		return strings.TrimSpace(h.Cortex("submit", "--bead", "b", "--priority", "0", "--not-before", at, "--", "true"))
	}
	soon, late, past := submit("3s"), submit("2033-01-01T00:00:00Z"), submit("2001-01-01T00:00:00Z")
	plain := h.Submit("b", "true")
	h.WaitStatus(past, "completed")
	h.WaitStatus(plain, "completed")
	d.Kill()
	d = h.Start()
	h.WaitStatus(soon, "completed")
	if got := h.SQL("SELECT dispatched_at >= not_before AND julianday(dispatched_at) - julianday(not_before) < 1.0 / 86400 FROM dispatches WHERE id = " + soon); got != "1" {
		t.Errorf("started at another time: %s", h.SQL("SELECT dispatched_at, not_before FROM dispatches WHERE id = "+soon))
	}
	if _, a := h.Get("/dispatches/" + late + "/explain"); a["summary"] != "Dispatch "+late+" waits: not before 2033-01-01T00:00:00Z" {
		t.Errorf("%v", a)
	}
	if _, q := h.Get("/scheduler/queue"); !strings.Contains(fmt.Sprint(q["held"]), "not before a time of its own") || q["waiting"] != 1.0 {
		t.Errorf("%v", q)
	}
	d.Stop()
	h.Cortex("db", "rebuild", "--force")
	h.Start()
	if got := h.Field(late, "not_before"); got != "2033-01-01T00:00:00Z" || h.Status(late) != "pending" {
		t.Errorf("after the rebuild: %s, %s", got, h.Status(late))
	}
	h.SQL("UPDATE dispatches SET not_before = '2032-01-01' WHERE id = " + late)
	if code, a := h.Ask("PATCH", "/dispatches/"+late, `{"priority":1}`); code != 200 || a["not_before"] != "2032-01-01T00:00:00Z" {
		t.Errorf("what was written by hand: %d %v", code, a)
	}
	h.Cortex("update", late, "--not-before", "0s")
	h.Post("/scheduler/resume", "") // a rebuild leaves it paused
	h.WaitStatus(late, "completed")
}

// A daemon that dies in the middle of a change has made all of it or nothing.
func TestDeathWithinChange(t *testing.T) {
	t.Parallel()
	for point, want := range map[string]string{"change.spec": "2 1h", "change.committed": "0 5m"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := faulty(t, point+":kill")
			d := h.Start()
			h.Post("/scheduler/pause", "")
			id := strings.TrimSpace(h.Cortex("submit", "--bead", "b", "--timeout", "1h", "--", "true"))
			if _, _, code := cli(h, "update", id, "--priority", "0", "--timeout", "5m"); code != 69 {
				t.Errorf("it was answered: exit %d", code)
			}
			dead(t, d)
			whole(h)
			h.Start()
			h.WaitStatus(id, "pending")
			testenv.Eventually(t, "what was cut off to be settled", func() bool {
				_, err := os.Stat(filepath.Join(h.State, "runs", id, "spec.new"))
				return os.IsNotExist(err)
			})
			if got := h.Field(id, "priority") + " " + h.Field(id, "timeout"); got != want {
				t.Errorf("priority and timeout %s, want %s", got, want)
			}
			h.Post("/scheduler/resume", "")
			h.WaitStatus(id, "completed")
		})
	}
}
