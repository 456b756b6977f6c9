package main

import (
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"cortex/api"
)

func (c *cli) list() *cobra.Command {
	var statuses []string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dispatches, newest first",
		Example: `  cortex list --status running,pending
  cortex list --project web --since 1h -o json`,
		Args: args(cobra.NoArgs),
	}
	cmd.Flags().StringSliceVar(&statuses, "status", nil, "only these: pending, pending_retry, running, completed, failed, cancelled")
	words := []struct{ name, help string }{
		{"project", "only of this project"},
		{"bead", "only of this work item"},
		{"since", "only those submitted since: a time such as 2026-02-18T06:01:00Z, or how long ago such as 1h30m"},
		{"limit", "at most so many, 1 to 1000 (by default 100)"},
		{"cursor", "go on where the last list ended"},
	}
	for _, w := range words {
		cmd.Flags().String(w.name, "", w.help)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		query := url.Values{}
		for _, status := range statuses {
			query.Add("status", status)
		}
		for _, w := range words {
			if flag := cmd.Flags().Lookup(w.name); flag.Changed {
				query.Set(w.name, flag.Value.String())
			}
		}
		var list api.DispatchList
		return c.show(cmd.Context(), "/dispatches", query, &list, func() error { return c.printList(list, time.Now()) })
	}
	return cmd
}

func (c *cli) printList(list api.DispatchList, now time.Time) error {
	rows := [][]string{{"ID", "STATUS", "OUTCOME", "PROJECT", "BEAD", "SUBMITTED", "RUNTIME"}}
	for _, d := range list.Dispatches {
		rows = append(rows, []string{
			fmt.Sprint(d.ID), printable(d.Status), outcome(d), printable(d.Project), printable(d.BeadID), when(d.CreatedAt), runtime(d, now),
		})
	}
	if err := c.table(rows); err != nil {
		return err
	}
	if list.NextCursor != nil {
		fmt.Fprintf(c.err, "there are more: --cursor %s\n", word(list.NextCursor))
	}
	return nil
}
