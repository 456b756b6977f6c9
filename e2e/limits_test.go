package e2e

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

// submitIn submits a dispatch of a project and an agent (none where it is empty).
func submitIn(h *testenv.Host, project, agent string, command ...string) string {
	args := []string{"submit", "--bead", "b", "--project", project}
	if agent != "" {
		args = append(args, "--agent", agent)
	}
	return strings.TrimSpace(h.Cortex(append(append(args, "--"), command...)...))
}

// awaitRunning waits until just these have a process.
func awaitRunning(t *testing.T, h *testenv.Host, ids ...string) {
	t.Helper()
	slices.Sort(ids)
	testenv.Eventually(t, "to run: "+strings.Join(ids, " "), func() bool {
		got := strings.Fields(h.SQL("SELECT id FROM dispatches WHERE status = 'running' AND stage = 'running'"))
		slices.Sort(got)
		return slices.Equal(got, ids)
	})
}

// Limits of projects and agents hold for what is adopted, too; what has room starts past what has none.
func TestLimits(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_SCHEDULER__MAX_PER_PROJECT=1", "CORTEX_PROJECTS__big__MAX_CONCURRENT=2",
		"CORTEX_AGENTS__claude__MAX_CONCURRENT=2"}
	d := h.Start()
	h.Post("/scheduler/pause", "")
	sleep := []string{"sleep", "100000"}
	one := submitIn(h, "one", "", sleep...)
	oneNext := submitIn(h, "one", "", sleep...)
	big, bigToo := submitIn(h, "big", "claude", sleep...), submitIn(h, "big", "claude", sleep...)
	submitIn(h, "big", "", sleep...)
	claudeNext := submitIn(h, "two", "claude", sleep...)
	free := submitIn(h, "three", "codex", sleep...)
	h.Post("/scheduler/resume", "")
	awaitRunning(t, h, one, big, bigToo, free)

	d.Kill()
	h.Start()
	late := submitIn(h, "four", "", sleep...)
	awaitRunning(t, h, one, big, bigToo, free, late) // a start came after the adoption, and only its own
	h.Post("/dispatches/"+one+"/cancel?wait=30s", `{"grace":"0s"}`)
	awaitRunning(t, h, oneNext, big, bigToo, free, late)
	h.Post("/dispatches/"+big+"/cancel?wait=30s", `{"grace":"0s"}`)
	testenv.Eventually(t, "claude's next to start", func() bool { return h.Status(claudeNext) == "running" })
	h.Post("/dispatches/cancel", `{"status":"pending"}`)
	h.Post("/dispatches/cancel?wait=30s", `{"status":"running","grace":"0s"}`)
}

// Limits and ageing of a file that is read again count at once, for what waits already; a table that is gone counts no more.
func TestLimitsReloaded(t *testing.T) {
	t.Parallel()
	h, _, file := configured(t, "[projects.\"my.shop\"]\nmax_concurrent = 1\n")
	sleep := []string{"sleep", "100000"}
	one := submitIn(h, "my.shop", "", sleep...)
	h.WaitRunning(one)
	two, three := submitIn(h, "my.shop", "", sleep...), submitIn(h, "my.shop", "", sleep...)
	writeFile(t, file, "[projects.\"my.shop\"]\nmax_concurrent = 2\n[scheduler]\nageing = \"1h\"\n", 0o600)
	wantReload(t, h, "projects.my.shop.max_concurrent scheduler.ageing", "")
	awaitRunning(t, h, one, two)
	writeFile(t, file, "", 0o600)
	wantReload(t, h, "projects.my.shop.max_concurrent projects.my.shop.max_starts_per_minute scheduler.ageing", "")
	awaitRunning(t, h, one, two, three)
	h.Post("/dispatches/cancel?wait=30s", `{"status":"running","grace":"0s"}`)
}

// A limit of starts survives the daemon: it is counted from the database.
func TestStartsPerMinute(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_SCHEDULER__MAX_STARTS_PER_MINUTE=2"}
	d := h.Start()
	var ids []string
	for range 4 {
		ids = append(ids, h.Submit("b", "true"))
	}
	two := func() bool { return h.SQL("SELECT count(*) FROM dispatches WHERE status = 'completed'") == "2" }
	testenv.Eventually(t, "two to complete", two)
	d.Kill()
	d = h.Start()
	urgent := strings.TrimSpace(h.Cortex("submit", "--bead", "b", "--priority", "0", "--", "true"))
	if got := h.Status(urgent); got != "pending" || !two() {
		t.Errorf("after the restart: %s", got)
	}
	d.Kill()
	h.SQL("UPDATE dispatches SET dispatched_at = datetime('now', '-61 seconds') WHERE dispatched_at IS NOT NULL")
	h.Start()
	h.WaitStatus(urgent, "completed")
	h.WaitStatus(ids[2], "completed")
	if got := h.Status(ids[3]); got != "pending" {
		t.Errorf("a fifth within a minute of the third: %s", got)
	}
}

// A restored backup does not know a change that was answered: it is taken in from runs/.
func TestChangeOutlivesARestore(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	h.Post("/scheduler/pause", "")
	id := h.Submit("b", "true")
	backup := h.Home + "/backup.db"
	h.SQL("VACUUM INTO '" + backup + "'")
	h.Cortex("update", id, "--priority", "0", "--not-before", "2033-01-01T00:00:00Z")
	d.Stop()
	h.Cortex("db", "restore", backup)
	h.Start()
	if p, at := h.Field(id, "priority"), h.Field(id, "not_before"); p != "0" || at != "2033-01-01T00:00:00Z" {
		t.Errorf("after the restore: priority %s, not before %s", p, at)
	}
}

// What has waited long enough goes before what is more urgent.
func TestAgeing(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=1", "CORTEX_SCHEDULER__AGEING=1h"}
	h.Start()
	h.Post("/scheduler/pause", "")
	submit := func(name, priority string) string {
		return strings.TrimSpace(h.Cortex("submit", "--bead", name, "--priority", priority, "--workdir", h.Home, "--",
			"sh", "-c", "echo "+name+" >> order"))
	}
	submit("old", "3")
	submit("first", "0")
	last := submit("last", "4")
	submit("mid", "2")
	h.SQL("UPDATE dispatches SET created_at = datetime('now', '-4 hours') WHERE bead_id = 'old'")
	h.Post("/scheduler/resume", "")
	h.WaitStatus(last, "completed")
	if got := strings.Fields(h.Run("cat", h.Home+"/order")); fmt.Sprint(got) != "[old first mid last]" {
		t.Errorf("started in the order %v", got)
	}
}

// holdOf returns the reason of the hold of that kind, empty where there is none.
func holdOf(h *testenv.Host, kind string) string {
	_, a := h.Get("/scheduler/status")
	holds, _ := a["holds"].([]any)
	for _, one := range holds {
		if hold, _ := one.(map[string]any); hold["kind"] == kind {
			return fmt.Sprint(hold["reason"])
		}
	}
	return ""
}

// Nothing starts while the host has less memory than it should, or more load; the reason is told.
func TestHostMarks(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_SCHEDULER__MIN_MEMORY=1PiB", "CORTEX_SCHEDULER__MAX_LOAD=1"}
	d := h.Start()
	id := h.Submit("b", "true")
	testenv.Eventually(t, "the hold of memory", func() bool { return strings.Contains(holdOf(h, "memory"), "MiB of memory are available") })
	busy := exec.Command("sh", "-c", "while :; do :; done")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the hold of load", func() bool { return strings.Contains(holdOf(h, "load"), "the load is") })
	if err := busy.Process.Kill(); err != nil {
		t.Error(err)
	}
	busy.Wait() // killed
	if got := h.Status(id); got != "pending" {
		t.Errorf("it is %s", got)
	}
	if got := h.SQL("SELECT group_concat(DISTINCT event_type) FROM health_events WHERE event_type IN ('memory_low', 'load_high')"); !strings.Contains(got, "memory_low") || !strings.Contains(got, "load_high") {
		t.Errorf("events: %s", got)
	}
	d.Stop()
	h.Extra = nil
	h.Start()
	h.WaitStatus(id, "completed")
}
