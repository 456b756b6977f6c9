package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"cortex/internal/testenv"
)

// said is what a command of the drill said in our shell.
type said struct {
	out, err string
	exit     int
}

// drillShell is the bash of one scenario, in a network namespace of its own, where port 8900 is free.
type drillShell struct {
	host *testenv.Host
	dir  string // $DRILL: the script, what it writes
	cwd  string // where the operator sits
}

func newDrillShell(t *testing.T) *drillShell {
	t.Helper()
	h := testenv.New(t)
	s := &drillShell{host: h, dir: filepath.Join(filepath.Dir(h.Home), "drill"), cwd: filepath.Join(h.Home, "cortex")}
	for _, dir := range []string{s.dir, s.cwd} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"cortex", "cortex-runner"} {
		if err := os.Symlink(filepath.Join(h.Bin, name), filepath.Join(s.cwd, name)); err != nil {
			t.Fatal(err)
		}
	}
	example, err := os.ReadFile("../cortex.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, filepath.Join(s.cwd, "cortex.toml"), string(example))
	return s
}

func (s *drillShell) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// file is what the shell wrote into its folder, "" where it did not come so far.
func (s *drillShell) file(name string) string {
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return ""
	}
	return string(text)
}

// run runs a script to its end, and reports whether all of its preparations succeeded.
func (s *drillShell) run(t *testing.T, script string) bool {
	t.Helper()
	words, err := filepath.Abs("testdata/drill.sh")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.dir, "script.sh")
	s.write(t, path, ". "+words+"\n"+script)
	log, err := os.Create(filepath.Join(s.dir, "shell.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 3*testenv.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", path)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = s.cwd, log, log, ownNetwork()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	for _, entry := range s.host.Environ() {
		if !strings.HasPrefix(entry, "CORTEX_API__LISTEN=") { // the drill's port is the default one
			cmd.Env = append(cmd.Env, entry)
		}
	}
	cmd.Env = append(cmd.Env, "DRILL="+s.dir, "DRILL_PS="+s.host.Home)
	if err := cmd.Run(); err != nil || s.file("failed") != "" {
		t.Errorf("the drill did not come to its end: %v\n%s", err, s.file("shell.log"))
		return false
	}
	return true
}

// ownNetwork starts a process in a network namespace of its own, in which it may set up the loopback device: clone(2),
// user_namespaces(7).
func ownNetwork() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// said is what the command with a number said; ok is false where the shell did not come to it.
func (s *drillShell) said(n int) (said, bool) {
	exit, err := strconv.Atoi(strings.TrimSpace(s.file(fmt.Sprintf("%d.rc", n))))
	return said{s.file(fmt.Sprintf("%d.out", n)), s.file(fmt.Sprintf("%d.err", n)), exit}, err == nil
}

var sleeps = regexp.MustCompile(`\bsleep \d`)

// script is the scenario as one program: what is prepared, then the drill's commands, each as it was typed, on lines of
// its own. It fails the test where the scenario has something for a command that the drill does not have.
func (sc *scenario) script(t *testing.T, commands []typed) string {
	t.Helper()
	var b strings.Builder
	deeds := func(lines ...string) {
		for _, line := range lines {
			fmt.Fprintf(&b, "%s || drill_failed %s\n", line, shellQuote(line))
		}
	}
	deeds("systemctl --user start cortex.service", "drill_wait drill_answers")
	deeds(sc.setup...)
	before, until := resolve(t, sc.before, commands), resolve(t, sc.until, commands)
	for n, c := range commands {
		deeds(before[n]...)
		if sleeps.MatchString(c.command) != (until[n] != "") {
			t.Fatalf("%v: the scenario must say what a sleep waits for, and only that: %q", c, until[n])
		}
		fmt.Fprintf(&b, "drill_begin %d %s\n%s\ndrill_end\n", n, shellQuote(until[n]), c.command)
	}
	deeds(sc.after...)
	deeds("drill_cancel_all", "systemctl --user stop cortex.service",
		"[ ! -e ~/.cortex/cortex.db-wal ] && [ ! -e ~/.cortex/cortex.db-shm ]", // a clean stop leaves none
		`[ -z "$(tmux list-sessions 2>/dev/null)" ]`)
	return b.String()
}

// resolve finds the commands that the places of a table mean: each exactly one.
func resolve[V any](t *testing.T, table map[place]V, commands []typed) map[int]V {
	t.Helper()
	found := map[int]V{}
	for p, v := range table {
		hits := 0
		for n, c := range commands {
			if p.moment == c.moment && strings.HasPrefix(c.command, p.command) {
				found[n] = v
				hits++
			}
		}
		if hits != 1 {
			t.Fatalf("at %s there are %d commands that begin with %q, not one", p.moment, hits, p.command)
		}
	}
	return found
}

func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
