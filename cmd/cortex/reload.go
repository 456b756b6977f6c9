package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cortex"
	"cortex/api"
	"cortex/api/client"
	"cortex/config"
)

func (c *cli) reload() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Read the configuration again, and put it in force",
		Long: `Reload has the daemon read its configuration file again. It is put in force at once, or with a single mistake in it not at
all: then every mistake is named, and what was in force stays. Keys that count only from a restart on are named, too.

The daemon does the same by itself on SIGHUP, and when the file has changed and then been left alone for 2 s.`,
		Example: `  cortex reload
  cortex reload -o json | jq -r '.restart_required[]'`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var done api.ReloadDone
			if err := c.order(cmd, "/config/reload", &done, "by"); err != nil {
				return c.mistakes(err)
			}
			if c.format == "json" {
				return nil
			}
			if err := c.printDone(done.Done); err != nil {
				return err
			}
			var rows [][]string
			if len(done.Changed) > 0 {
				rows = append(rows, []string{"changed", printable(strings.Join(done.Changed, ", "))})
			}
			if len(done.RestartRequired) > 0 {
				rows = append(rows, []string{"needs a restart", printable(strings.Join(done.RestartRequired, ", "))})
			}
			return c.table(rows)
		},
	}
	cmd.Flags().String("by", "", "who you are, if not the user who calls")
	return cmd
}

// mistakes is err, or for text the configuration's mistakes that it carries, to be printed as those of a start are.
func (c *cli) mistakes(err error) error {
	var refused *client.Error
	var p api.Problem
	if c.format != "text" || !errors.As(err, &refused) || refused.Problem.Reason != cortex.ReasonConfigRefused ||
		json.Unmarshal(refused.Body, &p) != nil || len(p.Problems) == 0 {
		return err
	}
	var wrong config.Problems
	for _, m := range p.Problems {
		wrong = append(wrong, m.Problem())
	}
	return fmt.Errorf("refused: %w", wrong)
}
