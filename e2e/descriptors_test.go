package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cortex/internal/testenv"
)

// turnstile is a FIFO on the host: a command that reads a line from it waits until pass lets it through.
type turnstile struct {
	t    *testing.T
	path string
	f    *os.File
}

func newTurnstile(t *testing.T, h *testenv.Host, name string) turnstile {
	t.Helper()
	path := filepath.Join(h.Home, name)
	h.Run("mkfifo", path)
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return turnstile{t, path, f}
}

// command runs once, waits, and exits with a code.
func (g turnstile) command(h *testenv.Host, code int) []string {
	return []string{"sh", "-c", fmt.Sprintf("echo ran >> %s/ran; read x < %s; exit %d", h.Home, g.path, code)}
}

func (g turnstile) pass(n int) {
	g.t.Helper()
	if _, err := g.f.WriteString(strings.Repeat("\n", n)); err != nil {
		g.t.Fatal(err)
	}
}

// An attempt whose folder can't be read for want of descriptors is neither over nor lost.
func TestUnreadForWantOfDescriptors(t *testing.T) {
	t.Parallel()
	h := faulty(t, "runner.look:scarce")
	h.Start()
	gate := newTurnstile(t, h, "gate")
	id := h.Submit("b", gate.command(h, 7)...)
	h.WaitRunning(id)
	gate.pass(1)
	h.WaitStatus(id, "failed")
	if x := h.Field(id, "exit_code"); x != "7" {
		t.Errorf("exit code %q, %s", x, h.Field(id, "failure_category"))
	}
}
