package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// There is a runner in each pane, as long as its agent lives: what it links, each of them holds in memory, and each start pays
// for. Bare Go has 56 packages and 1.4 MB. (The time of a start is measured by the benchmark.)
const (
	maxPackages = 90
	maxBinary   = 3 << 20
)

// banned are packages that the runner does without, and why. The path stands for what is below it, too.
var banned = map[string]string{
	"net/http":      "100 packages and 3 MB; the daemon asks a runner over a unix socket, in lines of JSON",
	"net":           "a resolver and its goroutines; the socket is made by hand (runner/pane/control.go)",
	"database/sql":  "a runner writes files: the database may be locked, and is the daemon's",
	"regexp":        "compiled tables in each pane; nothing here is looked for by a pattern",
	"testing":       "test helpers were linked into a release: flags, profiles and a start that is slower",
	"log/slog":      "the runner logs nothing, it writes records",
	"cortex":        "the runner outlives daemons of other versions: it shares the format of runs/ with them, and no more",
	"cortex/config": "the spec has all that is needed, so that a dispatch runs the same whatever is configured since",
	"cortex/store":  "SQLite, and a database that only the daemon writes",
	"cortex/tmux":   "the runner is in the pane already, and never drives tmux",
	"cortex/runner": "the daemon's side",
}

// alsoFine are below a banned path and no part of it.
var alsoFine = []string{"cortex/runner/pane", "cortex/runner/record", "cortex/proc", "cortex/cgroup", "cortex/internal/fault",
	"cortex/internal/rlimit", "cortex/cmd/cortex-runner", "net/netip", "net/url"}

func deps(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

func TestTheRunnerIsMadeOfLittle(t *testing.T) {
	t.Parallel()
	all := deps(t)
	if len(all) < 30 || !slices.Contains(all, "cortex/runner/pane") {
		t.Fatalf("go list -deps says %q", all)
	}
	if len(all) > maxPackages {
		t.Errorf("%d packages, the budget is %d: there is a runner in every pane. `go list -deps ./cmd/cortex-runner` lists them",
			len(all), maxPackages)
	}
	for _, p := range all {
		if slices.Contains(alsoFine, p) {
			continue
		}
		for path, why := range banned {
			if p == path || strings.HasPrefix(p, path+"/") {
				t.Errorf("%s must not be linked in: %s. `go list -deps ./cmd/cortex-runner` and `go mod why -m` say through whom", p, why)
			}
		}
	}
}

// os/exec comes in with the pty package, which can start commands. Ours fork by hand: the agent's first steps are taken between
// fork and exec, where os/exec lets nobody in.
func TestTheRunnerUsesNoOsExec(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("go", "list", "-deps", "-f", `{{$p := .ImportPath}}{{range .Imports}}{{if eq . "os/exec"}}{{$p}}{{"\n"}}{{end}}{{end}}`, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range strings.Fields(string(out)) {
		if p != "github.com/creack/pty" {
			t.Errorf("%s imports os/exec: the pane forks by syscall (runner/pane/spawn.go)", p)
		}
	}
}

func TestTheRunnerIsSmall(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "cortex-runner")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", st.Size())
	if st.Size() > maxBinary {
		t.Errorf("the stripped program has %d bytes, the budget is %d: it is started with every dispatch, and stays in every pane",
			st.Size(), maxBinary)
	}
}
