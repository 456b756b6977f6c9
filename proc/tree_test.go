package proc

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestAll(t *testing.T) {
	t.Parallel()
	cmd := start(t, shortDir(t), "plain")
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]Stat)
	for _, s := range all {
		if _, twice := seen[s.PID]; twice || s.PID <= 0 || s.State == 0 {
			t.Errorf("%+v, twice: %t", s, twice)
		}
		seen[s.PID] = s
	}
	me, child := seen[os.Getpid()], seen[cmd.Process.Pid]
	if me.Ident != Self() || me.PPID != os.Getppid() || me.PGRP != syscall.Getpgrp() || me.SID != sid(0) || me.Threads < 2 {
		t.Errorf("this process: %+v", me)
	}
	if child.PPID != me.PID || child.SID != me.SID || child.Start < me.Start || child.Dead() {
		t.Errorf("its child: %+v", child)
	}
	tids, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, tid := range tids {
		id, err := strconv.Atoi(tid.Name())
		if _, listed := seen[id]; err != nil || listed && id != me.PID {
			t.Errorf("thread %s: listed %t, %v", tid.Name(), listed, err)
		}
	}
}

// What forks and exits all the time is in every list, whatever pids it gets.
func TestAllMeetsHopper(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	comm := filepath.Base(dir)
	comm = comm[:min(15, len(comm))]
	hopper := exec.Command(os.Args[0], "role", "hopper", dir)
	if err := hopper.Run(); err != nil { // the first has ended: it hops
		t.Fatal(err)
	}
	met := make(map[int]bool)
	for look := range 300 {
		all, err := All()
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(s Stat) bool { return s.Comm == comm && !s.Dead() })
		if i < 0 {
			t.Errorf("not in look %d", look)
			continue
		}
		met[all[i].PID] = true
	}
	if len(met) < 10 {
		t.Errorf("it did not hop: %v", met)
	}
	killMembers(t, dir)
}

func TestDescendants(t *testing.T) {
	t.Parallel()
	p := func(pid, ppid int) Stat { return Stat{Ident: Ident{PID: pid}, PPID: ppid} }
	all := []Stat{p(1, 0), p(2, 0), p(10, 1), p(11, 10), p(5, 11), p(12, 5), p(20, 1), p(21, 20), p(30, 31), p(31, 30)}
	for name, tc := range map[string]struct {
		roots, want []int
	}{
		"a chain with smaller pids": {[]int{10}, []int{11, 5, 12}},
		"two roots":                 {[]int{10, 20}, []int{11, 5, 12, 21}},
		"a root below a root":       {[]int{10, 5}, []int{11, 12}},
		"no children":               {[]int{12}, nil},
		"nobody":                    {[]int{99}, nil},
		"no root":                   {nil, nil},
		"a circle":                  {[]int{30}, []int{31}},
		"init":                      {[]int{1}, []int{10, 11, 5, 12, 20, 21}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int
			for _, s := range Descendants(all, tc.roots...) {
				got = append(got, s.PID)
			}
			if !slices.Equal(got, tc.want) {
				t.Fatalf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestHasEnv(t *testing.T) {
	t.Parallel()
	long := "LONG=" + strings.Repeat("x", 40_000)
	pid := start(t, shortDir(t), "plain", "CORTEX_RUN_DIR=/a/b", "EMPTY=", long, "LAST=1").Process.Pid
	for entry, want := range map[string]bool{
		"CORTEX_RUN_DIR=/a/b":  true,
		"CORTEX_RUN_DIR=/a/bc": false,
		"CORTEX_RUN_DIR=/a/":   false,
		"ORTEX_RUN_DIR=/a/b":   false,
		"CORTEX_RUN_DIR":       false,
		"EMPTY=":               true,
		"LAST=1":               true,
		long:                   true,
		long + "x":             false,
		long[:len(long)-1]:     false,
		"":                     false,
	} {
		if got, err := HasEnv(pid, entry); err != nil || got != want {
			t.Errorf("%.30q (%d bytes): %t, %v", entry, len(entry), got, err)
		}
	}
	if _, err := HasEnv(1<<30, "A=B"); err != ErrGone {
		t.Errorf("of nobody: %v", err)
	}
}

func TestAbout(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	pid := start(t, dir, "plain").Process.Pid
	if got, want := Cmdline(pid), strings.Join([]string{os.Args[0], "role", "plain", dir}, " "); got != want {
		t.Errorf("command line %q, want %q", got, want)
	}
	if uid, err := UID(pid); err != nil || uid != os.Getuid() {
		t.Errorf("uid %d, %v", uid, err)
	}
	if w := WaitChannel(pid); strings.ContainsAny(w, "\n ") || w == "0" {
		t.Errorf("wait channel %q", w)
	}
	if _, err := UID(1 << 30); err != ErrGone || Cmdline(1<<30) != "" || WaitChannel(1<<30) != "" {
		t.Errorf("of nobody: %v", err)
	}
}

// What a command line holds reaches terminals and logs.
func TestCmdlineControlCharacters(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	sub := dir + "/a\x1b[2J\nb\tc"
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	pid := start(t, sub, "plain").Process.Pid
	if got := Cmdline(pid); !strings.HasSuffix(got, dir+"/a?[2J?b?c") {
		t.Errorf("%q", got)
	}
}

func BenchmarkAll(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		all, err := All()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(all)), "processes")
	}
}
