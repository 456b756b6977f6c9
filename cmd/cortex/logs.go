package main

import (
	"io"
	"net/url"
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func (c *cli) logs() *cobra.Command {
	var tail, attempt int
	var plain bool
	cmd := &cobra.Command{
		Use:   "logs ID",
		Short: "Show what a dispatch has said",
		Long: `Logs shows what a dispatch has said to its terminal so far. Into a terminal it is shown as plain text, since what an
agent says may hold escape sequences that do things to a terminal; --plain=false shows it as it is. Into a pipe or a
file it goes byte for byte; --plain makes text of it.`,
		Example: `  cortex logs 12 --tail 20
  cortex logs 12 --plain | grep -i error`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			id, err := number(given[0])
			if err != nil {
				return err
			}
			query := url.Values{}
			if cmd.Flags().Changed("tail") {
				query.Set("tail", strconv.Itoa(tail))
			}
			if cmd.Flags().Changed("attempt") {
				query.Set("attempt", strconv.Itoa(attempt))
			}
			if !cmd.Flags().Changed("plain") {
				plain = c.toTerminal()
			}
			query.Set("plain", strconv.FormatBool(plain))
			return c.printLog(cmd, id, query)
		},
	}
	cmd.Flags().IntVar(&tail, "tail", 0, "only the last lines")
	cmd.Flags().IntVar(&attempt, "attempt", 0, "of this attempt (by default the latest)")
	cmd.Flags().BoolVar(&plain, "plain", false, "as text, without escape sequences")
	return cmd
}

func (c *cli) toTerminal() bool {
	f, ok := c.out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (c *cli) printLog(cmd *cobra.Command, id int64, query url.Values) error {
	daemon, err := c.connect()
	if err != nil {
		return err
	}
	log, err := daemon.Output(cmd.Context(), id, query)
	if err != nil {
		return err
	}
	defer log.Close()
	if c.format != "json" {
		_, err = io.Copy(c.out, log)
		return err
	}
	text, err := io.ReadAll(log)
	if err != nil {
		return err
	}
	return c.json(struct {
		ID     int64  `json:"id"`
		Output string `json:"output"`
	}{id, string(text)})
}
