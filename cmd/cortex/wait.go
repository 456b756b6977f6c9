package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"cortex"
	"cortex/api"
	"cortex/api/client"
)

const (
	pollTime      = time.Minute            // one long poll; the daemon answers at once when the dispatch has ended
	reconnectTime = 30 * time.Second       // for a daemon that went away while we waited: dispatches outlive it
	reconnectStep = 250 * time.Millisecond // between two tries
)

func (c *cli) wait() *cobra.Command {
	var timeout string
	cmd := &cobra.Command{
		Use:   "wait ID...",
		Short: "Wait until dispatches have ended; 0 when all are completed",
		Long: `Wait returns when all the dispatches have ended and nothing of them is left. It goes on across a restart of the daemon.
The exit status is 0 when all are completed, 1 when one failed or was cancelled, or when the time is over.`,
		Example: `  cortex wait 12 13 --timeout 10m
  cortex wait $(cortex submit --bead x -- make test) && echo passed`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			list, err := ids(given)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if timeout != "" {
				limit, err := api.ParseDuration(timeout)
				if err != nil {
					return usage("--timeout: %w", err)
				}
				over := &cortex.Error{Reason: cortex.ReasonWaitTimeout, Message: "Not all have ended after " + timeout,
					Hint: "they go on; cortex list shows them"}
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, limit, over)
				defer cancel()
			}
			return c.waitFor(ctx, list)
		},
	}
	cmd.Flags().StringVar(&timeout, "timeout", "", "wait no longer than this, such as 10m")
	return cmd
}

// waitFor waits for one after the other: all must end anyhow.
func (c *cli) waitFor(ctx context.Context, list []int64) error {
	daemon, err := c.connect()
	if err != nil {
		return err
	}
	all := true
	ended := api.DispatchList{Dispatches: []api.Dispatch{}}
	for i, id := range list {
		d, err := waitOne(ctx, daemon, id, i > 0)
		if err != nil {
			return err
		}
		all = all && d.Status == string(cortex.Completed)
		ended.Dispatches = append(ended.Dispatches, d)
		if c.format == "text" {
			line := fmt.Sprintf("%d %s", d.ID, printable(d.Status))
			if how := outcome(d); how != "-" {
				line += " (" + how + ")"
			}
			if _, err := fmt.Fprintln(c.out, line); err != nil {
				return err
			}
		}
	}
	if c.format == "json" {
		if err := c.json(ended); err != nil {
			return err
		}
	}
	if !all {
		return exitStatus(exitFailed)
	}
	return nil
}

// waitOne waits for one dispatch's end. Once a daemon has answered (known), one that is away is waited for.
func waitOne(ctx context.Context, daemon *client.Client, id int64, known bool) (api.Dispatch, error) {
	var away time.Time
	for {
		var d api.Dispatch
		_, err := daemon.Get(ctx, fmt.Sprintf("/dispatches/%d", id), url.Values{"wait": {pollTime.String()}}, &d)
		known = known || errors.Is(err, client.ErrWentAway)
		switch {
		case err == nil && cortex.Status(d.Status).Ended():
			return d, nil
		case err == nil:
			known, away = true, time.Time{}
			if err := pause(ctx, reconnectStep); err != nil { // a daemon that stops answers at once
				return d, err
			}
			continue
		case !known || !(errors.Is(err, client.ErrNoDaemon) || comesBack(err)):
			return d, err
		}
		if away.IsZero() {
			away = time.Now()
		}
		if time.Since(away) > reconnectTime {
			return d, err
		}
		if err := pause(ctx, reconnectStep); err != nil {
			return d, err
		}
	}
}

// comesBack reports whether a daemon says that it stops: another may follow.
func comesBack(err error) bool {
	var refused *client.Error
	return errors.As(err, &refused) && refused.Problem.Reason == cortex.ReasonStopping
}

// pause waits a moment, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
