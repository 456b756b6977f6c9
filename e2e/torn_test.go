package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

// Folders in runs/ that are damaged, as a crash, a full disk or an agent may leave them, never stop the rest: each is taken in
// as far as it goes, or reported and left as it is.
func TestTornFolders(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	whole := h.Submit("whole", "sh", "-c", "exit 7")
	h.WaitStatus(whole, "failed")
	gate := filepath.Join(h.Home, "go")
	torn := map[string]string{} // what is done to it: its id
	for _, harm := range []string{"exit record cut off", "exit record empty", "log empty", "claim a link", "spec cut off"} {
		torn[harm] = h.Submit(strings.ReplaceAll(harm, " ", "-"), "sh", "-c", "until [ -e "+gate+" ]; do sleep 0.02; done; echo said; exit 9")
		h.WaitRunning(torn[harm])
	}
	testenv.Eventually(t, "all starts in the database", func() bool {
		return h.SQL("SELECT count(*) FROM dispatches WHERE pid > 0") == "6"
	})
	d.Kill()
	h.Run("touch", gate)
	file := func(harm, name string) string { return filepath.Join(h.State, "runs", torn[harm], name) }
	for harm := range torn {
		testenv.Eventually(t, "its end on disk", func() bool {
			_, err := os.Stat(file(harm, "1/exit.json"))
			return err == nil
		})
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Truncate(file("exit record cut off", "1/exit.json"), 40))
	must(os.Truncate(file("exit record empty", "1/exit.json"), 0))
	must(os.Truncate(file("log empty", "1/output.log"), 0))
	must(os.Remove(file("claim a link", "1/claim.json")))
	must(os.Symlink("/etc/passwd", file("claim a link", "1/claim.json")))
	must(os.Truncate(file("spec cut off", "spec.json"), 30))
	// Folders of nobody: without a spec, with half of one, with a name that is no id.
	for _, name := range []string{"500", "501", "no-id", "007"} {
		must(os.Mkdir(filepath.Join(h.State, "runs", name), 0o700))
	}
	must(os.WriteFile(filepath.Join(h.State, "runs", "501", "spec.json"), []byte(`{"format":1,"id":501,"be`), 0o600))

	h.Start()
	for harm, want := range map[string]string{
		"exit record cut off": "lost ", "exit record empty": "lost ", "log empty": "exit_nonzero 9",
		"claim a link": "exit_nonzero 9", "spec cut off": "exit_nonzero 9",
	} {
		id := torn[harm]
		h.WaitStatus(id, "failed")
		if got := h.Field(id, "failure_category") + " " + h.Field(id, "exit_code"); got != want {
			t.Errorf("%s: %q, want %q", harm, got, want)
		}
	}
	if got := h.SQL("SELECT count(*) FROM health_events WHERE event_type = 'run_unreadable' AND dispatch_id = 501"); got != "1" {
		t.Errorf("%s reports of half a spec", got)
	}
	if _, err := os.Stat(filepath.Join(h.State, "runs", "500")); !os.IsNotExist(err) {
		t.Errorf("a folder that was never answered for: %v", err)
	}
	next := h.Submit("next", "true")
	h.WaitStatus(next, "completed")
	if len(next) < 3 || next <= "501" {
		t.Errorf("id %s, though runs/501 is there", next)
	}
	if h.Status(whole) != "failed" || h.Field(whole, "exit_code") != "7" {
		t.Errorf("%s", h.Status(whole))
	}
}
