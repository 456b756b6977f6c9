package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"cortex"
	"cortex/api"
)

func (c *cli) cancel() *cobra.Command {
	var running bool
	var project, wait, grace string
	cmd := &cobra.Command{
		Use:   "cancel ID... | --all-running | --project PROJECT",
		Short: "End dispatches, with all that they have started",
		Long: `Cancel ends dispatches: those that wait at once, those that run after a signal and a grace period, by killing all that
is left of them. It returns when the order is on record, or with --wait when nothing is left.`,
		Example: `  cortex cancel 12 13 --wait
  cortex cancel --all-running --grace 0s --wait=1m
  cortex cancel --project web`,
		RunE: func(cmd *cobra.Command, given []string) error {
			body := map[string]any{}
			list, err := ids(given)
			switch {
			case err != nil:
				return err
			case len(list) > 0 && (running || project != ""):
				return usage("cortex cancel: give numbers, or --all-running and --project, not both")
			case len(list) > 0:
				body["ids"] = list
			case !running && !cmd.Flags().Changed("project"):
				return usage("cortex cancel: say which: numbers, --all-running or --project")
			}
			if running {
				body["status"] = string(cortex.Running)
			}
			if cmd.Flags().Changed("project") {
				body["project"] = project
			}
			if grace != "" {
				body["grace"] = grace
			}
			query := url.Values{}
			if wait != "" {
				query.Set("wait", wait)
			}
			return c.sendMany(cmd, "cancel", query, body)
		},
	}
	cmd.Flags().BoolVar(&running, "all-running", false, "all that run")
	cmd.Flags().StringVar(&project, "project", "", "all of this project that run or wait (with --all-running those that run)")
	cmd.Flags().StringVar(&grace, "grace", "", "time between the signal and the kill, such as 5s (by default the dispatch's own)")
	cmd.Flags().StringVar(&wait, "wait", "", "wait until nothing is left, for so long (30s where it is not said)")
	cmd.Flags().Lookup("wait").NoOptDefVal = "30s"
	return cmd
}

// sendMany asks for the same of many dispatches, and shows what became of each.
func (c *cli) sendMany(cmd *cobra.Command, verb string, query url.Values, body map[string]any) error {
	daemon, err := c.connect()
	if err != nil {
		return err
	}
	var results api.CancelResults
	answer, err := daemon.Post(cmd.Context(), "/dispatches/"+verb, query, body, &results)
	if err != nil {
		return err
	}
	if c.format == "json" {
		err = c.raw(answer)
	} else {
		err = c.printResults(verb, results)
	}
	if err != nil {
		return err
	}
	for _, r := range results.Results {
		if r.Status != "success" {
			return exitStatus(exitFailed)
		}
	}
	return nil
}

func (c *cli) printResults(verb string, results api.CancelResults) error {
	if len(results.Results) == 0 {
		_, err := fmt.Fprintln(c.out, "Nothing to "+verb)
		return err
	}
	for _, r := range results.Results {
		to, line := c.out, printable(r.Message)
		if r.Status != "success" {
			to, line = c.err, "cortex: "+line
		}
		if r.Recorded != "" {
			line += " (recorded in the stop " + printable(r.Recorded) + ": the database can't be written now)"
		}
		if _, err := fmt.Fprintln(to, line); err != nil {
			return err
		}
		if r.Hint != "" {
			fmt.Fprintln(to, "  "+printable(r.Hint))
		}
	}
	return nil
}
