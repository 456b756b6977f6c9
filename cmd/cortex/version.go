package main

import (
	"fmt"
	goruntime "runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is what this binary is: set by the build (-ldflags "-X main.version=v1.2.3"), else what Go noted of the source.
var version string

func init() {
	if version != "" {
		return
	}
	version = "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
}

func (c *cli) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program (cortex status shows the daemon's)",
		Example: `  cortex version
  cortex version -o json`,
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if c.format != "json" {
				_, err := fmt.Fprintln(c.out, "cortex "+version)
				return err
			}
			return c.json(struct {
				Version string `json:"version"`
				Go      string `json:"go"`
			}{version, goruntime.Version()})
		},
	}
}
