package proc

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fields4to22 are the fields of a stat after the state.
const fields4to22 = " 7 8 9 34816 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 123456 999 1\n"

func TestParseStat(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		line string
		comm string // "" where the line is to be refused
	}{
		"plain":          {"42 (bash) S" + fields4to22, "bash"},
		"spaces":         {"42 (tmux: server) S" + fields4to22, "tmux: server"},
		"parentheses":    {"42 ((sd-pam)) S" + fields4to22, "(sd-pam)"},
		"looks like one": {"42 () R 1 1 () S" + fields4to22, ") R 1 1 ("},
		"newline":        {"42 (a\nb\n) S" + fields4to22, "a\nb\n"},
		"not UTF-8":      {"42 (\xff\xfe) S" + fields4to22, "\xff\xfe"},
		"only open":      {"42 (((() S" + fields4to22, "((("},
		"cut off":        {"42 (bash) S 7 8 9 34816", ""},
		"nothing":        {"", ""},
		"no name":        {"42 S" + fields4to22, ""},
		"no pid":         {" (bash) S" + fields4to22, ""},
		"odd pid":        {"4x (bash) S" + fields4to22, ""},
		"odd start":      {"42 (bash) S" + strings.Replace(fields4to22, "123456", "-5", 1), ""},
		"backwards":      {"42 )bash( S" + fields4to22, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat([]byte(tc.line))
			if tc.comm == "" {
				if !errors.Is(err, errStat) {
					t.Fatalf("got %+v, %v; want errStat", got, err)
				}
				return
			}
			want := Stat{Ident{42, 123456}, 7, 8, 9, 34816, 3, 'S', tc.comm}
			if err != nil || got != want {
				t.Fatalf("got %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("bash")
	f.Add(oddName)
	f.Fuzz(func(t *testing.T, comm string) {
		got, err := parseStat([]byte("42 (" + comm + ") S" + fields4to22))
		if err != nil || got.Comm != comm || got.Start != 123456 || got.PPID != 7 {
			t.Fatalf("%q: %+v, %v", comm, got, err)
		}
		parseStat([]byte(comm)) // must not panic
	})
}

func TestOfSelf(t *testing.T) {
	t.Parallel()
	me, err := Of(os.Getpid())
	if err != nil || me != Self() || me.Start == 0 || !me.Alive() || !me.Exists() {
		t.Fatalf("%+v, %v, Self %+v", me, err, Self())
	}
	if err := me.Signal(0); err != nil {
		t.Fatal(err)
	}
}

func TestNobody(t *testing.T) {
	t.Parallel()
	for _, pid := range []int{0, -1, -os.Getpid(), 1 << 30} {
		i := Ident{PID: pid, Start: 1}
		if _, err := Of(pid); err != ErrGone {
			t.Errorf("Of(%d): %v", pid, err)
		}
		if err := i.Signal(0); err != ErrGone {
			t.Errorf("Signal to %d: %v", pid, err)
		}
		if i.Alive() || i.Exists() {
			t.Errorf("%d is there", pid)
		}
	}
}

func TestOddName(t *testing.T) {
	t.Parallel()
	cmd := start(t, shortDir(t), "named")
	s, err := statOf(cmd.Process.Pid)
	if err != nil || s.Comm != oddName || s.PPID != os.Getpid() || s.PID != cmd.Process.Pid {
		t.Fatalf("%+v, %v", s, err)
	}
}

// A pid that has changed hands is an Ident with another start.
func TestAnotherStart(t *testing.T) {
	t.Parallel()
	cmd := start(t, shortDir(t), "plain")
	real, err := Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []Ident{{real.PID, real.Start - 1}, {real.PID, real.Start + 1}, {real.PID, 0}} {
		if err := other.Signal(syscall.SIGKILL); err != ErrGone {
			t.Errorf("%+v: %v", other, err)
		}
		if err := other.compareAndKill(syscall.SIGKILL); err != ErrGone {
			t.Errorf("%+v: %v", other, err)
		}
		if other.Alive() || other.Exists() {
			t.Errorf("%+v is there", other)
		}
	}
	if !real.Alive() {
		t.Fatal("the process that has the pid was hit")
	}
}

func TestDeathOfAChild(t *testing.T) {
	t.Parallel()
	cmd := start(t, shortDir(t), "stubborn")
	i, err := Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Signal(syscall.SIGTERM); err != nil || !i.Alive() {
		t.Fatalf("after a SIGTERM that it ignores: %v", err)
	}
	if err := i.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a zombie", func() bool { return !i.Alive() })
	if s, err := statOf(i.PID); err != nil || !i.Exists() || !s.Dead() || s.State != 'Z' {
		t.Fatalf("zombie: %+v, %v", s, err)
	}
	if err := i.Signal(syscall.SIGKILL); err != nil {
		t.Errorf("signal to a zombie: %v", err)
	}
	cmd.Wait()
	if i.Alive() || i.Exists() || i.Signal(syscall.SIGKILL) != ErrGone {
		t.Error("there after it was reaped")
	}
}

// A process whose first thread has ended is shown as a zombie.
func TestHeadlessIsAlive(t *testing.T) {
	t.Parallel()
	cmd := start(t, shortDir(t), "headless")
	pid := cmd.Process.Pid
	eventually(t, "its first thread ends", func() bool {
		s, err := statOf(pid)
		return err == nil && s.State == 'Z'
	})
	i, err := Of(pid)
	if err != nil || !i.Alive() {
		t.Fatalf("taken for dead: %v", err)
	}
	if err := i.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "dead", func() bool { return !i.Alive() })
}

func TestWithoutPidfd(t *testing.T) {
	t.Parallel()
	for _, errno := range []string{"ENOSYS", "EPERM"} {
		t.Run(errno, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(shortDir(t), errno)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(os.Args[0], "role", "seccomp", dir).CombinedOutput()
			if err != nil || string(out) != "ok\n" {
				t.Fatalf("%s%v", out, err)
			}
		})
	}
}

func TestNoFreeDescriptor(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(os.Args[0], "role", "full", shortDir(t)).CombinedOutput()
	if want := "0 false false false false false true true\n"; err != nil || string(out) != want {
		t.Fatalf("got %s%v; want %s", out, err, want)
	}
}

func TestBootAndNamespace(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || BootID() != strings.TrimSpace(string(data)) || len(BootID()) != 36 {
		t.Errorf("boot %q, %v", BootID(), err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/pid", &st); err != nil || PIDNamespace() != st.Ino || st.Ino == 0 {
		t.Errorf("namespace %d, %v", PIDNamespace(), err)
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	before := time.Now()
	pid := start(t, shortDir(t), "named").Process.Pid
	after := time.Now()
	id, err := Of(pid)
	if err != nil {
		t.Fatal(err)
	}
	const rounding = 2 * tick
	low := time.Since(after)
	got, err := id.Age()
	if high := time.Since(before); err != nil || got < low-rounding || got > high+rounding {
		t.Errorf("%v, %v; want %v to %v", got, err, low, high)
	}
	earlier, err := Ident{PID: pid, Start: id.Start - 360_000}.Age()
	if d := earlier - got - time.Hour; err != nil || d < 0 || d > time.Minute {
		t.Errorf("one that started an hour earlier: %v, %v; this one %v", earlier, err, got)
	}
}

func TestParseBootOffset(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"monotonic           0         0\nboottime            0         0\n": 0,
		"monotonic           7         0\nboottime         3600 250000000\n": time.Hour + time.Second/4,
		"monotonic           0         0\nboottime          -10         0\n": -10 * time.Second,
		"boottime": 0, "": 0, "boottime x 0\n": 0,
	} {
		if got := parseBootOffset(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
