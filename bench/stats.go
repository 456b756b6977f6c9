package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// rounds is how often cortex and floor take turns for a figure that is one long run; the medians count, so that a moment in
// which the host was busy with something else does not.
const rounds = 3

// quantile is the value below which that part of values lies, by the nearest rank. values is not empty.
func quantile(values []float64, part float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// inTurn takes the rounds: before, which is not timed, then each of runs, which is n things done. It returns how often these
// happen in a second, for each of runs the median of its rounds.
func inTurn(n int, before func() error, runs ...func(round int) error) ([]float64, error) {
	all := make([][]float64, len(runs))
	for round := range rounds {
		if err := before(); err != nil {
			return nil, err
		}
		for i, run := range runs {
			began := time.Now()
			if err := run(round); err != nil {
				return nil, err
			}
			all[i] = append(all[i], float64(n)/time.Since(began).Seconds())
		}
	}
	medians := make([]float64, len(runs))
	for i, rates := range all {
		medians[i] = median(rates)
	}
	return medians, nil
}

// bootNow is the boot clock in ns: the same in every process, unlike the monotonic reading of a time.Time.
func bootNow() (int64, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	return now.Nano(), err
}

func milliseconds(ns int64) float64 { return float64(ns) / 1e6 }

// each calls do for 0 to n-1, so many at once, and returns the first error. No more are begun after one, or after ctx.
func each(ctx context.Context, n, atOnce int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(n, atOnce) {
		wg.Go(func() {
			for i := range work {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		select {
		case work <- i:
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

// until calls done every step until it is true. The step is a compromise: each look costs what is measured some time.
func until(ctx context.Context, step time.Duration, done func() (bool, error)) error {
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
