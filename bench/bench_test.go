package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

// built are the binaries, once for all tests.
var built testenv.Binaries

func TestMain(m *testing.M) {
	var err error
	if built, err = testenv.Build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	built.Remove()
	os.Exit(code)
}

// The whole bench runs, with tiny numbers: each figure is there, and tells something. What it tells is not checked.
func TestEveryFigureIsThere(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), options{starts: 3, running: 2, bin: built.Dir}, true, &out); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Figures) != 13 || r.Host.Starts != 3 || r.Host.Running != 2 {
		t.Errorf("%d figures of %+v", len(r.Figures), r.Host)
	}
	seen := map[string]bool{}
	for _, f := range r.Figures {
		for _, v := range []float64{f.Cortex, f.Floor, f.Ratio} {
			if !(v > 0) || math.IsInf(v, 0) {
				t.Errorf("%+v", f)
			}
		}
		if f.Unit == "" || seen[f.Name] {
			t.Errorf("without a unit, or twice: %+v", f)
		}
		seen[f.Name] = true
	}
	var table bytes.Buffer
	if err := r.table(&table); err != nil || strings.Count(table.String(), "\n") != len(r.Figures)+2 {
		t.Errorf("%v\n%s", err, table.String())
	}
}

// An interruption ends everything that runs, and says so.
func TestInterrupted(t *testing.T) {
	w, err := newWorld(t.Context(), options{starts: 1, running: 2, bin: built.Dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	d, err := startDaemon(ctx, w)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.runAsleep(ctx, 2); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := d.submit(ctx, "true"); err == nil {
		t.Error("it goes on")
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
	if err := w.close(); err != nil {
		t.Error(err)
	}
}

// What still runs at the end is found, said, and ended.
func TestWhatIsLeftIsEnded(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir(), short: t.TempDir()}
	_, _, env, err := w.place()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "infinity")
	cmd.Env = env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.noneLeft(0); err == nil || !strings.Contains(err.Error(), "left running") {
		t.Errorf("%v", err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ended well")
	}
}
