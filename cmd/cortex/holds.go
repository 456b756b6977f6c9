package main

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"cortex"
	"cortex/api"
)

func (c *cli) holds() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "holds",
		Short: "Show, set and lift what keeps dispatches from starting",
		Long: `A hold keeps everything, or one project, agent, provider or bead, from starting. Each is lifted alone, and one that is
covered by several waits for all of them. cortex pause sets one on everything; cortex resume lifts all of these.

Without a command below it lists the holds that are in force.`,
		Example: `  cortex holds
  cortex holds add --scope project:web --reason 'schema change' --ttl 2h
  cortex holds lift 17`,
		Args: args(cobra.NoArgs),
		RunE: c.listHolds,
	}
	holdsFlags(cmd)
	cmd.AddCommand(c.holdsList(), c.holdsAdd(), c.holdsLift())
	return cmd
}

func holdsFlags(cmd *cobra.Command) {
	cmd.Flags().Bool("all", false, "also those that are lifted, newest first")
	cmd.Flags().String("limit", "", "with --all: at most so many, 1 to 1000 (by default 100)")
	cmd.Flags().String("cursor", "", "with --all: go on where the last list ended")
}

func (c *cli) holdsList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the holds that are in force",
		Example: `  cortex holds list
  cortex holds list --all -o json`,
		Args: args(cobra.NoArgs),
		RunE: c.listHolds,
	}
	holdsFlags(cmd)
	return cmd
}

func (c *cli) listHolds(cmd *cobra.Command, _ []string) error {
	query := url.Values{}
	for _, name := range []string{"all", "limit", "cursor"} {
		if flag := cmd.Flags().Lookup(name); flag.Changed {
			query.Set(name, flag.Value.String())
		}
	}
	var list api.HoldList
	return c.show(cmd.Context(), "/holds", query, &list, func() error { return c.printHolds(list) })
}

func (c *cli) printHolds(list api.HoldList) error {
	rows := [][]string{{"ID", "KIND", "SCOPE", "BY", "SINCE", "UNTIL", "LIFTED", "REASON"}}
	for _, h := range list.Holds {
		rows = append(rows, []string{
			holdID(h), printable(h.Kind), printable(h.Scope), word(h.By), when(h.Since), when(h.Until), when(h.LiftedAt), word(h.Reason),
		})
	}
	if err := c.table(rows); err != nil {
		return err
	}
	if list.NextCursor != nil {
		fmt.Fprintf(c.err, "there are more: --all --cursor %s\n", word(list.NextCursor))
	}
	return nil
}

// holdID is a hold's number, which one that is computed, or only in the stop journal, does not have.
func holdID(h api.HoldDetail) string {
	if h.ID == nil {
		return "-"
	}
	return strconv.FormatInt(*h.ID, 10)
}

func (c *cli) holdsAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Start nothing more of a project, an agent, a provider or a bead",
		Long: `Add prints the number of the hold, when nothing that it covers starts any more and that is on record: it holds across
restarts, until cortex holds lift or until its time is over. What runs, runs on.`,
		Example: `  cortex holds add --scope project:web --reason 'schema change' --ttl 2h
  cortex holds add --scope provider:anthropic --until 2026-02-18T06:00:00Z`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("scope") {
				return usage("--scope is missing; all holds everything, project:web one project")
			}
			var h api.HoldDetail
			if err := c.order(cmd, "/holds", &h, "scope", "reason", "by", "ttl", "until"); err != nil || c.format == "json" {
				return err
			}
			if h.Recorded != "" {
				fmt.Fprintf(c.err, "recorded in the stop %s: the database can't be written now; it gets its number when that is\n", printable(h.Recorded))
			}
			_, err := fmt.Fprintln(c.out, holdID(h))
			return err
		},
	}
	cmd.Flags().String("scope", "", "what to hold: all, project:NAME, agent:NAME, provider:NAME, bead:NAME or dispatch:NUMBER")
	cmd.Flags().String("reason", "", "why, for those who find it held")
	cmd.Flags().String("by", "", "who you are, if not the user who calls")
	cmd.Flags().String("ttl", "", "lift it by itself after this time, such as 2h")
	cmd.Flags().String("until", "", "lift it by itself at this time, such as 2026-02-18T06:00:00Z")
	return cmd
}

func (c *cli) holdsLift() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lift ID",
		Short: "Lift one hold",
		Example: `  cortex holds lift 17
  cortex holds lift 17 --reason 'the schema is changed'`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			// The word for a computed one is the daemon's to refuse: it says what that waits for.
			if id, err := strconv.ParseInt(given[0], 10, 64); (err != nil || id < 1) && !cortex.HoldKind(given[0]).Computed() {
				return usage("a hold has a number, and %s is none (cortex holds shows them)", quoted(given[0]))
			}
			daemon, err := c.connect()
			if err != nil {
				return err
			}
			var h api.HoldDetail
			answer, err := daemon.Delete(cmd.Context(), "/holds/"+given[0], changed(cmd, "reason", "by"), &h)
			if err != nil {
				return err
			}
			if c.format == "json" {
				return c.raw(answer)
			}
			line := fmt.Sprintf("Hold %s on %s is lifted since %s", holdID(h), printable(h.Scope), when(h.LiftedAt))
			if h.LiftedBy != nil {
				line += " by " + word(h.LiftedBy)
			}
			_, err = fmt.Fprintln(c.out, line)
			return err
		},
	}
	cmd.Flags().String("reason", "", "why, for the audit trail")
	cmd.Flags().String("by", "", "who you are, if not the user who calls")
	return cmd
}
