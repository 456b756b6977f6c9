package main

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"cortex/api"
)

func (c *cli) explain() *cobra.Command {
	limit := 0
	cmd := &cobra.Command{
		Use:   "explain [ID]",
		Short: "Why a dispatch is where it is, or what starts next",
		Long: `Explain says what a dispatch waits for, gate by gate, or what it does, or how it ended. Without a number it shows the
queue: what starts next, in which order, and what holds the rest.`,
		Example: `  cortex explain 12
  cortex explain --limit 5`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			list, err := ids(given)
			switch {
			case err != nil:
				return err
			case len(list) == 1 && cmd.Flags().Changed("limit"):
				return usage("cortex explain: --limit is for the queue, and this is one dispatch")
			case len(list) == 1:
				var e api.Explanation
				return c.show(cmd.Context(), "/dispatches/"+strconv.FormatInt(list[0], 10)+"/explain", nil, &e, func() error { return c.printExplanation(e) })
			}
			query := url.Values{}
			if cmd.Flags().Changed("limit") {
				query.Set("limit", strconv.Itoa(limit))
			}
			var q api.Queue
			return c.show(cmd.Context(), "/scheduler/queue", query, &q, func() error { return c.printQueue(q) })
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "how many of the next ones to show, 1 to 1000")
	return cmd
}

func (c *cli) printExplanation(e api.Explanation) error {
	if _, err := fmt.Fprintln(c.out, printable(e.Summary)); err != nil || len(e.Gates) == 0 {
		return err
	}
	return c.table(gateRows(e.Gates))
}

func gateRows(gates []api.Gate) [][]string {
	rows := [][]string{{"GATE", "STATE", "WHY", "UNTIL"}}
	for _, g := range gates {
		state := "shut"
		if g.Open {
			state = "open"
		}
		rows = append(rows, []string{g.Name, state, printable(g.Detail), when(g.Until)})
	}
	return rows
}

func (c *cli) printQueue(q api.Queue) error {
	if err := c.table(gateRows(q.Gates)); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "\n%d wait\n", q.Waiting)
	if len(q.Next) > 0 {
		rows := [][]string{{"NEXT", "PRIORITY", "PROJECT", "BEAD", "AGENT", "PROVIDER"}}
		for _, w := range q.Next {
			rows = append(rows, []string{strconv.FormatInt(w.ID, 10), strconv.Itoa(w.Priority), printable(w.Project), printable(w.BeadID),
				word(w.Agent), word(w.Provider)})
		}
		if err := c.table(rows); err != nil {
			return err
		}
	}
	if len(q.Held) == 0 {
		return nil
	}
	rows := [][]string{{"HELD", "BY", "WHY", "UNTIL"}}
	for _, h := range q.Held {
		rows = append(rows, []string{strconv.Itoa(h.Count), h.Name, printable(h.Detail), when(h.Until)})
	}
	return c.table(rows)
}
