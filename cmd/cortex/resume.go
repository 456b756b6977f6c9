package main

import (
	"github.com/spf13/cobra"

	"cortex/api"
)

func (c *cli) resume() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "Start dispatches again after a pause",
		Long: `Resume lifts every pause that an operator has set, whoever did. Where something else keeps the scheduler from starting
anything, a full disk for example, it says what.`,
		Example: `  cortex resume
  cortex resume --reason 'maintenance is over'
  cortex resume --hold 17`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var done api.ResumeDone
			if err := c.order(cmd, "/scheduler/resume", &done, "reason", "by", "hold"); err != nil || c.format == "json" {
				return err
			}
			return c.printDone(done.Done)
		},
	}
	cmd.Flags().Int64("hold", 0, "lift only the hold of this number (cortex holds shows them)")
	cmd.Flags().String("reason", "", "why, for the audit trail")
	cmd.Flags().String("by", "", "who you are, if not the user who calls")
	return cmd
}
