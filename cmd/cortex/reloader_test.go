package main

import (
	"testing"
	"time"

	"cortex/config"
)

// A file counts as finished only when nothing has happened to it for two seconds on end.
func TestStillness(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := config.Origin{Flag: "a", Cwd: dir}.Mark()
	b := config.Origin{Flag: "b", Cwd: dir}.Mark()
	t0 := time.Now()
	s := stillness{seen: a}
	for _, look := range []struct {
		at   time.Duration
		mark config.Mark
		over bool
	}{
		{0, a, true}, {1000, b, false}, {1500, b, false}, {2900, b, false}, {2950, a, false}, {3000, b, false}, {4999, b, false},
		{5000, b, true}, {9000, b, true}, {9001, a, false}, {11000, a, false}, {11001, a, true},
	} {
		if got := s.over(look.mark, t0.Add(look.at*time.Millisecond)); got != look.over {
			t.Errorf("at %d ms: %v", look.at, got)
		}
	}
}
