package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"cortex/internal/testenv"
)

// memoryGroups is where control groups that limit memory can be made (version 1).
const memoryGroups = "/sys/fs/cgroup/memory"

// An agent that the kernel kills because a limit on memory is reached has failed by that signal, and takes nobody with it.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	group := filepath.Join(memoryGroups, filepath.Base(filepath.Dir(h.Home)))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Logf("memory can't be limited here, nothing is tested: %v", err)
		return
	}
	t.Cleanup(func() {
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(group, "memory.limit_in_bytes"), []byte("32M"), 0); err != nil {
		t.Fatal(err)
	}
	h.Start()
	gate := newTurnstile(t, h, "gate")
	other := h.Submit("other", gate.command(h, 3)...)
	id := h.Submit("glutton", "sh", "-c", fmt.Sprintf("echo $$ > %s/cgroup.procs; exec tail /dev/zero", group))
	h.WaitStatus(id, "failed")
	if c, s, x := h.Field(id, "failure_category"), h.Field(id, "signal"), h.Field(id, "exit_code"); c != "signal" || s != "9" || x != "137" {
		t.Errorf("%s, signal %s, exit code %s", c, s, x)
	}
	gate.pass(1)
	h.WaitStatus(other, "failed")
	if x := h.Field(other, "exit_code"); x != "3" {
		t.Errorf("exit code %s of the other", x)
	}
}
