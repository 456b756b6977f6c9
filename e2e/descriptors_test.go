package e2e

import (
	"fmt"
	"net"
	"net/http"
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

// crowd opens connections that say nothing, until its end is called.
func crowd(t *testing.T, n int, network, address string) (end func()) {
	t.Helper()
	var all []net.Conn
	end = func() {
		for _, c := range all {
			c.Close()
		}
		all = nil
	}
	t.Cleanup(end)
	for range n {
		c, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return end
}

// The daemon may have few descriptors, idle clients take what they get, and more is submitted than it can follow: the API
// answers, what runs ends with its true exit status, what can't be started waits and starts later.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	const many = 60 // more than 96 descriptors can follow, also when the idle clients are gone: they are cut after 10 s
	h := testenv.New(t)
	h.Extra = []string{fmt.Sprint("CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=", many), "CORTEX_LOG__LEVEL=debug"}
	h.Limits = []string{"prlimit", "--nofile=96:96"}
	d := h.Start()
	first, rest := newTurnstile(t, h, "first"), newTurnstile(t, h, "rest")
	early := h.Submit("early", first.command(h, 7)...)
	cancelled := h.Submit("cancelled", first.command(h, 8)...)
	h.WaitRunning(early)
	agent := h.WaitRunning(cancelled)

	end := []func(){crowd(t, 200, "tcp", h.Listen), crowd(t, 200, "unix", filepath.Join(h.State, "cortex.sock"))}
	for range many {
		h.Submit("b", rest.command(h, 0)...)
	}
	awaitFault(t, h, "descriptors", "of 96 descriptors are in use", "LimitNOFILE")
	if out, _, code := h.Try(filepath.Join(h.Bin, "cortex"), "status"); code != 0 || !strings.Contains(out, "descriptors") {
		t.Errorf("status: exit %d\n%s", code, out)
	}
	if _, a := h.Get("/status"); a["pending_count"] == 0.0 || a["running_count"] == 0.0 {
		t.Errorf("nothing is held back: %v", a)
	}
	if code, a := h.Post("/dispatches/"+cancelled+"/cancel?wait=30s", `{"grace":"0s"}`); code != http.StatusOK || agent.Alive() {
		t.Errorf("cancel: %d %v, alive %v", code, a, agent.Alive())
	}
	first.pass(1)
	h.WaitStatus(early, "failed")
	if x := h.Field(early, "exit_code"); x != "7" {
		t.Errorf("exit code %s", x)
	}
	rest.pass(many)
	testenv.Eventually(t, "all to complete", func() bool {
		_, a := h.Get("/status")
		counts, _ := a["counts"].(map[string]any)
		return counts["completed"] == float64(many)
	})
	for _, e := range end {
		e()
	}
	awaitHealth(t, h)
	if n, r := ran(h), h.SQL("SELECT count(*) FROM dispatches WHERE retries > 0"); n != many+2 || r != "0" {
		t.Errorf("ran %d times, %s retries", n, r)
	}
	if got := h.SQL("SELECT DISTINCT event_type FROM health_events WHERE type IN ('error', 'critical')"); got != "descriptors_low" {
		t.Errorf("events: %q", got)
	}
	if strings.Contains(d.Log(), syscall.EMFILE.Error()) {
		t.Error("the daemon has used up its own descriptors")
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

// A daemon that takes over more than it has descriptors for declares nothing lost because it can't ask: it follows what it
// can, sees the others end, and stops what it is told to.
func TestAdoptionWithFewDescriptors(t *testing.T) {
	t.Parallel()
	const many = 24
	h := testenv.New(t)
	h.Extra = []string{fmt.Sprint("CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=", many)}
	d := h.Start()
	gate := newTurnstile(t, h, "gate")
	var ids []string
	for range many {
		ids = append(ids, h.Submit("b", gate.command(h, 7)...))
	}
	for _, id := range ids {
		h.WaitRunning(id)
	}
	d.Kill()
	h.Limits = []string{"prlimit", "--nofile=48:48"}
	h.Start()
	awaitFault(t, h, "dispatches", "can't be reached: too many open files")
	awaitFault(t, h, "descriptors", "of 48 descriptors are in use", "LimitNOFILE")
	waits := h.Submit("waits", "true")
	for _, id := range ids[:many/2] {
		if code, a := h.Post("/dispatches/"+id+"/cancel", `{"grace":"0s"}`); code != http.StatusOK {
			t.Errorf("cancel: %d %v", code, a)
		}
	}
	for _, id := range ids[:many/2] {
		h.WaitStatus(id, "cancelled")
	}
	gate.pass(many / 2)
	for _, id := range ids[many/2:] {
		h.WaitStatus(id, "failed")
		if x := h.Field(id, "exit_code"); x != "7" {
			t.Errorf("dispatch %s: exit code %q, %s", id, x, h.Field(id, "failure_category"))
		}
	}
	h.WaitStatus(waits, "completed")
	awaitHealth(t, h)
	if n := ran(h); n != many {
		t.Errorf("ran %d times", n)
	}
}
