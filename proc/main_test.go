package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The children of these tests are the test binary itself: proc.test role NAME DIR. DIR is the test's own temporary folder,
// so that a command line tells whose a process is, whatever it did to its environment, descriptors and session.

var roles = map[string]func(dir string){
	"plain":    func(dir string) { mark(dir); forever() },
	"stubborn": stubborn,
	"closed":   closed,
	"daemon":   daemon,
	"stopped":  func(dir string) { mark(dir); unix.Kill(os.Getpid(), unix.SIGSTOP); forever() },
	"named":    named,
	"headless": headless,
	"hopper":   hopper,
	"marking":  marking,
	"crowd":    crowd,
	"bomb":     bomb,
	"keeper":   keeper,
	"tracer":   tracer,
	"seccomp":  seccomp,
	"full":     full,
	"runner":   runnerRole,
}

func init() {
	if len(os.Args) > 2 && os.Args[1] == "role" {
		runtime.LockOSThread() // main goroutine = first thread: headless and tracer need it
	}
}

// roleLife is when a process of a test ends by itself, should all else fail.
const roleLife = 6 * time.Minute

func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "role" {
		role := roles[os.Args[2]]
		if role == nil {
			fmt.Fprintln(os.Stderr, "no such role:", os.Args[2])
			os.Exit(2)
		}
		time.AfterFunc(roleLife, func() { os.Exit(3) })
		role(os.Args[3])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// mark says that this process is ready: a file named by its pid.
func mark(dir string) {
	if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(os.Getpid())), nil, 0o666); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// marking gives itself a mark, and starts another that sheds all else.
func marking(dir string) {
	if err := MarkSelf(); err != nil {
		fmt.Fprintln(os.Stderr, "mark:", err)
		os.Exit(1)
	}
	spawn(dir, "plain", &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}})
	mark(dir)
	forever()
}

// spawn starts a role without anybody having to wait for it; on failure it ends the role that called it.
func spawn(dir, role string, attr *syscall.ProcAttr) int {
	// By the magic link: the binary's folder may be closed to the user that a role has become.
	pid, err := syscall.ForkExec("/proc/self/exe", []string{os.Args[0], "role", role, dir}, attr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "start", role, err)
		os.Exit(1)
	}
	return pid
}

// start starts a role as the test's own child, and waits until it has marked itself.
func start(t *testing.T, dir, role string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "role", role, dir)
	cmd.Env = append(append(os.Environ(), quickExit), env...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	eventually(t, role+" is ready", func() bool { return marked(dir, cmd.Process.Pid) })
	return cmd
}

// quickExit keeps a role that was built with the race detector from sleeping for a second before it exits.
const quickExit = "GORACE=atexit_sleep_ms=0"

func marked(dir string, pid int) bool {
	_, err := os.Stat(filepath.Join(dir, strconv.Itoa(pid)))
	return err == nil
}

// shortDir is a folder of the test's own, which is also in the command lines of its processes; at the end none may be left.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "proc-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil { // roles may run as another user
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
		defer stop()
		swept, err := Sweep(ctx, func() ([]Stat, error) { return withCommand(dir) }, nil)
		if len(swept.Killed)+len(swept.Survivors) > 0 || err != nil {
			t.Errorf("left behind: %+v, %v", swept, err)
		}
		os.RemoveAll(dir)
	})
	return dir
}

// withCommand finds the processes that have dir in their command line: a way that is independent of the tree. It asks the
// youngest first, before they hop on, and looks again where one went before it answered.
func withCommand(dir string) ([]Stat, error) {
	for range 100 {
		all, err := All()
		if err != nil {
			return nil, err
		}
		slices.SortFunc(all, func(a, b Stat) int { return older(b, a) })
		var found []Stat
		missed := false
		for _, s := range all {
			if s.Dead() {
				continue
			}
			line := Cmdline(s.PID)
			if strings.Contains(line, dir) {
				found = append(found, s)
			}
			missed = missed || line == "" || line[0] == '[' && !s.Alive()
		}
		if len(found) > 0 || !missed {
			return found, nil
		}
	}
	return nil, errors.New("100 looks in a row missed somebody")
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	if !poll(cond) {
		t.Fatalf("not within 30 s: %s", what)
	}
}

func poll(cond func() bool) bool {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(30 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			return false
		}
	}
	return true
}
