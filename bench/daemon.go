package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// callers is how many submit at once.
	callers = 16
	// limit is max_concurrent_dispatches: so high that no dispatch ever waits for a slot.
	limit = 10000
	// look is the time between two looks at the status, which costs the daemon about 0.1 ms.
	look = 10 * time.Millisecond
)

// daemon is a cortex with a home and a tmux server of its own.
type daemon struct {
	home   string
	socket string // of its tmux server
	env    []string
	bin    string // cortex
	cmd    *exec.Cmd
	log    string        // a file, of all its lives
	done   chan struct{} // closed when it has ended
	http   *http.Client
}

// startDaemon starts a daemon and waits until it answers.
func startDaemon(ctx context.Context, w *world) (*daemon, error) {
	home, sockets, env, err := w.place()
	if err != nil {
		return nil, err
	}
	d := &daemon{
		home: home, socket: filepath.Join(sockets, fmt.Sprintf("tmux-%d", os.Getuid()), "default"), log: home + ".log",
		env: append(env, "CORTEX_API__LISTEN=127.0.0.1:0", fmt.Sprintf("CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=%d", limit)),
		bin: filepath.Join(w.bin, "cortex"),
	}
	d.http = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: callers, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(home, ".cortex", "cortex.sock"))
		},
	}}
	if err := d.launch(); err != nil {
		return nil, err
	}
	if err := until(ctx, look, d.answers); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// launch runs the program in a session of its own, so that a Ctrl-C ends it when the bench is done with it and not before.
func (d *daemon) launch() error {
	log, err := os.OpenFile(d.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command(d.bin)
	d.cmd.Env, d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = d.env, d.home, log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	d.done = make(chan struct{})
	go func() {
		defer close(d.done)
		d.cmd.Wait() // how it ended is in its log, and in answers
	}()
	return nil
}

// killAndRestart kills the daemon with SIGKILL, starts the next one and waits until that answers, which took it so many ms.
func (d *daemon) killAndRestart(ctx context.Context) (float64, error) {
	if err := d.cmd.Process.Kill(); err != nil {
		return 0, err
	}
	<-d.done
	began := time.Now()
	if err := d.launch(); err != nil {
		return 0, err
	}
	err := until(ctx, look, d.answers)
	return milliseconds(time.Since(began).Nanoseconds()), err
}

// answers reports whether the daemon is up; that it has ended is an error.
func (d *daemon) answers() (bool, error) {
	select {
	case <-d.done:
		log, _ := os.ReadFile(d.log)
		return false, fmt.Errorf("cortex ended: %v\n%s", d.cmd.ProcessState, log)
	default:
	}
	_, err := d.status(context.Background())
	return err == nil, nil
}

// close stops the daemon and then its tmux server, with what still runs there. It takes no ctx, as it also cleans up after an
// interruption.
func (d *daemon) close() error {
	d.http.CloseIdleConnections()
	d.cmd.Process.Signal(syscall.SIGTERM) // one that has ended already is what is wanted
	timer := time.AfterFunc(endPatience, func() { d.cmd.Process.Kill() })
	<-d.done
	timer.Stop()
	return killServer(d.socket, d.env)
}

// status is what is used of GET /status.
type status struct {
	Running int            `json:"running_count"`
	Pending int            `json:"pending_count"`
	Counts  map[string]int `json:"counts"`
}

// ended is how many have ended, however.
func (s status) ended() int {
	return s.Counts["completed"] + s.Counts["failed"] + s.Counts["cancelled"]
}

func (d *daemon) status(ctx context.Context) (status, error) {
	var s status
	return s, d.ask(ctx, http.MethodGet, "/status", nil, &s)
}

// submit submits a command and returns its id, once the dispatch is durable.
func (d *daemon) submit(ctx context.Context, command ...string) (int64, error) {
	var accepted struct {
		ID int64 `json:"id"`
	}
	body := map[string]any{"bead_id": "b", "project": "bench", "command": command}
	return accepted.ID, d.ask(ctx, http.MethodPost, "/dispatches", body, &accepted)
}

// order sends a POST of which nothing but its success counts.
func (d *daemon) order(ctx context.Context, path string, body any) error {
	return d.ask(ctx, http.MethodPost, path, body, nil)
}

func (d *daemon) ask(ctx context.Context, method, path string, body, into any) error {
	data, err := d.answer(ctx, method, path, body)
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// errRefused is the error of an answer that is none of success: asked again, the daemon would say the same.
var errRefused = errors.New("refused")

func (d *daemon) answer(ctx context.Context, method, path string, body any) ([]byte, error) {
	var sent io.Reader = http.NoBody
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		sent = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, sent)
	if err != nil {
		return nil, err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	case resp.StatusCode >= 300:
		return nil, fmt.Errorf("%s %s: %w: %s: %s", method, path, errRefused, resp.Status, data)
	}
	return data, nil
}

// awaitCompleted waits until so many dispatches have completed, and fails when one has failed: a bench of failures would
// be a good one.
func (d *daemon) awaitCompleted(ctx context.Context, n int) error {
	return until(ctx, look, func() (bool, error) {
		s, err := d.status(ctx)
		if err == nil && s.Counts["failed"] > 0 {
			err = fmt.Errorf("%d dispatches failed; the daemon's log is lost with its home: run one by hand", s.Counts["failed"])
		}
		return s.Counts["completed"] == n && s.Running == 0, err
	})
}
