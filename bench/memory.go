package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"cortex/runner"
)

// memory is what a dispatch that only runs takes: its runner, the tmux server's share, and the daemon. Floors are as many
// bare Go programs and as many bare sessions, all asleep; the daemon's is one bare Go program.
func memory(ctx context.Context, w *world) ([]figure, error) {
	alone, err := bareMemory(ctx, w, 1)
	if err != nil {
		return nil, err
	}
	bare, err := bareMemory(ctx, w, w.running)
	if err != nil {
		return nil, err
	}
	session, err := bareSessionMemory(ctx, w)
	if err != nil {
		return nil, err
	}
	r, err := runningMemory(ctx, w)
	if err != nil {
		return nil, err
	}
	return []figure{
		cost("runner's memory, proportional (PSS), over a bare Go program's", r.runner.pss, bare.pss, "KiB"),
		cost("runner's memory, private (USS), over a bare Go program's", r.runner.private, bare.private, "KiB"),
		cost("tmux server's growth a dispatch, over a bare session's", r.session, session, "KiB"),
		cost("daemon's memory (PSS) with all running, over a bare Go program's", r.daemon, alone.pss, "KiB"),
	}, nil
}

// runningUse is what was found while dispatches ran; in KiB.
type runningUse struct {
	runner  pages   // the median
	daemon  float64 // PSS
	session float64 // growth of the tmux server a dispatch
}

func runningMemory(ctx context.Context, w *world) (use runningUse, err error) {
	d, err := startDaemon(ctx, w)
	if err != nil {
		return use, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.submitAndEnd(ctx, 1, 1); err != nil { // it starts the tmux server
		return use, err
	}
	server, err := serverPID(ctx, d.socket, d.env)
	if err != nil {
		return use, err
	}
	use.session, err = growth(ctx, server, w.running, func() error { return d.runAsleep(ctx, w.running) })
	if err != nil {
		return use, err
	}
	if use.runner, err = d.runners(); err != nil {
		return use, err
	}
	own, err := memoryOf(d.cmd.Process.Pid)
	if err != nil {
		return use, err
	}
	use.daemon = own.pss
	if err := d.order(ctx, "/dispatches/cancel", map[string]any{"status": "running"}); err != nil {
		return use, err
	}
	return use, until(ctx, look, func() (bool, error) {
		s, err := d.status(ctx)
		return s.Running == 0, err
	})
}

// runAsleep submits n dispatches that sleep, and waits until each has its process.
func (d *daemon) runAsleep(ctx context.Context, n int) error {
	err := each(ctx, n, callers, func(ctx context.Context, _ int) error {
		_, err := d.submit(ctx, "sleep", "infinity")
		return err
	})
	if err != nil {
		return err
	}
	return until(ctx, look, func() (bool, error) {
		live, err := d.live()
		return len(live) == n, err
	})
}

// live are the pids of the runners whose agents run, by what they wrote into runs/.
func (d *daemon) live() ([]int, error) {
	runs := filepath.Join(d.home, ".cortex", "runs")
	ids, err := runner.List(runs)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, id := range ids {
		facts, err := runner.Look(runs, id, 1)
		if errors.Is(err, os.ErrNotExist) { // not started yet
			continue
		}
		if err != nil {
			return nil, err
		}
		if facts.Claim != nil && facts.Started != nil && facts.Exit == nil {
			pids = append(pids, facts.Claim.Runner.PID)
		}
	}
	return pids, nil
}

func (d *daemon) runners() (pages, error) {
	pids, err := d.live()
	if err != nil {
		return pages{}, err
	}
	return medianMemory(pids)
}

// bareMemory is the median of n bare Go programs that sleep.
func bareMemory(ctx context.Context, w *world, n int) (pages, error) {
	_, _, env, err := w.place()
	if err != nil {
		return pages{}, err
	}
	var pids []int
	for range n {
		cmd := exec.Command(w.bare, "sleep")
		cmd.Env = env
		if err := cmd.Start(); err != nil {
			return pages{}, err
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		pids = append(pids, cmd.Process.Pid)
	}
	if err := settle(ctx); err != nil {
		return pages{}, err
	}
	return medianMemory(pids)
}

// bareSessionMemory is what a tmux server grows by with each session that sleeps, in KiB.
func bareSessionMemory(ctx context.Context, w *world) (_ float64, err error) {
	b, err := newBareTmux(ctx, w)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.openAndEnd(ctx, 1, 1); err != nil { // as cortex's server has had one, too
		return 0, err
	}
	server, err := serverPID(ctx, b.socket, b.env)
	if err != nil {
		return 0, err
	}
	return growth(ctx, server, w.running, func() error {
		return each(ctx, w.running, 1, func(ctx context.Context, _ int) error { return b.open(ctx, "sleep", "infinity") })
	})
}
