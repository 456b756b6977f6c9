package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"cortex/api"
)

func (c *cli) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what runs, what waits and whether anything is started",
		Example: `  cortex status
  cortex status -o json | jq .running_count`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			daemon, err := c.connect()
			if err != nil {
				return err
			}
			var s api.Status
			answer, err := daemon.Get(cmd.Context(), "/status", nil, &s)
			if err != nil {
				return err
			}
			if c.format == "json" {
				return c.raw(answer)
			}
			var gate api.SchedulerStatus
			if _, err := daemon.Get(cmd.Context(), "/scheduler/status", nil, &gate); err != nil {
				return err
			}
			return c.printStatus(s, gate)
		},
	}
}

func (c *cli) printStatus(s api.Status, gate api.SchedulerStatus) error {
	state := gate.State
	if gate.PausedAt != nil {
		state += " since " + when(gate.PausedAt)
		if gate.PausedDuration != nil {
			state += " (" + *gate.PausedDuration + ")"
		}
	}
	rows := [][]string{{"scheduler", state}}
	for _, h := range gate.Holds {
		text := fmt.Sprintf("%s on %s", h.Kind, printable(h.Scope))
		if h.By != nil {
			text += " by " + word(h.By)
		}
		if h.Until != nil {
			text += " until " + when(h.Until)
		}
		if h.Reason != nil {
			text += ": " + word(h.Reason)
		}
		rows = append(rows, []string{"hold", text})
	}
	path := "built-in defaults"
	if s.ConfigPath != nil {
		path = word(s.ConfigPath)
	}
	rows = append(rows,
		[]string{"running", fmt.Sprintf("%d of %d", s.RunningCount, s.MaxConcurrent)},
		[]string{"pending", fmt.Sprint(s.PendingCount)},
		[]string{"started lately", fmt.Sprint(s.RecentDispatchCount)},
		[]string{"ended", fmt.Sprintf("%d completed, %d failed, %d cancelled", s.Counts["completed"], s.Counts["failed"], s.Counts["cancelled"])},
		[]string{"daemon", fmt.Sprintf("%s, pid %d, up %s", printable(s.Version), s.PID, s.Uptime)},
		[]string{"configuration", path},
	)
	return c.table(rows)
}
