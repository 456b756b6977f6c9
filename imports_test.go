package cortex

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// house is the order of the packages, from the bottom up: what is in a line may import what is in lines above it here, and
// nothing beside or below. Ends travel up as values, so that nobody needs the other direction. A new package needs a place.
var house = [][]string{
	// Import none of ours: nouns, formats, and the host.
	{"cortex", "cortex/config", "cortex/proc", "cortex/cgroup", "cortex/runner/record", "cortex/internal/fault", "cortex/internal/rlimit",
		"cortex/web"},
	{"cortex/tmux", "cortex/systemd", "cortex/runner/pane"},
	{"cortex/runner", "cortex/store"}, // the daemon's side of the runner, and the database: neither knows the other
	{"cortex/supervisor"},
	{"cortex/sched"},
	{"cortex/api", "cortex/metrics"},
	{"cortex/api/client"},
	{"cortex/cmd/cortex", "cortex/cmd/cortex-runner", "cortex/internal/testenv", "cortex/bench", "cortex/e2e"},
}

// mayExec may start programs: what else wants to goes through one of these, so that there is one place each where a command
// line is put together.
var mayExec = []string{"cortex/tmux", "cortex/systemd", "cortex/cmd/cortex", "cortex/internal/testenv", "cortex/bench"}

type listed struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Standard"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func ours(path string) bool { return path == "cortex" || strings.HasPrefix(path, "cortex/") }

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	floor := map[string]int{}
	for i, line := range house {
		for _, p := range line {
			floor[p] = i
		}
	}
	all := list(t, "-tags=faults", "./...")
	if len(all) < 10 {
		t.Fatalf("go list ./... says %v", all)
	}
	for _, p := range all {
		own, ok := floor[p.ImportPath]
		if !ok {
			t.Errorf("%s has no place in the house: give it one in imports_test.go", p.ImportPath)
			continue
		}
		for _, i := range p.Imports {
			if at, ok := floor[i]; ours(i) && (!ok || at >= own) {
				t.Errorf("%s imports %s, which is not below it", p.ImportPath, i)
			}
		}
	}
}

func TestWhoMayStartPrograms(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "-tags=faults", "./...") {
		if slices.Contains(p.Imports, "os/exec") && !slices.Contains(mayExec, p.ImportPath) {
			t.Errorf("%s imports os/exec; only %s may, and tests", p.ImportPath, strings.Join(mayExec, ", "))
		}
		for _, i := range []string{"testing", "cortex/internal/testenv"} {
			if slices.Contains(p.Imports, i) && p.ImportPath != "cortex/internal/testenv" {
				t.Errorf("%s imports %s outside its tests", p.ImportPath, i)
			}
		}
	}
}

// The nouns are imported by all: they bring nothing with them, and do nothing.
func TestTheNounsDoNothing(t *testing.T) {
	t.Parallel()
	never := []string{"os", "net", "net/http", "database/sql", "log/slog", "syscall", "os/exec", "io/fs"}
	for _, p := range list(t, "-deps", ".") {
		if !p.Standard && p.ImportPath != "cortex" {
			t.Errorf("%s is neither ours nor the standard library's", p.ImportPath)
		}
		for _, i := range p.Imports {
			if p.ImportPath == "cortex" && slices.Contains(never, i) {
				t.Errorf("it imports %s: nouns do no I/O", i)
			}
		}
	}
}

// The daemon's heart asks for its database and its sessions through packages; it knows neither SQL nor HTTP.
func TestWhoMaySpeakWhat(t *testing.T) {
	t.Parallel()
	may := map[string][]string{
		"net/http":                             {"cortex/api", "cortex/api/client", "cortex/metrics", "cortex/cmd/cortex", "cortex/web", "cortex/internal/testenv", "cortex/bench"},
		"database/sql":                         {"cortex/store", "cortex/bench"},
		"github.com/mattn/go-sqlite3":          {"cortex/store", "cortex/bench"},
		"github.com/spf13/cobra":               {"cortex/cmd/cortex"},
		"github.com/creack/pty":                {"cortex/runner/pane", "cortex/bench"},
		"github.com/prometheus/client_golang/": {"cortex/metrics"},
	}
	for _, p := range list(t, "-tags=faults", "./...") {
		for _, i := range p.Imports {
			for path, who := range may {
				if (i == path || strings.HasSuffix(path, "/") && strings.HasPrefix(i, path)) && !slices.Contains(who, p.ImportPath) {
					t.Errorf("%s imports %s; only %s may", p.ImportPath, i, strings.Join(who, ", "))
				}
			}
		}
	}
}
