package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

// The demo of the README comes to its end, and its numbers are what they should be.
func TestDemo(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	script, err := filepath.Abs("../scripts/demo.sh")
	if err != nil {
		t.Fatal(err)
	}
	out, errout, code := h.Try(script, h.Bin)
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errout)
	}
	_, left, _ := strings.Cut(out, "== What is left")
	for _, want := range []string{"accepted                     5", "running                      0", "processes                    0"} {
		if !strings.Contains(left, want) {
			t.Errorf("no %q in:\n%s", want, left)
		}
	}
}
