// Command bench measures what cortex costs, on the built binaries: how fast dispatches start, how long one waits for its
// first instruction, what memory a running one takes, how fast submits become durable. Each figure stands beside a floor
// that was measured in the same run, on the same host, in turns with it (bare tmux, a bare Go program, a bare fsync loop):
// hosts differ and are noisy, so that the ratio is the figure to compare. It asserts nothing.
//
// With -soak it loads a daemon without a pause instead, compares the last tenth of that time with the first, checks every
// record against what its dispatch did, and fails where something grows that must not.
//
// It runs daemons and tmux servers of its own under a private HOME, and leaves nothing running.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	starts  int           // dispatches per figure
	running int           // dispatches at once, for the memory
	bin     string        // folder of cortex and cortex-runner; empty: the module's root
	soak    time.Duration // 0: none, but the figures
}

func main() {
	var o options
	flag.IntVar(&o.starts, "n", 200, "dispatches to start, and to submit, for a figure")
	flag.IntVar(&o.running, "running", 100, "dispatches that run at once while memory is measured")
	flag.StringVar(&o.bin, "bin", "", "folder of cortex and cortex-runner (default: the module's root)")
	flag.DurationVar(&o.soak, "soak", 0, "instead of the figures, load a daemon for so long and compare its last tenth with its first")
	machine := flag.Bool("json", false, "print JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, o, *machine, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, machine bool, out io.Writer) error {
	if flag.NArg() > 0 || o.starts < 1 || o.running < 1 || o.soak < 0 {
		return errors.New("no arguments are taken, -n and -running must be at least 1, and -soak not negative")
	}
	if o.bin == "" {
		root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
		if err != nil {
			return fmt.Errorf("find the module's root: %w", err)
		}
		o.bin = strings.TrimSpace(string(root))
	}
	if o.soak > 0 {
		r, err := soak(ctx, o, os.Stderr)
		if err != nil {
			return err
		}
		return errors.Join(show(r, machine, out), r.err())
	}
	r, err := measure(ctx, o, os.Stderr)
	if err != nil {
		return err
	}
	return show(r, machine, out)
}

// measure makes all figures, one after the other: two at once would measure each other.
func measure(ctx context.Context, o options, progress io.Writer) (r report, err error) {
	w, err := newWorld(ctx, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	r = report{Host: w.describe(ctx)}
	for _, part := range []struct {
		name string
		make func(context.Context, *world) ([]figure, error)
	}{
		{"the runner's start", startup},
		{"submit to start", sideBySide(latency)},
		{"starts per second", sideBySide(starts)},
		{"submits per second", sideBySide(submits)},
		{"memory", memory},
	} {
		fmt.Fprintf(progress, "measuring: %s\n", part.name)
		figures, err := part.make(ctx, w)
		if ctx.Err() != nil {
			return r, errors.New("interrupted")
		}
		if err != nil {
			return r, fmt.Errorf("%s: %w", part.name, err)
		}
		r.Figures = append(r.Figures, figures...)
	}
	return r, nil
}

// sideBySide gives a figure a daemon and bare tmux, both for it alone.
func sideBySide(figures func(context.Context, *world, *daemon, *bareTmux) ([]figure, error)) func(context.Context, *world) ([]figure, error) {
	return func(ctx context.Context, w *world) (_ []figure, err error) {
		d, err := startDaemon(ctx, w)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, d.close()) }()
		b, err := newBareTmux(ctx, w)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, b.close()) }()
		return figures(ctx, w, d, b)
	}
}
