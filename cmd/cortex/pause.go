package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"cortex/api"
)

func (c *cli) pause() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pause",
		Short: "Start nothing more; what runs, runs on",
		Long: `Pause returns when nothing starts any more and that is on record: it holds across restarts, until cortex resume or, with
--ttl, until its time is over. What runs, runs on.`,
		Example: `  cortex pause --reason 'database maintenance'
  cortex pause --ttl 30m`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var done api.Done
			if err := c.order(cmd, "/scheduler/pause", &done, "reason", "by", "ttl"); err != nil || c.format == "json" {
				return err
			}
			return c.printDone(done)
		},
	}
	cmd.Flags().String("reason", "", "why, for those who find it paused")
	cmd.Flags().String("by", "", "who you are, if not the user who calls")
	cmd.Flags().String("ttl", "", "resume by itself after this time, such as 30m")
	return cmd
}

// order posts the flags that are given, by their names, prints the answer for -o json, and decodes it into into.
func (c *cli) order(cmd *cobra.Command, path string, into any, flags ...string) error {
	daemon, err := c.connect()
	if err != nil {
		return err
	}
	answer, err := daemon.Post(cmd.Context(), path, nil, changed(cmd, flags...), into)
	if err == nil && c.format == "json" {
		err = c.raw(answer)
	}
	return err
}

// changed is the body of the flags that are given, by their names.
func changed(cmd *cobra.Command, flags ...string) map[string]any {
	body := map[string]any{}
	for _, name := range flags {
		flag := cmd.Flags().Lookup(name)
		switch {
		case !flag.Changed:
		case flag.Value.Type() == "int64":
			body[name] = json.Number(flag.Value.String())
		default:
			body[name] = flag.Value.String()
		}
	}
	return body
}

func (c *cli) printDone(done api.Done) error {
	line := printable(done.Message)
	if done.Recorded != "" {
		line += " (recorded in the stop " + printable(done.Recorded) + ": the database can't be written now)"
	}
	_, err := fmt.Fprintln(c.out, line)
	return err
}
