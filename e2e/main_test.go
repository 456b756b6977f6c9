// Package e2e tests the built binaries as their users have them: by shell, curl, sqlite3, tmux and signals.
package e2e

import (
	"fmt"
	"os"
	"testing"

	"cortex/internal/testenv"
)

// The binaries are built once, and before the tests' clocks run.
func TestMain(m *testing.M) {
	if os.Getenv(setuidRole) != "" {
		becomeRoot()
	}
	if data := os.Getenv(firstRunner); data != "" {
		if err := becomeFirstRunner(data, os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	bin, err := testenv.Build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	bin.Remove()
	os.Exit(code)
}
