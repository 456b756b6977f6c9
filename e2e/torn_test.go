package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cortex/internal/testenv"
	"cortex/proc"
	"cortex/runner/record"
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
	for what, id := range map[string]string{"half a spec": "501", "half an exit record": torn["exit record cut off"], "a link": torn["claim a link"]} {
		testenv.Eventually(t, "a report of "+what, func() bool {
			return h.SQL("SELECT count(*) FROM health_events WHERE event_type = 'run_unreadable' AND dispatch_id = "+id) == "1"
		})
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

// Records that a newer cortex has written say nothing to this one: their dispatches count as running, are left alone, and are
// taken in by who can read them. A claim that is damaged is somebody's: nothing is started in its place, and who listens there
// is followed.
func TestClaimsThatCantBeRead(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	gate := h.Home + "/gate"
	newer := h.Submit("newer", gated(h, h.Home+"/never")...)
	ended := h.Submit("ended", gated(h, gate)...)
	torn := h.Submit("torn", gated(h, h.Home+"/never")...)
	starting := h.Submit("starting", gated(h, h.Home+"/never")...)
	startsKnown(t, h, 4)
	agents := map[string]proc.Ident{}
	for _, id := range []string{newer, torn, starting} {
		agents[id] = h.WaitRunning(id)
	}
	d.Kill()
	h.Run("touch", gate)
	waitFile(t, filepath.Join(h.State, "runs", ended, "1", record.ExitFile))
	was := map[string][]byte{}
	change := func(id, name string, to func([]byte) []byte) {
		t.Helper()
		path := filepath.Join(h.State, "runs", id, "1", name)
		data, err := os.ReadFile(path)
		if err == nil {
			was[path] = data
			err = os.WriteFile(path, to(data), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	raise := func(data []byte) []byte { return bytes.Replace(data, []byte(`"format":1`), []byte(`"format":99`), 1) }
	half := func(data []byte) []byte { return data[:len(data)/2] }
	change(newer, record.ClaimFile, raise)
	change(ended, record.ExitFile, raise)
	change(torn, record.ClaimFile, half)
	change(starting, record.ClaimFile, half)
	// As if its start had not come into the database, and as in an older backup: there are no rows, or rows that wait.
	h.SQL("UPDATE dispatches SET status = 'pending', stage = NULL, attempts = 0, pid = NULL WHERE id = " + starting)
	h.SQL("DELETE FROM dispatches WHERE id = " + newer)

	h.Start()
	reports := func(id string) string {
		return h.SQL("SELECT count(*) FROM health_events WHERE event_type = 'run_unreadable' AND dispatch_id = " + id)
	}
	for _, id := range []string{newer, ended, torn, starting} {
		testenv.Eventually(t, "the report on dispatch "+id, func() bool { return reports(id) == "1" })
	}
	testenv.Eventually(t, "the trouble in /health", func() bool {
		_, a := h.Get("/health")
		return strings.Count(fmt.Sprint(a["checks"]), "written by a newer cortex") == 2
	})
	if code, a := h.Post("/scheduler/pause", ""); code != 200 {
		t.Errorf("pause: %d %v", code, a)
	}
	for _, id := range []string{torn, starting} {
		if code, a := h.Post("/dispatches/"+id+"/cancel?wait=30s", `{"grace":"0s"}`); code != 200 || agents[id].Alive() {
			t.Errorf("cancel of a torn one: %d %v, alive %v", code, a, agents[id].Alive())
		}
	}
	if code, a := h.Post("/dispatches/"+newer+"/cancel", `{"grace":"0s"}`); code != 200 {
		t.Errorf("cancel of the newer one: %d %v", code, a)
	}
	if _, a := h.Get("/status"); a["running_count"] != 2.0 || !agents[newer].Alive() || h.Status(ended) != "running" {
		t.Errorf("%v; the newer one lives: %v, the ended one is %s", a["running_count"], agents[newer].Alive(), h.Status(ended))
	}
	for path, data := range was { // a newer cortex, which can read them
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.WaitStatus(newer, "cancelled")
	h.WaitStatus(ended, "failed")
	if x := h.Field(ended, "exit_code"); x != "7" || ran(h) != 4 || agents[newer].Alive() {
		t.Errorf("exit code %s, %d starts of 4 dispatches, the newer one lives: %v", x, ran(h), agents[newer].Alive())
	}
	testenv.Eventually(t, "health", func() bool { code, _ := h.Get("/health"); return code == 200 })
}
