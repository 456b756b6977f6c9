package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"cortex/internal/testenv"
	"cortex/proc"
)

// faulty makes a host whose daemon takes an action at a fault point (internal/fault), until whole is called.
func faulty(t *testing.T, fault string) *testenv.Host {
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_FAULT=" + fault}
	return h
}

func whole(h *testenv.Host) { h.Extra = nil }

// dead waits until the daemon has died of its fault.
func dead(t *testing.T, d *testenv.Daemon) {
	t.Helper()
	testenv.Eventually(t, "the daemon to die of its fault", func() bool {
		select {
		case <-d.Done():
			return true
		default:
			return false
		}
	})
}

// tookIn waits until a daemon has taken everything in. An earlier one may have ended before it said so.
func tookIn(t *testing.T, h *testenv.Host, d *testenv.Daemon) {
	t.Helper()
	testenv.Eventually(t, "the daemon to have taken everything in", func() bool {
		return strings.Contains(h.SQL("SELECT message FROM events WHERE event_type = 'daemon_started'"), fmt.Sprintf("(pid %d)", d.PID()))
	})
}

// once is a command that leaves a line each time it runs; ran counts them.
func once(h *testenv.Host) []string {
	return []string{"sh", "-c", "echo ran >> " + h.Home + "/ran; exit 7"}
}

func ran(h *testenv.Host) int {
	text, err := os.ReadFile(filepath.Join(h.Home, "ran"))
	if err != nil {
		return 0
	}
	return strings.Count(string(text), "ran")
}

// post is Post for a daemon that may die over it: whether it answered, is not the question.
func post(h *testenv.Host, path, body string) { h.Post(path, body) }

// The daemon dies at each stop of a dispatch's way, before it is accepted: then nothing of it is there. Whoever submitted got
// no answer.
func TestDeathBeforeAcceptance(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"submit.decoded", "accept.spec"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := faulty(t, point+":kill")
			d := h.Start()
			h.Try(filepath.Join(h.Bin, "cortex"), append([]string{"submit", "--bead", "b", "--"}, once(h)...)...)
			dead(t, d)
			whole(h)
			d = h.Start()
			tookIn(t, h, d)
			if got := h.SQL("SELECT count(*) FROM dispatches"); got != "0" || ran(h) != 0 {
				t.Errorf("%s rows, ran %d times", got, ran(h))
			}
			if left, err := os.ReadDir(filepath.Join(h.State, "runs")); err != nil || len(left) != 0 {
				t.Errorf("left in runs: %v %v", left, err)
			}
			// The id that was on its way may be left out, and is never used twice.
			h.WaitStatus(h.Submit("next", "true"), "completed")
		})
	}
}

// The daemon dies at each later stop: the dispatch runs exactly once, and its true exit status is known.
func TestDeathAtEachStop(t *testing.T) {
	t.Parallel()
	for _, point := range []string{
		"accept.committed", "submit.accepted", "claim.before", "claim.after", "start.session", "start.ready",
		"follow.started", "finish.before", "finish.after",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := faulty(t, point+":kill")
			d := h.Start()
			command := once(h)
			if point == "follow.started" { // one that has ended by then is never seen to run
				command[2] = fmt.Sprintf("while kill -0 %d; do sleep 0.02; done; ", d.PID()) + command[2]
			}
			h.Try(filepath.Join(h.Bin, "cortex"), append([]string{"submit", "--bead", "b", "--"}, command...)...)
			dead(t, d)
			whole(h)
			h.Start()
			h.WaitStatus("1", "failed")
			if x, c := h.Field("1", "exit_code"), h.Field("1", "failure_category"); x != "7" || c != "exit_nonzero" || ran(h) != 1 {
				t.Errorf("exit code %s, %s, ran %d times", x, c, ran(h))
			}
			if r := h.Field("1", "retries"); r != "0" {
				t.Errorf("%s retries: a start that was given back uses up none", r)
			}
			testenv.Eventually(t, "one event of its end, which is known before it is recorded", func() bool {
				return h.SQL("SELECT count(*) FROM events WHERE event_type IN ('dispatch_failed') AND dispatch_id = 1") == "1"
			})
		})
	}
}

// The daemon dies between the steps of a cancel. Once the order is on record, the next one finishes it.
func TestDeathWithinCancel(t *testing.T) {
	t.Parallel()
	for point, want := range map[string]string{
		"cancel.order": "running", "cancel.recorded": "cancelled", "cancel.effect": "cancelled",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := faulty(t, point+":kill")
			d := h.Start()
			id := h.Submit("b", "sleep", "100000")
			agent := h.WaitRunning(id)
			post(h, "/dispatches/"+id+"/cancel", `{"grace":"0s"}`)
			dead(t, d)
			whole(h)
			h.Start()
			h.WaitStatus(id, want)
			if want == "running" {
				if !agent.Alive() {
					t.Error("it was ended by an order that nobody has on record")
				}
				post(h, "/dispatches/"+id+"/cancel?wait=30s", `{"grace":"0s"}`)
				h.WaitStatus(id, "cancelled")
			}
			if agent.Alive() {
				t.Error("it lives")
			}
		})
	}
}

// The daemon dies between the steps of a pause and a resume: what it did not make durable did not happen.
func TestDeathWithinPause(t *testing.T) {
	t.Parallel()
	for point, want := range map[string]string{
		"pause.before": "running", "pause.durable": "paused", "pause.settled": "paused", "resume.before": "paused",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := faulty(t, point+":kill")
			d := h.Start()
			post(h, "/scheduler/pause", "")
			if point == "resume.before" {
				post(h, "/scheduler/resume", "")
			}
			dead(t, d)
			whole(h)
			h.Start()
			if _, a := h.Get("/scheduler/status"); a["state"] != want {
				t.Errorf("%v, want %s", a, want)
			}
		})
	}
}

// The daemon dies before it has written how a dispatch ended whose runner was killed.
func TestDeathBeforeVerdict(t *testing.T) {
	t.Parallel()
	h := faulty(t, "verdict.write:kill")
	d := h.Start()
	id := h.Submit("b", "sleep", "100000")
	agent := h.WaitRunning(id)
	killRunner(t, agent)
	dead(t, d)
	whole(h)
	h.Start()
	h.WaitStatus(id, "failed")
	if c := h.Field(id, "failure_category"); c != "lost" || agent.Alive() {
		t.Errorf("%s, alive %v", c, agent.Alive())
	}
}

// killRunner kills the runner of a live agent.
func killRunner(t *testing.T, agent proc.Ident) {
	t.Helper()
	all, err := proc.All()
	if err != nil {
		t.Fatal(err)
	}
	parent := slices.IndexFunc(all, func(s proc.Stat) bool { return s.Ident == agent })
	runner := slices.IndexFunc(all, func(s proc.Stat) bool { return parent >= 0 && s.PID == all[parent].PPID })
	if runner < 0 {
		t.Fatalf("no runner of agent %d", agent.PID)
	}
	if err := all[runner].Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// submitFaulty submits a command whose runner takes an action at a fault point.
func submitFaulty(h *testenv.Host, fault string, command ...string) string {
	args := []string{"submit", "--bead", "b", "--env", "CORTEX_FAULT=" + fault, "--"}
	return h.Cortex(append(args, command...)...)
}

// The runner dies at each of its steps.
func TestRunnerDeathAtEachStep(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	for _, c := range []struct{ point, category, code string }{
		{"pane.claimed", "lost", ""},
		{"pane.started", "lost", ""},
		{"pane.exit", "lost", ""},
		{"pane.exited", "exit_nonzero", "7"}, // its exit record was durable
	} {
		id := submitFaulty(h, c.point+":kill", "sh", "-c", "exit 7")
		h.WaitStatus(id, "failed")
		if got, code := h.Field(id, "failure_category"), h.Field(id, "exit_code"); got != c.category || code != c.code {
			t.Errorf("%s: %s, exit code %q", c.point, got, code)
		}
	}
	if got := h.Sessions(); len(got) != 0 {
		t.Errorf("sessions left: %v", got)
	}
}

// A runner that dies before it has claimed its attempt has started nothing: the dispatch waits again, and uses up no retry.
// That starts fail shows in the holds.
func TestRunnerDeathBeforeClaim(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	id := submitFaulty(h, "pane.claim:kill", "true")
	testenv.Eventually(t, "the hold", func() bool {
		_, a := h.Get("/scheduler/status")
		return strings.Contains(fmt.Sprint(a["holds"]), "kind:tmux")
	})
	if got := h.SQL("SELECT retries FROM dispatches"); got != "0" {
		t.Errorf("%s retries", got)
	}
	if code, a := h.Post("/dispatches/"+id+"/cancel?wait=30s", ""); code != http.StatusOK {
		t.Errorf("cancel: %d %v", code, a)
	}
	h.WaitStatus(id, "cancelled")
}

// A runner that hangs before or after its claim, and has no agent yet, keeps no pause waiting for ever. (One that is stopped
// is continued by tmux at once.)
func TestHangingRunner(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"pane.claim", "pane.claimed"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := testenv.New(t)
			h.Start()
			id := submitFaulty(h, point+":hang", "sh", "-c", "echo ran >> "+h.Home+"/ran")
			testenv.Eventually(t, "its session", func() bool { return len(h.Sessions()) == 1 })
			if code, a := h.Post("/scheduler/pause", ""); code != http.StatusOK {
				t.Fatalf("pause: %d %v", code, a)
			}
			want := map[string]string{"pane.claim": "pending", "pane.claimed": "failed"}[point]
			h.WaitStatus(id, want)
			testenv.Eventually(t, "its session to go", func() bool { return len(h.Sessions()) == 0 })
			if ran(h) != 0 {
				t.Error("it ran after the pause was answered")
			}
		})
	}
}

// A soak saw a status of nothing while two dispatches were between pending and running, and took it for the end of all: one
// that is claimed and not started yet, or given back and not recorded yet, is counted as one that waits.
func TestNoneIsUncounted(t *testing.T) {
	t.Parallel()
	counted := func(t *testing.T, h *testenv.Host) {
		t.Helper()
		_, a := h.Get("/status")
		if a["running_count"] != 0.0 || a["pending_count"] != 1.0 {
			t.Errorf("%v", a)
		}
	}
	t.Run("claimed", func(t *testing.T) {
		t.Parallel()
		h := faulty(t, "claim.after:hang")
		h.Start()
		h.Submit("b", "true")
		testenv.Eventually(t, "its claim", func() bool { return h.SQL("SELECT status FROM dispatches") == "running" })
		counted(t, h)
	})
	t.Run("given back", func(t *testing.T) {
		t.Parallel()
		h := testenv.New(t)
		h.Start()
		submitFaulty(h, "pane.claim:hang", "true")
		testenv.Eventually(t, "its session", func() bool { return len(h.Sessions()) == 1 })
		unlock := lock(t, h, "BEGIN IMMEDIATE;")
		if code, a := h.Post("/scheduler/pause", ""); code != http.StatusOK {
			t.Fatalf("pause: %d %v", code, a)
		}
		testenv.Eventually(t, "its start to be given back", func() bool { _, a := h.Get("/status"); return a["running_count"] == 0.0 })
		counted(t, h)
		unlock()
		testenv.Eventually(t, "that on record", func() bool { return h.SQL("SELECT status FROM dispatches") == "pending" })
		testenv.Eventually(t, "it to be counted once", func() bool { _, a := h.Get("/status"); return a["pending_count"] == 1.0 })
	})
}

// A disk without room for the exit record loses no exit status.
func TestExitRecordIsTriedAgain(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	id := submitFaulty(h, "pane.exit.write:fail", "sh", "-c", "exit 7")
	h.WaitStatus(id, "failed")
	if x := h.Field(id, "exit_code"); x != "7" {
		t.Errorf("exit code %q", x)
	}
}

// A submit that is repeated with its key, over a crash of the daemon at any step, is one dispatch.
func TestRepeatedSubmit(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"submit.decoded", "accept.spec", "accept.committed", "submit.accepted", "finish.after"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := faulty(t, point+":kill")
			d := h.Start()
			body := fmt.Sprintf(`{"bead_id":"b","idempotency_key":"night-1","command":["sh","-c","echo ran >> %s/ran; exit 7"]}`, h.Home)
			post(h, "/dispatches", body)
			dead(t, d)
			whole(h)
			h.Start()
			code, a := h.Post("/dispatches", body)
			if want := map[bool]int{true: http.StatusCreated, false: http.StatusOK}[strings.HasPrefix(point, "submit.d") || point == "accept.spec"]; code != want {
				t.Errorf("%d %v, want %d", code, a, want)
			}
			id := fmt.Sprint(a["id"])
			h.WaitStatus(id, "failed")
			if code, a := h.Post("/dispatches", body); code != http.StatusOK || fmt.Sprint(a["id"]) != id || a["status"] != "failed" {
				t.Errorf("after its end: %d %v", code, a)
			}
			if code, a := h.Post("/dispatches", strings.Replace(body, `"b"`, `"c"`, 1)); code != http.StatusConflict || a["reason"] != "idempotency_conflict" {
				t.Errorf("another request: %d %v", code, a)
			}
			if got := h.SQL("SELECT count(*) FROM dispatches"); got != "1" || ran(h) != 1 {
				t.Errorf("%s dispatches, ran %d times", got, ran(h))
			}
		})
	}
}

// What is submitted while the daemon takes in runs/ is not taken for a leftover of the one before.
func TestSubmitWhileRunsAreTakenIn(t *testing.T) {
	t.Parallel()
	h := faulty(t, "adopt.begin:while,accept.spec:hang")
	hang := filepath.Join(h.Home, "hang")
	h.Extra = append(h.Extra, "CORTEX_FAULT_WHILE="+hang)
	if err := os.WriteFile(hang, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := h.Start()
	submit := h.Command(filepath.Join(h.Bin, "cortex"), "submit", "--bead", "b", "--", "true")
	if err := submit.Start(); err != nil {
		t.Fatal(err)
	}
	spec := filepath.Join(h.State, "runs", "1", "spec.new")
	testenv.Eventually(t, "its spec", func() bool {
		_, err := os.Stat(spec)
		return err == nil
	})
	if err := os.Remove(hang); err != nil {
		t.Fatal(err)
	}
	h.WaitStatus(h.Submit("next", "true"), "completed") // nothing starts before all is taken in
	if _, err := os.Stat(spec); err != nil {
		t.Error(err)
	}
	d.Kill()
	submit.Wait() // it was not answered
}
