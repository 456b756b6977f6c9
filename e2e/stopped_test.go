package e2e

import (
	"syscall"
	"testing"
	"time"

	"cortex/internal/testenv"
	"cortex/proc"
)

// stop stops a process with SIGSTOP, and waits until it is.
func stop(t *testing.T, id proc.Ident) {
	t.Helper()
	if err := id.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { id.Signal(syscall.SIGCONT) }) // one that is gone needs none
	testenv.Eventually(t, "it to have stopped", func() bool { return stateOf(t, id) == 'T' })
}

func stateOf(t *testing.T, id proc.Ident) byte {
	t.Helper()
	all, err := proc.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Ident == id {
			return p.State
		}
	}
	return 0
}

// keepStopped stops a process over and over, whoever continues it, until the returned function is called.
func keepStopped(id proc.Ident) (release func()) {
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-over:
				tick.Stop()
				id.Signal(syscall.SIGCONT)
				return
			case <-tick.C:
				id.Signal(syscall.SIGSTOP)
			}
		}
	}()
	return func() { close(over); <-done }
}

// A runner that is stopped with SIGSTOP, in the middle of a run, while its agent ends, or while it is cancelled: unknown is not
// dead. It runs once and ends truly, a cancel leaves nothing, and the API goes on. The tmux server, which continues what is
// stopped in its panes at once (server.c, server_child_stopped), is stopped before.
func TestStoppedRunner(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	gate := h.Home + "/gate"
	runs := h.Submit("runs", gated(h, gate+"-later")...)
	ends := h.Submit("ends", gated(h, gate)...)
	woken := h.Submit("woken", "sh", "-c", "setsid sleep 100000 & exec sleep 100000")
	held := h.Submit("held", "sh", "-c", "setsid sleep 100000 & exec sleep 100000")
	told := h.Submit("told", "sh", "-c", "trap 'echo told > ~/told' TERM; while :; do sleep 0.05; done")
	startsKnown(t, h, 5)
	agents, runners := map[string]proc.Ident{}, map[string]proc.Ident{}
	server, err := proc.Of(serverPID(t, h))
	if err != nil {
		t.Fatal(err)
	}
	stop(t, server)
	for _, id := range []string{runs, ends, woken, held, told} {
		agents[id], runners[id] = h.WaitRunning(id), processOf(claimOf(t, h, id).Runner)
		if id != told {
			stop(t, runners[id])
		}
	}
	h.Run("touch", gate)
	testenv.Eventually(t, "the agent to have ended", func() bool { return !agents[ends].Alive() })

	d.Kill()
	h.Start() // and adopts runners that do not answer
	if _, a := h.Get("/status"); a["running_count"] != 5.0 {
		t.Errorf("%v", a)
	}
	release := keepStopped(runners[held])
	for _, id := range []string{woken, held, told} {
		if code, a := h.Post("/dispatches/"+id+"/cancel", `{"grace":"5s"}`); code != 200 {
			t.Errorf("cancel: %d %v", code, a)
		}
	}
	waitFile(t, h.Home+"/told")
	stop(t, runners[told]) // in its grace
	for _, id := range []string{woken, held, told} {
		testenv.Eventually(t, "the cancelled one to be gone", func() bool { return !agents[id].Alive() && !runners[id].Alive() })
	}
	release()
	if s := h.Status(runs) + " " + h.Status(ends); s != "running running" || stateOf(t, runners[runs]) != 'T' {
		t.Errorf("%s, the runner is in state %c", s, stateOf(t, runners[runs]))
	}
	for _, p := range []proc.Ident{runners[runs], runners[ends], server} {
		if err := p.Signal(syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	h.WaitStatus(ends, "failed")
	h.Run("touch", gate+"-later")
	h.WaitStatus(runs, "failed")
	h.WaitStatus(woken, "cancelled")
	h.WaitStatus(held, "cancelled")
	h.WaitStatus(told, "cancelled")
	for _, id := range []string{runs, ends} {
		if x := h.Field(id, "exit_code"); x != "7" {
			t.Errorf("dispatch %s: exit code %s", id, x)
		}
	}
	if ran(h) != 2 || len(h.Sessions()) != 0 {
		t.Errorf("%d starts of 2, sessions %v", ran(h), h.Sessions())
	}
}
