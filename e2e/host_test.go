package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"cortex/internal/testenv"
	"cortex/proc"
	"cortex/runner/record"
)

// attempt opens the folder of a dispatch's first attempt.
func attempt(t *testing.T, h *testenv.Host, id string) *record.Dir {
	t.Helper()
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := record.OpenDir(filepath.Join(h.State, "runs"), n, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// claimOf is who has claimed a dispatch's first attempt.
func claimOf(t *testing.T, h *testenv.Host, id string) record.Claim {
	t.Helper()
	var c record.Claim
	if err := attempt(t, h, id).Read(record.ClaimFile, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// processOf is a process on record.
func processOf(p record.Process) proc.Ident { return proc.Ident{PID: p.PID, Start: p.Start} }

// startedOf is the process of a dispatch's first attempt.
func startedOf(t *testing.T, h *testenv.Host, id string) record.Started {
	t.Helper()
	var s record.Started
	if err := attempt(t, h, id).Read(record.StartedFile, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// killBoth kills the runner of a dispatch, with which its agent dies. No daemon is needed.
func killBoth(t *testing.T, h *testenv.Host, id string) {
	t.Helper()
	runner, agent := processOf(claimOf(t, h, id).Runner), processOf(startedOf(t, h, id).Agent)
	if err := runner.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "runner and agent to be gone", func() bool { return !runner.Alive() && !agent.Alive() })
}

// reuse makes the records of a dispatch name other processes, as those of a dead runner and its agent do when their pids are
// used again: the pid is the other's, all else is as it was.
func reuse(t *testing.T, h *testenv.Host, id string, runner, agent int) {
	t.Helper()
	dir, claim, started := attempt(t, h, id), claimOf(t, h, id), startedOf(t, h, id)
	claim.Runner.PID, started.Agent.PID = runner, agent
	for name, v := range map[string]any{record.ClaimFile: claim, record.StartedFile: started} {
		if err := dir.Write(name, v); err != nil {
			t.Fatal(err)
		}
	}
}

// bystander is a process of the same user with the command line of a dispatch, and leads a session as an agent does.
func bystander(t *testing.T) proc.Ident {
	t.Helper()
	cmd := exec.Command("sleep", "100000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	id, err := proc.Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// gated is a command that says when it has run, and ends with the status 7 when the gate is there.
func gated(h *testenv.Host, gate string) []string {
	return []string{"sh", "-c", fmt.Sprintf("echo ran >> %s/ran; until [ -e %s ]; do sleep 0.02; done; exit 7", h.Home, gate)}
}

func waitFile(t *testing.T, path string) {
	t.Helper()
	testenv.Eventually(t, path, func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
}

// startsKnown waits until n dispatches have their process in the database.
func startsKnown(t *testing.T, h *testenv.Host, n int) {
	t.Helper()
	testenv.Eventually(t, "the starts in the database", func() bool {
		return h.SQL("SELECT count(*) FROM dispatches WHERE pid > 0") == strconv.Itoa(n)
	})
}

// powerCut ends all on the host at once, the daemon first and without a word: no runner lives to write how its dispatch ended.
// Then the host has another boot id, as only this test's mount namespace sees, and an empty /tmp.
func powerCut(t *testing.T, h *testenv.Host, d *testenv.Daemon, running ...string) {
	t.Helper()
	d.Kill()
	server := serverPID(t, h)
	for _, id := range running {
		killBoth(t, h, id)
	}
	if err := syscall.Kill(server, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "nothing to run", func() bool { return len(h.Processes()) == 0 })
	h.Run("sh", "-c", "rm -rf "+h.Tmux+"/*")
	boot := filepath.Join(h.Home, "boot_id")
	h.Run("cp", "/proc/sys/kernel/random/uuid", boot)
	if err := syscall.Mount(boot, "/proc/sys/kernel/random/boot_id", "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
}

// A host that is restarted: what ran is lost, and says why; what had ended, or was ordered to, has its true end; what waited
// starts; a pause stays a pause; and nobody who has a pid on record now is touched.
func TestReboot(t *testing.T) {
	t.Parallel()
	if !testenv.Namespace(t) {
		return
	}
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=3"}
	d := h.Start()
	gate, never := h.Home+"/gate", h.Home+"/never"
	lost := h.Submit("lost", gated(h, never)...)
	ended := h.Submit("ended", gated(h, gate)...)
	ordered := h.Submit("ordered", "sh", "-c", "trap '' TERM; echo ran >> "+h.Home+"/ran; while :; do sleep 0.1; done")
	waits := h.Submit("waits", once(h)...)
	startsKnown(t, h, 3)
	testenv.Eventually(t, "all to have begun", func() bool { return ran(h) == 3 })
	if code, a := h.Post("/dispatches/"+ordered+"/cancel", `{"grace":"1h"}`); code != 200 {
		t.Fatalf("cancel: %d %v", code, a)
	}
	waitFile(t, filepath.Join(h.State, "runs", ordered, "1", record.OrderFile))
	d.Kill()
	h.Run("touch", gate)
	waitFile(t, filepath.Join(h.State, "runs", ended, "1", record.ExitFile))
	powerCut(t, h, d, lost, ordered)
	other := bystander(t)
	reuse(t, h, lost, other.PID, other.PID)

	d = h.Start()
	for id, want := range map[string]string{
		lost: "failed lost  ", ended: "failed exit_nonzero 7 ", ordered: "cancelled   operator", waits: "failed exit_nonzero 7 ",
	} {
		testenv.Eventually(t, "dispatch "+id+" to end", func() bool { s := h.Status(id); return s == "failed" || s == "cancelled" })
		got := h.Status(id)
		for _, field := range []string{"failure_category", "exit_code", "stopped_by"} {
			got += " " + h.Field(id, field)
		}
		if got != want {
			t.Errorf("dispatch %s: %q, want %q", id, got, want)
		}
	}
	if why, took := h.Field(lost, "failure_summary"), h.Field(lost, "duration_s"); why != "the host was restarted while it ran" || took != "" {
		t.Errorf("%q after %q s: how long the host was off, nobody knows", why, took)
	}
	if got := h.SQL("SELECT group_concat(message) FROM health_events WHERE type IN ('error', 'critical')"); got != "" {
		t.Error(got)
	}

	// Once more, with a pause in force.
	runs := h.Submit("runs", gated(h, never)...)
	h.WaitRunning(runs)
	if code, a := h.Post("/scheduler/pause", `{"reason":"maintenance"}`); code != 200 {
		t.Fatalf("pause: %d %v", code, a)
	}
	later := h.Submit("later", once(h)...)
	powerCut(t, h, d, runs)
	h.Start()
	h.WaitStatus(runs, "failed")
	if _, a := h.Get("/scheduler/status"); a["state"] != "paused" || a["reason"] != "maintenance" || h.Status(later) != "pending" {
		t.Errorf("%v, the waiting one is %s", a, h.Status(later))
	}
	h.Post("/scheduler/resume", "")
	h.WaitStatus(later, "failed")
	if ran(h) != 6 || !other.Alive() {
		t.Errorf("%d starts of 6 dispatches; the bystander lives: %v", ran(h), other.Alive())
	}
	next, err1 := strconv.Atoi(h.Submit("next", "true"))
	last, err2 := strconv.Atoi(later)
	if err1 != nil || err2 != nil || next <= last {
		t.Errorf("id %d after %d (%v, %v)", next, last, err1, err2)
	}
}

// Pids that are used again: neither the process that has a dead runner's pid nor the one that has its agent's is taken for it
// or signalled, be it of the same user, with the same command line, or on the same tmux server.
func TestReusedPIDs(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_RUNNER__CGROUP=false"} // what is left is then told by pids
	d := h.Start()
	gate, never := h.Home+"/gate", h.Home+"/never"
	lost := h.Submit("lost", gated(h, never)...)
	ended := h.Submit("ended", gated(h, gate)...)
	ordered := h.Submit("ordered", gated(h, never)...)
	startsKnown(t, h, 3)
	d.Kill()
	h.Run("touch", gate)
	waitFile(t, filepath.Join(h.State, "runs", ended, "1", record.ExitFile))
	killBoth(t, h, lost)
	killBoth(t, h, ordered)
	order := record.Order{Format: record.Format, By: "operator", Reason: "no longer wanted", At: time.Now()}
	if err := attempt(t, h, ordered).Write(record.OrderFile, order); err != nil {
		t.Fatal(err)
	}
	h.Run("tmux", "new-session", "-d", "-s", "mine", "exec sleep 100000")
	var pane int
	if _, err := fmt.Sscan(h.Run("tmux", "list-panes", "-t", "=mine:", "-F", "#{pane_pid}"), &pane); err != nil {
		t.Fatal(err)
	}
	mine, err := proc.Of(pane)
	if err != nil {
		t.Fatal(err)
	}
	others := []proc.Ident{mine, bystander(t), bystander(t)}
	reuse(t, h, lost, mine.PID, others[1].PID)
	reuse(t, h, ordered, others[2].PID, mine.PID)
	reuse(t, h, ended, others[1].PID, others[2].PID)

	h.Start()
	for id, want := range map[string]string{lost: "failed lost ", ended: "failed exit_nonzero 7", ordered: "cancelled  "} {
		testenv.Eventually(t, "dispatch "+id+" to end", func() bool { s := h.Status(id); return s == "failed" || s == "cancelled" })
		if got := h.Status(id) + " " + h.Field(id, "failure_category") + " " + h.Field(id, "exit_code"); got != want {
			t.Errorf("dispatch %s: %q, want %q", id, got, want)
		}
	}
	for _, other := range others {
		if !other.Alive() {
			t.Errorf("bystander %d is gone", other.PID)
		}
	}
	if ran(h) != 3 || len(h.Sessions()) != 0 {
		t.Errorf("%d starts of 3 dispatches, sessions %v", ran(h), h.Sessions())
	}
}

// A daemon in a time namespace of its own sees every start time shifted by a day, and knows its runners and their agents all
// the same; nor does that use up a timeout.
func TestTimeNamespace(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Log("only root can make a time namespace: nothing is tested here")
		return
	}
	h := testenv.New(t)
	d := h.Start()
	runs := h.Cortex("submit", "--bead", "runs", "--timeout", "1h", "--", "sleep", "100000")
	agent := h.WaitRunning(runs)
	left := h.Submit("left", "sh", "-c", "sleep 100000 & wait")
	h.WaitRunning(left)
	startsKnown(t, h, 2)
	d.Stop()

	shifted := filepath.Join(h.Home, "shifted")
	if err := os.Mkdir(shifted, 0o700); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --time --boottime 86400 --monotonic 86400 %s/cortex \"$@\"\n", h.Bin)
	if err := os.WriteFile(filepath.Join(shifted, "cortex"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	real := h.Bin
	h.Bin = shifted
	d = h.Start()
	h.Bin = real
	mine, err1 := os.Readlink("/proc/self/ns/time")
	its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/time", d.PID()))
	if err1 != nil || err2 != nil || mine == its {
		t.Fatalf("the daemon is in %s, as this test is in %s (%v, %v)", its, mine, err1, err2)
	}
	if h.WaitRunning(runs) != agent || h.Status(runs) != "running" || !agent.Alive() {
		t.Errorf("it is %s, alive %v", h.Status(runs), agent.Alive())
	}
	killBoth(t, h, left) // what it left is swept by what is on record
	h.WaitStatus(left, "failed")
	if took, err := strconv.ParseFloat(h.Field(left, "duration_s"), 64); err != nil || took < 0 || took > 3600 {
		t.Errorf("it ran for %v s (%v)", took, err)
	}
	begun := h.Submit("begun", gated(h, h.Home+"/gate")...)
	h.WaitRunning(begun)
	if code, a := h.Post("/dispatches/"+runs+"/cancel?wait=30s", `{"grace":"0s"}`); code != 200 || agent.Alive() {
		t.Errorf("cancel: %d %v, alive %v", code, a, agent.Alive())
	}
	d.Stop()
	h.Start() // and back
	h.Run("touch", h.Home+"/gate")
	h.WaitStatus(begun, "failed")
	if x := h.Field(begun, "exit_code"); x != "7" || ran(h) != 1 {
		t.Errorf("exit code %s, ran %d times", x, ran(h))
	}
}
