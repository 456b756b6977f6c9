package cgroup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

func TestLocate(t *testing.T) {
	t.Parallel()
	const hybrid = "30 20 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
	for _, c := range []struct{ name, membership, mounts, want string }{
		{"hybrid", "1:cpu:/x\n0::/user.slice/a.scope\n", hybrid, "/sys/fs/cgroup/unified/user.slice/a.scope"},
		{"the root", "0::/\n", "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"},
		{"optional fields", "0::/a\n", "41 31 0:38 / /sys/fs/cgroup rw shared:4 master:1 - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/a"},
		{"a part is mounted", "0::/pod/x/a\n", "41 31 0:38 /pod/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/a"},
		{"just that part", "0::/pod\n", "41 31 0:38 /pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"},
		{"blanks", "0::/a\n", "41 31 0:38 / /my\\040groups rw - cgroup2 cgroup2 rw\n", "/my groups/a"},
		{"another part is mounted", "0::/podium\n", "41 31 0:38 /pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", ""},
		{"version 1 alone", "1:cpu:/x\n", hybrid, ""},
		{"not mounted", "0::/a\n", "30 20 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n", ""},
		{"deleted", "0::/a (deleted)\n", hybrid, ""},
		{"nothing", "", "", ""},
	} {
		got, err := locate(c.membership, c.mounts)
		if got != c.want || (err == nil) != (c.want != "") || err != nil && !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

// try makes a group where this host lets the test; elsewhere it checks that the refusal is one that callers can tell.
func try(t *testing.T) (*Group, bool) {
	t.Helper()
	g, err := Make("cortex-test-" + strconv.Itoa(os.Getpid()) + "-" + t.Name())
	if errors.Is(err, ErrUnavailable) {
		t.Log("only the refusal is tested here:", err)
		return nil, false
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Kill(), g.AwaitEmpty(context.Background()), g.Remove()); err != nil {
			t.Error(err)
		}
	})
	return g, true
}

func TestKill(t *testing.T) {
	t.Parallel()
	g, ok := try(t)
	if !ok {
		return
	}
	if empty, err := g.Empty(); !empty || err != nil {
		t.Fatalf("a new one is empty: %v, %v", empty, err)
	}
	dir, err := g.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	// A chain that forks a new session for ever, and a group within the group.
	cmd := exec.Command("sh", "-c", `trap "" TERM HUP INT
		mkdir "$0/inner"; sh -c 'echo $$ > "$0/inner/cgroup.procs"; exec sleep 1000' "$0" &
		hop() { setsid sh -c "$1" x "$1" & }
		hop 'sleep 0.002; setsid sh -c "$1" x "$1" & exit'; wait; sleep 1000`, g.Path())
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		members, err := g.Members()
		if err != nil {
			t.Fatal(err)
		}
		inner, err := os.ReadFile(filepath.Join(g.Path(), "inner", "cgroup.procs"))
		if len(members) >= 3 && err == nil && len(inner) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the processes did not come")
		}
	}
	if empty, err := g.Empty(); empty || err != nil {
		t.Errorf("empty %v, %v", empty, err)
	}
	if err := g.Remove(); err == nil {
		t.Error("a group with members was removed")
	}
	if err := errors.Join(g.Kill(), g.AwaitEmpty(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("it ended by %v", err)
	}
	if members, err := g.Members(); len(members) != 0 || err != nil {
		t.Errorf("members %v, %v", members, err)
	}
	found, ok := Find(g.Path())
	if !ok || found.Path() != g.Path() {
		t.Errorf("found %v, %v", found, ok)
	}
	for range 2 {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	}
	// What is gone is empty, and no error.
	empty, err := g.Empty()
	if members, merr := g.Members(); !empty || err != nil || merr != nil || len(members) != 0 || g.Kill() != nil {
		t.Errorf("empty %v, %v; members %v, %v", empty, err, members, merr)
	}
}

func TestAwaitEmptyEndsWithItsContext(t *testing.T) {
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
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := g.AwaitEmpty(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	g, ok := try(t)
	if !ok {
		return
	}
	if _, err := Make(filepath.Base(g.Path())); !errors.Is(err, os.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
}

// Nothing that is no group is taken for one, whatever a record says.
func TestFindRefuses(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "relative", "/", "/etc", "/nonexistent", t.TempDir()} {
		if g, ok := Find(path); ok {
			t.Errorf("%q: %v", path, g)
		}
	}
}
