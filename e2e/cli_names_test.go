package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

// oddNames are names of beads and projects that mean something to tmux, to a shell, to a path or to a URL.
var oddNames = []string{
	"b", "日本語", "Ünï çödé", "🙂", "e\u0301", "\u202eabc", "..", ".", "../../etc/passwd", "/", "a/b", `a\b`, "-", "--", "-dash", "--bead=x", "a.b", "a:b", "a:1.2",
	"=b", "=", "@1", "$0", "$HOME", "%1", "*", "?", "[b]", "~", "{b}", "#{session_name}", "#(id)", "'", `"`, "it's", "`id`", "$(id)", "a b", " ", ";", "a;kill-server",
	"&", "%20", "a%00b", "+", "null", "cancel", "UPPER", "0", "12", "-1", "b-1", strings.Repeat("x", 40), strings.Repeat("x", 41), strings.Repeat("ü", 128),
	strings.Repeat("long", 64),
}

var sessionForm = regexp.MustCompile(`^ctx-[a-z0-9_-]*-([0-9]+)$`)

// Names of any kind: each dispatch gets a session that its number tells, is found again by its names, and is cancelled alone.
func TestNamesOfAnyKind(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=200"}
	h.Start()
	ids := map[string]string{}
	for i, name := range oddNames {
		other := oddNames[len(oddNames)-1-i]
		id := h.Cortex("submit", "--bead="+name, "--project="+other, "--", "sleep", "100000")
		ids[id] = name
		if b, p := h.Field(id, "bead_id"), h.Field(id, "project"); b != name || p != other {
			t.Errorf("dispatch %s is for %q of %q, want %q of %q", id, b, p, name, other)
		}
	}
	var want []string
	for id, name := range ids {
		h.WaitRunning(id)
		session := h.Field(id, "session_name")
		if m := sessionForm.FindStringSubmatch(session); m == nil || m[1] != id || len(session) > len("ctx---")+80+len(id) {
			t.Errorf("%q has the session %q", name, session)
		}
		want = append(want, session)
		if list := h.Cortex("list", "--bead="+name, "-o", "json"); !strings.Contains(list, `"session_name":"`+session+`"`) {
			t.Errorf("list --bead=%q does not find it: %s", name, list)
		}
	}
	got := h.Sessions()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("sessions %q, want %q", got, want)
	}
	if rows := strings.Count(h.Cortex("list", "--limit", "1000"), "\n"); rows != len(ids) {
		t.Errorf("%d rows of %d: a name breaks the table", rows, len(ids))
	}
	// By its project one goes, and no other.
	odd := "#{session_name}"
	at := len(oddNames) - 1 - slices.Index(oddNames, odd)
	if out, errout, code := cli(h, "cancel", "--project="+odd, "--wait", "--grace", "0s"); code != 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("cancel --project: exit %d, %q, %q", code, out, errout)
	}
	for id, name := range ids {
		want := "running"
		if name == oddNames[at] {
			want = "cancelled"
		}
		if s := h.Status(id); s != want {
			t.Errorf("%q is %s, want %s", name, s, want)
		}
	}
	h.Cortex("cancel", "--all-running", "--wait=60s", "--grace", "0s")
	for id, name := range ids {
		if s := h.Status(id); s != "cancelled" {
			t.Errorf("%q is %s after the cancel", name, s)
		}
	}
	if s := h.Sessions(); len(s) != 0 {
		t.Errorf("sessions left: %q", s)
	}
}

func TestNamesThatAreRefused(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	for _, name := range []string{"", "a\nb", "\n", "a\tb", strings.Repeat("x", 257), strings.Repeat("ü", 129), "\xff"} {
		for _, args := range [][]string{{"--bead=" + name}, {"--bead=b", "--project=" + name}} {
			args = append(append([]string{"submit"}, args...), "--", "true")
			if out, errout, code := cli(h, args...); code != 2 || out != "" || strings.Count(errout, "\n") > 2 {
				t.Errorf("%.40q: exit %d, %q, %q", args, code, out, errout)
			}
		}
	}
	if got := h.SQL("SELECT count(*) FROM dispatches"); got != "0" {
		t.Errorf("%s were accepted", got)
	}
}

// tmux takes the beginning of a session's name for the session: ctx-p-b-1 is never to be taken for ctx-p-b-12.
func TestASessionIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=20"}
	h.Start()
	for i := 1; i <= 12; i++ {
		if id := h.Submit("b", "sleep", "100000"); id != fmt.Sprint(i) {
			t.Fatalf("dispatch %d has the number %s", i, id)
		}
	}
	one, ten, eleven, twelve := h.WaitRunning("1"), h.WaitRunning("10"), h.WaitRunning("11"), h.WaitRunning("12")
	h.Cortex("cancel", "1", "--wait", "--grace", "0s")
	if one.Alive() || !ten.Alive() || !eleven.Alive() || !twelve.Alive() {
		t.Errorf("after cancelling 1: alive are 1 %v, 10 %v, 11 %v, 12 %v", one.Alive(), ten.Alive(), eleven.Alive(), twelve.Alive())
	}
	sessions := h.Sessions()
	if slices.Contains(sessions, "ctx-p-b-1") || !slices.Contains(sessions, "ctx-p-b-12") || len(sessions) != 11 {
		t.Errorf("sessions %q", sessions)
	}
	// Cancelled again, and its session gone, it still means nobody else.
	h.Cortex("cancel", "1", "--wait", "--grace", "0s")
	if !twelve.Alive() || h.Status("12") != "running" {
		t.Errorf("12 is %s", h.Status("12"))
	}
	h.Cortex("cancel", "--all-running", "--wait=60s", "--grace", "0s")
}

// Where somebody has a session of that name, the dispatch's own has a number more, and the other one lives on.
func TestASessionOfThatNameIsThere(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	h.WaitStatus(h.Submit("b", "true"), "completed")
	h.Run("tmux", "new-session", "-d", "-s", "ctx-p-b-2", "sleep 100000 # "+h.Home)
	id := h.Submit("b", "sh", "-c", `printf %s "$CORTEX_SESSION"; exec sleep 100000`)
	h.WaitRunning(id)
	if got := h.Field(id, "session_name"); got != "ctx-p-b-2-2" {
		t.Errorf("session %q", got)
	}
	testenv.Eventually(t, "it to say its session", func() bool { return h.Cortex("logs", id) == "ctx-p-b-2-2" })
	h.Cortex("cancel", id, "--wait", "--grace", "0s")
	if s := h.Sessions(); !slices.Equal(s, []string{"ctx-p-b-2"}) {
		t.Errorf("sessions %q", s)
	}
}

// modes checks that the state folder is for its owner alone, with all that is in it.
func modes(t *testing.T, h *testenv.Host) (kinds map[fs.FileMode]int) {
	t.Helper()
	kinds = map[fs.FileMode]int{}
	err := filepath.WalkDir(h.State, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) { // an attempt has ended meanwhile
				return nil
			}
			return err
		}
		info, err := e.Info()
		if err != nil {
			return nil // the same
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		kinds[info.Mode().Type()]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return kinds
}

func TestModes(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	// A folder that somebody made before, open to all.
	if err := os.MkdirAll(filepath.Join(h.State, "runs"), 0o755); err != nil {
		t.Fatal(err)
	}
	// A tmux server that the user's shell has started: what runs in it makes its files with the shell's mask.
	h.Run("sh", "-c", `umask 0; exec tmux new-session -d -s mine "sleep 100000 # $HOME"`)
	d := h.Start()
	ended := h.Submit("ended", "sh", "-c", "echo x")
	h.WaitStatus(ended, "completed")
	runs := h.Submit("runs", "sh", "-c", "echo said; exec sleep 100000")
	h.WaitRunning(runs)
	testenv.Eventually(t, "it to say something", func() bool { return h.Cortex("logs", runs) != "" })
	h.Cortex("pause")
	waits := h.Submit("waits", "true")
	kinds := modes(t, h)
	// cortex.sock and a runner's, its FIFO, the database with its WAL, three specs and the rest.
	if kinds[fs.ModeSocket] < 2 || kinds[fs.ModeNamedPipe] < 1 || kinds[0] < 10 || kinds[fs.ModeDir] < 7 {
		t.Errorf("there are only %v", kinds)
	}
	for _, name := range []string{"cortex.db", "cortex.db-wal", "cortex.sock", "token", "cortex.lock", "stop.journal", "runs/" + waits + "/spec.json",
		"runs/" + runs + "/1/claim.json", "runs/" + runs + "/1/output.log", "runs/" + runs + "/1/output.timing", "runs/" + ended + "/1/exit.json"} {
		if _, err := os.Lstat(filepath.Join(h.State, name)); err != nil {
			t.Error(err)
		}
	}
	d.Kill()
	h.Start()
	modes(t, h)
	h.Cortex("cancel", runs, waits, "--wait", "--grace", "0s")
	modes(t, h)
}
