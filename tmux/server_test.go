package tmux

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stat returns parent, session and state of a process.
func stat(t *testing.T, pid int) (ppid, sid int, state string) {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	ppid, _ = strconv.Atoi(f[1])
	sid, _ = strconv.Atoi(f[3])
	return ppid, sid, f[0]
}

// The server has nothing of the process that had it started: not as parent, no session, no descriptor, no variable.
func TestServerStandsAlone(t *testing.T) {
	t.Parallel()
	leak, err := os.CreateTemp(t.TempDir(), "inherited")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	fd, err := syscall.Dup(int(leak.Fd())) // as one that came with the daemon: not closed by exec
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)

	w := newWorld(t, "")
	w.env = append(w.env, "TMUX=/tmp/other,1,0", "TMUX_PANE=%1", "CORTEX_HOME=/x", "NOTIFY_SOCKET=/y", "LISTEN_FDS=1", "LISTEN_PID=1",
		"WATCHDOG_USEC=1", "INVOCATION_ID=z", "JOURNAL_STREAM=8:1", "KEPT=yes", "TERM=nonsense")
	c := w.client("/owner")
	s := w.start(c, "x")

	ppid, sid, _ := stat(t, s.Server.PID)
	_, ourSID, _ := stat(t, os.Getpid())
	if ppid == os.Getpid() || sid == ourSID || sid != s.Server.PID {
		t.Errorf("the server's parent is %d (we are %d), its session %d (ours is %d)", ppid, os.Getpid(), sid, ourSID)
	}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.Server.PID))
	for _, l := range links {
		n, _ := strconv.Atoi(filepath.Base(l))
		target, err := os.Readlink(l)
		if err != nil {
			continue // closed meanwhile
		}
		if target == leak.Name() || n < 3 && target != "/dev/null" {
			t.Errorf("the server's descriptor %d is %s", n, target)
		}
	}
	env := w.tmux("show-environment", "-g")
	for _, name := range []string{"TMUX=", "TMUX_PANE", "CORTEX_", "NOTIFY_", "LISTEN_", "WATCHDOG_", "INVOCATION_ID", "JOURNAL_STREAM", "nonsense"} {
		if strings.Contains("\n"+env, "\n"+name) {
			t.Errorf("the server's environment has %s: %s", name, env)
		}
	}
	if !strings.Contains(env, "KEPT=yes") {
		t.Errorf("the server's environment lacks what it should have: %s", env)
	}
}

func TestAnyTERM(t *testing.T) {
	t.Parallel()
	for _, term := range []string{"", "TERM=", "TERM=nonsense", "TERM=dumb", "TERM=xterm-256color"} {
		t.Run(term, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			if term != "" {
				w.env = append(w.env, term)
			}
			w.env = append(w.env, "LC_ALL=C", "LANG=C")
			w.start(w.client("/größe"), "x")
		})
	}
}

// A server that hangs is waited for no longer than asked; it does not get more to do; and when it goes on so do we.
func TestServerHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	c := w.client("/owner")
	first := w.start(c, "first")
	syscall.Kill(first.Server.PID, syscall.SIGSTOP)

	_, err := c.NewSession(soon(t), New{Name: "sent", Argv: sleeping})
	if !errors.Is(err, ErrHung) || !errors.Is(err, ErrLostReply) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the first: %v", err)
	}
	_, err = c.NewSession(soon(t), New{Name: "unsent", Argv: sleeping})
	if !errors.Is(err, ErrHung) || errors.Is(err, ErrLostReply) {
		t.Errorf("the second: %v", err)
	}
	if _, err := c.Sessions(soon(t)); !errors.Is(err, ErrHung) {
		t.Errorf("a list: %v", err)
	}
	if err := c.Kill(soon(t), first); !errors.Is(err, ErrHung) {
		t.Errorf("a kill: %v", err)
	}
	begun := time.Now()
	if _, err := c.Sessions(context.Background()); !errors.Is(err, ErrHung) || time.Since(begun) > 2*answerTimeout {
		t.Errorf("with no deadline of its own: %v after %s", err, time.Since(begun))
	}
	if check := c.Check(); check.OK || check.Hint == "" {
		t.Errorf("%+v", check)
	}

	syscall.Kill(first.Server.PID, syscall.SIGCONT)
	next := w.start(c, "next")
	if next.Server != first.Server || next.Name != "next" {
		t.Errorf("got %+v after %+v", next, first)
	}
	all := mustSessions(t, c)
	for _, name := range []string{"first", "sent", "next", "cortex"} {
		if _, there := all[name]; !there {
			t.Errorf("no session %s", name)
		}
	}
	if len(all) != 4 {
		t.Errorf("sessions are %+v", all)
	}
	if check := c.Check(); !check.OK {
		t.Errorf("%+v", check)
	}
}

// A server that hangs before the first connection.
func TestServerHangsAtFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	other := w.client("/other")
	s := w.start(other, "x")
	syscall.Kill(s.Server.PID, syscall.SIGSTOP)
	c := w.client("/owner")
	if _, err := c.Sessions(soon(t)); !errors.Is(err, ErrHung) || errors.Is(err, ErrLostReply) {
		t.Errorf("got %v", err)
	}
	syscall.Kill(s.Server.PID, syscall.SIGCONT)
	if all := mustSessions(t, c); all["x"].ID != s.ID {
		t.Errorf("got %+v", all)
	}
}

// Closing does not wait for a server that hangs; the next client ends the control session that is left there.
func TestCloseWhileServerHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	c := w.client("/owner")
	s := w.start(c, "x")
	syscall.Kill(s.Server.PID, syscall.SIGSTOP)
	begun := time.Now()
	if err := c.Close(); err != nil || time.Since(begun) > 4*closeTimeout+drainTime {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
	syscall.Kill(s.Server.PID, syscall.SIGCONT)
	next := w.client("/owner")
	if all := mustSessions(t, next); all["x"] != s {
		t.Errorf("got %+v", all)
	}
	eventually(t, "one control session to be left", func() bool { return slices.Equal(w.names(), []string{"cortex", "x"}) })
}

// kill-server: what is told of it, and a new server by the next start.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	c := w.client("/owner")
	first := w.start(c, "x")
	conn := c.attempt.conn
	w.tmux("kill-server")
	eventually(t, "the connection to end", conn.isOver) // what is sent before that is ErrLostReply
	second := w.start(c, "x")                           // the old server may still be about to end
	if second.Server.same(first.Server) || second.Name != "x" {
		t.Errorf("got %+v after %+v", second, first)
	}
	if lost := <-c.Lost(); lost != first.Server {
		t.Errorf("lost %+v, want %+v", lost, first.Server)
	}
	if err := c.Kill(context.Background(), first); err != nil {
		t.Errorf("killing what went with its server: %v", err)
	}
	if got := mustSessions(t, c)["x"]; got != second {
		t.Errorf("listed %+v, want %+v", got, second)
	}

	syscall.Kill(second.Server.PID, syscall.SIGKILL)
	if lost := <-c.Lost(); lost != second.Server {
		t.Errorf("lost %+v, want %+v", lost, second.Server)
	}
	if list, err := c.Sessions(context.Background()); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
	if third := w.start(c, "x"); third.Name != "x" {
		t.Errorf("got %+v", third)
	}
}

// What was under way when the server went is neither done nor not done.
func TestServerKilledUnderWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	c := w.client("/owner")
	s := w.start(c, "x")
	syscall.Kill(s.Server.PID, syscall.SIGSTOP)
	result := make(chan error)
	go func() {
		_, err := c.NewSession(context.Background(), New{Name: "y", Argv: sleeping})
		result <- err
	}()
	eventually(t, "the command to be sent", func() bool { return c.attempt.conn.overdue() > 0 })
	syscall.Kill(s.Server.PID, syscall.SIGKILL)
	if err := <-result; !errors.Is(err, ErrLostReply) || errors.Is(err, ErrHung) {
		t.Errorf("got %v", err)
	}
}

// The user ends our client or our control session: the next call connects again, and the server was not lost.
func TestControlSessionEnded(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(w *world, c *Client){
		"kill-session": func(w *world, c *Client) { w.tmux("kill-session", "-t", "=cortex") },
		"detach":       func(w *world, c *Client) { w.tmux("detach-client", "-s", "=cortex") },
		"kill -9":      func(w *world, c *Client) { syscall.Kill(c.attempt.conn.cmd.Process.Pid, syscall.SIGKILL) },
		"respawn":      func(w *world, c *Client) { w.tmux("respawn-pane", "-k", "-t", "=cortex:", "true") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "set -g detach-on-destroy off")
			c := w.client("/owner")
			s := w.start(c, "x")
			for range 3 {
				end(w, c)
				eventually(t, "the connection to end", c.attempt.conn.isOver)
				if all := mustSessions(t, c); all["x"] != s || len(all) != 2 {
					t.Errorf("listed %+v", all)
				}
				if names := w.names(); !slices.Contains(names, "cortex") {
					t.Errorf("sessions are %q", names)
				}
			}
			if len(c.Lost()) != 0 {
				t.Error("a server was reported as lost")
			}
		})
	}
}

// Our control session moved or renamed by the user changes nothing.
func TestControlSessionRenamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	c := w.client("/owner")
	w.start(c, "x")
	w.tmux("rename-session", "-t", "=cortex", "other")
	w.start(c, "y")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	names := w.names()
	slices.Sort(names)
	if !slices.Equal(names, []string{"x", "y"}) {
		t.Errorf("sessions are %q", names)
	}
}

// /tmp was cleaned: the connection works on; a new one makes the server restore its socket instead of hiding it by another.
func TestSocketRemoved(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"socket", "folder"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			c := w.client("/owner")
			s := w.start(c, "x")
			path := c.socketPath()
			if what == "folder" {
				path = filepath.Dir(path)
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			w.start(c, "y")
			syscall.Kill(c.attempt.conn.cmd.Process.Pid, syscall.SIGTERM)
			eventually(t, "the connection to end", c.attempt.conn.isOver)
			if got := mustSessions(t, c); got["x"] != s || got["y"].Server != s.Server {
				t.Errorf("listed %+v, want %+v", got, s)
			}
			if names := w.names(); !slices.Contains(names, "x") {
				t.Errorf("the operator sees %q", names)
			}
			if z := w.start(c, "z"); z.Server != s.Server || len(c.Lost()) != 0 {
				t.Errorf("got %+v", z)
			}
		})
	}
}

// The daemon is killed -9: its client ends, the control session goes, the others stay; the next daemon gets the name again.
func TestDaemonKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command(self, "role-daemon", "x")
	daemon.Env = w.env
	daemon.Stderr = t.Output()
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// No daemon is at its connect so soon after another's end; 3.3a crashes where a client leaves in that moment.
	eventually(t, "the killed daemon's client to be gone", func() bool {
		left, err := w.command("list-clients").Output()
		return err == nil && len(left) == 0
	})
	c := w.client("/daemon")
	s := mustSessions(t, c)["x"]
	t.Log(mustSessions(t, c), w.names())
	if s.ID != strings.TrimSpace(id) || s.Owner != "/daemon" {
		t.Errorf("listed %+v, want %s", s, id)
	}
	if err := daemon.Wait(); err == nil {
		t.Error("the daemon ended well")
	}
	eventually(t, "one control session to be left", func() bool { return len(w.names()) == 2 })
	if err := c.Kill(context.Background(), s); err != nil {
		t.Error(err)
	}
}

// Close ends what is ours for the connection, and nothing else.
func TestClose(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	c := w.client("/owner")
	w.start(c, "x")
	pid := c.attempt.conn.cmd.Process.Pid
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if names := w.names(); !slices.Equal(names, []string{"x"}) {
		t.Errorf("sessions are %q", names)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the client is still there: %v", err)
	}
	if _, err := c.Sessions(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if check := c.Check(); check.OK {
		t.Errorf("%+v", check)
	}
}

// Close, whatever is under way.
func TestCloseUnderWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "run-shell 'sleep 3'")
	c := w.client("/owner")
	result := make(chan error)
	go func() {
		_, err := c.NewSession(context.Background(), New{Name: "x", Argv: sleeping})
		result <- err
	}()
	eventually(t, "the server to start", func() bool { return len(w.processes()) > 1 })
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; err == nil {
		t.Error("a session was opened by a closed client")
	}
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	file := filepath.Join(w.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"no binary":        {Binary: "/nonexistent/tmux"},
		"not in PATH":      {Binary: "no-such-tmux"},
		"binary no tmux":   {Binary: "/bin/false"},
		"no socket folder": {Socket: filepath.Join(w.dir, "none", "sock")},
		"folder is a file": {Socket: filepath.Join(file, "sock")},
		"path too long":    {Socket: filepath.Join(w.dir, strings.Repeat("x", 120))},
	} {
		t.Run(name, func(t *testing.T) {
			o.Environ = w.env
			c := NewClient(o)
			defer c.Close()
			_, err := c.NewSession(context.Background(), New{Name: "x", Argv: sleeping})
			if !errors.Is(err, ErrUnavailable) {
				t.Errorf("got %v", err)
			}
			if check := c.Check(); check.OK || check.Detail == "" || check.Hint == "" {
				t.Errorf("%+v", check)
			}
		})
	}
}

// A server of its own, by path.
func TestOwnSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	path := filepath.Join(w.dir, "own sock")
	c := NewClient(Options{Socket: path, Owner: "/o", Environ: w.env})
	defer c.Close()
	s := w.start(c, "x")
	if got := w.tmux("-S", path, "list-sessions", "-F", "#{session_name}"); got != "cortex\nx" {
		t.Errorf("got %q", got)
	}
	if names := w.names(); len(names) != 0 {
		t.Errorf("the default server has %q", names)
	}
	if err := c.Kill(context.Background(), s); err != nil {
		t.Error(err)
	}
}
