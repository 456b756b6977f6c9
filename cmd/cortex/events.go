package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"cortex/api"
	"cortex/api/client"
)

func (c *cli) events() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show the audit trail: who did what, when and why",
		Long: `Events shows the audit trail, newest first. With -f it shows what happens from now on, or since --since, or after the
newest --limit, as it happens, oldest first, until INT. It goes on where it was across a restart of the daemon of up to
30 s. With -o json each event is then a line of its own.`,
		Example: `  cortex events --type warning,error,critical --since 1d
  cortex events --dispatch 12
  cortex events -f --event scheduler_paused,scheduler_resumed
  cortex events -f --limit 10 -o json | jq -r .message`,
		Args: args(cobra.NoArgs),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "show what happens, as it happens")
	lists := []struct{ name, help string }{
		{"type", "only these: info, warning, error, critical"},
		{"event", "only these, such as dispatch_failed"},
	}
	for _, l := range lists {
		cmd.Flags().StringSlice(l.name, nil, l.help)
	}
	words := []struct{ name, help string }{
		{"dispatch", "only of this dispatch"},
		{"bead", "only of this work item"},
		{"since", "only those since: a time such as 2026-02-18T06:01:00Z, or how long ago such as 1h30m"},
		{"limit", "at most so many, 1 to 1000 (by default 100); with -f: begin with the newest so many"},
		{"cursor", "go on where the last list ended"},
	}
	for _, w := range words {
		cmd.Flags().String(w.name, "", w.help)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		query := url.Values{}
		for _, l := range lists {
			given, err := cmd.Flags().GetStringSlice(l.name)
			if err != nil {
				return err
			}
			for _, word := range given {
				query.Add(l.name, word)
			}
		}
		for _, w := range words {
			if flag := cmd.Flags().Lookup(w.name); flag.Changed {
				query.Set(w.name, flag.Value.String())
			}
		}
		if follow {
			return c.followEvents(cmd.Context(), query)
		}
		return c.listEvents(cmd.Context(), query)
	}
	return cmd
}

func (c *cli) listEvents(ctx context.Context, query url.Values) error {
	var list api.EventList
	return c.show(ctx, "/events", query, &list, func() error { return c.printEventList(list) })
}

func (c *cli) printEventList(list api.EventList) error {
	rows := [][]string{{"ID", "TIME", "TYPE", "EVENT", "DISPATCH", "MESSAGE"}}
	for _, e := range list.Events {
		rows = append(rows, eventRow(e))
	}
	if err := c.table(rows); err != nil {
		return err
	}
	if list.NextCursor != nil {
		fmt.Fprintf(c.err, "there are more: --cursor %s\n", word(list.NextCursor))
	}
	return nil
}

func eventRow(e api.Event) []string {
	dispatch := "-"
	if e.DispatchID != nil {
		dispatch = fmt.Sprint(*e.DispatchID)
	}
	return []string{fmt.Sprint(e.ID), when(e.CreatedAt), printable(e.Type), printable(e.Event), dispatch, printable(e.Message)}
}

// followEvents prints what happens until ctx ends, which is how one ends it: no error. Once a daemon has answered, one that is
// away is waited for.
func (c *cli) followEvents(ctx context.Context, query url.Values) error {
	daemon, err := c.connect()
	if err != nil {
		return err
	}
	stream, err := daemon.Follow(ctx, query)
	for err == nil {
		err = c.printEvents(stream)
		stream.Close() // it has ended
		if !errors.Is(err, client.ErrWentAway) {
			break
		}
		if last := stream.Last(); last != "" { // it says better where to begin
			query.Del("since")
			query.Del("limit")
			query.Set("after", last)
		}
		stream, err = c.followAgain(ctx, daemon, query)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// followAgain waits for the daemon to come back, for at most reconnectTime.
func (c *cli) followAgain(ctx context.Context, daemon *client.Client, query url.Values) (*client.Events, error) {
	since, told := time.Now(), false
	for {
		if err := pause(ctx, reconnectStep); err != nil {
			return nil, err
		}
		stream, err := daemon.Follow(ctx, query)
		away := errors.Is(err, client.ErrNoDaemon) || comesBack(err)
		switch {
		case err == nil && told:
			fmt.Fprintln(c.err, "cortex: the daemon is back")
		case away && !told && ctx.Err() == nil:
			told = true
			fmt.Fprintf(c.err, "cortex: the daemon is away; waiting %s for it to come back\n", api.FormatDuration(reconnectTime))
		}
		if err == nil || !away || time.Since(since) > reconnectTime {
			return stream, err
		}
	}
}

// printEvents prints what comes until the stream ends, which is an error.
func (c *cli) printEvents(stream *client.Events) error {
	for {
		e, text, err := stream.Next()
		if err != nil {
			return err
		}
		if c.format == "json" {
			err = c.raw(text)
		} else {
			r := eventRow(e)
			_, err = fmt.Fprintf(c.out, "%-6s  %-20s  %-8s  %-21s  %-8s  %s\n", r[0], r[1], r[2], r[3], r[4], r[5])
		}
		if err != nil {
			return err
		}
	}
}
