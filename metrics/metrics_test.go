package metrics

import (
	"flag"
	"io"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"cortex"
	"cortex/sched"
)

var update = flag.Bool("update", false, "rewrite the golden file")

func example() Options {
	paused := time.Unix(1_771_394_460, 0)
	return Options{
		Version: "v2026.2.18", Started: time.Unix(1_771_338_138, 500_000_000),
		Failures:  func() float64 { return 4 },
		Config:    func() (bool, int) { return true, 2 },
		Followers: func() float64 { return 2 },
		Snapshot: func() sched.Status {
			return sched.Status{
				State: sched.StatePaused, PausedAt: &paused, LastTick: time.Unix(1_771_394_412, 0),
				Running: 7, Frozen: 2, Pending: 3, Unrecorded: 1, MaxConcurrent: 10, RecentDispatches: 2,
				Holds: []cortex.Hold{
					{Kind: cortex.HoldOperator, Scope: cortex.ScopeAll, Reason: "secret-reason", By: "somebody"},
					{Kind: cortex.HoldDisk, Scope: cortex.ScopeAll},
				},
				Counts: map[cortex.Status]int{cortex.Running: 7, cortex.Pending: 2, cortex.PendingRetry: 1, cortex.Completed: 90, cortex.Failed: 4},
			}
		},
	}
}

func scrape(t *testing.T, o Options) string {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(o).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("status %d, %v:\n%s", w.Code, err, body)
	}
	return string(body)
}

// TestGolden keeps names, types, help texts and labels as they are: dashboards and alerts of other people rely on them.
func TestGolden(t *testing.T) {
	var own []string
	for line := range strings.Lines(scrape(t, example())) {
		if strings.Contains(line, "cortex_") {
			own = append(own, line)
		}
	}
	got := regexp.MustCompile(`goversion="[^"]*",revision="[^"]*"`).ReplaceAllString(strings.Join(own, ""), `goversion="GO",revision="REV"`)
	const golden = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLint(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(scrape(t, example()))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "cortex_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	if problems, err = testutil.CollectAndLint(newCollector(example())); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

// TestDefaults: the libraries' own metrics are there, and before anything ran every series of ours is, at 0.
func TestDefaults(t *testing.T) {
	text := scrape(t, Options{Snapshot: func() sched.Status { return sched.Status{State: sched.StateRunning} },
		Failures: func() float64 { return 0 }, Config: func() (bool, int) { return false, 0 }, Followers: func() float64 { return 0 }})
	for _, want := range []string{
		"\nprocess_resident_memory_bytes ", "\ngo_goroutines ", "\ncortex_dispatches_running 0\n", "\ncortex_dispatches_pending 0\n",
		"\ncortex_dispatch_failures_total 0\n", "\ncortex_scheduler_paused 0\n", "\ncortex_dispatches{status=\"failed\"} 0\n",
		"\ncortex_config_refused 0\n", "\ncortex_config_restart_required 0\n", "\ncortex_holds{kind=\"disk\"} 0\n", "\ncortex_scheduler_last_pass_timestamp_seconds 0\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
}

// TestNothingPrivate: whoever may scrape may not learn what people wrote.
func TestNothingPrivate(t *testing.T) {
	if text := scrape(t, example()); strings.Contains(text, "secret-reason") || strings.Contains(text, "somebody") {
		t.Error("a reason or a name is shown")
	}
}
