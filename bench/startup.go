package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	execs         = 50  // of each program
	startupBudget = 1.6 // times a bare Go program's start: there is a runner beside every agent
)

// startup is what the runner costs before it does anything: imports that initialise, and pages to map; then also the
// signals that it sets up, by a call for a dispatch that is not there, which it refuses. Each program is waited for, and
// they take turns.
func startup(ctx context.Context, w *world) ([]figure, error) {
	runs := filepath.Join(w.dir, "runs")
	if err := os.Mkdir(runs, 0o700); err != nil {
		return nil, err
	}
	var bare, version, refused []float64
	for range execs {
		for _, program := range []struct {
			argv  []string
			code  int // exit status
			times *[]float64
		}{
			{[]string{w.bare}, 0, &bare},
			{[]string{w.runner, "--version"}, 0, &version},
			{[]string{w.runner, runs, "1", "1", "none"}, 1, &refused},
		} {
			ms, err := execTime(ctx, program.code, program.argv...)
			if err != nil {
				return nil, err
			}
			*program.times = append(*program.times, ms)
		}
	}
	f := cost("runner's start (--version), over a bare Go program's", median(version), median(bare), "ms")
	f.Budget = startupBudget
	return []figure{
		f, cost("runner's start up to its claim, over a bare Go program's", median(refused), median(bare), "ms"),
	}, nil
}

// execTime is the time in ms from the fork of a program to its end. It has to end with that status.
func execTime(ctx context.Context, code int, argv ...string) (float64, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	began := time.Now()
	err := cmd.Run()
	took := milliseconds(time.Since(began).Nanoseconds())
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		return 0, fmt.Errorf("%q: exit status %d, want %d", argv, got, code)
	}
	return took, nil
}
