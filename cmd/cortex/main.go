// Command cortex is the daemon and its command line in one binary: called alone it serves, with a command it asks the
// daemon that serves, over the socket in ~/.cortex. What each command does stands in the file of its name; what the
// daemon does is in the packages that serve.go puts together.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"cortex"
	"cortex/api"
	"cortex/api/client"
	"cortex/config"
)

// Exit statuses.
const (
	exitDone     = 0
	exitFailed   = 1  // refused or failed
	exitUsage    = 2  // wrong usage: of the command line, or of the daemon (its 400s)
	exitNoDaemon = 69 // EX_UNAVAILABLE of sysexits.h
)

func main() {
	// The first INT or TERM asks to end, the second one ends a command; the daemon (serve) takes no second one.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run carries out one command line and is its exit status.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	c := &cli{out: out, err: errOut}
	root := c.root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if c.daemon != nil {
		c.daemon.Close()
	}
	return c.fail(err)
}

// cli is what all commands share.
type cli struct {
	out, err io.Writer
	format   string // of -o: text or json
	daemon   *client.Client
}

func (c *cli) root() *cobra.Command {
	opts := serveOptions{stdout: c.out}
	root := &cobra.Command{
		Use:   "cortex",
		Short: "Run commands for work items in tmux sessions, and keep count of them",
		Long: `Cortex runs commands ("dispatches") for work items ("beads"), each in a tmux session of its own, and records what
they say and how they end. Called without a command it serves; the commands ask the daemon that serves.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 69 no daemon.`,
		Example: `  cortex                                    serve, until INT or TERM
  cortex --config cortex.toml --dry-run     check a configuration
  cortex submit --bead fix-17 -- make test  run something`,
		Args:          noCommand,
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if c.format != "text" && c.format != "json" {
				return usage("-o takes text or json, not %q", c.format)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), opts)
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if cmd == root {
			return usage("%w", err)
		}
		return usage("%s: %w", cmd.CommandPath(), err)
	})
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "no-help"}) // --help is enough, and one way
	root.PersistentFlags().StringVarP(&c.format, "output", "o", "text", "how to answer: text or json")
	root.Flags().StringVar(&opts.configPath, "config", "", "configuration file (else $CORTEX_CONFIG, ./cortex.toml, ~/.config/cortex/cortex.toml)")
	root.Flags().BoolVar(&opts.dryRun, "dry-run", false, "check the configuration, then exit; nothing is started or written")
	root.AddCommand(c.submit(), c.status(), c.list(), c.logs(), c.wait(), c.explain(), c.health(), c.events(), c.update(), c.cancel(), c.freeze(), c.thaw(),
		c.pause(), c.resume(), c.holds(), c.reload(), c.db(), c.version())
	return root
}

// noCommand refuses a command that there is not, and says which one it looks like.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usage("there is no command %s; did you mean %s?", quoted(args[0]), strings.Join(near, " or "))
	}
	return usage("there is no command %s", quoted(args[0]))
}

// args makes a usage error of what a check of arguments says.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return usage("%s: %w", cmd.CommandPath(), err)
		}
		return nil
	}
}

// connect is the client of this user's daemon.
func (c *cli) connect() (*client.Client, error) {
	if c.daemon == nil {
		home, err := stateDir()
		if err != nil {
			return nil, err
		}
		c.daemon = client.New(home)
	}
	return c.daemon, nil
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }

// exitStatus is an error that has been told already.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// fail tells an error and is its exit status.
func (c *cli) fail(err error) int {
	var told exitStatus
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &told):
		return int(told)
	}
	var wrong config.Problems
	if errors.As(err, &wrong) && c.format == "text" { // one a line, each with its place first, as editors read it
		fmt.Fprintln(c.err, wrong.Error())
		return exitFailed
	}
	status, p := problem(err)
	if c.format == "json" {
		c.printErrorJSON(err, p)
		return status
	}
	lines := strings.Split(p.Error, "\n") // of several errors joined
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	fmt.Fprintln(c.err, "cortex: "+strings.Join(lines, "\n  "))
	if p.Hint != "" {
		fmt.Fprintln(c.err, "  "+printable(p.Hint))
	}
	return status
}

// problem is an error in the shape of the API's, and its exit status.
func problem(err error) (int, api.Problem) {
	var refused *client.Error
	var known *cortex.Error
	var wrong usageError
	switch {
	case errors.As(err, &refused):
		status := exitFailed
		if refused.Code == 400 && refused.Problem.Reason != cortex.ReasonConfigRefused { // the command was right, the file is not
			status = exitUsage
		}
		return status, api.Problem{Error: refused.Problem.Message, Code: refused.Code,
			Reason: string(refused.Problem.Reason), Hint: refused.Problem.Hint}
	case errors.Is(err, client.ErrNoDaemon):
		p := api.Problem{Error: err.Error(), Code: exitNoDaemon, Reason: "daemon_unreachable"}
		if errors.As(err, &known) {
			p.Error, p.Hint = known.Message, known.Hint
		}
		return exitNoDaemon, p
	case errors.As(err, &wrong):
		return exitUsage, api.Problem{Error: err.Error(), Code: exitUsage, Reason: "usage", Hint: "--help shows how to call it"}
	case errors.As(err, &known):
		return exitFailed, api.Problem{Error: known.Error(), Code: exitFailed, Reason: string(known.Reason), Hint: known.Hint}
	case errors.Is(err, context.Canceled):
		return exitFailed, api.Problem{Error: "interrupted", Code: exitFailed, Reason: "interrupted"}
	}
	return exitFailed, api.Problem{Error: err.Error(), Code: exitFailed, Reason: string(cortex.ReasonInternal)}
}

// printErrorJSON prints an error as the API writes it: the daemon's own words where it is the daemon's.
func (c *cli) printErrorJSON(err error, p api.Problem) {
	var refused *client.Error
	if errors.As(err, &refused) && json.Valid(refused.Body) {
		fmt.Fprintln(c.err, strings.TrimSpace(string(refused.Body)))
		return
	}
	data, merr := json.Marshal(p)
	if merr != nil { // strings and a number always marshal
		data = []byte(err.Error())
	}
	fmt.Fprintln(c.err, string(data))
}

// ids reads dispatch numbers from arguments, each once.
func ids(given []string) ([]int64, error) {
	var list []int64
	for _, arg := range given {
		id, err := number(arg)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(list, id) {
			list = append(list, id)
		}
	}
	return list, nil
}
