package tmux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errNoServer: no server runs, and none was to be started.
var errNoServer = errors.New("no tmux server runs")

const (
	// exitTime is how long a server that can't be reached any more gets to be gone; one that was told to end is, in less.
	exitTime = 500 * time.Millisecond
	// restoreTime is how long a server gets to make its socket again.
	restoreTime = 2 * time.Second
	pollStep    = 10 * time.Millisecond
)

// open starts a control-mode client, and with it a server where none runs and mayStart is true: this is the one place
// where a server is started. The server forks away from the client (daemon(3)): it has a session of its own and is nobody's
// child. To keep it and what runs in it free of the daemon's traces, the client gets a session of its own, a folder that
// nobody unmounts, an environment without what is meant for the daemon alone, and no descriptors but its three pipes.
//
// The session's first options are set in the same command sequence that makes it: with the user's own options it could be
// gone before a second command. Its one command never ends and is of two words, so that no shell has a part in it. Its name
// is a temporary one; see adopt.
//
// The session outlives a daemon that is killed, until the next one comes (see name). It must not end with its client
// (destroy-unattached, or a command that ends when the daemon does). tmux 3.3a crashes, and every session with it, when a
// control client that is about to leave loses its session so (server_client_check_modes); and when a session is closed or a
// client leaves in the 50 µs in which a new control client makes itself known (control-notify.c writes to one that has no
// control_state yet; seen: 4 crashes in 150 connects at 540 such events a second). So connecting is made rare and quiet.
func (c *Client) open(mayStart bool, name string) (*conn, error) {
	args := []string{"-u", "-C"}
	if !mayStart {
		args = append(args, "-N")
	}
	args = append(args, c.address()...)
	args = append(args, "new-session", "-E", "-s", name, "-f", "no-output,ignore-size", "-x", "20", "-y", "5",
		"--", sleeper(), "infinity",
		";", "set-option", "destroy-unattached", "off",
		";", "set-option", "detach-on-destroy", "on",
		";", "set-option", "@cortex", argument(c.owner),
		";", "set-option", "@cortex_control", "on",
		";", "set-option", "-w", "remain-on-exit", "off")

	cmd := exec.Command(c.binary, args...)
	cmd.Env = c.environ
	cmd.Dir = home(c.environ)
	// When this process is killed its client goes at once, and not step by step at the server's word: the next daemon's
	// client may be connecting by then. (Go ends no thread that forks; a client that is killed too early is replaced.)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := closeOnExec(); err != nil {
		return nil, err
	}
	return newConn(cmd, c.log)
}

// address is how a tmux command finds the server. $TMUX, the server that the daemon may have been started in, has no say.
func (c *Client) address() []string {
	if c.socket != "" {
		return []string{"-S", c.socket}
	}
	return []string{"-L", "default"}
}

// argument protects a word of a command line: a ";" at its end would end the command (tmux(1), "COMMAND PARSING AND EXECUTION").
func argument(s string) string {
	if strings.HasSuffix(s, ";") {
		return s[:len(s)-1] + `\;`
	}
	return s
}

func sleeper() string {
	if path, err := exec.LookPath("sleep"); err == nil {
		return path
	}
	return "sleep" // the server's own PATH may know one
}

// closeOnExec marks all descriptors from 3 on. Go's own are marked already; one that the daemon was started with (LISTEN_FDS,
// a shell's redirection) is not, and would stay open in the tmux server for ever.
func closeOnExec() error {
	err := unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	entries, err := os.ReadDir("/proc/self/fd") // before Linux 5.11
	if err != nil {
		return fmt.Errorf("list open descriptors: %w", err)
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// dropped are the variables that are meant for the daemon alone, or name another tmux server; prefixes where they end in _.
var dropped = []string{"TMUX", "TMUX_PANE", "TERM", "CORTEX_", "NOTIFY_", "LISTEN_", "WATCHDOG_", "INVOCATION_ID", "JOURNAL_STREAM"}

// environment is what a tmux client gets of environ. A server that it starts keeps it for ever. TERM is one that every
// terminfo has a say on and no configuration takes for a colour terminal; a control-mode client does not use it.
func environment(environ []string) []string {
	kept := []string{"TERM=dumb"}
next:
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		for _, d := range dropped {
			if name == d || strings.HasSuffix(d, "_") && strings.HasPrefix(name, d) {
				continue next
			}
		}
		kept = append(kept, entry)
	}
	return kept
}

func variable(environ []string, name string) string {
	value := ""
	for _, entry := range environ {
		if n, v, ok := strings.Cut(entry, "="); ok && n == name {
			value = v
		}
	}
	return value
}

// home is the folder that the client starts in, and with it the one of every session and of a server: the user's, since
// any other could be removed or hold a file system that is to be unmounted.
func home(environ []string) string {
	if dir := variable(environ, "HOME"); filepath.IsAbs(dir) {
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			return dir
		}
	}
	return "/"
}

// socketPath is where the server's socket is: as tmux makes it (tmux.c, make_label), in $TMUX_TMPDIR where that is a folder,
// else in /tmp.
func (c *Client) socketPath() string {
	if c.socket != "" {
		return c.socket
	}
	base := "/tmp"
	if dir := variable(c.environ, "TMUX_TMPDIR"); dir != "" {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			base = real
		}
	}
	return filepath.Join(base, "tmux-"+strconv.Itoa(os.Getuid()), "default")
}

// reachable reports whether somebody listens at the socket. A server that hangs counts: the kernel takes the connection.
func (c *Client) reachable(ctx context.Context) (bool, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socketPath())
	switch {
	case err == nil:
		return true, conn.Close()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return false, nil
	case errors.Is(err, syscall.EAGAIN): // its queue of connections is full
		return true, nil
	}
	return false, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// listener is the pid of the server at the socket; 0 where that can't be known.
func (c *Client) listener(ctx context.Context) int {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socketPath())
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	if err := raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	}); err != nil {
		return 0
	}
	return pid
}

// restore has the server that was last connected to make its socket again, where the server lives and the socket does not:
// somebody cleaned /tmp. Starting another server then would hide all sessions of the first (tmux(1), "SIGUSR1").
func (c *Client) restore(ctx context.Context) error {
	c.mu.Lock()
	last := c.last
	c.mu.Unlock()
	if last.PID == 0 {
		return nil
	}
	proc, err := hold(last)
	if errors.Is(err, errGone) {
		return nil
	} else if err != nil {
		return err
	}
	defer proc.close()
	ended, err := proc.ended(ctx, exitTime)
	if err != nil || ended {
		return err
	}
	if c.socket == "" { // its folder may have gone, too
		if err := os.Mkdir(filepath.Dir(c.socketPath()), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	if err := proc.signal(unix.SIGUSR1); err != nil {
		return fmt.Errorf("ask tmux server %d for its socket: %w", last.PID, err)
	}
	c.log.Info("asked the tmux server to make its socket again", slog.Int("pid", last.PID), "socket", c.socketPath())
	return c.awaitSocket(ctx, proc, last)
}

func (c *Client) awaitSocket(ctx context.Context, proc *process, server Server) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTime)
	defer cancel()
	for {
		if ok, err := c.reachable(ctx); ok || err != nil {
			return err
		}
		ended, err := proc.ended(ctx, pollStep)
		if err != nil {
			return fmt.Errorf("%w: server %d runs, but its socket %s is gone (kill -USR1 %d makes it again)",
				ErrHung, server.PID, c.socketPath(), server.PID)
		}
		if ended {
			return nil
		}
	}
}
