package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

// hostile are words that a shell, tmux, printf, JSON or Go might read as something else.
var hostile = []string{
	"plain", "", " ", "a b", "  two  spaces  ", "tab\there", "new\nline", "\n", "trailing\n", "carriage\rreturn", `"double"`, `'single'`, `it's`, `back\slash`,
	`\n`, `\\`, `\"`, "`id`", "$(id)", "$HOME", "${HOME}", "$$", "~", "~/x", "~root", "*", "?", "[a-z]", "{a,b}", "!", "!!", "#", "# comment", "#{pane_id}",
	"#S", "#(id)", "%s", "%n", "%%", ";", ";;", "a;b", "a ; b", "&", "&&", "|", ">", "<", "> /tmp/x", "-", "--", "-n", "--bead", "-o", "json", "=", "a=b",
	"ÄÖÜ ß", "日本語", "🙂", "e\u0301", "\u202e", "\u2028", "\ufeff", "\ufffd", "\x1b[31mred\x1b[0m", "\x01\x02\x7f", "null", "true", "<&>", "{}", "[]", `{"a":1}`,
	strings.Repeat("long ", 20_000),
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// submit hands a request in over HTTP, and returns the dispatch's number.
func submit(t *testing.T, h *testenv.Host, request map[string]any) string {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	code, a := h.Post("/dispatches", string(body))
	if code != 201 {
		t.Fatalf("%.200s: %d %v", body, code, a)
	}
	return fmt.Sprint(a["id"])
}

func TestArgumentsReachTheCommandAsTheyWere(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	want := strings.Join(hostile, "\x00") + "\x00"
	file := func(name string) string { return filepath.Join(h.Home, name) }
	argv := func(out string) []string {
		return append([]string{"sh", "-c", `f=$1; shift; printf '%s\0' "$@" > "$f"`, "sh", out}, hostile...)
	}
	byLine := h.Submit("line", argv(file("line"))...)
	// The command's own flags are its own, also without the dashes before it.
	bare := h.Cortex(slices.Concat([]string{"submit", "--bead", "bare"}, argv(file("bare")))...)
	byHTTP := submit(t, h, map[string]any{"bead_id": "http", "project": "p", "command": argv(file("http"))})
	// And the program's name is an argument like the others.
	odd := writeFile(t, file("it's $(an) odd; #{name} 日本"), "#!/bin/sh\nprintf '%s\\0' \"$@\" > \"$OUT\"\n", 0o700)
	named := h.Cortex(slices.Concat([]string{"submit", "--bead", "named", "--env", "OUT=" + file("named"), "--", odd}, hostile)...)
	for _, id := range []string{byLine, bare, byHTTP, named} {
		if !regexp.MustCompile(`^[1-9][0-9]*$`).MatchString(id) {
			t.Fatalf("submit prints %q", id)
		}
		h.WaitStatus(id, "completed")
	}
	for _, name := range []string{"line", "bare", "http", "named"} {
		if got := readFile(t, file(name)); got != want {
			i := 0
			for i < min(len(got), len(want)) && got[i] == want[i] {
				i++
			}
			t.Errorf("%s: from byte %d on %.80q, want %.80q", name, i, got[i:], want[i:])
		}
	}
	_, a := h.Get("/dispatches/" + byLine)
	shown, ok := a["command"].([]any)
	if !ok || len(shown) != len(argv("")) {
		t.Fatalf("the command is shown as %v", a["command"])
	}
	for i, w := range argv(file("line")) {
		if shown[i] != w {
			t.Errorf("argument %d is shown as %q, want %q", i, shown[i], w)
		}
	}
}

func TestCommandsThatCannotBe(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	for body, reason := range map[string]string{
		`{"bead_id":"b","command":["printf","a\u0000b"]}`:         "bad_value",
		`{"bead_id":"b","command":["a\u0000b"]}`:                  "bad_value",
		`{"bead_id":"b","command":[]}`:                            "missing_command",
		`{"bead_id":"b"}`:                                         "missing_command",
		`{"bead_id":"b","command":null}`:                          "",
		`{"bead_id":"b","command":[""]}`:                          "bad_value",
		`{"bead_id":"b","command":["","x"]}`:                      "bad_value",
		`{"bead_id":"b","command":"true"}`:                        "",
		`{"bead_id":"b","command":[1]}`:                           "",
		`{"bead_id":"b","command":["true"],"workdir":"/none"}`:    "bad_workdir",
		`{"bead_id":"b","command":["true"],"workdir":"rel"}`:      "bad_workdir",
		`{"bead_id":"b","command":["true"],"workdir":"/bin/sh"}`:  "bad_workdir",
		`{"bead_id":"b","command":["true"],"workdir":"/\u0000"}`:  "",
		`{"bead_id":"b","command":["true"],"env":{"A=B":"c"}}`:    "bad_value",
		`{"bead_id":"b","command":["true"],"env":{"":"c"}}`:       "bad_value",
		`{"bead_id":"b","command":["true"],"env":{"A":"\u0000"}}`: "",
		`{"bead_id":"","command":["true"]}`:                       "",
		`{"bead_id":"a\nb","command":["true"]}`:                   "bad_value",
		`{"bead_id":"a\u0000b","command":["true"]}`:               "",
		`{"bead_id":"b","project":"a\nb","command":["true"]}`:     "bad_value",
		`{"bead_id":"b","project":"","command":["true"]}`:         "bad_value",
	} {
		code, a := h.Post("/dispatches", body)
		if code != 400 || a["error"] == "" || reason != "" && a["reason"] != reason {
			t.Errorf("%s: %d %v, want 400 %s", body, code, a, reason)
		}
	}
	if _, errout, code := cli(h, "submit", "--bead", "b", "--", ""); code != 2 {
		t.Errorf("an empty name by the command line: exit %d, %q", code, errout)
	}
	if _, errout, code := cli(h, "submit", "--bead", "b", "--", "printf", "\xff"); code != 2 || !strings.Contains(errout, "UTF-8") {
		t.Errorf("no UTF-8 by the command line: exit %d, %q", code, errout)
	}
	if got := h.Cortex("list", "-o", "json"); !strings.Contains(got, `"dispatches":[]`) {
		t.Errorf("something was accepted: %s", got)
	}
}

// What can't be started has failed, and says why.
func TestCommandsThatCannotBeStarted(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	file := func(name string) string { return filepath.Join(h.Home, name) }
	gone := file("gone")
	if err := os.Mkdir(gone, 0o700); err != nil {
		t.Fatal(err)
	}
	h.Cortex("pause")
	inGone := h.Cortex("submit", "--bead", "workdir", "--workdir", gone, "--", "true")
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	h.Cortex("resume")
	fails := map[string]string{ // dispatch: what its summary has to name
		inGone: gone,
		h.Submit("no-command", "no-such-command-4711", "x"):                                                               "no-such-command-4711",
		h.Submit("no-path", file("none")):                                                                                 file("none"),
		h.Submit("folder", h.Home):                                                                                        h.Home,
		h.Submit("not-executable", writeFile(t, file("plain"), "#!/bin/sh\n", 0o600)):                                     "permission denied",
		h.Submit("no-interpreter", writeFile(t, file("strange"), "#!/no/such/interpreter\n", 0o700)):                      file("strange"),
		h.Submit("below-a-file", file("plain")+"/x"):                                                                      "not a directory",
		h.Submit("garbage", writeFile(t, file("garbage"), "\x7fELF garbage\x00\x01", 0o700)):                              file("garbage"),
		h.Cortex("submit", "--bead", "no-path-at-all", "--env", "PATH=", "--", "no-such-command-4712"):                    "no-such-command-4712",
		h.Cortex("submit", "--bead", "in-a-folder", "--project", "p", "--env", "PATH="+h.Home, "--", "home-command"):      "home-command",
		h.Cortex("submit", "--bead", "no-shebang", "--", writeFile(t, file("no-shebang"), "echo I am a script\n", 0o700)): file("no-shebang"),
	}
	for id, names := range fails {
		h.WaitStatus(id, "failed")
		bead, why := h.Field(id, "bead_id"), h.Field(id, "failure_summary")
		if c := h.Field(id, "failure_category"); c != "spawn_error" || !strings.Contains(why, names) {
			t.Errorf("%s: %s, %q, want spawn_error and %q", bead, c, why, names)
		}
		if x := h.Field(id, "exit_code"); x != "" {
			t.Errorf("%s: exit code %s of what never ran", bead, x)
		}
	}
	if s := h.Sessions(); len(s) != 0 {
		t.Errorf("sessions left: %v", s)
	}
	// And one that works: by PATH of its own environment, in its directory.
	bin := file("bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(bin, "own-command"), "#!/bin/sh\npwd > \"$1\"\n", 0o700)
	id := h.Cortex("submit", "--bead", "own-path", "--workdir", bin, "--env", "PATH="+bin+":/usr/bin:/bin", "--", "own-command", file("pwd"))
	h.WaitStatus(id, "completed")
	if got := readFile(t, file("pwd")); got != bin+"\n" {
		t.Errorf("it ran in %q", got)
	}
}

// The directory is the caller's by the command line, and the home by HTTP.
func TestWorkdir(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	here := filepath.Join(h.Home, "it's here")
	if err := os.Mkdir(here, 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		cmd := h.Command(filepath.Join(h.Bin, "cortex"), append(append([]string{"submit", "--bead", "b"}, args...), "--", "pwd")...)
		cmd.Dir = here
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	for id, want := range map[string]string{
		run():                           here,
		run("--workdir", "."):           here,
		run("--workdir", ".."):          h.Home,
		run("--workdir", "/"):           "/",
		run("--workdir", "~"):           h.Home,
		run("--workdir", "~/it's here"): here,
		submit(t, h, map[string]any{"bead_id": "b", "command": []string{"pwd"}}): h.Home,
	} {
		h.WaitStatus(id, "completed")
		if got := h.Cortex("logs", id, "--plain"); got != want {
			t.Errorf("dispatch %s ran in %q, want %q", id, got, want)
		}
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	id := h.Submit("talks", "printf", `one\nzwei äöü 日本 🙂\nin \033[31mred\033[0m\nlast`)
	h.WaitStatus(id, "completed")
	raw := "one\r\nzwei äöü 日本 🙂\r\nin \x1b[31mred\x1b[0m\r\nlast"
	plain := "one\nzwei äöü 日本 🙂\nin red\nlast"
	for line, want := range map[string]string{
		"":                         raw,
		"--plain=false":            raw,
		"--plain":                  plain,
		"--tail 1":                 "last",
		"--tail 2":                 "in \x1b[31mred\x1b[0m\r\nlast",
		"--tail 3 --plain":         "zwei äöü 日本 🙂\nin red\nlast",
		"--tail 99":                raw,
		"--tail 99 --plain":        plain,
		"--attempt 1 --tail 1":     "last",
		"--attempt 1 -o text":      raw,
		"--plain --tail 2 -o json": "",
	} {
		out, errout, code := cli(h, append([]string{"logs", id}, strings.Fields(line)...)...)
		if want == "" {
			var v struct{ Output string }
			if err := json.Unmarshal([]byte(out), &v); err != nil || strings.TrimSuffix(v.Output, "\n") != "in red\nlast" {
				t.Errorf("logs %s: %q, %v", line, out, err)
			}
			continue
		}
		// Text may be given a last line break that it did not have.
		if code != 0 || errout != "" || out != want && (!strings.Contains(line, "--plain") || out != want+"\n") {
			t.Errorf("logs %s: exit %d, %q, want %q; %q", line, code, out, want, errout)
		}
	}
	if _, errout, code := cli(h, "logs", id, "--tail", "-1"); code != 2 {
		t.Errorf("--tail -1: exit %d, %q", code, errout)
	}
	silent := h.Submit("silent", "true")
	h.WaitStatus(silent, "completed")
	if out, errout, code := cli(h, "logs", silent); code != 0 || out != "" || errout != "" {
		t.Errorf("of one that said nothing: exit %d, %q, %q", code, out, errout)
	}
	if out, _, code := cli(h, "logs", silent, "-o", "json"); code != 0 || !json.Valid([]byte(out)) {
		t.Errorf("of one that said nothing: exit %d, %q", code, out)
	}
	h.Cortex("pause")
	waits := h.Submit("waits", "true")
	if out, _, code := cli(h, "logs", waits); out != "" || code > 1 {
		t.Errorf("of one that waits: exit %d, %q", code, out)
	}
	// Bytes that are no text come as they are.
	h.Cortex("resume")
	odd := h.Submit("odd", "printf", `\377\376\001x`)
	h.WaitStatus(odd, "completed")
	if out, _, _ := cli(h, "logs", odd); out != "\xff\xfe\x01x" {
		t.Errorf("%q", out)
	}
}

func TestEnvironmentOfADispatch(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	withheld := []string{"TMUX=/tmp/x,1,2", "TMUX_PANE=%9", "TMUX_ANY=1", "TMUXINATOR=1", "NOTIFY_ACCESS=all", "LISTEN_FDNAMES=a", "WATCHDOG_ANY=1",
		"INVOCATION_ID=abc", "JOURNAL_STREAM=8:1", "CORTEX_SECRET=old", "CORTEX_ATTEMPT=99"}
	h.Extra = append([]string{"KEPT=from the daemon", "NOTIFYX=kept", "LISTENX=kept", "EMPTY=", "SHARED=daemon"}, withheld...)
	h.Start()
	h.Extra = nil // what tmux and the command line run with beside it is not the daemon's
	out := filepath.Join(h.Home, "env")
	const secret = "s3cret-4711-value"
	id := submit(t, h, map[string]any{
		"bead_id": "Bead.1 ü", "project": "Proj/x", "command": []string{"sh", "-c", `env -0 > "$0.new"; mv "$0.new" "$0"; exec sleep 100000`, out},
		"env": map[string]string{"TOKEN": secret, "SHARED": "own", "MULTI": "two\nlines = ü", "NONE": "", "CORTEX_OWN": "own", "TMUX_OWN": "own", "odd name-1": "x"},
	})
	h.WaitRunning(id)
	var text string
	testenv.Eventually(t, "the environment to be written", func() bool {
		data, err := os.ReadFile(out)
		text = string(data)
		return err == nil
	})
	env := map[string]string{}
	for _, e := range strings.Split(strings.TrimSuffix(text, "\x00"), "\x00") {
		name, value, _ := strings.Cut(e, "=")
		if _, twice := env[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		env[name] = value
	}
	for name, want := range map[string]string{
		"KEPT": "from the daemon", "NOTIFYX": "kept", "LISTENX": "kept", "EMPTY": "", "HOME": h.Home, "SHARED": "own", "TOKEN": secret, "MULTI": "two\nlines = ü",
		"NONE": "", "CORTEX_OWN": "own", "TMUX_OWN": "own", "CORTEX_DISPATCH_ID": id, "CORTEX_BEAD_ID": "Bead.1 ü", "CORTEX_PROJECT": "Proj/x",
		"CORTEX_ATTEMPT": "1", "CORTEX_SESSION": h.Field(id, "session_name"), "CORTEX_RUN_DIR": filepath.Join(h.State, "runs", id, "1"),
	} {
		if got, ok := env[name]; !ok || got != want {
			t.Errorf("%s is %q (there: %v), want %q", name, got, ok, want)
		}
	}
	ours := []string{"CORTEX_DISPATCH_ID", "CORTEX_BEAD_ID", "CORTEX_PROJECT", "CORTEX_SESSION", "CORTEX_RUN_DIR", "CORTEX_ATTEMPT", "CORTEX_OWN", "TMUX_OWN"}
	for name := range env {
		for _, prefix := range []string{"TMUX", "NOTIFY_", "LISTEN_", "WATCHDOG_", "INVOCATION_ID", "JOURNAL_STREAM", "CORTEX_"} {
			if strings.HasPrefix(name, prefix) && !slices.Contains(ours, name) {
				t.Errorf("%s=%s was passed on", name, env[name])
			}
		}
	}
	if got := h.Field(id, "session_name"); got != "ctx-proj-x-bead-1---"+id {
		t.Errorf("session %s", got)
	}
	// Values are in no answer, while it runs and when it has ended; and in no file that others may read (TestModes).
	answers := func() {
		for _, path := range []string{"/dispatches", "/dispatches/" + id, "/status", "/health", "/metrics", "/scheduler/status"} {
			if _, text := h.AskText("GET", path, ""); strings.Contains(text, secret) {
				t.Errorf("%s tells the value of a variable: %s", path, text)
			}
		}
		for _, args := range [][]string{{"list", "-o", "json"}, {"list"}, {"health", "-o", "json"}, {"status", "-o", "json"}} {
			if out, errout, _ := cli(h, args...); strings.Contains(out+errout, secret) {
				t.Errorf("cortex %v tells the value of a variable", args)
			}
		}
	}
	answers()
	if _, a := h.Get("/dispatches/" + id); !strings.Contains(fmt.Sprint(a), "TOKEN") {
		t.Errorf("the names are not shown: %v", a)
	}
	h.Cortex("cancel", id, "--wait", "--grace", "0s")
	answers()
	if got := h.Tmuxes("show-environment", "-g"); strings.Contains(got, secret) {
		t.Error("tmux has the value")
	}
	for _, name := range ours[:6] {
		body := fmt.Sprintf(`{"bead_id":"b","command":["true"],"env":{%q:"x"}}`, name)
		if code, a := h.Post("/dispatches", body); code != 400 {
			t.Errorf("%s: %d %v", body, code, a)
		}
	}
}

// What the caller's shell has is not the dispatch's.
func TestTheCallersEnvironmentIsNotPassedOn(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	cmd := h.Command(filepath.Join(h.Bin, "cortex"), "submit", "--bead", "b", "--", "env")
	cmd.Env = append(cmd.Env, "ONLY_THE_CALLERS=1")
	id, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	n := string(bytes.TrimSpace(id))
	h.WaitStatus(n, "completed")
	if log := h.Cortex("logs", n); strings.Contains(log, "ONLY_THE_CALLERS") || !strings.Contains(log, "HOME="+h.Home) {
		t.Errorf("%s", log)
	}
}
