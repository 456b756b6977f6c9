package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"cortex/store"
)

func (c *cli) dbRestore() *cobra.Command {
	return &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a backup the database, also after a crash",
		Long: `Restore makes a copy of FILE, a backup of cortex.db, the database. The database that is there is set aside, together with
the write-ahead log that a crash left, which does not fit the backup. No daemon may run. A backup that is damaged, of another
program or of a newer cortex is refused, and then nothing is changed. The daemon that starts next takes in from the folder
runs/ what the backup does not know: what ended since, what runs, what waits. A backup that was made while paused is paused.`,
		Example: `  cortex db restore ~/.cortex/cortex.db.backup.20261125-0300`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return c.restore(cmd.Context(), given[0])
		},
	}
}

func (c *cli) restore(ctx context.Context, backup string) error {
	home, err := stateDir()
	if err != nil {
		return err
	}
	held, err := claimHome(home)
	if err != nil {
		return err
	}
	defer held.release()
	if backup, err = filepath.Abs(backup); err != nil {
		return fmt.Errorf("where am I: %w", err)
	}
	aside, found, err := store.Restore(ctx, home, backup, time.Now())
	if err != nil {
		return err
	}
	counts := tally(found)
	if c.format == "json" {
		return c.json(struct {
			Restored string  `json:"restored"`
			Counts   tally   `json:"counts"`
			SetAside *string `json:"set_aside"`
		}{backup, counts, pathOf(aside)})
	}
	return c.made("restored", aside, counts, "Start cortex: it takes in from runs/ what these do not know")
}
