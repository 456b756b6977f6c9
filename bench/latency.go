package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// latencies is how many starts are timed at most: enough for a p95, and each waits for the one before.
const latencies = 100

// latency is the time from the submit (the POST, for the floor the exec of tmux) to the agent's first instruction, on a
// daemon that does nothing else. The agent is a bare Go program, since one with imports would hide the rest.
func latency(ctx context.Context, w *world, d *daemon, b *bareTmux) ([]figure, error) {
	var cortex, bare []float64
	for i := range min(w.starts, latencies) {
		ms, err := toStart(ctx, filepath.Join(w.dir, fmt.Sprint("cortex-", i)), func(stamp string) error {
			_, err := d.submit(ctx, w.bare, "stamp", stamp)
			return err
		})
		if err == nil {
			err = d.awaitCompleted(ctx, i+1)
		}
		if err != nil {
			return nil, err
		}
		cortex = append(cortex, ms)
		ms, err = toStart(ctx, filepath.Join(w.dir, fmt.Sprint("bare-", i)), func(stamp string) error {
			return b.open(ctx, w.bare, "stamp", stamp)
		})
		if err == nil {
			err = b.awaitSessions(ctx, 0)
		}
		if err != nil {
			return nil, err
		}
		bare = append(bare, ms)
	}
	return []figure{
		cost("submit to first instruction, p50, over tmux new-session", median(cortex), median(bare), "ms"),
		cost("submit to first instruction, p95, over tmux new-session", quantile(cortex, 0.95), quantile(bare, 0.95), "ms"),
	}, nil
}

// toStart is the time in ms from the call of start until the agent that it starts begins, by the agent's own stamp.
func toStart(ctx context.Context, stamp string, start func(stamp string) error) (float64, error) {
	before, err := bootNow()
	if err != nil {
		return 0, err
	}
	if err := start(stamp); err != nil {
		return 0, err
	}
	var text []byte
	err = until(ctx, 2*time.Millisecond, func() (bool, error) {
		var err error
		text, err = os.ReadFile(stamp)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return true, err
	})
	if err != nil {
		return 0, err
	}
	at, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return milliseconds(at - before), err
}
