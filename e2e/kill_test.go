package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cortex/cgroup"
	"cortex/internal/testenv"
	"cortex/proc"
)

// escapees are commands that try to outlive a cancel. Each writes the pids of what it leaves behind into the file $1, carries
// the host's folder in its command line, and goes on for ever.
var escapees = map[string]string{
	"plain":      `sleep 100000 & echo $! >> "$1"; wait`,
	"ignores":    `trap "" TERM INT HUP QUIT; echo $$ >> "$1"; while :; do sleep 1000; done`,
	"setsid":     `setsid sh -c 'trap "" TERM; echo $$ >> "$1"; exec sleep 100000' x "$1" & wait`,
	"daemonises": `(setsid sh -c '(trap "" TERM HUP; exec <&- >&- 2>&-; sh -c "echo \$\$ >> \"$1\"; exec sleep 100000" x "$1" &) ' x "$1" &) ; sleep 100000`,
	"env -i":     `env -i PATH="$PATH" setsid sh -c 'echo $$ >> "$1"; exec sleep 100000' x "$1" & sleep 100000`,
	"nohup":      `nohup sleep 100000 > /dev/null 2>&1 & echo $! >> "$1"; sleep 100000`,
	"stopped":    `sleep 100000 & echo $! >> "$1"; kill -STOP $!; wait`,
	"many":       `i=0; while [ $i -lt 200 ]; do setsid sleep 100000 & echo $! >> "$1"; i=$((i+1)); done; wait`,
	"hops": `printf '#!/bin/sh\necho $$ >> "$1"\nsetsid "$0" "$1" &\n' > "$1.hop"; chmod +x "$1.hop"
		env -i PATH="$PATH" "$1.hop" "$1" <&- >&- 2>&- & sleep 100000`, // a new session every few ms, whose parent exits
	"nested tmux": `unset TMUX; TMUX_TMPDIR=$(dirname "$1") tmux -L nested -f /dev/null new-session -d "echo \$\$ >> $1; exec sleep 100000"; sleep 100000`,
}

// After a cancel nothing of the dispatch lives, whatever its command does to get away, and a bystander with the same command
// line does.
func TestCancelLeavesNothing(t *testing.T) {
	t.Parallel()
	cancelEscapees(t, testenv.New(t))
}

func cancelEscapees(t *testing.T, h *testenv.Host) {
	endEscapees(t, h, func(t *testing.T, id string, _ proc.Ident) {
		if code, a := h.Post("/dispatches/"+id+"/cancel?wait=60s", `{"grace":"300ms"}`); code != 200 {
			t.Fatalf("cancel: %d %v", code, a)
		}
		h.WaitStatus(id, "cancelled")
		if got := h.Field(id, "stopped_by"); got != "operator" {
			t.Errorf("stopped_by %q", got)
		}
	})
}

// endEscapees starts each kind and has end end it: then nothing of it lives.
func endEscapees(t *testing.T, h *testenv.Host, end func(t *testing.T, id string, agent proc.Ident)) {
	h.Start()
	bystander := exec.Command("sleep", "100000")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bystander.Process.Kill(); bystander.Wait() })
	for name, script := range escapees {
		t.Run(name, func(t *testing.T) {
			pids := filepath.Join(h.Home, strings.ReplaceAll(name, " ", "-")+".pids")
			id := h.Submit(name, "sh", "-c", script, "x", pids)
			want := map[string]int{"many": 200, "hops": 20}[name]
			testenv.Eventually(t, "the escapee to be out", func() bool { return len(readPids(pids)) >= max(want, 1) })
			var out []proc.Ident
			if name != "hops" { // which are gone as soon as they are told
				out = identities(t, readPids(pids))
			}
			end(t, id, h.WaitRunning(id))
			for _, p := range out {
				if p.Alive() {
					t.Errorf("%d lives", p.PID)
					p.Signal(syscall.SIGKILL)
				}
			}
			for _, p := range h.Processes() {
				if strings.Contains(p, pids) {
					t.Errorf("left: %s", p)
				}
			}
			if s := h.Sessions(); len(s) != 0 {
				t.Errorf("sessions left: %v", s)
			}
		})
	}
	if !alive(bystander.Process.Pid) {
		t.Error("the bystander was killed")
	}
}

// identities are the processes that have these pids now: a moment later a pid may be another's.
func identities(t *testing.T, pids []int) []proc.Ident {
	var all []proc.Ident
	for _, pid := range pids {
		id, err := proc.Of(pid)
		if err != nil {
			t.Errorf("process %d: %v", pid, err)
		}
		all = append(all, id)
	}
	return all
}

func readPids(file string) []int {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var pids []int
	for _, line := range strings.Fields(string(data)) {
		var pid int
		if _, err := fmt.Sscan(line, &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := string(stat[strings.LastIndexByte(string(stat), ')')+1:])
	return !strings.HasPrefix(strings.TrimSpace(rest), "Z")
}

// A cancel that the daemon did not live to see through is finished by the next one.
func TestCancelIsFinishedByTheNextDaemon(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	pids := filepath.Join(h.Home, "pids")
	id := h.Submit("stubborn", "sh", "-c", escapees["ignores"], "x", pids)
	testenv.Eventually(t, "it to ignore signals", func() bool { return len(readPids(pids)) == 1 })
	if code, a := h.Post("/dispatches/"+id+"/cancel", `{"grace":"2s"}`); code != 200 {
		t.Fatalf("cancel: %d %v", code, a)
	}
	d.Kill()
	h.Start()
	h.WaitStatus(id, "cancelled")
	if alive(readPids(pids)[0]) {
		t.Error("it lives")
	}
}

// What is ended by hand is failed, with its signal; what ends by its timeout is failed, too, and never completed.
func TestEndsThatAreNoCancel(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	killed := h.Submit("killed", "sleep", "100000")
	p := h.WaitRunning(killed)
	p.Signal(syscall.SIGKILL)
	closed := h.Submit("closed", "sleep", "100001")
	h.WaitRunning(closed)
	h.Tmuxes("kill-session", "-t", "="+h.Field(closed, "session_name"))
	late := h.Cortex("submit", "--bead", "late", "--project", "p", "--timeout", "200ms", "--", "sh", "-c", `trap "exit 0" TERM; while :; do sleep 0.05; done`)
	orphan := h.Submit("leaves-one", "sh", "-c", "sleep 100002 & exit 0")

	h.WaitStatus(killed, "failed")
	if c, x := h.Field(killed, "failure_category"), h.Field(killed, "exit_code"); c != "signal" || x != "137" {
		t.Errorf("killed: %s, exit code %s", c, x)
	}
	h.WaitStatus(closed, "failed")
	if c := h.Field(closed, "failure_category"); c != "signal" {
		t.Errorf("closed: %s", c)
	}
	h.WaitStatus(late, "failed")
	if c, by, x := h.Field(late, "failure_category"), h.Field(late, "stopped_by"), h.Field(late, "exit_code"); c != "timeout" || by != "timeout" || x != "0" {
		t.Errorf("late: %s by %s, exit code %s", c, by, x)
	}
	h.WaitStatus(orphan, "completed")
	for _, p := range h.Processes() {
		if strings.Contains(p, "10000") {
			t.Errorf("left: %s", p)
		}
	}
}

// A runner that is killed leaves nothing, and its dispatch is lost: by its control group, where it may have one, with proof;
// else by the mark that all of it has inherited, and that this is no proof is told.
func TestRunnerKilled(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*testenv.Host) (groups bool){
		"by its group":            func(*testenv.Host) bool { return groupsHere(t) },
		"by its mark":             func(h *testenv.Host) bool { h.Extra = []string{"CORTEX_RUNNER__CGROUP=false"}; return false },
		"of an unprivileged user": func(h *testenv.Host) bool { return !h.AsNobody() && groupsHere(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testenv.New(t)
			groups := prepare(h)
			endEscapees(t, h, func(t *testing.T, id string, agent proc.Ident) {
				killRunner(t, agent)
				h.WaitStatus(id, "failed")
				if got := h.Field(id, "failure_category"); got != "lost" || agent.Alive() {
					t.Errorf("category %q, agent alive %v", got, agent.Alive())
				}
				if x := h.Field(id, "exit_code"); x != "" {
					t.Errorf("exit code %s of a lost one", x)
				}
				want := map[bool]string{true: "0", false: "1"}[groups]
				testenv.Eventually(t, "the word on what is proven", func() bool {
					return h.SQL("SELECT count(*) FROM health_events WHERE event_type = 'not_proven' AND dispatch_id = "+id) == want
				})
			})
		})
	}
}

// groupsHere reports whether the host lets this user make control groups.
func groupsHere(t *testing.T) bool {
	g, err := cgroup.Make(fmt.Sprintf("cortex-e2e-%d", os.Getpid()))
	if err != nil {
		t.Log(err)
		return false
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	return true
}

// With control groups and without, cancel ends every kind; see TestCancelLeavesNothing.
func TestCancelLeavesNothingWithoutGroups(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_RUNNER__CGROUP=false"}
	cancelEscapees(t, h)
}

// The tmux server goes away: every dispatch is recorded, with its signal, nothing of them lives, and the next one gets a new
// server.
func TestTmuxServerKilled(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	var ids []string
	for i := range 4 {
		id := h.Submit(fmt.Sprint("b", i), "sh", "-c", "setsid sleep 100000 & sleep 100000")
		h.WaitRunning(id)
		ids = append(ids, id)
	}
	h.Tmuxes("kill-server")
	for _, id := range ids {
		h.WaitStatus(id, "failed")
		if c := h.Field(id, "failure_category"); c != "signal" {
			t.Errorf("dispatch %s: %s", id, c)
		}
	}
	if got := h.SQL("SELECT count(*) FROM health_events WHERE event_type='tmux_lost' AND type='critical'"); got != "1" {
		t.Errorf("%s events tmux_lost", got)
	}
	h.WaitStatus(h.Submit("next", "true"), "completed")
}
