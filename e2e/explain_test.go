package e2e

import (
	"fmt"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

// The reason why a dispatch waits is told, gate by gate, and the order in which the others go.
func TestExplain(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=2", "CORTEX_PROJECTS__web__MAX_CONCURRENT=1"}
	h.Start()
	explain := func(id string) string {
		code, a := h.Get("/dispatches/" + id + "/explain")
		if code != 200 {
			t.Fatalf("%d %v", code, a)
		}
		return fmt.Sprint(a["summary"])
	}
	says := func(id, want string) {
		t.Helper()
		if got := explain(id); !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	sleep := []string{"sleep", "100000"}
	runs := submitIn(h, "web", "", sleep...)
	h.WaitRunning(runs)
	says(runs, "Dispatch "+runs+" runs for ")
	behind := submitIn(h, "web", "", "true")
	says(behind, "Dispatch "+behind+" waits: 1 of at most 1 of the project web run")
	other := submitIn(h, "other", "", sleep...)
	h.WaitRunning(other)
	third := submitIn(h, "other", "", "true")
	says(third, "waits: 2 of at most 2 run")
	says(behind, "2 of at most 2 run (and 1 more)")
	h.Post("/scheduler/pause", `{"reason":"upgrade","by":"ann","ttl":"1h"}`)
	says(third, "by ann: upgrade (and 1 more)")

	_, a := h.Get("/dispatches/" + third + "/explain")
	gates, _ := a["gates"].([]any)
	if first, _ := gates[0].(map[string]any); len(gates) != 3 || first["name"] != "hold" || first["open"] != false || first["until"] == nil || a["ahead"] != 1.0 {
		t.Errorf("%v", a)
	}
	out := h.Cortex("explain", third)
	if !strings.Contains(out, "GATE") || !strings.Contains(out, "slots  shut   2 of at most 2 run") {
		t.Errorf("cortex explain: %s", out)
	}
	_, q := h.Get("/scheduler/queue?limit=5")
	next, _ := q["next"].([]any)
	held, _ := q["held"].([]any)
	if q["waiting"] != 2.0 || len(next) != 1 || len(held) != 1 || fmt.Sprint(next[0].(map[string]any)["id"]) != third ||
		held[0].(map[string]any)["count"] != 1.0 {
		t.Errorf("%v", q)
	}
	if out := h.Cortex("explain"); !strings.Contains(out, "2 wait") || !strings.Contains(out, "of the project web run") {
		t.Errorf("cortex explain: %s", out)
	}
	byHand := h.SQL("INSERT INTO dispatches (bead_id) VALUES ('hand') RETURNING id")
	says(byHand, "inserted by hand")
	h.Post("/dispatches/"+runs+"/cancel?wait=30s", `{"grace":"0s"}`)
	says(runs, "Dispatch "+runs+" was cancelled after ")
	h.Post("/dispatches/"+other+"/cancel?wait=30s", `{"grace":"0s"}`)
	h.Post("/scheduler/resume", "")
	h.WaitStatus(third, "completed")
	says(third, "completed with exit status 0 after ")
	failed := submitIn(h, "web", "", "false")
	h.WaitStatus(failed, "failed")
	says(failed, ": exit_nonzero")
	for _, path := range []string{"/dispatches/99/explain", "/dispatches/b/explain"} {
		if code, a := h.Get(path); code != 404 || a["reason"] != "not_found" {
			t.Errorf("%s: %d %v", path, code, a)
		}
	}
	if code, a := h.Get("/scheduler/queue?limit=0"); code != 400 || a["reason"] != "bad_query" {
		t.Errorf("%d %v", code, a)
	}
	if _, stderr, code := cli(h, "explain", "1", "--limit", "3"); code != 2 || !strings.Contains(stderr, "--limit is for the queue") {
		t.Errorf("%d %s", code, stderr)
	}
}
