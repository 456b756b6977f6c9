package e2e

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cortex/internal/testenv"
	"cortex/proc"
)

// The demo of the README comes to its end, and its numbers are what they should be.
func TestDemo(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	const want = "accepted 40 · true ends 40 · run twice 0 · started while paused 0 · processes left 0"
	if got := lastWords(t, h, "demo.sh", h.Bin); got != want {
		t.Errorf("%s", got)
	}
}

// What cortex is compared with does the same work as far as it can, and the script ends what it leaves.
func TestCompare(t *testing.T) {
	t.Parallel()
	want := regexp.MustCompile(`^accepted \d+ · true ends \d+ · run twice \d+ · started while paused \d+ · processes left \d+$`)
	for _, peer := range []string{"supervisor", "task-spooler"} {
		t.Run(peer, func(t *testing.T) {
			t.Parallel()
			if got := lastWords(t, testenv.New(t), "compare.sh", peer); !want.MatchString(got) {
				t.Errorf("%s", got)
			}
		})
	}
}

// lastWords runs a script that shows the forty jobs of scripts/job.sh, and returns the last line that it says.
func lastWords(t *testing.T, h *testenv.Host, script, arg string) string {
	t.Helper()
	path, err := filepath.Abs("../scripts/" + script)
	if err != nil {
		t.Fatal(err)
	}
	h.Extra = []string{"TMPDIR=" + filepath.Dir(h.Home)}
	out, errout, code := h.Try(path, arg)
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errout)
	}
	t.Log(out)
	mark := regexp.MustCompile(`\b86400\.\d+`).FindString(out)
	all, err := proc.All()
	if mark == "" || err != nil {
		t.Fatalf("the mark of what it started is %q; %v", mark, err)
	}
	for _, p := range all {
		if strings.Contains(proc.Cmdline(p.PID), mark) {
			t.Errorf("left running: %d %s", p.PID, p.Comm)
		}
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}
