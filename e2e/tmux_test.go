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
	testenv.Eventually(t, "the trouble in /health", func() bool {
		code, a := h.Get("/health")
		return code == 503 && strings.Contains(fmt.Sprint(a["checks"]), "kill -CONT")
	})
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
	testenv.Eventually(t, "health", func() bool { code, _ := h.Get("/health"); return code == 200 })
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
