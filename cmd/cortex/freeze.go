package main

import (
	"github.com/spf13/cobra"

	"cortex"
)

func (c *cli) freeze() *cobra.Command {
	return c.changeFreeze("freeze", &cobra.Command{
		Use:   "freeze ID... | --all-running | --project PROJECT",
		Short: "Stop dispatches that run, with all that they have started, until they are thawed",
		Long: `Freeze stops all processes of dispatches and the clocks of their timeouts, and returns when all have stopped. They stay
frozen, also across restarts of the daemon, until cortex thaw; a cancel ends them as ever. A frozen dispatch still counts as
running.`,
		Example: `  cortex freeze 12 13 --reason 'the disk is needed'
  cortex freeze --all-running
  cortex freeze --project web`,
	})
}

func (c *cli) thaw() *cobra.Command {
	return c.changeFreeze("thaw", &cobra.Command{
		Use:   "thaw ID... | --all-running | --project PROJECT",
		Short: "Let frozen dispatches go on",
		Example: `  cortex thaw 12 13
  cortex thaw --all-running`,
	})
}

// changeFreeze fills in what a freeze and a thaw have in common.
func (c *cli) changeFreeze(verb string, cmd *cobra.Command) *cobra.Command {
	var running bool
	var project, reason, by string
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		body := map[string]any{}
		list, err := ids(given)
		switch {
		case err != nil:
			return err
		case len(list) > 0 && (running || project != ""):
			return usage("cortex %s: give numbers, or --all-running and --project, not both", verb)
		case len(list) > 0:
			body["ids"] = list
		case !running && !cmd.Flags().Changed("project"):
			return usage("cortex %s: say which: numbers, --all-running or --project", verb)
		}
		if running {
			body["status"] = string(cortex.Running)
		}
		for name, value := range map[string]string{"project": project, "reason": reason, "by": by} {
			if cmd.Flags().Changed(name) {
				body[name] = value
			}
		}
		return c.sendMany(cmd, verb, nil, body)
	}
	cmd.Flags().BoolVar(&running, "all-running", false, "all that run")
	cmd.Flags().StringVar(&project, "project", "", "all of this project that run")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who find them so")
	cmd.Flags().StringVar(&by, "by", "", "who you are, if not the user who calls")
	return cmd
}
