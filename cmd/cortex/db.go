package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"cortex"
	"cortex/config"
	"cortex/store"
)

func (c *cli) db() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "db",
		Short:   "Look after the database",
		Example: `  cortex db restore ~/.cortex/cortex.db.backup.20261125-0300`,
		Args:    noCommand,
		RunE:    func(*cobra.Command, []string) error { return usage("cortex db: say what: restore or rebuild") },
	}
	cmd.AddCommand(c.dbRestore(), c.dbRebuild())
	return cmd
}

func (c *cli) dbRebuild() *cobra.Command {
	var configPath string
	var force bool
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Make the database anew from the folder runs/, where it is damaged or gone",
		Long: `Rebuild sets cortex.db aside, if it is there, and makes a new one of what the folder runs/ knows: every dispatch, how it
ended, what waits and what still runs. Holds and events are not in runs/: the scheduler is paused afterwards, until
cortex resume. No daemon may run. A database that is in order is left alone, unless --force says otherwise; better than
this is always a backup (cortex db restore).`,
		Example: `  cortex db rebuild`,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.rebuild(cmd.Context(), configPath, force)
		},
	}
	cmd.Flags().StringVar(&configPath, "config", "", "configuration file, as for the daemon")
	cmd.Flags().BoolVar(&force, "force", false, "also where the database is in order")
	return cmd
}

func (c *cli) rebuild(ctx context.Context, configPath string, force bool) error {
	cfg, err := loadConfig(configPath)
	if err != nil {
		return err
	}
	home, err := stateDir()
	if err != nil {
		return err
	}
	if _, err := os.Stat(home); err != nil {
		return fmt.Errorf("there is nothing to rebuild from: %w", err)
	}
	held, err := claimHome(home)
	if err != nil {
		return err
	}
	defer held.release()
	path := filepath.Join(home, "cortex.db")
	if _, err := os.Lstat(path); err == nil && !force {
		if err := store.Sound(ctx, home); err == nil {
			return &cortex.Error{Reason: cortex.ReasonInternal, Message: path + " is in order: it was left alone",
				Hint: "--force makes it anew all the same; its holds and events are then in the file that is set aside"}
		}
	}
	aside, err := store.SetAside(home, "rebuild", time.Now())
	if err != nil {
		return err
	}
	cfg.Log.Level = "warn"
	d, err := build(cfg, newReloader(config.Origin{}, config.Mark{}, cfg), home, store.Options{Anew: true})
	if err != nil {
		return err
	}
	counts, err := d.rebuilt(ctx)
	if err := errors.Join(err, d.closeParts()); err != nil {
		return err
	}
	if c.format == "json" {
		return c.json(struct {
			Counts   tally   `json:"counts"`
			SetAside *string `json:"set_aside"`
		}{counts, pathOf(aside)})
	}
	return c.made("new", aside, counts, "The scheduler is paused, since holds are not in runs/: start cortex, look, then cortex resume")
}

// made tells of a database that was made, and of the one that was set aside for it; "" where there was none.
func (c *cli) made(how, aside string, counts tally, next string) error {
	if aside != "" {
		fmt.Fprintf(c.out, "The old database is %s\n", aside)
	}
	_, err := fmt.Fprintf(c.out, "%d dispatches are in the %s one: %d run, %d wait, %d completed, %d failed, %d cancelled\n%s\n",
		counts.total(), how, counts[cortex.Running], counts[cortex.Pending]+counts[cortex.PendingRetry],
		counts[cortex.Completed], counts[cortex.Failed], counts[cortex.Cancelled], next)
	return err
}

// pathOf is nil for no path.
func pathOf(path string) *string {
	if path == "" {
		return nil
	}
	return &path
}

// claimHome takes the home, made where it is not there, so that no daemon runs meanwhile.
func claimHome(home string) (*lock, error) {
	if err := makeHome(home); err != nil {
		return nil, err
	}
	return takeLock(home)
}

// loadConfig reads the configuration as the daemon does.
func loadConfig(path string) (config.Config, error) {
	o, err := origin(path)
	if err != nil {
		return config.Config{}, err
	}
	return config.Load(o.Flag, o.Environ, o.Cwd)
}

// origin is where this program's configuration comes from; path is that of --config.
func origin(path string) (config.Origin, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return config.Origin{}, fmt.Errorf("where am I: %w", err)
	}
	return config.Origin{Flag: path, Environ: os.Environ(), Cwd: cwd}, nil
}

// tally is how many dispatches there are by status.
type tally map[cortex.Status]int

func (t tally) total() int {
	n := 0
	for _, of := range t {
		n += of
	}
	return n
}

// rebuilt takes everything in from runs/, under a pause that stays.
func (d *daemon) rebuilt(ctx context.Context) (tally, error) {
	_, _, err := d.store.Pause(ctx, cortex.Hold{
		Kind: cortex.HoldOperator, Scope: cortex.ScopeAll, By: "cortex db rebuild", Via: "auto",
		Reason: "the database was made anew from runs/, which knows no holds: look, then resume",
	})
	if err != nil {
		return nil, err
	}
	if err := d.sup.Adopt(ctx); err != nil {
		return nil, err
	}
	return d.store.Counts(), nil
}
