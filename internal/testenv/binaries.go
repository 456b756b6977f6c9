package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Binaries are cortex and cortex-runner, built for tests.
type Binaries struct {
	Dir      string
	borrowed bool
}

var build = sync.OnceValues(func() (Binaries, error) { return compile("-race", "-tags=faults") })

// Build builds the binaries with the race detector and the fault points, once a test program. A test that was started again
// in a namespace of its own (Namespace) has those of the first.
func Build() (Binaries, error) {
	if dir := os.Getenv(BinariesOf); dir != "" {
		return Binaries{Dir: dir, borrowed: true}, nil
	}
	return build()
}

func compile(flags ...string) (Binaries, error) {
	dir, err := os.MkdirTemp("", "cortex-bin")
	if err != nil {
		return Binaries{}, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // AsNobody runs them, too
		return Binaries{}, err
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("find the module: %w", err)
	}
	for name, args := range map[string][]string{"cortex": flags, "cortex-runner": {"-tags=faults"}} {
		cmd := exec.Command("go", slices.Concat([]string{"build"}, args, []string{"-o", filepath.Join(dir, name), "./cmd/" + name})...)
		cmd.Dir = strings.TrimSpace(string(root))
		if name == "cortex-runner" {
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return Binaries{}, fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return Binaries{Dir: dir}, nil
}

// Remove removes the binaries.
func (b Binaries) Remove() {
	if b.Dir != "" && !b.borrowed {
		os.RemoveAll(b.Dir)
	}
}
