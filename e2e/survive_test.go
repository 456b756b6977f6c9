package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"cortex/internal/testenv"
)

// A dispatch survives kill -9 of the daemon, keeps its process, and its true exit status is known afterwards, also when it
// ended meanwhile.
func TestKillNineOfTheDaemon(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	gate := h.Home + "/gate"
	h.Run("mkfifo", gate, gate+"2")
	meanwhile := h.Submit("ends-meanwhile", "sh", "-c", "read x < "+gate+"; exit 7")
	later := h.Submit("ends-later", "sh", "-c", "read x < "+gate+"2; exit 9")
	before := h.WaitRunning(later)
	h.WaitRunning(meanwhile)

	d.Kill()
	h.Run("sh", "-c", "echo > "+gate)
	exit := h.State + "/runs/" + meanwhile + "/1/exit.json"
	testenv.Eventually(t, "its runner to record the end without a daemon", func() bool {
		_, _, code := h.Try("test", "-e", exit)
		return code == 0
	})

	h.Start()
	h.WaitStatus(meanwhile, "failed")
	if got := h.Field(meanwhile, "exit_code"); got != "7" {
		t.Errorf("the one that ended meanwhile: exit code %s, want 7", got)
	}
	if after := h.WaitRunning(later); after != before {
		t.Errorf("the one that runs on has process %v, had %v", after, before)
	}
	h.Run("sh", "-c", "echo > "+gate+"2")
	h.WaitStatus(later, "failed")
	if got := h.Field(later, "exit_code"); got != "9" {
		t.Errorf("the one that ended later: exit code %s, want 9", got)
	}
	if got := h.SQL("SELECT group_concat(attempts) FROM dispatches"); got != "1,1" {
		t.Errorf("attempts %s, want 1,1: nothing runs twice", got)
	}
}

// A paused daemon comes back paused, with the same paused_at, and nothing starts.
func TestPauseSurvives(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	if code, a := h.Post("/scheduler/pause", `{"reason":"maintenance","by":"ann"}`); code != 200 {
		t.Fatalf("pause: %d %v", code, a)
	}
	_, before := h.Get("/scheduler/status")
	waits := h.Submit("waits", "true")
	for _, end := range []func(){d.Kill, func() { d.Stop() }} {
		end()
		d = h.Start()
		_, after := h.Get("/scheduler/status")
		if after["state"] != "paused" || after["paused_at"] != before["paused_at"] || after["reason"] != "maintenance" || after["resumed_at"] != nil {
			t.Fatalf("after the restart: %v, before: %v", after, before)
		}
		if got := h.Status(waits); got != "pending" {
			t.Fatalf("it is %s while paused", got)
		}
	}
	if code, a := h.Post("/scheduler/resume", ""); code != 200 || a["message"] != "Scheduler resumed" {
		t.Fatalf("resume: %d %v", code, a)
	}
	h.WaitStatus(waits, "completed")
}

// After a pause is answered nothing starts, whatever happens around it: submits, pauses, resumes and kill -9 in a row. What a
// dispatch writes down at its start, with the boot clock, is compared with the times between an answered pause and the next
// resume.
func TestNothingStartsAfterAnAnsweredPause(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=50"}
	starts := h.Home + "/starts"
	d := h.Start()
	n := 0
	submit := func(count int) {
		var wg sync.WaitGroup
		for range count {
			n++
			body := fmt.Sprintf(`{"bead_id":"b%d","project":"p","command":["sh","-c","echo start >> %s"]}`, n, starts)
			wg.Go(func() {
				if code, a := h.Post("/dispatches", body); code != 201 {
					t.Errorf("submit: %d %v", code, a)
				}
			})
		}
		wg.Wait()
	}
	count := func() int {
		out, _, _ := h.Try("cat", starts)
		return strings.Count(out, "start")
	}
	for round := range 12 {
		submit(10)
		if code, a := h.Post("/scheduler/pause", ""); code != 200 {
			t.Fatalf("pause: %d %v", code, a)
		}
		// What has its process now may still be on its way to its first write: wait until all of these have ended.
		if round%3 == 2 {
			d.Kill()
			d = h.Start()
		}
		testenv.Eventually(t, "what runs to end", func() bool {
			_, a := h.Get("/status")
			return a["running_count"] == 0.0
		})
		before := count()
		submit(5)
		if round%2 == 1 {
			d.Kill()
			d = h.Start()
		}
		if _, a := h.Get("/status"); a["running_count"] != 0.0 || a["scheduler_state"] != "paused" {
			t.Fatalf("round %d: %v", round, a)
		}
		if after := count(); after != before {
			t.Fatalf("round %d: %d dispatches started while paused", round, after-before)
		}
		if got := h.SQL("SELECT count(*) FROM dispatches d, holds h WHERE h.lifted_at IS NULL AND d.dispatched_at > h.since AND d.status <> 'pending'"); got != "0" {
			t.Fatalf("round %d: %s claims after the pause", round, got)
		}
		if code, a := h.Post("/scheduler/resume", ""); code != 200 {
			t.Fatalf("resume: %d %v", code, a)
		}
	}
	testenv.Eventually(t, "all to complete", func() bool {
		_, a := h.Get("/status")
		return a["running_count"] == 0.0 && a["pending_count"] == 0.0
	})
	if got := count(); got != n {
		t.Errorf("%d starts of %d dispatches", got, n)
	}
	if got := h.SQL("SELECT count(*) FROM dispatches WHERE status='completed'"); got != fmt.Sprint(n) {
		t.Errorf("%s of %d completed, the others: %s", got, n, h.SQL("SELECT id, status, failure_category, failure_summary, exit_code, attempts, dispatched_at, completed_at FROM dispatches WHERE status<>'completed'"))
	}
}

// Two daemons for one home: the second says who holds the lock, and exits.
func TestSecondDaemonIsRefused(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	first := h.Start()
	second := h.Launch()
	<-second.Done()
	if code := second.ExitCode(); code != 1 || !strings.Contains(second.Log(), fmt.Sprintf("pid %d", first.PID())) {
		t.Fatalf("exit %d: %s", code, second.Log())
	}
	if code, _ := h.Get("/status"); code != 200 {
		t.Fatalf("the first one answers %d", code)
	}
}

// Two homes on one tmux server never touch each other's dispatches.
func TestTwoHomesSideBySide(t *testing.T) {
	t.Parallel()
	a, b := testenv.New(t), testenv.New(t)
	b.Tmux = a.Tmux
	a.Start()
	db := b.Start()
	one, two := a.Submit("same", "sleep", "1000"), b.Submit("same", "sleep", "1000")
	pa, pb := a.WaitRunning(one), b.WaitRunning(two)
	if one != two {
		t.Fatalf("ids %s and %s: the test wants the same", one, two)
	}
	if len(a.Sessions()) != 2 {
		t.Fatalf("sessions: %v", a.Sessions())
	}
	if code, r := b.Post("/dispatches/"+two+"/cancel?wait=30s", ""); code != 200 {
		t.Fatalf("cancel: %d %v", code, r)
	}
	if pb.Alive() || !pa.Alive() {
		t.Fatalf("after cancelling b's: b's alive %v, a's alive %v", pb.Alive(), pa.Alive())
	}
	db.Kill()
	b.Start()
	if !pa.Alive() || a.Status(one) != "running" {
		t.Fatalf("a's is %s", a.Status(one))
	}
	if code, r := a.Post("/dispatches/"+one+"/cancel?wait=30s", ""); code != 200 {
		t.Fatalf("cancel: %d %v", code, r)
	}
}

// A daemon that was killed in the moment of a fork leaves its lock with the child until that is at its exec: the next daemon
// waits for it, and does not say that another one runs.
func TestLockIsLeftForAMoment(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	d.Stop()
	holder := h.Command("flock", "--exclusive", filepath.Join(h.State, "cortex.lock"), "sh", "-c", "echo held; read x")
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	d = h.Launch()
	testenv.Eventually(t, "the next daemon to want the lock", func() bool {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.PID()))
		return err == nil && slices.ContainsFunc(fds, func(fd string) bool {
			file, err := os.Readlink(fd)
			return err == nil && file == filepath.Join(h.State, "cortex.lock")
		})
	})
	in.Close()
	if err := holder.Wait(); err == nil {
		t.Log("its shell read a line")
	}
	testenv.Eventually(t, "it to answer", func() bool { code, _ := h.Get("/status"); return code == 200 })
}
