package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cortex/proc"
)

// endPatience is how long what is told to end may take until it is killed.
const endPatience = 15 * time.Second

//go:embed testdata/bare/main.go
var bareSource []byte

// world is everything that one run of the bench makes: two folders, and the bare Go program.
type world struct {
	options
	dir    string // where the hosts' homes are, on the disk that $TMPDIR chooses
	short  string // where their tmux sockets are: an address of one has 108 bytes (unix(7))
	runner string // cortex-runner
	bare   string // the program of testdata/bare
	hosts  int
	keep   bool // dir stays, for whoever looks into what went wrong
}

func newWorld(ctx context.Context, o options) (*world, error) {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return nil, err
	}
	o.bin = bin
	w := &world{options: o, runner: filepath.Join(bin, "cortex-runner")}
	for _, program := range []string{filepath.Join(bin, "cortex"), w.runner} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w; make build builds it, and -bin names its folder", err)
		}
	}
	if w.dir, err = os.MkdirTemp("", "cortex-bench"); err != nil {
		return nil, err
	}
	if w.short, err = os.MkdirTemp("/tmp", "cxb"); err == nil {
		err = w.buildBare(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// buildBare builds the floor of memory and start the way that cortex-runner is built.
func (w *world) buildBare(ctx context.Context) error {
	source := filepath.Join(w.dir, "bare.go")
	if err := os.WriteFile(source, bareSource, 0o600); err != nil {
		return err
	}
	w.bare = filepath.Join(w.dir, "bare")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", w.bare, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the bare program: %w\n%s", err, out)
	}
	return nil
}

func (w *world) describe(ctx context.Context) hostFacts {
	facts := hostFacts{CPUs: runtime.NumCPU(), State: "an unknown file system", Starts: w.starts, Running: w.running}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		facts.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	facts.Tmux = firstLine(ctx, "tmux", "-V")
	facts.Cortex = firstLine(ctx, w.runner, "--version")
	if kind := firstLine(ctx, "stat", "-f", "-c", "%T", w.dir); kind != "" {
		facts.State = kind
	}
	return facts
}

// firstLine is what a program says, or "" where it fails: the report is only less complete then.
func firstLine(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// place makes the folders of a new host and returns its environment: nothing of the caller's but PATH, so that no TMUX and
// no CORTEX_ of his has a say.
func (w *world) place() (home, sockets string, env []string, err error) {
	w.hosts++
	name := fmt.Sprint(w.hosts)
	home, sockets = filepath.Join(w.dir, name), filepath.Join(w.short, name)
	for _, dir := range []string{home, sockets} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return "", "", nil, err
		}
	}
	env = []string{"HOME=" + home, "TMUX_TMPDIR=" + sockets, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "SHELL=/bin/sh"}
	return home, sockets, env, nil
}

// close removes all, and says so where something still runs: then it is ended first.
func (w *world) close() error {
	err := w.noneLeft(endPatience)
	if !w.keep {
		err = errors.Join(err, os.RemoveAll(w.dir))
	}
	if w.short != "" {
		err = errors.Join(err, os.RemoveAll(w.short))
	}
	return err
}

// noneLeft waits until no process of this world is left, and kills those that stay.
func (w *world) noneLeft(patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		left, err := w.processes()
		if err != nil || len(left) == 0 {
			return err
		}
		if time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		for _, p := range left {
			err = errors.Join(err, fmt.Errorf("left running, and killed now: %d %q", p.PID, proc.Cmdline(p.PID)))
			if kerr := p.Signal(syscall.SIGKILL); kerr != nil && !errors.Is(kerr, proc.ErrGone) {
				err = errors.Join(err, kerr)
			}
		}
		return err
	}
}

// processes are those that have a home in this world.
func (w *world) processes() ([]proc.Stat, error) {
	all, err := proc.All()
	if err != nil {
		return nil, err
	}
	mark := []byte("\x00HOME=" + w.dir + "/")
	var found []proc.Stat
	for _, p := range all {
		if p.Dead() {
			continue
		}
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
		// Another user's can't be read, and none of those is ours.
		if err == nil && bytes.Contains(append([]byte{0}, environ...), mark) {
			found = append(found, p)
		}
	}
	return found, nil
}
