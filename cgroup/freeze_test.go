package cgroup

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// A chain that forks a new session for ever stops in a frozen group, and goes on in a thawed one; killed it dies frozen, too.
func TestFreeze(t *testing.T) {
	t.Parallel()
	g, ok := try(t)
	if !ok {
		return
	}
	dir, err := g.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("sh", "-c", `hop='sleep 0.002; setsid sh -c "$1" x "$1" & exit'; setsid sh -c "$hop" x "$hop" & wait; exec sleep 1000`)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() })
	members := func() []byte {
		t.Helper()
		all, err := g.Members()
		if err != nil {
			t.Fatal(err)
		}
		var text []byte
		for _, pid := range all {
			text = append(text, byte(pid), byte(pid>>8), byte(pid>>16))
		}
		return text
	}
	for range 5 {
		if err := g.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := members()
		for range 50 {
			if now := members(); len(now) == 0 || !bytes.Equal(before, now) {
				t.Fatalf("a frozen group changes: %v, %v", before, now)
			}
		}
		if err := g.Thaw(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); bytes.Equal(before, members()); {
			if time.Now().After(deadline) {
				t.Fatal("a thawed group does not go on")
			}
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Freeze(ended); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := errors.Join(g.Freeze(t.Context()), g.Kill(), g.AwaitEmpty(t.Context()), g.Thaw()); err != nil {
		t.Error(err)
	}
	if err := errors.Join(g.Remove(), g.Thaw()); err != nil {
		t.Errorf("of a group that is gone: %v", err)
	}
}
