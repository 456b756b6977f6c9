package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

// cli runs the command line as a user does, whatever its exit status.
func cli(h *testenv.Host, args ...string) (stdout, stderr string, code int) {
	return h.Try(filepath.Join(h.Bin, "cortex"), args...)
}

var offered = regexp.MustCompile(`(?m)^  ([a-z-]+)  +\S`)

// commandLines are the commands that the help offers, with those below them.
func commandLines(t *testing.T, h *testenv.Host, above ...string) [][]string {
	t.Helper()
	help := h.Cortex(append(above, "--help")...)
	_, after, ok := strings.Cut(help, "Available Commands:\n")
	if !ok {
		return nil
	}
	list, _, _ := strings.Cut(after, "\n\n")
	var all [][]string
	for _, m := range offered.FindAllStringSubmatch(list, -1) {
		if m[1] == "completion" { // cobra's own
			continue
		}
		line := append(slices.Clone(above), m[1])
		all = append(append(all, line), commandLines(t, h, line...)...)
	}
	return all
}

func TestHelpHasAnExampleForEachCommand(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	all := commandLines(t, h)
	for _, want := range []string{"submit", "status", "list", "logs", "wait", "cancel", "pause", "resume", "holds", "health", "events", "reload", "explain", "update", "version"} {
		if !slices.ContainsFunc(all, func(line []string) bool { return line[0] == want }) {
			t.Errorf("the help does not offer %s", want)
		}
	}
	for _, line := range append(all, nil) {
		help := h.Cortex(append(slices.Clone(line), "--help")...)
		name := strings.Join(append([]string{"cortex"}, line...), " ")
		_, examples, ok := strings.Cut(help, "\nExamples:\n")
		examples, _, _ = strings.Cut(examples, "\n\n")
		below := slices.ContainsFunc(all, func(l []string) bool { return len(l) > len(line) && slices.Equal(l[:len(line)], line) })
		if !strings.Contains(examples, "  "+name) && (!below || line == nil) {
			t.Errorf("%s --help has no example of it:\n%s", name, help)
		}
		if ok == strings.Contains(examples, "\t") {
			t.Errorf("%s: no examples, or with tabs: %q", name, examples)
		}
	}
	if _, err := os.Stat(h.State); err == nil {
		t.Error("help made a state folder")
	}
}

func TestWrongUsageIsStatusTwo(t *testing.T) {
	t.Parallel()
	h := testenv.New(t) // no daemon: what makes no sense is not even sent
	for line, says := range map[string]string{
		"statu":                             "did you mean status?",
		"statsu":                            `no command "statsu"`,
		"sumbit --bead b -- true":           "unknown flag: --bead",
		"zzz":                               `no command "zzz"`,
		"status now":                        "cortex status",
		"health x":                          "cortex health",
		"pause x":                           "cortex pause",
		"resume x":                          "cortex resume",
		"list x":                            "cortex list",
		"holds x":                           "cortex holds",
		"holds add":                         "--scope is missing",
		"holds lift":                        "cortex holds lift",
		"holds lift x":                      `"x"`,
		"holds lift 0":                      `"0"`,
		"resume --hold x":                   "--hold",
		"version x":                         "cortex version",
		"--confg x":                         "--confg",
		"status --jsn":                      "--jsn",
		"list --stauts running":             "--stauts",
		"submit --bede b -- true":           "--bede",
		"submit --bead":                     "--bead",
		"submit --priority x --bead b true": "--priority",
		"submit -- true":                    "--bead is missing",
		"submit --bead b --env X true":      "--env",
		"submit --bead b --env =x true":     "--env",
		"status -o yaml":                    `"yaml"`,
		"status -o":                         "flag needs an argument",
		"logs":                              "cortex logs",
		"logs 1 2":                          "cortex logs",
		"logs x":                            `"x"`,
		"logs 0":                            `"0"`,
		"logs -- -1":                        `"-1"`,
		"logs 1 --tail x":                   "--tail",
		"wait":                              "cortex wait",
		"wait 1 x":                          `"x"`,
		"wait 1 --timeout soon":             "--timeout",
		"wait 99999999999999999999":         "99999999999999999999",
		"cancel":                            "say which",
		"cancel x":                          `"x"`,
		"cancel 1 --all-running":            "not both",
		"cancel 1 --project p":              "not both",
		"cancel ctx-p-b-1":                  "ctx-p-b-1",
	} {
		for _, format := range []string{"text", "json"} {
			args := append([]string{"-o", format}, strings.Fields(line)...)
			if strings.Contains(line, " -o") {
				args = args[2:]
			}
			out, errout, code := cli(h, args...)
			if code != 2 || out != "" || !strings.Contains(strings.ReplaceAll(errout, `\"`, `"`), says) {
				t.Errorf("cortex %s: exit %d, stdout %q, stderr %q, want %q", strings.Join(args, " "), code, out, errout, says)
			}
			if args[0] == "-o" && format == "json" {
				wantProblem(t, args, errout, "usage")
			}
		}
	}
	if _, err := os.Stat(h.State); err == nil {
		t.Error("wrong usage made a state folder")
	}
}

// wantProblem checks that an error is one object as the API has it.
func wantProblem(t *testing.T, args []string, errout, reason string) {
	t.Helper()
	var p struct {
		Error, Reason, Hint string
		Code                int
	}
	if err := json.Unmarshal([]byte(errout), &p); err != nil || p.Error == "" || p.Code == 0 || p.Reason != reason {
		t.Errorf("cortex %s: %s is not the problem %q: %v", strings.Join(args, " "), errout, reason, err)
	}
}

func TestNoDaemonIsStatus69(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	for _, line := range []string{"status", "list", "logs 1", "wait 1", "wait 1 --timeout 1h", "cancel 1", "cancel --all-running", "pause", "resume",
		"health", "submit --bead b -- true"} {
		out, errout, code := cli(h, strings.Fields(line)...)
		if code != 69 || out != "" || !strings.HasPrefix(errout, "cortex: ") {
			t.Errorf("cortex %s: exit %d, stdout %q, stderr %q", line, code, out, errout)
		}
		args := append(strings.Fields("-o json"), strings.Fields(line)...)
		out, errout, code = cli(h, args...)
		if code != 69 || out != "" {
			t.Errorf("cortex %v: exit %d, stdout %q", args, code, out)
		}
		wantProblem(t, args, errout, "daemon_unreachable")
	}
	if out, errout, code := cli(h, "version"); code != 0 || !strings.HasPrefix(out, "cortex ") || errout != "" {
		t.Errorf("version: exit %d, %q, %q", code, out, errout)
	}
	if _, err := os.Stat(h.State); err == nil {
		t.Error("a command made a state folder")
	}
	// A socket that a dead daemon left is no daemon.
	d := h.Start()
	d.Kill()
	if _, errout, code := cli(h, "status"); code != 69 {
		t.Errorf("after a kill -9: exit %d, %q", code, errout)
	}
}

func TestRefusedIsStatusOne(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	ended := h.Submit("ended", "true")
	h.WaitStatus(ended, "completed")
	failed := h.Submit("failed", "sh", "-c", "exit 3")
	if out, errout, code := cli(h, "wait", ended, failed); code != 1 || errout != "" ||
		out != fmt.Sprintf("%s completed\n%s failed (exit 3)\n", ended, failed) {
		t.Errorf("wait: exit %d, %q, %q", code, out, errout)
	}
	waits := h.Submit("waits", "sleep", "100000")
	for line, reason := range map[string]string{
		"logs 999":                         "not_found",
		"wait 999":                         "not_found",
		"logs " + ended + " --attempt 9":   "not_found",
		"wait --timeout 100ms " + waits:    "wait_timeout",
		"wait " + ended + " 999 " + failed: "not_found",
	} {
		args := append(strings.Fields("-o json"), strings.Fields(line)...)
		out, errout, code := cli(h, args...)
		if code != 1 || out != "" {
			t.Errorf("cortex %v: exit %d, %q", args, code, out)
		}
		wantProblem(t, args, errout, reason)
		if _, errout, code := cli(h, args[2:]...); code != 1 || !strings.HasPrefix(errout, "cortex: ") {
			t.Errorf("cortex %v: exit %d, %q", args[2:], code, errout)
		}
	}
	// Of several to cancel each has its own answer, and the status is that of the worst.
	if out, errout, code := cli(h, "cancel", "--wait=30s", "--grace", "100ms", waits, ended, "999"); code != 1 ||
		strings.Count(out, "\n") != 1 || strings.Count(errout, "cortex: ") != 2 {
		t.Errorf("cancel: exit %d, %q, %q", code, out, errout)
	}
	if out, _, code := cli(h, "cancel", waits); code != 0 || out == "" {
		t.Errorf("cancelling it again: exit %d, %q", code, out)
	}
	if out, _, code := cli(h, "cancel", "--all-running"); code != 0 || out == "" {
		t.Errorf("nothing to cancel: exit %d, %q", code, out)
	}
	if out, _, code := cli(h, "wait", waits); code != 1 || out != waits+" cancelled\n" {
		t.Errorf("wait for a cancelled one: exit %d, %q", code, out)
	}
	// What the daemon calls a wrong request is wrong usage, too.
	for _, line := range []string{"submit --bead b --timeout soon -- true", "submit --bead b --priority 9 -- true", "submit --bead b",
		"submit --bead b --workdir /none -- true", "submit --bead b --env CORTEX_BEAD_ID=x -- true", "list --status wrong", "list --limit 0",
		"list --since tomorrow", "pause --ttl x", "cancel 1 --grace x", "cancel 1 --wait=x"} {
		if out, errout, code := cli(h, strings.Fields(line)...); code != 2 || out != "" || !strings.HasPrefix(errout, "cortex: ") {
			t.Errorf("cortex %s: exit %d, %q, %q", line, code, out, errout)
		}
	}
}

// object decodes what a command prints for -o json, which is one line.
func object(t *testing.T, h *testenv.Host, args ...string) map[string]any {
	t.Helper()
	out := h.Cortex(append(args, "-o", "json")...)
	var v map[string]any
	if err := json.Unmarshal([]byte(out), &v); err != nil || strings.Contains(out, "\n") {
		t.Errorf("cortex %v: %q: %v", args, out, err)
	}
	return v
}

func TestEachCommandAnswersInJSON(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	d := object(t, h, "submit", "-o", "json", "--bead", "b", "--project", "p", "--", "sh", "-c", "echo said; exit 4")
	if d["id"] != 1.0 || d["bead_id"] != "b" || d["project"] != "p" {
		t.Errorf("submit: %v", d)
	}
	h.WaitStatus("1", "failed")
	if w, _, code := cli(h, "wait", "1", "-o", "json"); code != 1 || !strings.Contains(w, `"failure_category":"exit_nonzero"`) || !json.Valid([]byte(w)) {
		t.Errorf("wait: exit %d, %s", code, w)
	}
	for line, key := range map[string]string{
		"status": "running_count", "list": "dispatches", "logs 1": "output", "health": "checks", "pause": "status", "resume": "status",
		"cancel --all-running": "results", "freeze --all-running": "results", "thaw --project p": "results", "events": "events", "version": "version", "list --project none": "dispatches",
	} {
		v := object(t, h, strings.Fields(line)...)
		if _, ok := v[key]; !ok {
			t.Errorf("cortex %s: no %s in %v", line, key, v)
		}
	}
	if v := object(t, h, "logs", "1"); v["output"] != "said\r\n" || v["id"] != 1.0 {
		t.Errorf("logs: %v", v)
	}
	if l := object(t, h, "list", "--project", "none")["dispatches"].([]any); l == nil || len(l) != 0 {
		t.Errorf("an empty list is %v", l)
	}
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	for _, project := range []string{"p", "q"} {
		for _, bead := range []string{"one", "two"} {
			h.Cortex("submit", "--bead", bead, "--project", project, "--", "true")
		}
	}
	h.Cortex("wait", "1", "2", "3", "4")
	h.Cortex("pause")
	h.Submit("one", "true")
	for line, want := range map[string]string{
		"":                                 "5 4 3 2 1",
		"--project p":                      "5 2 1",
		"--bead one":                       "5 3 1",
		"--project q --bead one":           "3",
		"--status pending":                 "5",
		"--status completed":               "4 3 2 1",
		"--status completed,pending":       "5 4 3 2 1",
		"--status pending --status failed": "5",
		"--limit 2":                        "5 4",
		"--since 1h":                       "5 4 3 2 1",
		"--since 2999-01-01T00:00:00Z":     "",
		"--project none":                   "",
	} {
		var ids []string
		rows := strings.Split(h.Cortex(append([]string{"list"}, strings.Fields(line)...)...), "\n")
		for _, row := range rows[1:] {
			ids = append(ids, strings.Fields(row)[0])
		}
		if got := strings.Join(ids, " "); got != want || !strings.HasPrefix(rows[0], "ID  STATUS") {
			t.Errorf("list %s: %q, want %q", line, got, want)
		}
	}
	out, errout, _ := cli(h, "list", "--limit", "2")
	cursor := regexp.MustCompile(`--cursor (\S+)`).FindStringSubmatch(errout)
	if cursor == nil {
		t.Fatalf("no cursor: %q, %q", out, errout)
	}
	if next := strings.Fields(h.Cortex("list", "--limit", "1", "--cursor", cursor[1])); !slices.Contains(next, "3") || slices.Contains(next, "4") {
		t.Errorf("the next page: %v", next)
	}
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	example, err := os.ReadFile("../cortex.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, text string) string {
		path := filepath.Join(h.Home, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.toml", string(example)+"max_concurrent_dispatches = 15\n")
	bad := file("bad.toml", "[scheduler]\nmax_concurrent_dispatches = 0\nmax_conc = 3\n[api]\nlisten = 7\n[scheduller]\nx = 1\n")
	broken := file("broken.toml", "[scheduler\n")
	before := h.Run("find", h.Home)

	for _, args := range [][]string{{"--config", good, "--dry-run"}, {"--dry-run", "--config=" + good}, {"--dry-run"}} {
		out, errout, code := cli(h, args...)
		if out != "Configuration validation successful\n" || errout != "" || code != 0 {
			t.Errorf("%v: exit %d, %q, %q", args, code, out, errout)
		}
	}
	out, errout, code := cli(h, "--config", bad, "--dry-run")
	if code == 0 || out != "" {
		t.Errorf("exit %d, %q", code, out)
	}
	for _, want := range []string{bad + ":2: scheduler.max_concurrent_dispatches: ", bad + ":3: scheduler.max_conc: ", bad + ":5: api.listen: ",
		bad + ":6: [scheduller]: ", "max_concurrent_dispatches"} {
		if !strings.Contains(errout, want) {
			t.Errorf("%q is not among the problems:\n%s", want, errout)
		}
	}
	for _, path := range []string{broken, h.Home + "/none.toml", h.Home} {
		if out, errout, code := cli(h, "--config", path, "--dry-run"); code == 0 || out != "" || !strings.Contains(errout, path) {
			t.Errorf("%s: exit %d, %q, %q", path, code, out, errout)
		}
	}
	cmd := h.Command(filepath.Join(h.Bin, "cortex"), "--dry-run")
	cmd.Env = append(cmd.Env, "CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=many")
	if text, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(text), "CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES") {
		t.Errorf("by the environment: %v, %q", err, text)
	}
	if after := h.Run("find", h.Home); after != before {
		t.Errorf("it wrote something: %s, before %s", after, before)
	}
	// A daemon does not start with what the dry run refuses.
	if _, errout, code := cli(h, "--config", bad); code == 0 || !strings.Contains(errout, bad+":2: ") {
		t.Errorf("a daemon with it: exit %d, %q", code, errout)
	}
	if after := h.Run("find", h.Home); after != before {
		t.Errorf("the daemon wrote something: %s", after)
	}
	// What is appended to the example counts.
	h.Start("--config", good)
	if _, a := h.Get("/status"); a["max_concurrent"] != 15.0 || a["config_path"] != good {
		t.Errorf("%v", a)
	}
	// Validation goes on while a daemon runs.
	if out, _, code := cli(h, "--config", good, "--dry-run"); code != 0 || out != "Configuration validation successful\n" {
		t.Errorf("beside a daemon: exit %d, %q", code, out)
	}
}

// wait goes on across a restart of the daemon: one that stops well while the first answer is still out, and one that dies.
func TestWaitAcrossARestart(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testenv.Daemon){"stop": (*testenv.Daemon).Stop, "kill": (*testenv.Daemon).Kill} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testenv.New(t)
			d := h.Start()
			gate := h.Home + "/gate"
			h.Run("mkfifo", gate)
			ended, gated := h.Submit("ended", "true"), h.Submit("gated", "sh", "-c", "read x < "+gate)
			h.WaitRunning(gated)
			want := gated + " completed\n"
			waits := h.Command(filepath.Join(h.Bin, "cortex"), "wait", gated)
			if name == "kill" { // one answer shows it that there is a daemon
				waits.Args = []string{"cortex", "wait", ended, gated}
				want = ended + " completed\n" + want
			}
			out, err := waits.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := waits.Start(); err != nil {
				t.Fatal(err)
			}
			said := ""
			if name == "kill" {
				text := make([]byte, len(ended+" completed\n"))
				if _, err := io.ReadFull(out, text); err != nil {
					t.Fatal(err)
				}
				said = string(text)
			} else {
				testenv.Eventually(t, "the client to be connected", func() bool { return sockets(waits) > 0 })
			}
			end(d)
			h.Run("sh", "-c", "echo > "+gate)
			h.Start()
			rest, err := io.ReadAll(out)
			if err := errors.Join(err, waits.Wait()); err != nil || said+string(rest) != want {
				t.Errorf("%v, %q, want %q", err, said+string(rest), want)
			}
		})
	}
}

// sockets counts the open sockets of a process.
func sockets(cmd *exec.Cmd) int {
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", cmd.Process.Pid))
	if err != nil {
		return 0
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}
