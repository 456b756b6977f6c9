package pane

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cortex/proc"
	"cortex/runner/record"
)

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, script string
		code, signal int
	}{
		{"zero", "exit 0", 0, 0},
		{"three", "exit 3", 3, 0},
		{"255", "exit 255", 255, 0},
		{"kill", "kill -KILL $$", -1, 9},
		{"term", "kill -TERM $$", -1, 15},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := prepare(t, t.TempDir(), "sh", "-c", "echo hello; "+c.script).start().end()
			if e.Cause != record.CauseExit || e.Code != c.code || e.Signal != c.signal {
				t.Errorf("%+v", e)
			}
			if e.OutputBytes != int64(len("hello\r\n")) || e.MaxRSSKiB == 0 || e.Seconds <= 0 || e.EndedAt.Before(e.StartedAt) {
				t.Errorf("counters: %+v", e)
			}
		})
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "sh", "-c", "echo hello; read x; echo got $x")
	check(t, unix.Mkfifo(filepath.Join(tr.dir.Path(), record.ReadyFIFO), 0o600))
	fifo, err := tr.dir.Open(record.ReadyFIFO, os.O_RDWR, 0)
	check(t, err)
	tr.start()
	var b [2]byte
	if n, err := fifo.Read(b[:]); n != 1 || err != nil {
		t.Fatalf("readiness: %d bytes, %v", n, err)
	}
	check(t, fifo.Close())

	// Ready means that all of this is there.
	var claim record.Claim
	check(t, tr.dir.Read(record.ClaimFile, &claim))
	me := record.Process{Boot: proc.BootID(), PIDNS: proc.PIDNamespace()}
	if claim.Runner.PID != tr.cmd.Process.Pid || claim.Runner.Boot != me.Boot || claim.Runner.PIDNS != me.PIDNS ||
		claim.Session != "ctx-p-b-7" || claim.Tmux != "/tmp/t,1,2" || claim.Revoked || time.Since(claim.At) > patience {
		t.Errorf("claim: %+v", claim)
	}
	var started record.Started
	check(t, tr.dir.Read(record.StartedFile, &started))
	agent, err := proc.Of(started.Agent.PID)
	if err != nil || agent.Start != started.Agent.Start || !strings.HasPrefix(started.TTY, "/dev/pts/") {
		t.Errorf("started: %+v, %v", started, err)
	}
	st, err := os.Stat(filepath.Join(tr.dir.Path(), record.Socket))
	if err != nil || st.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("socket: %v, %v", st, err)
	}
	w := tr.connect()
	s := *w.next().State
	if s.Phase != record.PhaseRunning || *s.Agent != started.Agent || s.Runner != claim.Runner || s.TTY != started.TTY ||
		s.ID != 7 || s.Attempt != 1 || s.Session != "ctx-p-b-7" || !s.StartedAt.Equal(started.At) {
		t.Errorf("state: %+v", s)
	}

	_, err = tr.pane.WriteString("typed\r")
	check(t, err)
	if s := w.phase(record.PhaseEnded); s.Exit == nil || s.Exit.Code != 0 {
		t.Errorf("last state: %+v", s)
	}
	if w.next() != nil {
		t.Error("the connection stays open after the end")
	}
	tr.end()
	tr.says("got typed\r\n").inStep()
	eventually(t, "the pane shows it", func() bool { return strings.Contains(tr.screen(), "got typed\r\n") })
}

func TestArgumentsAndEnvironmentArrive(t *testing.T) {
	t.Parallel()
	args := []string{"a b", `"q" 'q'`, "$(date) `date` $HOME", "line\nbreak\ttab", "ä€🙂", ";|&", "#{session_name}", "~", "", "-x", "\\"}
	tr := prepare(t, t.TempDir(), args...).role("report")
	tr.spec.Env = append(tr.spec.Env, "A=b c", "BYTES=\xff\xfe", "EMPTY=", "CORTEX_RUN_DIR=/wrong", "CORTEX_ATTEMPT=99", "CORTEX_BEAD_ID=wrong")
	tr.spec.Stdin = record.StdinNull
	tr.start().end()
	var s seen
	check(t, json.Unmarshal(tr.log(), &s))
	var got []string
	for _, a := range s.Args {
		got = append(got, string(a))
	}
	if !slices.Equal(got, args) {
		t.Errorf("arguments %q", got)
	}
	var env []string
	for _, e := range s.Env {
		env = append(env, string(e))
	}
	want := []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", roleEnv + "=report", "A=b c", "BYTES=\xff\xfe", "EMPTY=", "TERM=tmux-256color",
		"CORTEX_DISPATCH_ID=7", "CORTEX_BEAD_ID=b", "CORTEX_PROJECT=p", "CORTEX_SESSION=ctx-p-b-7", "CORTEX_RUN_DIR=" + tr.dir.Path(), "CORTEX_ATTEMPT=1",
	}
	if !slices.Equal(env, want) {
		t.Errorf("environment %q", env)
	}
	if s.Dir != tr.spec.Workdir || s.Stdin != "/dev/null" {
		t.Errorf("directory %s, stdin %s", s.Dir, s.Stdin)
	}
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "sh", "-c",
		"tty; stty size; tty </dev/tty; test -t 0 && test -t 1 && test -t 2 && echo all; ps -o sid=,pgid=,pid= -p $$; read x; stty size")
	tr.spec.Env = append(tr.spec.Env, "TERM=dumb")
	tr.start().says("all")
	var started record.Started
	eventually(t, "started.json", func() bool { return tr.dir.Read(record.StartedFile, &started) == nil })
	// The pane is 80x24, below the floor; then larger in one way.
	check(t, setSize(tr.pane, 300, 10))
	tty, err := os.OpenFile(started.TTY, os.O_RDWR|syscall.O_NOCTTY, 0)
	check(t, err)
	defer tty.Close()
	eventually(t, "the size follows", func() bool {
		ws, err := unix.IoctlGetWinsize(int(tty.Fd()), unix.TIOCGWINSZ)
		return err == nil && ws.Col == 300 && ws.Row == 50
	})
	_, err = tr.pane.WriteString("\r")
	check(t, err)
	tr.end()
	log := string(tr.log())
	if !strings.HasPrefix(log, started.TTY+"\r\n50 200\r\n/dev/") || !strings.Contains(log, "\r\n50 300\r\n") {
		t.Errorf("log: %q", log)
	}
	ids := strings.Fields(strings.Split(log, "all\r\n")[1])[:3]
	if ids[0] != ids[1] || ids[1] != ids[2] {
		t.Errorf("session, group, pid: %v", ids)
	}
}

func setSize(f *os.File, columns, rows uint16) error {
	return unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows})
}

// A runner started by nohup, or from a script's &, has signals ignored; other parents block some, and leak descriptors.
func TestAgentStartsClean(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	check(t, err)
	for name, command := range map[string][]string{
		"SigIgn:\t0000000000000000\r\n": {"grep", "SigIgn", "/proc/self/status"},
		"SigBlk:\t0000000000000000\r\n": {"grep", "SigBlk", "/proc/self/status"},
		"0\r\n1\r\n2\r\n3\r\n":          {"ls", "-1", "/proc/self/fd"}, // 3 is what ls reads
	} {
		t.Run(command[0]+command[1], func(t *testing.T) {
			t.Parallel()
			tr := prepare(t, t.TempDir(), command...)
			tr.wrap = []string{self}
			null, err := os.Open(os.DevNull)
			check(t, err)
			defer null.Close()
			tr.extra = []*os.File{null, null, null}
			tr.start().end()
			if got := string(tr.log()); got != name {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestLimitsAreTheParents(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("sh", "-c", "ulimit -Sn; umask").Output()
	check(t, err)
	tr := prepare(t, t.TempDir(), "sh", "-c", "ulimit -Sn; umask")
	tr.start().end()
	if got := strings.ReplaceAll(string(tr.log()), "\r", ""); got != string(out) {
		t.Errorf("%q, want %q", got, out)
	}
}

func TestSpawnErrors(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(bin, name)
		check(t, os.WriteFile(path, []byte(text), mode))
		check(t, os.Chmod(path, mode))
		return path
	}
	write("plain", "no script", 0o644)
	write("noline", "echo hi", 0o755)
	write("lost", "#!/no/such/interpreter\n", 0o755)
	for _, c := range []struct {
		name   string
		change func(*record.Spec)
		want   string
	}{
		{"not in PATH", func(s *record.Spec) { s.Command = []string{"no-such-command"} },
			`command "no-such-command" not found in PATH (/usr/local/bin:/usr/bin:/bin)`},
		{"no such path", func(s *record.Spec) { s.Command = []string{"./x"} }, `/x" not found`},
		{"a directory", func(s *record.Spec) { s.Command = []string{bin} }, `can't be run: it is a directory`},
		{"not executable", func(s *record.Spec) { s.Command = []string{bin + "/plain"} }, `can't be run: permission denied`},
		{"not executable in PATH", func(s *record.Spec) { s.Command, s.Env = []string{"plain"}, []record.Raw{record.Raw("PATH=" + bin)} },
			`command "plain": ` + bin + `/plain can't be run: permission denied`},
		{"no #! line", func(s *record.Spec) { s.Command = []string{bin + "/noline"} }, `exec format error (a script without a #! line`},
		{"no interpreter", func(s *record.Spec) { s.Command = []string{bin + "/lost"} }, `its interpreter is missing`},
		{"workdir gone", func(s *record.Spec) { s.Workdir = "/no/such/dir" }, `working directory /no/such/dir does not exist`},
		{"workdir a file", func(s *record.Spec) { s.Workdir = bin + "/plain" }, `/plain is not a directory`},
		{"workdir relative", func(s *record.Spec) { s.Workdir = "x" }, `"x" is not an absolute path`},
		{"too long", func(s *record.Spec) { s.Command = []string{"true", strings.Repeat("x", 131072)} }, `the longest 131072`},
		{"NUL", func(s *record.Spec) { s.Command = []string{"true", "a\x00b"} }, `argument 1 has a NUL byte`},
		{"NUL in env", func(s *record.Spec) { s.Env = append(s.Env, "A=\x00") }, `environment variable "A" has a NUL byte`},
		{"empty", func(s *record.Spec) { s.Command = nil }, `the command is empty`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tr := prepare(t, t.TempDir(), "true")
			c.change(&tr.spec)
			check(t, unix.Mkfifo(filepath.Join(tr.dir.Path(), record.ReadyFIFO), 0o600))
			fifo, err := tr.dir.Open(record.ReadyFIFO, os.O_RDWR, 0)
			check(t, err)
			defer fifo.Close()
			e := tr.start().end()
			if e.Cause != record.CauseSpawnError || e.Code != -1 || e.Signal != 0 || !strings.Contains(e.Error, c.want) {
				t.Errorf("%+v, want %s", e, c.want)
			}
			if n, err := fifo.Read(make([]byte, 2)); n != 1 || err != nil {
				t.Errorf("readiness: %d bytes, %v", n, err)
			}
		})
	}
}

func TestPathIsTheAgents(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "own")
	check(t, os.Mkdir(filepath.Join(tr.spec.Workdir, "rel"), 0o700))
	check(t, os.WriteFile(filepath.Join(tr.spec.Workdir, "rel", "own"), []byte("#!/bin/sh\necho $0 here\n"), 0o700))
	tr.spec.Env = []record.Raw{"PATH=/nowhere:rel"}
	if e := tr.start().end(); e.Code != 0 {
		t.Fatalf("%+v", e)
	}
	tr.says("/rel/own here")
}

func TestAttemptRunsOnce(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "sh", "-c", "echo run >>count; read x")
	tr.start()
	w := tr.connect()
	w.phase(record.PhaseRunning)
	second := &trial{t: t, runs: tr.runs, dir: tr.dir, token: tr.token, session: tr.session}
	second.launch()
	if code := second.wait(); code != exitTaken {
		t.Errorf("the second runner's status is %d", code)
	}
	_, err := tr.pane.WriteString("\r")
	check(t, err)
	tr.end()
	if got, err := os.ReadFile(filepath.Join(tr.spec.Workdir, "count")); string(got) != "run\n" {
		t.Errorf("it ran %q, %v", got, err)
	}
}

func TestRevokedAttemptNeverRuns(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "touch", "ran")
	check(t, tr.dir.Create(record.ClaimFile, record.Claim{Format: record.Format, Revoked: true}))
	if code := tr.start().wait(); code != exitTaken {
		t.Errorf("status %d", code)
	}
	if _, err := os.Stat(filepath.Join(tr.spec.Workdir, "ran")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it ran: %v", err)
	}
}

func TestNothingIsWrittenWithoutASpec(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"absent": "", "torn": `{"format":1,"id":7,"comm`, "newer": `{"format":99,"id":7}`, "another's": `{"format":1,"id":8}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := prepare(t, t.TempDir(), "true")
			if text != "" {
				check(t, os.WriteFile(filepath.Join(tr.runs, "7", record.SpecFile), []byte(text), 0o600))
			}
			if code := tr.launch().wait(); code != exitNever {
				t.Errorf("status %d", code)
			}
			eventually(t, "a reason", func() bool { return strings.Contains(tr.screen(), "spec") })
			if names, err := os.ReadDir(tr.dir.Path()); err != nil || len(names) > 0 {
				t.Errorf("written: %v, %v", names, err)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"x"}, {"runs", "1", "1", "s"}, {"/runs", "x", "1", "s"}, {"/runs", "1", "0", "s"}} {
		cmd := exec.Command(program, args...)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != exitUsage || !contains(out, "usage:") {
			t.Errorf("%q: status %d, %s", args, cmd.ProcessState.ExitCode(), out)
		}
	}
	if out, err := exec.Command(program, "--version").Output(); err != nil || string(out) != "cortex-runner dev\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestLongPath(t *testing.T) {
	t.Parallel()
	runs := filepath.Join(t.TempDir(), strings.Repeat("long/", 60))
	check(t, os.MkdirAll(runs, 0o700))
	tr := prepare(t, runs, "cat").start()
	w := tr.connect()
	w.phase(record.PhaseRunning)
	w.ask(record.Request{Op: record.OpStop})
	if e := tr.end(); e.Signal != 15 {
		t.Errorf("%+v", e)
	}
}
