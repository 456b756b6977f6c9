package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

// awaitFault waits until /health fails, by a check of that name that says these words in its detail and hint, the hint not
// empty: what is wrong, and what to do.
func awaitFault(t *testing.T, h *testenv.Host, name string, words ...string) {
	t.Helper()
	var last testenv.Answer
	defer func() {
		if t.Failed() {
			t.Logf("/health: %v", last["checks"])
		}
	}()
	testenv.Eventually(t, fmt.Sprintf("the check %s to fail with %q", name, words), func() bool {
		code, a := h.Get("/health")
		last = a
		return code == http.StatusServiceUnavailable && a["healthy"] == false && says(a, name, words)
	})
}

func says(health testenv.Answer, name string, words []string) bool {
	checks, _ := health["checks"].([]any)
	for _, c := range checks {
		check, _ := c.(map[string]any)
		if check["name"] != name || check["ok"] != false || check["hint"] == nil {
			continue
		}
		text := fmt.Sprint(check["detail"], " ", check["hint"])
		for _, w := range words {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	}
	return false
}

// awaitHealth waits until nothing is wrong any more.
func awaitHealth(t *testing.T, h *testenv.Host) {
	t.Helper()
	testenv.Eventually(t, "/health to be well", func() bool {
		code, a := h.Get("/health")
		return code == http.StatusOK && a["healthy"] == true
	})
}
