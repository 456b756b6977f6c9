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

// setuidRole makes the test binary, where it has root's setuid bit, a program that nobody else may signal: one whose real user
// is root as well (kill(2)).
const setuidRole = "CORTEX_E2E_SETUID"

func becomeRoot() {
	err := syscall.Setresuid(0, 0, 0)
	if err == nil {
		err = syscall.Exec("/bin/sleep", os.Args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// Processes that the daemon's user may not signal: a setuid program that a dispatch has started. It is told with pid and
// command, the dispatch counts as running, and it is cancelled only when they are gone.
func TestCancelFails(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	if !h.AsNobody() {
		t.Log("only root can make a program that changes its user: nothing is tested here")
		return
	}
	stubborn := filepath.Join(h.Home, "stubborn")
	program, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(stubborn, program, 0o755)
	}
	if err == nil {
		err = os.Chmod(stubborn, 0o755|os.ModeSetuid) // of root, who made it
	}
	if err != nil {
		t.Fatal(err)
	}
	h.Start()
	pids := filepath.Join(h.Home, "pids")
	id := h.Submit("b", "sh", "-c", setuidRole+`=1 setsid `+stubborn+` 100000 & echo $! >> "$1"; sleep 100000`, "x", pids)
	testenv.Eventually(t, "the program that is root's", func() bool {
		all := readPids(pids)
		if len(all) != 1 {
			return false
		}
		out, _, _ := h.Try("ps", "-o", "ruser=,comm=", "-p", fmt.Sprint(all[0]))
		return strings.Contains(out, "root") && strings.Contains(out, "sleep")
	})
	pid := readPids(pids)[0]
	if code, a := h.Post("/dispatches/"+id+"/cancel?wait=500ms", `{"grace":"0s"}`); code != http.StatusGatewayTimeout || a["reason"] != "wait_timeout" {
		t.Errorf("cancel: %d %v", code, a)
	}
	testenv.Eventually(t, "its stage", func() bool { return h.Field(id, "stage") == "cancel_failed" })
	told := fmt.Sprintf("pid %d (uid 0) %s", pid, stubborn)
	testenv.Eventually(t, "the event", func() bool {
		return strings.Contains(h.SQL("SELECT message FROM health_events WHERE event_type = 'cancel_failed' AND type = 'error'"), told)
	})
	awaitFault(t, h, "dispatches", told, "cortex goes on trying")
	if _, a := h.Get("/status"); a["running_count"] != 1.0 || h.Status(id) != "running" || !alive(pid) {
		t.Errorf("%v, %s, alive %v", a, h.Status(id), alive(pid))
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.WaitStatus(id, "cancelled")
	awaitHealth(t, h)
	if n := h.SQL("SELECT count(*) FROM health_events WHERE event_type = 'cancel_failed'"); n != "1" {
		t.Errorf("%s events, tried again or not", n)
	}
}
