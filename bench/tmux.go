package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// bareTmux is a tmux server without cortex: the floor of whatever goes through tmux. One session keeps it up.
type bareTmux struct {
	socket string
	env    []string
}

func newBareTmux(ctx context.Context, w *world) (*bareTmux, error) {
	_, sockets, env, err := w.place()
	if err != nil {
		return nil, err
	}
	b := &bareTmux{socket: filepath.Join(sockets, "s"), env: env}
	if err := b.open(ctx, "sleep", "infinity"); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// close ends the server and all in it. It takes no ctx: it is for the end, also after an interruption.
func (b *bareTmux) close() error { return killServer(b.socket, b.env) }

// killServer ends the server of that socket; that there is none is no error.
func killServer(socket string, env []string) error {
	if _, err := os.Stat(socket); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), endPatience)
	defer cancel()
	_, err := tmux(ctx, socket, env, "kill-server")
	if err != nil && (strings.Contains(err.Error(), "no server running") || strings.Contains(err.Error(), "error connecting")) {
		return nil
	}
	return err
}

// tmux runs a tmux command in a process of its own. No configuration of the host's is read.
func tmux(ctx context.Context, socket string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "tmux", append([]string{"-f", os.DevNull, "-S", socket}, args...)...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("tmux %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}

func (b *bareTmux) run(ctx context.Context, args ...string) (string, error) {
	return tmux(ctx, b.socket, b.env, args...)
}

// open opens a session as large as cortex's. argv is of two words at least, so that, as with cortex, no shell is between.
func (b *bareTmux) open(ctx context.Context, argv ...string) error {
	_, err := b.run(ctx, append([]string{"new-session", "-d", "-x", "200", "-y", "50", "--"}, argv...)...)
	return err
}

// awaitSessions waits until so many sessions are left beside the one that keeps the server up.
func (b *bareTmux) awaitSessions(ctx context.Context, n int) error {
	return until(ctx, 5*time.Millisecond, func() (bool, error) {
		list, err := b.run(ctx, "list-sessions", "-F", "#{session_id}")
		return len(strings.Fields(list)) == n+1, err
	})
}

// serverPID is the pid of the server behind a socket.
func serverPID(ctx context.Context, socket string, env []string) (int, error) {
	pid, err := tmux(ctx, socket, env, "display-message", "-p", "#{pid}")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(pid)
}
