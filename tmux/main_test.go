package tmux

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain plays the roles of the processes that tests start: the test binary with a role as first argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && strings.HasPrefix(os.Args[1], "role-") {
		if err := play(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func play(role string, args []string) error {
	switch role {
	case "role-argv": // writes its arguments to the file that is the first of them
		raw, err := json.Marshal(args[1:])
		if err != nil {
			return err
		}
		if err := os.WriteFile(args[0]+".new", raw, 0o600); err != nil {
			return err
		}
		return os.Rename(args[0]+".new", args[0])
	case "role-daemon": // opens a session named by its argument, says so, and waits to be killed
		c := NewClient(Options{Owner: "/daemon", Environ: os.Environ()})
		s, err := c.NewSession(context.Background(), New{Name: args[0], Argv: sleeping})
		if err != nil {
			return err
		}
		fmt.Println(s.ID)
		select {}
	}
	return fmt.Errorf("no such role: %s", role)
}

// world is a private place for a tmux server: its socket folder, a HOME with a configuration, and nothing left at the end.
type world struct {
	t   testing.TB
	dir string // TMUX_TMPDIR
	env []string
}

func newWorld(t testing.TB, config string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ctm") // t.TempDir is too long for a socket's address
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, env: []string{
		"TMUX_TMPDIR=" + dir, "HOME=" + filepath.Join(dir, "home"), "PATH=" + os.Getenv("PATH"), "SHELL=/bin/sh",
	}}
	if err := os.Mkdir(filepath.Join(dir, "home"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "home", ".tmux.conf"), []byte(config+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range w.processes() {
			syscall.Kill(p, syscall.SIGCONT)
		}
		w.command("kill-server").Run() // fails where none runs
		eventually(t, "every process of the test's tmux to end", func() bool { return len(w.processes()) == 0 })
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return w
}

// processes are those with our TMUX_TMPDIR in their environment, which is every one that this world's tmux started.
func (w *world) processes() []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err == nil && bytes.Contains(append([]byte{0}, raw...), []byte("\x00TMUX_TMPDIR="+w.dir+"\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// client returns a Client that is closed at the end.
func (w *world) client(owner string) *Client {
	c := NewClient(Options{Owner: owner, Environ: w.env, Log: slog.New(slog.NewTextHandler(w.t.Output(), nil))})
	w.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return c
}

// command is the operator's tmux.
func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command("tmux", append([]string{"-N", "-u"}, args...)...)
	cmd.Env = append(environment(w.env), "TERM=screen")
	return cmd
}

func (w *world) tmux(args ...string) string {
	w.t.Helper()
	out, err := w.command(args...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// names of the sessions that the operator sees.
func (w *world) names() []string {
	out, err := w.command("list-sessions", "-F", "#{session_name}").Output()
	if err != nil {
		return nil
	}
	return strings.Fields(string(out))
}

// start opens a session of sleep.
func (w *world) start(c *Client, name string) Session {
	w.t.Helper()
	s, err := c.NewSession(context.Background(), New{Name: name, Argv: sleeping, Tag: "/runs/" + name})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func sleeping(string) []string { return []string{"sleep", "1000"} }

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Errorf("waited too long for %s", what)
			return
		}
		<-time.After(5 * time.Millisecond)
	}
}

func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func mustSessions(t testing.TB, c *Client) map[string]Session {
	t.Helper()
	list, err := c.Sessions(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]Session{}
	for _, s := range list {
		m[s.Name] = s
	}
	return m
}
