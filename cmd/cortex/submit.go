package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"cortex/api"
)

// request is the body of POST /dispatches; what is not given is not sent, so that the daemon's defaults count.
type request map[string]any

// submitFlags are the fields of a request that are plain words. Those that the daemon refuses as not available yet can
// be given, so that it is the daemon that says so, and are not in the help.
var submitFlags = []struct {
	flag, field, help string
	hidden            bool
}{
	{"bead", "bead_id", "the work item that this is for (required)", false},
	{"project", "project", `its project (by default "default")`, false},
	{"agent", "agent", "label: the agent that the command is", false},
	{"provider", "provider", "label: whose model it uses", false},
	{"tier", "tier", "label: which kind of model", false},
	{"workdir", "workdir", "directory to run in (by default this one)", false},
	{"timeout", "timeout", "stop it after this time, such as 30m", false},
	{"idempotency-key", "idempotency_key", "submit it once, however often this is called with the same key", false},
	{"prompt", "prompt", "what to tell the agent", true},
	{"not-before", "not_before", "start it no earlier than this time (2026-02-18T06:01:00Z) or so long from now (1h30m)", false},
	{"idle-timeout", "idle_timeout", "stop it after this time without output", true},
}

func (c *cli) submit() *cobra.Command {
	var env, after []string
	var priority, retries int
	cmd := &cobra.Command{
		Use:   "submit --bead BEAD [flags] -- COMMAND [ARG...]",
		Short: "Run a command for a work item, and print the dispatch's number",
		Long: `Submit hands a command to the daemon, which starts it when a slot is free and nothing holds it, and prints the number of
the dispatch. The arguments reach the command as they are; no shell reads them. The environment is the daemon's, not
this one: --env adds to it.`,
		Example: `  cortex submit --bead fix-17 --project web -- make test
  cortex submit --bead nightly --timeout 2h --env MODEL=large -- sh -c './agent < prompt.md'`,
	}
	cmd.Flags().SetInterspersed(false) // the command's own flags are not ours, also without --
	for _, f := range submitFlags {
		cmd.Flags().String(f.flag, "", f.help)
		if f.hidden {
			hide(cmd, f.flag)
		}
	}
	cmd.Flags().StringArrayVar(&env, "env", nil, "NAME=VALUE for its environment; may be repeated")
	cmd.Flags().IntVar(&priority, "priority", 2, "0 is started first, 4 last")
	cmd.Flags().IntVar(&retries, "max-retries", 0, "start it again so often when it fails")
	cmd.Flags().StringSliceVar(&after, "after", nil, "start it after these dispatches")
	hide(cmd, "max-retries")
	hide(cmd, "after")
	cmd.RunE = func(cmd *cobra.Command, command []string) error {
		body, err := submission(cmd, command)
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("priority") {
			body["priority"] = priority
		}
		if cmd.Flags().Changed("max-retries") {
			body["max_retries"] = retries
		}
		if cmd.Flags().Changed("after") {
			body["after"] = after
		}
		if len(env) > 0 {
			if body["env"], err = environment(env); err != nil {
				return err
			}
		}
		return c.send(cmd, body)
	}
	return cmd
}

func hide(cmd *cobra.Command, flag string) {
	if err := cmd.Flags().MarkHidden(flag); err != nil {
		panic(err) // no such flag: a mistake in this file
	}
}

// submission makes the request's body of the plain flags and the command.
func submission(cmd *cobra.Command, command []string) (request, error) {
	body := request{}
	for _, f := range submitFlags {
		if flag := cmd.Flags().Lookup(f.flag); flag.Changed {
			body[f.field] = flag.Value.String()
		}
	}
	if body["bead_id"] == nil {
		return nil, usage("cortex submit: --bead is missing")
	}
	if len(command) > 0 {
		body["command"] = command
	}
	// Over HTTP a directory that isn't given is the home directory; here it is where the caller is.
	dir, _ := body["workdir"].(string)
	if dir != "~" && !strings.HasPrefix(dir, "~/") {
		absolute, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("where are we? %w", err)
		}
		body["workdir"] = absolute
	}
	for _, value := range body {
		text, _ := value.(string)
		if !utf8.ValidString(text) {
			return nil, errNotUTF8
		}
	}
	for _, arg := range command {
		if !utf8.ValidString(arg) {
			return nil, errNotUTF8
		}
	}
	return body, nil
}

// JSON can't carry other bytes: they would arrive as something else.
var errNotUTF8 = usageError{errors.New("an argument is not UTF-8, and can't be sent; wrap the command into a script")}

func environment(entries []string) (map[string]string, error) {
	env := map[string]string{}
	for _, entry := range entries {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			return nil, usage("--env takes NAME=VALUE, not %s", quoted(entry))
		}
		if !utf8.ValidString(entry) {
			return nil, errNotUTF8
		}
		env[name] = value
	}
	return env, nil
}

func (c *cli) send(cmd *cobra.Command, body request) error {
	daemon, err := c.connect()
	if err != nil {
		return err
	}
	var d api.Dispatch
	answer, err := daemon.Post(cmd.Context(), "/dispatches", nil, body, &d)
	if err != nil {
		return err
	}
	if c.format == "json" {
		return c.raw(answer)
	}
	_, err = fmt.Fprintln(c.out, strconv.FormatInt(d.ID, 10))
	return err
}
