package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// recordSize is what the floor appends at a time, in bytes: about a spec.
const recordSize = 1024

// submits is how many dispatches per second become durable while nothing starts, over a loop that appends a record and
// syncs it, in the same folder: one writer, and as many writers with a file each as cortex has callers, since a journalling
// file system takes their syncs together. What waits is then let go, and gives the starts without the submits.
func submits(ctx context.Context, w *world, d *daemon, b *bareTmux) ([]figure, error) {
	rates, err := inTurn(w.starts,
		func() error { return d.order(ctx, "/scheduler/pause", nil) },
		func(int) error { return appendAndSync(ctx, d.home, w.starts, 1) },
		func(int) error { return d.submitMany(ctx, w.starts) },
		func(int) error { return appendAndSync(ctx, d.home, w.starts, callers) },
		func(round int) error { return d.resumeAndEnd(ctx, (round+1)*w.starts) },
		func(int) error { return b.openAndEnd(ctx, w.starts, 1) })
	if err != nil {
		return nil, err
	}
	one, cortex, many, resumed, bare := rates[0], rates[1], rates[2], rates[3], rates[4]
	return []figure{
		rate("durable submits while paused, 16 callers, over append+fsync by one", cortex, one),
		rate("durable submits while paused, 16 callers, over append+fsync by 16", cortex, many),
		rate("dispatches of true after a resume, over tmux new-session one by one", resumed, bare),
	}, nil
}

// resumeAndEnd lets go what waits and waits until, with those before, completed have ended.
func (d *daemon) resumeAndEnd(ctx context.Context, completed int) error {
	if err := d.order(ctx, "/scheduler/resume", nil); err != nil {
		return err
	}
	return d.awaitCompleted(ctx, completed)
}

// appendAndSync appends n records in dir, by so many writers with a file each, and syncs each before the next.
func appendAndSync(ctx context.Context, dir string, n, writers int) (err error) {
	writers = min(writers, n)
	files := make([]*os.File, writers)
	for i := range files {
		if files[i], err = os.Create(filepath.Join(dir, fmt.Sprint("append-", i))); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, files[i].Close()) }()
	}
	record := bytes.Repeat([]byte("."), recordSize)
	return each(ctx, writers, writers, func(ctx context.Context, i int) error {
		for k := i; k < n; k += writers {
			if _, err := files[i].Write(record); err != nil {
				return err
			}
			if err := errors.Join(files[i].Sync(), ctx.Err()); err != nil {
				return err
			}
		}
		return nil
	})
}
