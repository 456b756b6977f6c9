package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"cortex/api"
)

func (c *cli) health() *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Show the health checks and the events of the last hour; 1 when unhealthy",
		Example: `  cortex health
  cortex health -o json | jq '.checks[] | select(.ok | not)'`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			daemon, err := c.connect()
			if err != nil {
				return err
			}
			var h api.Health
			answer, err := daemon.Get(cmd.Context(), "/health", nil, &h)
			if err != nil {
				return err
			}
			if c.format == "json" {
				err = c.raw(answer)
			} else {
				err = c.printHealth(h)
			}
			if err == nil && !h.Healthy {
				err = exitStatus(exitFailed)
			}
			return err
		},
	}
}

func (c *cli) printHealth(h api.Health) error {
	verdict := "healthy"
	if !h.Healthy {
		verdict = "unhealthy"
	}
	fmt.Fprintln(c.out, verdict)
	rows := [][]string{}
	for _, check := range h.Checks {
		state := "ok"
		if !check.OK {
			if state = "FAILED"; check.Notice {
				state = "notice"
			}
		}
		rows = append(rows, []string{"  " + printable(check.Name), state, word(check.Detail)})
		if check.Hint != nil {
			rows = append(rows, []string{"", "", "→ " + word(check.Hint)})
		}
	}
	if err := c.table(rows); err != nil {
		return err
	}
	if len(h.RecentEvents) == 0 {
		return nil
	}
	fmt.Fprintln(c.out, "\nEvents of the last hour")
	rows = rows[:0]
	for _, e := range h.RecentEvents {
		rows = append(rows, []string{"  " + when(e.CreatedAt), printable(e.Type), printable(e.Event), printable(e.Message)})
	}
	return c.table(rows)
}
