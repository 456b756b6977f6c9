package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cortex/internal/testenv"
)

// configured is a host whose daemon was started with a configuration file of this text.
func configured(t *testing.T, text string) (h *testenv.Host, d *testenv.Daemon, file string) {
	t.Helper()
	h = testenv.New(t)
	file = writeFile(t, filepath.Join(h.Home, "my.toml"), text, 0o600)
	return h, h.Start("--config", file), file
}

func limited(n int) string { return fmt.Sprintf("[scheduler]\nmax_concurrent_dispatches = %d\n", n) }

// reload reloads, and is what the daemon answers: what changed, and what needs a restart.
func reload(t *testing.T, h *testenv.Host) (changed, restart string) {
	t.Helper()
	var a struct {
		Status          string
		Changed         []string
		RestartRequired []string `json:"restart_required"`
	}
	answer := h.Cortex("reload", "-o", "json")
	if err := json.Unmarshal([]byte(answer), &a); err != nil || a.Status != "success" || a.Changed == nil || a.RestartRequired == nil {
		t.Fatalf("%s (%v)", answer, err)
	}
	return strings.Join(a.Changed, " "), strings.Join(a.RestartRequired, " ")
}

// wantReload reloads and compares.
func wantReload(t *testing.T, h *testenv.Host, changed, restart string) {
	t.Helper()
	if c, r := reload(t, h); c != changed || r != restart {
		t.Errorf("changed %q, needs a restart %q; want %q, %q", c, r, changed, restart)
	}
}

func limitOf(h *testenv.Host) float64 {
	_, a := h.Get("/status")
	limit, _ := a["max_concurrent"].(float64)
	return limit
}

func awaitLimit(t *testing.T, h *testenv.Host, want float64) {
	t.Helper()
	testenv.Eventually(t, fmt.Sprintf("the limit to be %v", want), func() bool { return limitOf(h) == want })
}

// configCheck is the check config of /health, which is never a reason to be unhealthy.
func configCheck(t *testing.T, h *testenv.Host) testenv.Answer {
	t.Helper()
	code, a := h.Get("/health")
	checks, _ := a["checks"].([]any)
	for _, c := range checks {
		check, _ := c.(map[string]any)
		if check["name"] != "config" {
			continue
		}
		if code != http.StatusOK || a["healthy"] != true || (check["ok"] == true) != (check["notice"] == nil) ||
			(check["ok"] == true) != (check["hint"] == nil) {
			t.Errorf("/health: %d %v", code, a)
		}
		return check
	}
	t.Fatalf("/health: %d %v", code, a)
	return nil
}

// reloads are the events of a type, oldest first: what their details say at path (as SQLite's json_extract has it).
func reloads(h *testenv.Host, event, path string) []string {
	out := h.SQL("SELECT json_extract(details, '" + path + "') FROM health_events WHERE event_type = '" + event + "' ORDER BY id")
	if out == "" {
		return nil
	}
	return strings.Split(out, "\n")
}

func swap(t *testing.T, link, to string) {
	t.Helper()
	if err := os.Symlink(to, link+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		t.Fatal(err)
	}
}

// The configuration is read again however that is ordered, and however the file is changed.
func TestReload(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	// As in a mounted ConfigMap: the file is a link through a link to a folder, which is what is swapped.
	dir := filepath.Join(h.Home, "etc")
	for name, n := range map[string]int{"v1": 1, "v6": 6} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name, "cortex.toml"), limited(n), 0o600)
	}
	file := filepath.Join(dir, "cortex.toml")
	swap(t, filepath.Join(dir, "..data"), "v1")
	swap(t, file, "..data/cortex.toml")
	d := h.Start("--config", file)

	writeFile(t, file, limited(2), 0o600) // through the links
	if err := syscall.Kill(d.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	awaitLimit(t, h, 2)
	writeFile(t, file, limited(3), 0o600)
	if out := h.Cortex("reload", "--by", "ann"); out != "Configuration reloaded\nchanged  scheduler.max_concurrent_dispatches" {
		t.Errorf("%q", out)
	}
	if got := limitOf(h); got != 3 {
		t.Errorf("after reload the limit is %v", got)
	}
	if out := h.Cortex("reload"); out != "Configuration reloaded; nothing has changed" {
		t.Errorf("%q", out)
	}
	writeFile(t, file, limited(4), 0o600)
	awaitLimit(t, h, 4)
	next := writeFile(t, filepath.Join(dir, "next"), limited(5), 0o600) // as editors and sed -i do
	if err := os.Rename(next, filepath.Join(dir, "v1/cortex.toml")); err != nil {
		t.Fatal(err)
	}
	awaitLimit(t, h, 5)
	swap(t, filepath.Join(dir, "..data"), "v6")
	awaitLimit(t, h, 6)
	// What changes nothing is read, and not worth an event.
	writeFile(t, file, "# a comment\n"+limited(6), 0o600)
	testenv.Eventually(t, "the daemon to see it", func() bool { return configCheck(t, h)["ok"] == false })
	testenv.Eventually(t, "the daemon to have read it", func() bool { return configCheck(t, h)["ok"] == true })

	testenv.Eventually(t, "the events", func() bool { return len(reloads(h, "config_reloaded", "$.via")) >= 6 })
	if got := reloads(h, "config_reloaded", "$.via"); !slices.Equal(got, []string{"signal", "socket", "socket", "file", "file", "file"}) {
		t.Errorf("events via %q", got)
	}
	if got := reloads(h, "config_reloaded", "$.by"); got[0] != "SIGHUP" || got[1] != "ann" || got[3] != "cortex" {
		t.Errorf("events by %q", got)
	}
	if n := strings.Count(d.Log(), "configuration reloaded"); n != 6 {
		t.Errorf("the log has %d reloads", n)
	}
}

// A file that nobody named may appear and vanish, as between two starts.
func TestConfigurationAppearsAndVanishes(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	file := filepath.Join(h.Home, "cortex.toml") // the daemon's working directory
	path := func() any { _, a := h.Get("/status"); return a["config_path"] }
	if path() != nil || limitOf(h) != 10 {
		t.Fatalf("config_path %v, limit %v", path(), limitOf(h))
	}
	writeFile(t, file, limited(3), 0o600)
	awaitLimit(t, h, 3)
	if path() != file {
		t.Errorf("config_path %v", path())
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	awaitLimit(t, h, 10)
	if path() != nil {
		t.Errorf("config_path %v", path())
	}
	other := filepath.Join(h.Home, ".config/cortex/cortex.toml")
	if err := os.MkdirAll(filepath.Dir(other), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, other, "", 0o600)
	if wantReload(t, h, "", ""); path() != other {
		t.Errorf("config_path %v", path())
	}
}

// A file with mistakes is kept out, whoever has it read: all is as before, and every mistake is told.
func TestBrokenConfigurationIsKeptOut(t *testing.T) {
	t.Parallel()
	h, d, file := configured(t, limited(3))
	kept := func(where string) {
		t.Helper()
		if got := limitOf(h); got != 3 {
			t.Errorf("%s the limit is %v", where, got)
		}
		if c := configCheck(t, h); c["ok"] != false || !strings.Contains(fmt.Sprint(c["detail"]), file+":") {
			t.Errorf("%s the check says %v", where, c)
		}
		if _, text := h.AskText("GET", "/metrics", ""); !strings.Contains(text, "\ncortex_config_refused 1\n") {
			t.Errorf("%s the metrics do not say so", where)
		}
	}
	refused := func(n int) {
		t.Helper()
		testenv.Eventually(t, fmt.Sprintf("%d refusals", n), func() bool { return len(reloads(h, "config_refused", "$.via")) >= n })
	}
	writeFile(t, file, limited(7)+"colour = 1\n[log]\nlevel = 'loud'\n", 0o600)
	want := file + ":3: scheduler.colour: "
	if out, errout, code := cli(h, "reload"); code != 1 || out != "" || !strings.HasPrefix(errout, want) ||
		!strings.Contains(errout, "\n"+file+`:5: log.level: must be "debug"`) || strings.Count(errout, "\n") != 2 {
		t.Errorf("exit %d, %q, %q", code, out, errout)
	}
	kept("after cortex reload")
	code, a := h.Post("/config/reload", "")
	problems, _ := a["problems"].([]any)
	if code != 400 || a["reason"] != "config_refused" || len(problems) != 2 {
		t.Errorf("%d %v", code, a)
	} else if p := problems[1].(map[string]any); p["file"] != file || p["line"] != 5.0 || p["key"] != "log.level" || p["message"] == nil {
		t.Errorf("%v", p)
	}
	if _, errout, code := cli(h, "reload", "-o", "json"); code != 1 || !strings.Contains(errout, `"problems":[{"file":"`+file) {
		t.Errorf("exit %d, %q", code, errout)
	}
	if err := syscall.Kill(d.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	refused(4)
	kept("after SIGHUP")
	if !strings.Contains(d.Log(), want) {
		t.Error("the log does not name it")
	}
	if got := h.SQL(`SELECT type, json_extract(details, '$.problems[1].file'), json_extract(details, '$.problems[1].line'),
		json_extract(details, '$.problems[1].key'), json_extract(details, '$.problem_count') FROM health_events WHERE event_type = 'config_refused' LIMIT 1`); got !=
		"warning|"+file+"|5|log.level|2" {
		t.Errorf("the event says %s", got)
	}
	writeFile(t, file, "[", 0o600) // by itself
	refused(5)
	kept("after a change")
	if err := os.Remove(file); err != nil { // it was named, so that it must be there
		t.Fatal(err)
	}
	refused(6)
	if got := reloads(h, "config_refused", "$.via"); !slices.Equal(got, []string{"socket", "http", "socket", "signal", "file", "file"}) {
		t.Errorf("events via %q", got)
	}
	if c := configCheck(t, h); !strings.Contains(fmt.Sprint(c["detail"]), file+": no such file (named by --config)") || limitOf(h) != 3 {
		t.Errorf("%v, limit %v", c, limitOf(h))
	}
	writeFile(t, file, limited(3), 0o600) // right again, and as it was: an event all the same
	testenv.Eventually(t, "the file to be in force", func() bool { return configCheck(t, h)["ok"] == true })
	testenv.Eventually(t, "the event", func() bool { return len(reloads(h, "config_reloaded", "$.via")) == 1 })
	// The command line: mistakes of its own are told from the file's.
	if _, _, code := cli(h, "reload", "now"); code != 2 {
		t.Errorf("reload now: exit %d", code)
	}
	if code, a := h.Post("/config/reload", `{"file":"/etc/passwd"}`); code != 400 || a["reason"] != "unknown_field" {
		t.Errorf("%d %v", code, a)
	}
}

// A file that is still being written is left alone: only what stands in it in the end ever counts.
func TestConfigurationStillBeingWritten(t *testing.T) {
	t.Parallel()
	h, _, file := configured(t, limited(1))
	for n := 2; ; n++ {
		refused := len(reloads(h, "config_refused", "$.via"))
		began := time.Now()
		writeFile(t, file, "[sched", 0o600)
		testenv.Eventually(t, "the daemon to see half of it", func() bool { return configCheck(t, h)["ok"] == false })
		soon := time.Since(began) < time.Second // and not read yet, for certain
		writeFile(t, file, limited(n), 0o600)
		awaitLimit(t, h, float64(n))
		if soon {
			if got := len(reloads(h, "config_refused", "$.via")); got > refused {
				t.Error("half a file was read")
			}
			break
		}
		if n == 20 {
			t.Fatal("this host is too slow for two writes in a second")
		}
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the event", func() bool { return len(reloads(h, "config_reloaded", "$.via")) > 0 })
	at, err := time.Parse(time.DateTime, h.SQL("SELECT created_at FROM health_events WHERE event_type = 'config_reloaded' ORDER BY id DESC LIMIT 1"))
	if err != nil {
		t.Fatal(err)
	}
	if still := at.Sub(info.ModTime()); still < 2*time.Second {
		t.Errorf("it was read %v after it was written", still)
	}
}

// What can't change while the daemon runs is named, and the rest of the file counts.
func TestRestartRequired(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Limits = []string{"env", "-u", "CORTEX_API__LISTEN"}
	with := func(listen, more string) string { return "[api]\nlisten = '" + listen + "'\n" + more }
	file := writeFile(t, filepath.Join(h.Home, "my.toml"), with(h.Listen, ""), 0o600)
	d := h.Start("--config", file)
	writeFile(t, file, with("127.0.0.1:1", "[log]\nformat = 'json'\n[tmux]\nsocket = '/nowhere'\n"+limited(4)), 0o600)
	want := "Configuration reloaded; not all of it counts before a restart\nchanged          scheduler.max_concurrent_dispatches\n" +
		"needs a restart  api.listen, log.format, tmux.socket"
	if out := h.Cortex("reload"); out != want {
		t.Errorf("%q", out)
	}
	if got := limitOf(h); got != 4 {
		t.Errorf("the limit is %v", got)
	}
	wantReload(t, h, "", "api.listen log.format tmux.socket") // as long as it is so
	c := configCheck(t, h)
	if c["ok"] != false || !strings.Contains(fmt.Sprint(c["detail"]), "api.listen, log.format, tmux.socket") {
		t.Errorf("%v", c)
	}
	if !strings.Contains(d.Log(), "restart_required=\"[api.listen log.format tmux.socket]\"") {
		t.Error("the log does not name them")
	}
	if got := reloads(h, "config_reloaded", "$.restart_required"); got[0] != `["api.listen","log.format","tmux.socket"]` {
		t.Errorf("%q", got)
	}
	if _, text := h.AskText("GET", "/metrics", ""); !strings.Contains(text, "\ncortex_config_restart_required 3\n") {
		t.Error("the metrics do not say so")
	}
	h.WaitStatus(h.Submit("b", "true"), "completed") // on the server as before
	if out := h.Cortex("health"); !strings.HasPrefix(out, "healthy\n") || !strings.Contains(out, "\n  config        notice  ") {
		t.Errorf("%s", out)
	}
	writeFile(t, file, with(h.Listen, limited(4)), 0o600)
	wantReload(t, h, "", "")
	if c := configCheck(t, h); c["ok"] != true {
		t.Errorf("%v", c)
	}
	// After a restart it is in force.
	writeFile(t, file, with(h.Listen, "[log]\nformat = 'json'\n"), 0o600)
	d.Stop()
	if d = h.Start("--config", file); !strings.HasPrefix(d.Log(), "{") {
		t.Errorf("%s", d.Log())
	}
	if c := configCheck(t, h); c["ok"] != true {
		t.Errorf("%v", c)
	}
}

// The limit may fall and rise while dispatches run: none is stopped, none is one too many.
func TestLimitWhileRunning(t *testing.T) {
	t.Parallel()
	h, _, file := configured(t, limited(3))
	var ids []string
	for i := range 6 {
		ids = append(ids, h.Submit(fmt.Sprint("b", i), "sleep", "100000"))
	}
	for _, id := range ids[:3] {
		h.WaitRunning(id)
	}
	writeFile(t, file, limited(1), 0o600)
	wantReload(t, h, "scheduler.max_concurrent_dispatches", "")
	running := func() string { return h.SQL("SELECT group_concat(id) FROM dispatches WHERE status = 'running'") }
	if _, a := h.Get("/status"); a["max_concurrent"] != 1.0 || a["running_count"] != 3.0 || running() != "1,2,3" {
		t.Errorf("%v, running %s", a, running())
	}
	h.Cortex("cancel", ids[0], ids[1], "--wait=60s", "--grace", "0s")
	h.Cortex("submit", "--bead", "more", "--", "true") // has the queue looked at
	if got := running(); got != "3" {
		t.Errorf("running %s, want 3 alone", got)
	}
	h.Cortex("cancel", ids[2], "--wait=60s", "--grace", "0s")
	h.WaitRunning(ids[3])
	if got := running(); got != "4" {
		t.Errorf("running %s, want 4 alone", got)
	}
	writeFile(t, file, limited(3), 0o600)
	wantReload(t, h, "scheduler.max_concurrent_dispatches", "")
	h.WaitRunning(ids[4])
	h.WaitRunning(ids[5])
	h.Cortex("cancel", "--all-running", "--wait=60s", "--grace", "0s")
}

// Who may changes with the answer to a reload, for connections that are open, too; the socket is always let in.
func TestTokenWhileRunning(t *testing.T) {
	t.Parallel()
	h, _, file := configured(t, "")
	status := func(args ...string) string {
		t.Helper()
		return h.Run("curl", append([]string{"-s", "-o", "/dev/null", "-w", "%{http_code}", "http://" + h.Listen + "/status"}, args...)...)
	}
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}} // keeps its connection
	defer client.CloseIdleConnections()
	kept := func() int {
		t.Helper()
		resp, err := client.Get("http://" + h.Listen + "/status")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := kept(); got != 200 {
		t.Errorf("before: %d", got)
	}
	if got := status("-H", "Host: tunnel.example"); got != "403" {
		t.Errorf("an unknown name: %s", got)
	}
	writeFile(t, file, "[api]\nrequire_token = true\nallowed_hosts = ['Tunnel.example']\n", 0o600)
	wantReload(t, h, "api.allowed_hosts api.require_token", "")
	token := "Authorization: Bearer " + strings.TrimSpace(readFile(t, filepath.Join(h.State, "token")))
	if got := []string{fmt.Sprint(kept()), status(), status("-H", token), status("-H", token, "-H", "Host: tunnel.example")}; !slices.Equal(got,
		[]string{"401", "401", "200", "200"}) {
		t.Errorf("with it: %q", got)
	}
	h.Cortex("status")
	writeFile(t, file, "", 0o600)
	wantReload(t, h, "api.allowed_hosts api.require_token", "")
	if got := []string{fmt.Sprint(kept()), status(), status("-H", "Host: tunnel.example")}; !slices.Equal(got, []string{"200", "200", "403"}) {
		t.Errorf("without it again: %q", got)
	}
}

// A daemon that other hosts can reach is never without its token, though the file alone would be right.
func TestOpenDaemonKeepsItsToken(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Limits = []string{"env", "-u", "CORTEX_API__LISTEN"}
	_, port, _ := strings.Cut(h.Listen, ":")
	file := writeFile(t, filepath.Join(h.Home, "cortex.toml"), "[api]\nlisten = '0.0.0.0:"+port+"'\nrequire_token = true\n", 0o600)
	h.Start()
	closed := func(when string) {
		t.Helper()
		if got := h.Run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://"+h.Listen+"/status"); got != "401" {
			t.Errorf("%s without a token: %s", when, got)
		}
	}
	closed("at first")
	writeFile(t, file, "[api]\nlisten = '"+h.Listen+"'\n"+limited(2), 0o600)
	if code, a := h.Post("/config/reload", ""); code != 400 || a["reason"] != "config_refused" || limitOf(h) != 10 {
		t.Errorf("%d %v, limit %v", code, a, limitOf(h))
	}
	closed("after a file that would be right at a start")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if code, a := h.Post("/config/reload", ""); code != 400 || a["reason"] != "config_refused" {
		t.Errorf("%d %v", code, a)
	}
	closed("without a file")
}

// What is submitted after a reload has the new settings; the log and the disk's floor have them at once; the environment wins.
func TestSettingsWhileRunning(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = append(h.Extra, "CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=2")
	file := writeFile(t, filepath.Join(h.Home, "my.toml"), "", 0o600)
	d := h.Start("--config", file)
	spec := func(id string) (s struct {
		GraceMS   int64 `json:"grace_ms"`
		OutputMax int64 `json:"output_max"`
		NoCgroup  bool  `json:"no_cgroup"`
		Columns   int
		Rows      int
	}) {
		t.Helper()
		if err := json.Unmarshal([]byte(readFile(t, filepath.Join(h.State, "runs", id, "spec.json"))), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := h.Submit("before", "true")
	old := spec(before)
	writeFile(t, file, "[runner]\ngrace = '3s'\noutput_max = '1MiB'\ncgroup = false\ncolumns = 321\nrows = 123\n[log]\nlevel = 'error'\n"+limited(9), 0o600)
	wantReload(t, h, "log.level runner.cgroup runner.columns runner.grace runner.output_max runner.rows", "")
	if got := limitOf(h); got != 2 {
		t.Errorf("the environment no longer wins: %v", got)
	}
	if strings.Contains(d.Log(), "configuration reloaded") {
		t.Error("the log goes on to tell what is no error")
	}
	id := h.Submit("after", "stty", "size")
	h.WaitStatus(id, "completed")
	if got := strings.TrimSpace(h.Cortex("logs", id)); got != "123 321" {
		t.Errorf("the terminal is %q", got)
	}
	if s := spec(id); s.GraceMS != 3000 || s.OutputMax != 1<<20 || !s.NoCgroup || s.Columns != 321 || s.Rows != 123 {
		t.Errorf("%+v", s)
	}
	if s := spec(before); s != old {
		t.Errorf("%+v, was %+v", s, old)
	}
	writeFile(t, file, "[disk]\nfloor = '1PiB'\n", 0o600)
	wantReload(t, h, "disk.floor log.level runner.cgroup runner.columns runner.grace runner.output_max runner.rows", "")
	if !strings.Contains(d.Log(), "configuration reloaded") {
		t.Error("the log does not tell it again")
	}
	awaitFault(t, h, "disk", "the floor is 1073741824 MiB")
	testenv.Eventually(t, "the hold", func() bool { _, a := h.Get("/scheduler/status"); return a["state"] == "paused" })
	waits := h.Submit("waits", "true")
	writeFile(t, file, "", 0o600)
	wantReload(t, h, "disk.floor", "")
	h.WaitStatus(waits, "completed")
}

// A locked database does not keep a configuration out; its event is written when there is room for it.
func TestReloadWhileLocked(t *testing.T) {
	t.Parallel()
	h, _, file := configured(t, limited(2))
	for range 2 {
		h.WaitRunning(h.Submit("runs", "sleep", "100000"))
	}
	unlock := lock(t, h, "BEGIN IMMEDIATE;")
	writeFile(t, file, limited(1), 0o600)
	wantReload(t, h, "scheduler.max_concurrent_dispatches", "")
	if got := limitOf(h); got != 1 {
		t.Errorf("the limit is %v", got)
	}
	unlock()
	testenv.Eventually(t, "the event", func() bool { return len(reloads(h, "config_reloaded", "$.via")) == 1 })
	h.Cortex("cancel", "--all-running", "--wait=60s", "--grace", "0s")
}

// The answer to a reload with a lower limit is a barrier, as that to a pause is: what was about to start under the old one has
// done so by then.
func TestLowerLimitIsABarrier(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	hang := hangWhile(h, "claim.before")
	file := writeFile(t, filepath.Join(h.Home, "my.toml"), limited(2), 0o600)
	h.Start("--config", file)
	h.WaitRunning(h.Submit("first", "sleep", "100000"))
	writeFile(t, hang, "", 0o600)
	second := h.Submit("second", "sleep", "100000") // is being claimed
	writeFile(t, file, limited(1), 0o600)
	answered := make(chan string, 1)
	go func() {
		code, a := h.Post("/config/reload", "")
		answered <- fmt.Sprint(code, " ", a["message"])
	}()
	awaitLimit(t, h, 1)
	for range 20 { // time enough for an answer
		limitOf(h)
	}
	select {
	case a := <-answered:
		t.Errorf("answered while a start under the old limit was on its way: %s", a)
	default:
		if err := os.Remove(hang); err != nil {
			t.Fatal(err)
		}
		if a := <-answered; a != "200 Configuration reloaded" {
			t.Errorf("%s", a)
		}
		then := h.Status(second) // started by now, or on a slow host given up
		h.WaitStatus(h.Submit("nudge", "true"), "pending")
		if now := h.Status(second); now != then {
			t.Errorf("%s is %s after the answer, then %s", second, then, now)
		}
	}
	h.Cortex("cancel", "--all-running", "--wait=60s", "--grace", "0s")
}

// A file system that hangs under the configuration holds up reloads alone, and not the daemon's end.
func TestConfigurationHangs(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	hang := hangWhile(h, "reload.read")
	file := writeFile(t, filepath.Join(h.Home, "my.toml"), limited(2), 0o600)
	d := h.Start("--config", file)
	writeFile(t, hang, "", 0o600)
	writeFile(t, file, limited(3), 0o600)
	reload := h.Command(filepath.Join(h.Bin, "cortex"), "reload")
	if err := reload.Start(); err != nil {
		t.Fatal(err)
	}
	id := h.Submit("b", "true")
	h.WaitStatus(id, "completed")
	configCheck(t, h)
	if err := reload.Wait(); reload.ProcessState.ExitCode() != 1 {
		t.Errorf("reload: %v", err)
	}
	d.Stop()
	if !strings.Contains(d.Log(), "the configuration file hangs") {
		t.Error("the log does not say so")
	}
}
