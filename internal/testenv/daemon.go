package testenv

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Daemon is a running cortex.
type Daemon struct {
	h    *Host
	cmd  *exec.Cmd
	log  string // a file
	done chan struct{}
	err  error
}

// Start starts the daemon and waits until it answers.
func (h *Host) Start(args ...string) *Daemon {
	h.t.Helper()
	d := h.Launch(args...)
	Eventually(h.t, "the daemon to answer", func() bool {
		select {
		case <-d.done:
			h.t.Fatalf("the daemon ended: %v\n%s", d.err, d.Log())
		default:
		}
		code, _ := h.Get("/status")
		return code == http.StatusOK
	})
	return d
}

// Launch starts the daemon and does not wait. It is killed at the test's end, if it still runs.
func (h *Host) Launch(args ...string) *Daemon {
	h.t.Helper()
	log, err := os.CreateTemp(filepath.Dir(h.Home), "daemon-*.log")
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	command := slices.Concat(h.Limits, []string{filepath.Join(h.Bin, "cortex")}, args)
	d := &Daemon{h: h, cmd: h.Command(command[0], command[1:]...), log: log.Name(), done: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr.Setsid = true
	if err := d.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	h.t.Cleanup(func() {
		d.Kill()
		if strings.Contains(d.Log(), "DATA RACE") {
			h.t.Errorf("the daemon has a data race")
		}
		if h.t.Failed() {
			h.t.Logf("daemon %d:\n%s", d.PID(), d.Log())
		}
	})
	return d
}

// PID is the daemon's.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Kill kills the daemon with SIGKILL.
func (d *Daemon) Kill() {
	d.cmd.Process.Kill()
	<-d.done
}

// Stop stops the daemon with SIGTERM and fails the test if it does not end well.
func (d *Daemon) Stop() {
	d.h.t.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.done
	if d.err != nil {
		d.h.t.Fatalf("the daemon's stop: %v\n%s", d.err, d.Log())
	}
}

// Done is closed when the daemon has ended.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// ExitCode is the daemon's, once Done is closed.
func (d *Daemon) ExitCode() int { return d.cmd.ProcessState.ExitCode() }

// Log is what the daemon has said.
func (d *Daemon) Log() string {
	text, err := os.ReadFile(d.log)
	if err != nil {
		d.h.t.Error(err)
	}
	return string(text)
}
