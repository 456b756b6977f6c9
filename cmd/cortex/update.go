package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"cortex/api"
)

func (c *cli) update() *cobra.Command {
	var priority int
	var timeout, notBefore, by string
	cmd := &cobra.Command{
		Use:   "update ID [--priority N] [--timeout DURATION] [--not-before TIME]",
		Short: "Change a dispatch that waits",
		Long:  "Update gives a dispatch that waits another priority, timeout or time. What runs stays as it is.",
		Example: `  cortex update 12 --priority 0
  cortex update 12 --timeout 2h --by ann
  cortex update 12 --timeout 0s     # none`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			list, err := ids(given)
			if err != nil {
				return err
			}
			body := map[string]any{}
			if cmd.Flags().Changed("priority") {
				body["priority"] = priority
			}
			if cmd.Flags().Changed("timeout") {
				body["timeout"] = timeout
			}
			if cmd.Flags().Changed("not-before") {
				body["not_before"] = notBefore
			}
			if len(body) > 0 && by != "" {
				body["by"] = by
			}
			if len(body) == 0 {
				return usage("cortex update: say what to change: --priority, --timeout or --not-before")
			}
			daemon, err := c.connect()
			if err != nil {
				return err
			}
			var d api.DispatchDetail
			answer, err := daemon.Patch(cmd.Context(), "/dispatches/"+strconv.FormatInt(list[0], 10), body, &d)
			if err != nil {
				return err
			}
			if c.format == "json" {
				return c.raw(answer)
			}
			_, err = fmt.Fprintf(c.out, "Dispatch %d waits with priority %d, %s, %s\n", d.ID, d.Priority, timeoutWord(d.Timeout), timeWord(d.NotBefore))
			return err
		},
	}
	cmd.Flags().IntVar(&priority, "priority", 0, "0 is started first, 4 last")
	cmd.Flags().StringVar(&timeout, "timeout", "", "how long it may run, such as 30m; 0s for no limit")
	cmd.Flags().StringVar(&notBefore, "not-before", "", "start it no earlier than this time (2026-02-18T06:01:00Z) or so long from now (1h30m; 0s: at once)")
	cmd.Flags().StringVar(&by, "by", "", "who says so (by default this user)")
	return cmd
}

func timeoutWord(timeout *string) string {
	if timeout == nil {
		return "without a timeout"
	}
	return "timeout " + printable(*timeout)
}

func timeWord(notBefore *api.Time) string {
	if notBefore == nil {
		return "at once"
	}
	return "not before " + when(notBefore)
}
