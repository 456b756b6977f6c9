package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

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

// A short soak finds nothing lost, nothing run twice and nothing left, and has all its lines. What grows in so short a time
// tells nothing, and is not checked.
func TestSoak(t *testing.T) {
	r, err := soak(t.Context(), options{bin: built.Dir, soak: 3 * time.Second}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range r.Broken {
		t.Error(b)
	}
	if len(r.Trends) != 20 || r.Dispatches < len(mix) || r.Pauses != 10 || r.Kills != 2*soakKills {
		t.Errorf("%d lines, %+v", len(r.Trends), r)
	}
	seen := map[string]bool{}
	for _, l := range r.Trends {
		for _, v := range []float64{l.First, l.Last, l.Ratio} {
			if !(v > 0) || math.IsInf(v, 0) {
				t.Errorf("%+v", l)
			}
		}
		if seen[l.Name] {
			t.Errorf("twice: %+v", l)
		}
		seen[l.Name] = true
	}
	var table bytes.Buffer
	if err := r.table(&table); err != nil || strings.Count(table.String(), "\n") != len(r.Trends)+3 {
		t.Errorf("%v\n%s", err, table.String())
	}
}

// A soak fails of a record that is not what its dispatch did, and of what grows.
func TestSoakFails(t *testing.T) {
	t.Parallel()
	well, fails, cancelled := job{}, job{code: 3}, job{cancel: true}
	code := func(n int64) sql.NullInt64 { return sql.NullInt64{Int64: n, Valid: true} }
	for name, c := range map[string]struct {
		job   job
		row   row
		begun int
		wrong bool
	}{
		"completed":           {well, row{status: "completed", code: code(0), ends: 1}, 1, false},
		"failed":              {fails, row{status: "failed", code: code(3), ends: 1}, 1, false},
		"cancelled":           {cancelled, row{status: "cancelled", ends: 1}, 1, false},
		"cancelled in time":   {cancelled, row{status: "cancelled", ends: 1}, 0, false},
		"not there":           {well, row{}, 1, true},
		"still running":       {well, row{status: "running"}, 1, true},
		"never started":       {well, row{status: "completed", code: code(0), ends: 1}, 0, true},
		"started twice":       {well, row{status: "completed", code: code(0), ends: 1}, 2, true},
		"another exit status": {fails, row{status: "failed", code: code(1), ends: 1}, 1, true},
		"no exit status":      {well, row{status: "completed", ends: 1}, 1, true},
		"ended twice":         {well, row{status: "completed", code: code(0), ends: 2}, 1, true},
		"lost":                {cancelled, row{status: "failed", ends: 1}, 1, true},
		"cancelled, twice":    {cancelled, row{status: "cancelled", ends: 1}, 2, true},
	} {
		if got := judge(c.job, c.row, c.begun); got != c.wrong {
			t.Errorf("%s: %v", name, got)
		}
	}
	flat, grows, free := newTrend("", "", 100, 110, 1.1), newTrend("", "", 100, 111, 1.1), newTrend("", "", 1, 1000, 0)
	for _, c := range []struct {
		r    soakReport
		fail bool
	}{
		{soakReport{Trends: []trend{flat, free}}, false},
		{soakReport{Trends: []trend{flat, grows}}, true},
		{soakReport{Trends: []trend{flat}, Broken: []string{"one"}}, true},
	} {
		if err := c.r.err(); (err != nil) != c.fail {
			t.Errorf("%+v: %v", c.r, err)
		}
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
