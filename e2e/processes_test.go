package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"cortex/internal/testenv"
)

// forksOn forks for ever, and takes each process that becomes free (perl is essential in Debian).
const forksOn = `for (;;) {
	my $child = fork;
	if (!defined $child) { select undef, undef, undef, 0.001 }
	elsif ($child == 0) { exec "sleep", "100000" or exit 1 }
}`

// An agent forks until the kernel refuses: what is kept for cortex lets the daemon, the runners and tmux go on, also a daemon
// that is started then. The others end with their true exit status, what can't be started waits, and the agent is cancelled
// without a process left.
func TestProcessesUsedUp(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	counted := 1<<20 + os.Getpid() // a user of this test alone: the kernel counts all processes of a user together
	if !h.AsUser(counted) {
		t.Log("an unprivileged user's processes can't be counted apart from what else it runs: nothing is tested here")
		return
	}
	h.Limits = []string{"prlimit", "--nproc=140:140"}
	d := h.Start()
	gate := newTurnstile(t, h, "gate")
	ends := h.Submit("ends", gate.command(h, 7)...)
	cancelled := h.Submit("cancelled", "sleep", "100000")
	h.WaitRunning(ends)
	agents := []interface{ Alive() bool }{h.WaitRunning(cancelled)}
	bomb := h.Submit("bomb", "perl", "-e", forksOn)
	agents = append(agents, h.WaitRunning(bomb))
	awaitFault(t, h, "processes", "of 140 processes and threads of this user", "LimitNPROC", fmt.Sprint("ps -u ", counted))

	_, late := h.Post("/dispatches", fmt.Sprintf(`{"bead_id":"late","command":["sh","-c","echo ran >> %s/ran"]}`, h.Home))
	id := fmt.Sprint(late["id"])
	awaitFault(t, h, "starts", "fork", "processes")
	if s := h.Status(id); s != "pending" && s != "running" {
		t.Errorf("what can't be started is %s", s)
	}
	askMuch(t, h)
	gate.pass(1)
	h.WaitStatus(ends, "failed")
	if x := h.Field(ends, "exit_code"); x != "7" {
		t.Errorf("exit code %s", x)
	}
	d.Kill()
	d = h.Start()
	if _, a := h.Get("/status"); a["running_count"].(float64) < 2 {
		t.Errorf("taken in by the next daemon: %v", a)
	}
	for _, id := range []string{cancelled, bomb} {
		if code, a := h.Post("/dispatches/"+id+"/cancel?wait=60s", `{"grace":"0s"}`); code != http.StatusOK {
			t.Errorf("cancel: %d %v", code, a)
		}
		h.WaitStatus(id, "cancelled")
	}
	for i, a := range agents {
		if a.Alive() {
			t.Errorf("agent %d lives", i)
		}
	}
	h.WaitStatus(id, "completed")
	awaitHealth(t, h)
	if got := h.SQL("SELECT count(*) FROM dispatches WHERE retries > 0 OR failure_category = 'lost'"); got != "0" || ran(h) != 2 {
		t.Errorf("%s lost or tried again, ran %d times", got, ran(h))
	}
	if _, a := h.Get("/status"); a["pid"] != float64(d.PID()) {
		t.Errorf("the daemon is another one: %v", a)
	}
}

// askMuch asks in many ways at once, so that the daemon needs threads.
func askMuch(t *testing.T, h *testenv.Host) {
	t.Helper()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for _, path := range []string{"/status", "/dispatches", "/dispatches/1", "/scheduler/status"} {
				if code, text := h.AskText(http.MethodGet, path, ""); code != http.StatusOK {
					t.Errorf("%s: %d %s", path, code, text)
				}
			}
		})
	}
	wg.Wait()
}

// A runner with too few descriptors to start its agent ends the dispatch in words that say so.
func TestRunnerWithFewDescriptors(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	script := filepath.Join(h.Home, "runner")
	text := "#!/bin/sh\n[ -e ~/many ] || ulimit -n 15\nexec " + filepath.Join(h.Bin, "cortex-runner") + ` "$@"` + "\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	h.Extra = []string{"CORTEX_RUNNER__BINARY=" + script}
	h.Start()
	id := h.Submit("few", "true")
	h.WaitStatus(id, "failed")
	if c, s := h.Field(id, "failure_category"), h.Field(id, "failure_summary"); c != "spawn_error" || !strings.Contains(s, "ulimit -n") {
		t.Errorf("%s: %s", c, s)
	}
	h.Run("touch", h.Home+"/many")
	h.WaitStatus(h.Submit("many", "true"), "completed")
}
