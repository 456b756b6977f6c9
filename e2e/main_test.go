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
	bin, err := testenv.Build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	bin.Remove()
	os.Exit(code)
}
