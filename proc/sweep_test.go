package proc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// otherUID is nobody: a user that no process of the test's own runs as.
const otherUID = 65534

// scenario is a tree that the runner role sets up below itself and sweeps when it is ready.
type scenario struct {
	set   func(dir string)
	ready func(r report) bool
}

var scenarios = map[string]scenario{
	"nothing":  {func(string) {}, func(report) bool { return true }},
	"plain":    {one("plain", inherit()), markedBy(1)},
	"stubborn": {one("stubborn", inherit()), markedBy(1)},
	"session":  {one("stubborn", &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}}), markedBy(1)},
	"no env":   {one("closed", &syscall.ProcAttr{Env: []string{}}), markedBy(1)},
	"daemon":   {one("daemon", inherit()), orphaned},
	"stopped":  {one("stopped", inherit()), inState("Tt")},
	"headless": {one("headless", inherit()), inState("Z")},
	"hopper":   {one("hopper", inherit()), orphaned},
	"crowd":    {one("crowd", inherit()), func(r report) bool { return len(r.Before) == crowdSize+1 }},
	"bomb":     {one("bomb", inherit()), func(r report) bool { return len(r.Before) > 4 }},
	"keeper":   {one("keeper", inherit()), func(r report) bool { return len(r.Before) == 2 }},
	"all of them": {func(dir string) {
		for _, role := range []string{"plain", "stubborn", "daemon", "stopped", "headless", "hopper", "keeper", "bomb", "hopper"} {
			spawn(dir, role, inherit())
		}
	}, func(r report) bool { return len(r.Marked) >= 9 }},
	"others":       {withOther("stubborn"), markedBy(2)},
	"other hopper": {withOther("hopper"), markedBy(2)},
}

func inherit() *syscall.ProcAttr {
	return &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 2, 2}}
}

func one(role string, attr *syscall.ProcAttr) func(string) {
	return func(dir string) { spawn(dir, role, attr) }
}

func markedBy(n int) func(report) bool {
	return func(r report) bool { return len(r.Marked) >= n }
}

func inState(states string) func(report) bool {
	return func(r report) bool { return len(r.Before) == 1 && strings.IndexByte(states, r.Before[0].State) >= 0 }
}

// orphaned: the role that was started has ended, and what it left is below the runner.
func orphaned(r report) bool {
	return len(r.Marked) == 1 && len(r.Before) >= 1 && r.Before[0].SID == r.Before[0].PID
}

// withOther starts role under the present user, then becomes another one, which may not signal it, and starts a child.
func withOther(role string) func(string) {
	return func(dir string) {
		spawn(dir, role, inherit())
		if err := syscall.Setresuid(otherUID, otherUID, otherUID); err != nil {
			os.Stderr.WriteString("setresuid: " + err.Error() + "\n")
			os.Exit(1)
		}
		spawn(dir, "plain", inherit())
	}
}

// runScenario has a runner of its own set up and sweep the scenario.
func runScenario(t *testing.T, name string, env ...string) report {
	t.Helper()
	dir := filepath.Join(shortDir(t), name)
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, os.Args[0], "role", "runner", dir)
	cmd.WaitDelay = time.Second
	cmd.Env = append(append(os.Environ(), quickExit), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("runner: %v\n%s", err, out.Bytes())
	}
	if strings.HasPrefix(name, "other") { // the test may what the sweeper might not
		killMembers(t, dir)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s", err, out.Bytes())
	}
	return r
}

func killMembers(t *testing.T, dir string) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	swept, err := Sweep(ctx, func() ([]Stat, error) { return withCommand(dir) }, nil)
	if err != nil || len(swept.Killed) == 0 || len(swept.Survivors) > 0 {
		t.Errorf("ending another user's: %+v, %v", swept, err)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	for name := range scenarios {
		if strings.HasPrefix(name, "other") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := runScenario(t, name) // its cleanup finds what is left, by command line
			t.Logf("%d killed in %v", len(r.Swept.Killed), r.Took)
			if r.Err != "" || len(r.Swept.Survivors) > 0 || len(r.After) > 0 {
				t.Fatalf("%+v", r)
			}
			var killed []int
			for _, s := range r.Swept.Killed {
				killed = append(killed, s.PID)
			}
			if moves := strings.Contains("hopper all of them", name); moves && len(killed) == 0 {
				t.Fatalf("killed nobody")
			} else if moves {
				return
			}
			for _, pid := range r.Marked {
				if !slices.Contains(killed, pid) {
					t.Errorf("%d is not among the killed %v", pid, killed)
				}
			}
			if name == "crowd" && len(killed) != crowdSize+1 {
				t.Errorf("%d killed", len(killed))
			}
			if name == "keeper" && len(killed) != 2 {
				t.Errorf("it replaced its child: %v", r.Swept.Killed)
			}
		})
	}
}

// What another user runs can't be signalled: EPERM, as it is, said soon and not waited for.
func TestOtherUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 { // there is one process of another user that is surely there
		init, err := Of(1)
		if err != nil {
			t.Fatal(err)
		}
		if err := init.Signal(0); err != syscall.EPERM {
			t.Fatalf("got %v", err)
		}
		return
	}
	t.Run("Sweep", func(t *testing.T) {
		t.Parallel()
		r := runScenario(t, "others")
		if r.Err != "" || len(r.Swept.Killed) != 1 || len(r.Swept.Survivors) != 1 {
			t.Fatalf("%+v", r)
		}
		v := r.Swept.Survivors[0]
		if v.UID != 0 || v.Why != syscall.EPERM.Error() || !strings.Contains(v.Command, "role stubborn") || v.PID == 0 {
			t.Errorf("%+v", v)
		}
		if r.Took < refusedFor || r.Took > stuckFor {
			t.Errorf("took %v", r.Took)
		}
	})
	t.Run("Sweep of one that forks on", func(t *testing.T) {
		t.Parallel()
		r := runScenario(t, "other hopper") // a survivor, or a sweep that never caught up, but never a success
		if r.Err == "" && len(r.Swept.Survivors) == 0 || len(r.Swept.Killed) != 1 {
			t.Fatalf("%+v", r)
		}
		if r.Took > stuckFor+10*time.Second {
			t.Errorf("took %v", r.Took)
		}
	})
}

// finder finds the processes with pids, as they are now.
func finder(pids ...int) func() ([]Stat, error) {
	return func() ([]Stat, error) {
		all, err := All()
		return slices.DeleteFunc(all, func(s Stat) bool { return !slices.Contains(pids, s.PID) }), err
	}
}

// A process with the same command line that find does not return is left alone; a nil reap leaves zombies, which are dead.
func TestSweepLeavesBystander(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	member, bystander := start(t, dir, "plain").Process.Pid, start(t, dir, "plain").Process.Pid
	swept, err := Sweep(t.Context(), finder(member), nil)
	if err != nil || len(swept.Killed) != 1 || swept.Killed[0].PID != member || len(swept.Survivors) > 0 {
		t.Fatalf("%+v, %v", swept, err)
	}
	s, err := statOf(bystander)
	if err != nil || s.Dead() || s.State == 'T' {
		t.Fatalf("the bystander: %+v, %v", s, err)
	}
}

func TestSweepAnotherStart(t *testing.T) {
	t.Parallel()
	pid := start(t, shortDir(t), "plain").Process.Pid
	find := func() ([]Stat, error) { // a list from before the pid changed hands
		s, err := statOf(pid)
		s.Start--
		return []Stat{s, s}, err
	}
	swept, err := Sweep(t.Context(), find, nil)
	if err != nil || len(swept.Killed)+len(swept.Survivors) > 0 {
		t.Fatalf("%+v, %v", swept, err)
	}
	if s, err := statOf(pid); err != nil || s.Dead() || s.State == 'T' {
		t.Fatalf("%+v, %v", s, err)
	}
}

// Whatever find returns: these are never members.
func TestSweepNeverItself(t *testing.T) {
	t.Parallel()
	s := sweep{members: make(map[Ident]*member)}
	for _, pid := range []int{-1, 0, 1, os.Getpid()} {
		s.see(Stat{Ident: Ident{PID: pid, Start: Self().Start}, State: 'S'})
	}
	if len(s.living)+len(s.members) > 0 {
		t.Fatalf("%+v", s.members)
	}
}

// The end of ctx shortens the waiting, and kills nonetheless.
func TestSweepEndedContext(t *testing.T) {
	t.Parallel()
	i, err := Of(start(t, shortDir(t), "stubborn").Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("enough")
	ctx, stop := context.WithCancelCause(t.Context())
	stop(why)
	if _, err := Sweep(ctx, finder(i.PID), nil); !errors.Is(err, why) {
		t.Fatalf("got %v", err)
	}
	eventually(t, "killed", func() bool { return !i.Alive() })
}

// When find fails after something was frozen, that is killed: it must not hang stopped for ever.
func TestSweepFindFails(t *testing.T) {
	t.Parallel()
	i, err := Of(start(t, shortDir(t), "stubborn").Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	broken, looks, reaped := errors.New("broken"), 0, 0
	find := func() ([]Stat, error) {
		if looks++; looks > 1 {
			return nil, broken
		}
		return finder(i.PID)()
	}
	if _, err := Sweep(t.Context(), find, func() { reaped++ }); !errors.Is(err, broken) || reaped == 0 {
		t.Fatalf("got %v, reaped %d", err, reaped)
	}
	eventually(t, "killed", func() bool { return !i.Alive() })
}

// What was stopped or killed is followed to its death, though find loses sight of it.
func TestSweepFollowsToDeath(t *testing.T) {
	t.Parallel()
	pid := start(t, shortDir(t), "stubborn").Process.Pid
	looks := 0
	find := func() ([]Stat, error) {
		if looks++; looks > 1 {
			return nil, nil
		}
		return finder(pid)()
	}
	swept, err := Sweep(t.Context(), find, nil)
	if err != nil || len(swept.Killed) != 1 {
		t.Fatalf("%+v, %v", swept, err)
	}
}

// One that does not die of SIGKILL is a survivor: at once when ctx ends, by itself after a bounded time.
func TestSweepStuck(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	cmd := exec.Command(os.Args[0], "role", "tracer", dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // its tracee dies with it
		cmd.Process.Signal(unix.SIGKILL)
		cmd.Wait()
	})
	eventually(t, "the tracee is ready", func() bool { return len(marks(dir)) == 1 })
	find := finder(marks(dir)...)
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	for i, want := range []error{context.DeadlineExceeded, nil} {
		began := time.Now()
		swept, err := Sweep(ctx, find, nil)
		if !errors.Is(err, want) || len(swept.Survivors) != 1 || len(swept.Killed) > 0 {
			t.Fatalf("%d: %+v, %v", i, swept, err)
		}
		v := swept.Survivors[0]
		if !strings.HasPrefix(v.Why, "not dead after SIGKILL: state ") || v.Command != "["+v.Comm+"]" || v.UID != os.Getuid() {
			t.Errorf("%+v", v)
		}
		if took := time.Since(began); want == nil && took < stuckFor || took > stuckFor+10*time.Second {
			t.Errorf("took %v", took)
		}
		t.Log(v.Why)
		ctx = t.Context()
	}
}
