package main

import "context"

// starts is how many dispatches of true per second go from the submit to their recorded end. There are two floors: bare
// sessions one after the other, as a shell script would open them, and as many callers at once as cortex has.
func starts(ctx context.Context, w *world, d *daemon, b *bareTmux) ([]figure, error) {
	rates, err := inTurn(w.starts, func() error { return nil },
		func(int) error { return b.openAndEnd(ctx, w.starts, 1) },
		func(round int) error { return d.submitAndEnd(ctx, w.starts, (round+1)*w.starts) },
		func(int) error { return b.openAndEnd(ctx, w.starts, callers) })
	if err != nil {
		return nil, err
	}
	one, cortex, many := rates[0], rates[1], rates[2]
	return []figure{
		rate("dispatches of true, 16 callers, over tmux new-session one by one", cortex, one),
		rate("dispatches of true, 16 callers, over tmux new-session 16 at once", cortex, many),
	}, nil
}

// submitAndEnd submits n dispatches and waits until, with those before, completed have ended.
func (d *daemon) submitAndEnd(ctx context.Context, n, completed int) error {
	if err := d.submitMany(ctx, n); err != nil {
		return err
	}
	return d.awaitCompleted(ctx, completed)
}

func (d *daemon) submitMany(ctx context.Context, n int) error {
	return each(ctx, n, callers, func(ctx context.Context, _ int) error {
		_, err := d.submit(ctx, "true")
		return err
	})
}

// openAndEnd opens n sessions of true, by a process each, and waits until all are gone.
func (b *bareTmux) openAndEnd(ctx context.Context, n, atOnce int) error {
	err := each(ctx, n, atOnce, func(ctx context.Context, _ int) error { return b.open(ctx, "true", "-") })
	if err != nil {
		return err
	}
	return b.awaitSessions(ctx, 0)
}
