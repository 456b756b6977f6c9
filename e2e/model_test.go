package e2e

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"cortex/internal/testenv"
	"cortex/proc"
)

// job is one dispatch of the model: what it does, and what has been done to it.
type job struct {
	n      int
	id     string
	kind   string // quick ends at once, gated when its gate is opened, stubborn never by itself
	code   int    // its exit status, where it ends by itself
	gate   *os.File
	opened bool
	harmed map[string]bool // cancel, runner, session, server
}

// model is one random run against the real binaries.
type model struct {
	t      *rapid.T
	h      *testenv.Host
	d      *testenv.Daemon
	jobs   []*job
	unlock func() // not nil while the database is locked

	paused  bool
	pauses  [][2]time.Time // from the answer to a pause to the next resume's request
	pending time.Time      // answer to the pause in force
}

const modelLimit = 3

func newModel(t *rapid.T) *model {
	h := testenv.New(t)
	h.Extra = []string{fmt.Sprintf("CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=%d", modelLimit)}
	return &model{t: t, h: h, d: h.Start()}
}

func (m *model) submit() {
	if m.unlock != nil {
		return // it would be refused, after 8 s
	}
	j := &job{n: len(m.jobs), harmed: map[string]bool{}}
	j.kind = rapid.SampledFrom([]string{"quick", "quick", "gated", "gated", "stubborn"}).Draw(m.t, "kind")
	j.code = rapid.SampledFrom([]int{0, 0, 1, 7, 255}).Draw(m.t, "code")
	gate := filepath.Join(m.h.Home, fmt.Sprintf("gate-%d", j.n))
	m.must(syscall.Mkfifo(gate, 0o600))
	var err error
	j.gate, err = os.OpenFile(gate, os.O_RDWR, 0)
	m.must(err)
	m.t.Cleanup(func() { j.gate.Close() })
	started := fmt.Sprintf("echo %d >> %s/starts; ", j.n, m.h.Home)
	script := map[string]string{
		"quick": started + fmt.Sprintf("exit %d", j.code),
		"gated": started + fmt.Sprintf("read x < %s; exit %d", gate, j.code),
		"stubborn": `trap "" TERM INT HUP; (setsid sh -c 'trap "" TERM HUP; exec sleep 100000' &); ` + started +
			"while :; do sleep 1000; done",
	}[j.kind]
	j.id = m.h.Submit(fmt.Sprintf("j%d", j.n), "sh", "-c", script)
	m.jobs = append(m.jobs, j)
}

func (m *model) must(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

// pick chooses a job that suits, nil where there is none.
func (m *model) pick(suits func(*job) bool) *job {
	var all []*job
	for _, j := range m.jobs {
		if suits(j) {
			all = append(all, j)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[rapid.IntRange(0, 99).Draw(m.t, "job")%len(all)]
}

func (m *model) open() {
	if j := m.pick(func(j *job) bool { return j.kind == "gated" && !j.opened }); j != nil {
		m.openGate(j)
	}
}

func (m *model) openGate(j *job) {
	j.opened = true
	_, err := j.gate.WriteString("\n")
	m.must(err)
}

func (m *model) cancel() {
	j := m.pick(func(j *job) bool { return !j.harmed["cancel"] })
	if j == nil {
		return
	}
	grace := rapid.SampledFrom([]string{"0s", "50ms", "1s"}).Draw(m.t, "grace")
	switch code, a := m.h.Post("/dispatches/"+j.id+"/cancel", `{"grace":"`+grace+`"}`); code {
	case http.StatusOK:
		j.harmed["cancel"] = true
	case http.StatusConflict: // it has ended
	default:
		m.t.Fatalf("cancel of %s: %d %v", j.id, code, a)
	}
}

func (m *model) pause() {
	if code, a := m.h.Post("/scheduler/pause", ""); code != http.StatusOK {
		m.t.Fatalf("pause: %d %v", code, a)
	}
	if !m.paused {
		m.paused, m.pending = true, time.Now()
	}
}

func (m *model) resume() {
	if m.unlock != nil || !m.paused {
		return
	}
	m.pauses = append(m.pauses, [2]time.Time{m.pending, time.Now()})
	m.paused = false
	if code, a := m.h.Post("/scheduler/resume", ""); code != http.StatusOK {
		m.t.Fatalf("resume: %d %v", code, a)
	}
}

func (m *model) killDaemon() {
	m.d.Kill()
	m.d = m.h.Start()
}

func (m *model) restart() {
	m.d.Stop()
	m.d = m.h.Start()
}

// killRunner kills the runner of a job that has its process.
func (m *model) killRunner() {
	j := m.pick(func(j *job) bool { return m.h.Status(j.id) == "running" && m.h.Field(j.id, "pid") != "" })
	if j == nil {
		return
	}
	j.harmed["runner"] = true
	all, err := proc.All()
	if err != nil {
		m.t.Fatal(err)
	}
	call := fmt.Sprintf("%s/runs %s ", m.h.State, j.id) // its runner's arguments
	for _, s := range all {
		if s.Comm == "cortex-runner" && strings.Contains(proc.Cmdline(s.PID), call) {
			s.Signal(syscall.SIGKILL) // it may have ended by now
		}
	}
}

func (m *model) killSession() {
	j := m.pick(func(j *job) bool { return m.h.Field(j.id, "session_name") != "" && m.h.Status(j.id) == "running" })
	if j == nil {
		return
	}
	j.harmed["session"] = true
	m.h.Tmuxes("kill-session", "-t", "="+m.h.Field(j.id, "session_name"))
}

func (m *model) killServer() {
	for _, j := range m.jobs {
		j.harmed["server"] = true // those that run or start now
	}
	m.h.Tmuxes("kill-server")
}

func (m *model) lock() {
	if m.unlock == nil {
		m.unlock = lock(m.t, m.h, "BEGIN EXCLUSIVE;")
		return
	}
	m.unlock()
	m.unlock = nil
}

// check is what holds at every moment.
func (m *model) check() {
	code, a := m.h.Get("/status")
	running, _ := a["running_count"].(float64)
	if code != http.StatusOK || running > modelLimit {
		m.t.Fatalf("%d %v", code, a)
	}
	if m.paused && a["scheduler_state"] != "paused" {
		m.t.Fatalf("the pause is gone: %v", a)
	}
}

// settle lets all come to its end.
func (m *model) settle() {
	if m.unlock != nil {
		m.lock()
	}
	if m.paused {
		testenv.Eventually(m.t, "the database to open", func() bool {
			code, _ := m.h.Get("/health")
			return code == http.StatusOK
		})
		m.resume()
	}
	m.thawAll()
	for _, j := range m.jobs {
		switch {
		case j.kind == "gated" && !j.opened:
			m.openGate(j)
		case j.kind == "stubborn" && !j.harmed["cancel"]:
			if code, a := m.h.Post("/dispatches/"+j.id+"/cancel", `{"grace":"0s"}`); code == http.StatusOK {
				j.harmed["cancel"] = true
			} else if code != http.StatusConflict {
				m.t.Fatalf("cancel of %s: %d %v", j.id, code, a)
			}
		}
	}
	testenv.Eventually(m.t, "all to end", func() bool {
		_, a := m.h.Get("/status")
		counts, _ := a["counts"].(map[string]any)
		ended := 0.0
		for _, status := range []string{"completed", "failed", "cancelled"} {
			n, _ := counts[status].(float64)
			ended += n
		}
		return a["running_count"] == 0.0 && a["pending_count"] == 0.0 && ended == float64(len(m.jobs))
	})
	testenv.Eventually(m.t, "all ends in the database", func() bool {
		return m.h.SQL("SELECT count(*) FROM dispatches WHERE status IN ('completed', 'failed', 'cancelled')") == fmt.Sprint(len(m.jobs))
	})
}

// verdict compares what is on record with what happened.
func (m *model) verdict() {
	starts, err := os.ReadFile(filepath.Join(m.h.Home, "starts"))
	if err != nil && !os.IsNotExist(err) {
		m.t.Fatal(err)
	}
	lines := strings.Fields(string(starts))
	for _, j := range m.jobs {
		n := 0
		for _, l := range lines {
			if l == fmt.Sprint(j.n) {
				n++
			}
		}
		m.judge(j, n)
	}
	for _, p := range m.pauses {
		const layout = "2006-01-02 15:04:05.000"
		from, to := p[0].Add(2*time.Millisecond).UTC().Format(layout), p[1].UTC().Format(layout)
		if got := m.h.SQL(fmt.Sprintf("SELECT group_concat(id) FROM dispatches WHERE dispatched_at > '%s' AND dispatched_at < '%s'", from, to)); got != "" {
			m.t.Errorf("started between %s and %s, while paused: %s", from, to, got)
		}
	}
	if left := m.h.Sessions(); len(left) != 0 {
		m.t.Errorf("sessions left: %v", left)
	}
	for _, p := range m.h.Processes() {
		if strings.Contains(p, "sleep 10") || strings.Contains(p, "cortex-runner") {
			m.t.Errorf("left: %s", p)
		}
	}
}

// judge compares a job's record with what it did and what was done to it.
func (m *model) judge(j *job, ran int) {
	status, category := m.h.Status(j.id), m.h.Field(j.id, "failure_category")
	code := m.h.Field(j.id, "exit_code")
	told := fmt.Sprintf("job %d, %s with %d, harmed by %v, is dispatch %s: %s %s, exit code %q, ran %d times",
		j.n, j.kind, j.code, j.harmed, j.id, status, category, code, ran)
	itself := status == map[bool]string{true: "completed", false: "failed"}[j.code == 0] && code == fmt.Sprint(j.code) &&
		ran == 1 && j.kind != "stubborn" && (status == "completed" || category == "exit_nonzero")
	var may []bool
	switch {
	case len(j.harmed) == 0:
		may = []bool{itself}
	default:
		may = []bool{
			itself,
			j.harmed["cancel"] && status == "cancelled",
			j.harmed["runner"] && status == "failed" && category == "lost" && code == "",
			(j.harmed["session"] || j.harmed["server"]) && status == "failed" && category == "signal" && code != "0",
			j.harmed["server"] && status == "failed" && category == "lost" && code == "",
		}
	}
	if ran > 1 || !slices.Contains(may, true) {
		m.t.Errorf("%s", told)
	}
	events := m.h.SQL("SELECT count(*) FROM events WHERE dispatch_id = " + j.id +
		" AND event_type IN ('dispatch_completed', 'dispatch_failed', 'dispatch_cancelled')")
	if events != "1" {
		m.t.Errorf("%s; %s events of its end", told, events)
	}
}

// modelRuns is how many random runs there are where -rapid.checks says nothing; make torture says more.
const modelRuns = "5"

// Random sequences of what operators, users and hosts do, against the real binaries: each dispatch runs exactly once and ends
// with its true exit status, never more than the limit run, nothing starts in an answered pause, and nothing is left.
func TestModel(t *testing.T) {
	t.Parallel()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "rapid.checks" })
	if !set {
		if err := flag.Set("rapid.checks", modelRuns); err != nil {
			t.Fatal(err)
		}
	}
	tally := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt)
		actions := map[string]func(){
			"submit": m.submit, "open": m.open, "cancel": m.cancel, "pause": m.pause, "resume": m.resume,
			"kill daemon": m.killDaemon, "restart": m.restart, "kill runner": m.killRunner, "kill session": m.killSession,
			"kill server": m.killServer, "lock": m.lock, "freeze": m.freeze, "thaw": m.thaw,
		}
		names := []string{
			"submit", "submit", "submit", "submit", "submit", "open", "open", "cancel", "cancel", "pause", "resume", "resume",
			"kill daemon", "kill daemon", "restart", "kill runner", "kill session", "kill server", "lock",
			"freeze", "freeze", "thaw",
		}
		m.submit()
		for range rapid.IntRange(5, 20).Draw(rt, "steps") {
			name := rapid.SampledFrom(names).Draw(rt, "action")
			tally[name]++
			actions[name]()
			m.check()
		}
		m.settle()
		m.verdict()
		tally["dispatches"] += len(m.jobs)
		tally["runs"]++
	})
	t.Logf("%v", tally)
}
