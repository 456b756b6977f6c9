package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"cortex/internal/testenv"
)

// serverPID is the process of the host's tmux server.
func serverPID(t *testing.T, h *testenv.Host) int {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(h.Run("tmux", "display-message", "-p", "#{pid}")))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// Whatever the user's configuration says, dispatches start, run and end.
func TestAnyTmuxConfiguration(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{
		"options": `set -g destroy-unattached on
set -g remain-on-exit on
set -g detach-on-destroy off
set -g default-command "exit 1"
set -g default-shell /bin/false
set -g base-index 7
set -g window-size smallest
set -g history-limit 0
set -g update-environment ""
set -g default-terminal "no-such-terminal"`,
		"hooks": `set-hook -g after-new-session 'rename-session renamed'
set-hook -g session-created 'display-message hello'
set-hook -g client-attached 'new-window'
set-hook -g pane-died 'respawn-pane'`,
		"a session of the user's": `new-session -d -s mine`,
		"an error":                "no-such-command\nset -g no-such-option 1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testenv.New(t)
			if err := os.WriteFile(filepath.Join(h.Home, ".tmux.conf"), []byte(config+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			d := h.Start()
			ended := h.Submit("ended", "sh", "-c", "echo hello; exit 7")
			runs := h.Submit("runs", "sleep", "100000")
			h.WaitStatus(ended, "failed")
			if x := h.Field(ended, "exit_code"); x != "7" {
				t.Errorf("exit code %s", x)
			}
			agent := h.WaitRunning(runs)
			d.Kill()
			h.Start()
			if h.WaitRunning(runs) != agent || h.Status(runs) != "running" {
				t.Errorf("after a restart: %s", h.Status(runs))
			}
			if code, a := h.Post("/dispatches/"+runs+"/cancel?wait=30s", ""); code != 200 || agent.Alive() {
				t.Errorf("cancel: %d %v, alive %v", code, a, agent.Alive())
			}
		})
	}
}

// The user does things to the sessions: a pane that is respawned ends its dispatch, as a signal does; a session that is
// renamed is still its own.
func TestHandsOnSessions(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	respawned := h.Submit("respawned", "sleep", "100000")
	renamed := h.Submit("renamed", "sleep", "100000")
	agents := []interface{ Alive() bool }{h.WaitRunning(respawned), h.WaitRunning(renamed)}
	session := func(id string) string {
		testenv.Eventually(t, "its session's name", func() bool { return h.Field(id, "session_name") != "" })
		return h.Field(id, "session_name")
	}
	h.Run("tmux", "respawn-pane", "-k", "-t", "="+session(respawned)+":", "sleep 100000")
	h.WaitStatus(respawned, "failed")
	if c := h.Field(respawned, "failure_category"); c != "signal" {
		t.Errorf("respawned: %s", c)
	}
	h.Run("tmux", "rename-session", "-t", "="+session(renamed), "another-name")
	if code, a := h.Post("/dispatches/"+renamed+"/cancel?wait=30s", `{"grace":"0s"}`); code != 200 {
		t.Errorf("cancel: %d %v", code, a)
	}
	for i, a := range agents {
		if a.Alive() {
			t.Errorf("agent %d lives", i)
		}
	}
	if left := h.Tmuxes("list-sessions", "-F", "#{session_name}"); strings.TrimSpace(left) != "cortex" {
		t.Errorf("sessions left: %q", left)
	}
}

// A tmux server that hangs: all that does not need it goes on, and what needs it is done when it goes on.
func TestTmuxServerHangs(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	gate := h.Home + "/gate"
	h.Run("mkfifo", gate)
	ends := h.Submit("ends", "sh", "-c", "read x < "+gate+"; exit 7")
	cancelled := h.Submit("cancelled", "sleep", "100000")
	h.WaitRunning(ends)
	agent := h.WaitRunning(cancelled)
	server := serverPID(t, h)
	if err := syscall.Kill(server, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(server, syscall.SIGCONT) })

	h.Run("sh", "-c", "echo > "+gate)
	if code, a := h.Post("/dispatches/"+cancelled+"/cancel", `{"grace":"0s"}`); code != 200 {
		t.Errorf("cancel: %d %v", code, a)
	}
	testenv.Eventually(t, "the agent to be gone", func() bool { return !agent.Alive() })
	late := h.Submit("late", "true")
	awaitFault(t, h, "tmux", fmt.Sprint("server ", server, " has not answered for"), "kill -CONT")
	if code, a := h.Post("/scheduler/pause", ""); code != 200 { // and the server is still stopped
		t.Errorf("pause: %d %v", code, a)
	}
	syscall.Kill(server, syscall.SIGCONT)
	h.WaitStatus(ends, "failed")
	if x := h.Field(ends, "exit_code"); x != "7" {
		t.Errorf("exit code %s", x)
	}
	h.WaitStatus(cancelled, "cancelled")
	h.WaitStatus(late, "pending")
	awaitHealth(t, h)
	h.Post("/scheduler/resume", "")
	h.WaitStatus(late, "completed")
	if n := h.SQL("SELECT count(*) FROM dispatches WHERE retries > 0"); n != "0" {
		t.Errorf("%s retries", n)
	}
}

// A session of the wanted name that isn't its own is left alone.
func TestForeignSessionOfTheName(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Run("tmux", "new-session", "-d", "-s", "ctx-p-b-1", "sleep 100000")
	h.Start()
	id := h.Submit("b", "sleep", "100000")
	h.WaitRunning(id)
	testenv.Eventually(t, "its session's name", func() bool { return h.Field(id, "session_name") == "ctx-p-b-1-2" })
	if code, a := h.Post("/dispatches/"+id+"/cancel?wait=30s", `{"grace":"0s"}`); code != 200 {
		t.Errorf("cancel: %d %v", code, a)
	}
	if left := h.Sessions(); len(left) != 1 || left[0] != "ctx-p-b-1" {
		t.Errorf("sessions left: %v", left)
	}
}

// replaceable is a tmux program of the host's own, which another version can replace. The new one can't talk to a server of the
// old one: it ends as tmux 3.3a does before a server of another protocol (measured). It is in force while the file names a server
// that lives.
func replaceable(t *testing.T, h *testenv.Host) (replace func(server int), back func()) {
	t.Helper()
	binary, other := filepath.Join(h.Home, "tmux"), filepath.Join(h.Home, "old-server")
	script := fmt.Sprintf(`#!/bin/sh
if [ -e %[1]s ] && kill -0 "$(cat %[1]s)" 2> /dev/null; then
	case " $* " in *" -C "*) echo %%exit ;; esac
	echo "protocol version mismatch (client 9, server 8)" >&2
	exit 1
fi
exec tmux "$@"
`, other)
	if err := os.WriteFile(binary, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	h.Extra = []string{"CORTEX_TMUX__BINARY=" + binary}
	return func(server int) { h.Run("sh", "-c", fmt.Sprintf("echo %d > %s", server, other)) }, func() { h.Run("rm", other) }
}

// The tmux package is replaced under a running server, by a version that can't talk to it: the API, and what runs, go on and end
// truly; nothing starts, and /health says why; and all goes on by itself when the old package is back, or the old server gone.
func TestTmuxReplaced(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	replace, back := replaceable(t, h)
	d := h.Start()
	gate := h.Home + "/gate"
	ends := h.Submit("ends", gated(h, gate)...)
	cancelled := h.Submit("cancelled", "sleep", "100000")
	stays := h.Submit("stays", "sleep", "100000")
	startsKnown(t, h, 3)
	agent, other := h.WaitRunning(cancelled), h.WaitRunning(stays)
	server := serverPID(t, h)
	replace(server)
	h.WaitStatus(h.Submit("over the connection that stands", "true"), "completed")

	d.Kill()
	d = h.Start()
	testenv.Eventually(t, "three to run, and the other's end to be taken in", func() bool {
		_, a := h.Get("/status")
		return a["running_count"] == 3.0
	})
	h.Run("touch", gate)
	h.WaitStatus(ends, "failed")
	if code, a := h.Post("/dispatches/"+cancelled+"/cancel?wait=30s", ""); code != 200 || agent.Alive() {
		t.Errorf("cancel: %d %v, alive %v", code, a, agent.Alive())
	}
	late := h.Submit("late", once(h)...)
	testenv.Eventually(t, "a hold on starts", func() bool {
		_, a := h.Get("/scheduler/status")
		text := fmt.Sprint(a["holds"])
		return strings.Contains(text, fmt.Sprintf("of another version than the program (server %d:", server)) &&
			strings.Contains(text, "protocol version mismatch (client 9, server 8)")
	})
	code, health := h.Get("/health")
	if text := fmt.Sprint(health["checks"]); code != 503 || !strings.Contains(text, "the tmux package of the server is back") {
		t.Errorf("%d %s", code, text)
	}
	if code, a := h.Post("/scheduler/pause", ""); code != 200 {
		t.Errorf("pause: %d %v", code, a)
	}
	h.Post("/scheduler/resume", "")
	h.WaitStatus(late, "pending")
	back()
	h.WaitStatus(late, "failed")
	testenv.Eventually(t, "health", func() bool { code, _ := h.Get("/health"); return code == 200 })

	replace(server)
	d.Kill()
	h.Start()
	testenv.Eventually(t, "the trouble in /health", func() bool { code, _ := h.Get("/health"); return code == 503 })
	if h.Status(stays) != "running" || !other.Alive() {
		t.Errorf("it is %s, alive %v", h.Status(stays), other.Alive())
	}
	if err := syscall.Kill(server, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	h.WaitStatus(stays, "failed")
	testenv.Eventually(t, "health", func() bool { code, _ := h.Get("/health"); return code == 200 })
	h.WaitStatus(h.Submit("on a new server", "true"), "completed")
	for id, want := range map[string]string{ends: "exit_nonzero 7", cancelled: " 143", late: "exit_nonzero 7", stays: "signal 129"} {
		if got := h.Field(id, "failure_category") + " " + h.Field(id, "exit_code"); got != want {
			t.Errorf("dispatch %s: %q, want %q", id, got, want)
		}
	}
	if got := h.SQL("SELECT count(*) FROM dispatches WHERE retries > 0"); got != "0" || ran(h) != 2 {
		t.Errorf("%s retries, %d starts of 2", got, ran(h))
	}
}

// The file of the tmux program is replaced by another of the same protocol: nobody notices.
func TestTmuxFileReplaced(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	binary := filepath.Join(h.Home, "tmux")
	h.Run("sh", "-c", `cp "$(command -v tmux)" `+binary)
	h.Extra = []string{"CORTEX_TMUX__BINARY=" + binary}
	d := h.Start()
	runs := h.Submit("runs", "sleep", "100000")
	agent := h.WaitRunning(runs)
	server := serverPID(t, h)
	h.Run("sh", "-c", `rm `+binary+`; cp "$(command -v tmux)" `+binary)
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", server)); err != nil || exe != binary+" (deleted)" {
		t.Fatalf("the server runs %s (%v)", exe, err)
	}
	h.WaitStatus(h.Submit("before", "true"), "completed")
	d.Kill()
	h.Start()
	h.WaitStatus(h.Submit("after", "true"), "completed")
	if h.WaitRunning(runs) != agent || serverPID(t, h) != server {
		t.Errorf("%v is now %v, on server %d, was on %d", agent, h.WaitRunning(runs), serverPID(t, h), server)
	}
	if code, a := h.Post("/dispatches/"+runs+"/cancel?wait=30s", `{"grace":"0s"}`); code != 200 || agent.Alive() {
		t.Errorf("cancel: %d %v, alive %v", code, a, agent.Alive())
	}
}
