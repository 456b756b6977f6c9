package api

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cortex"
	"cortex/config"
	"cortex/runner/record"
)

func TestDispatchEnv(t *testing.T) {
	t.Parallel()
	daemon := []string{
		"PATH=/bin", "HOME=/root", "EMPTY=", "EQ=a=b", "TMUX=/tmp/x,1,0", "TMUX_PANE=%1", "TMUX_TMPDIR=/tmp", "NOTIFY_SOCKET=@x",
		"LISTEN_FDS=1", "LISTEN_PID=2", "LISTEN_FDNAMES=x", "WATCHDOG_USEC=1", "WATCHDOG_PID=1", "INVOCATION_ID=1", "JOURNAL_STREAM=8:1",
		"CORTEX_DISPATCH_ID=7", "CORTEX_CONFIG=x", "INVOCATION_IDS=kept", "XTMUX=kept", "LISTEN=kept", "HOME=/second", "=odd", "none",
		"BYTES=\xff\xfe",
	}
	got := dispatchEnv(daemon, map[string]string{"PATH": "/mine", "NEW": "1", "TMUX_TMPDIR": "/own"})
	want := []record.Raw{
		"BYTES=\xff\xfe", "EMPTY=", "EQ=a=b", "HOME=/root", "INVOCATION_IDS=kept", "LISTEN=kept", "NEW=1", "PATH=/mine", "TMUX_TMPDIR=/own", "XTMUX=kept",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestEnvNames(t *testing.T) {
	t.Parallel()
	if got := envNames([]record.Raw{"A=secret", "B=x=y"}); !slices.Equal(got, []string{"A", "B"}) {
		t.Errorf("got %q", got)
	}
}

func testServer(t *testing.T) *Server {
	t.Helper()
	return New(Options{Config: config.Defaults(), Token: "secret", Log: discard})
}

func TestSpecOf(t *testing.T) {
	dir := t.TempDir()
	home := t.TempDir()
	t.Setenv("HOME", home)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(home, "work"), 0o700); err != nil {
		t.Fatal(err)
	}
	good := func() submission {
		return submission{command: []string{"true"}, bead: "b", project: "p", workdir: dir}
	}
	cases := []struct {
		name   string
		change func(*submission)
		reason cortex.Reason // "" where it is accepted
		text   string        // of the message, or the workdir
	}{
		{"good", func(*submission) {}, "", dir},
		{"home by default", func(s *submission) { s.workdir = "" }, "", home},
		{"home by ~", func(s *submission) { s.workdir = "~" }, "", home},
		{"below home", func(s *submission) { s.workdir = "~/work" }, "", filepath.Join(home, "work")},
		{"relative", func(s *submission) { s.workdir = "work" }, cortex.ReasonBadWorkdir, "not absolute"},
		{"another user's home", func(s *submission) { s.workdir = "~root" }, cortex.ReasonBadWorkdir, "not absolute"},
		{"not there", func(s *submission) { s.workdir = dir + "/none" }, cortex.ReasonBadWorkdir, "no such file"},
		{"a file", func(s *submission) { s.workdir = file }, cortex.ReasonBadWorkdir, "not a directory"},
		{"no command", func(s *submission) { s.command = nil }, cortex.ReasonMissingCommand, "no command"},
		{"empty command", func(s *submission) { s.command = []string{} }, cortex.ReasonMissingCommand, "no command"},
		{"agent alone", func(s *submission) { s.command, s.agent = nil, "claude" }, cortex.ReasonNotAvailable, "agent"},
		{"program is empty", func(s *submission) { s.command = []string{"", "x"} }, cortex.ReasonBadValue, "command[0]"},
		{"empty arguments", func(s *submission) { s.command = []string{"x", "", ""} }, "", dir},
		{"no bead", func(s *submission) { s.bead = "" }, cortex.ReasonBadValue, "bead_id"},
		{"no project", func(s *submission) { s.project = "" }, cortex.ReasonBadValue, "project"},
		{"env with =", func(s *submission) { s.env = map[string]string{"A=B": "1"} }, cortex.ReasonBadValue, "env"},
		{"env without name", func(s *submission) { s.env = map[string]string{"": "1"} }, cortex.ReasonBadValue, "env"},
		{"env with NUL", func(s *submission) { s.env = map[string]string{"A\x00": "1"} }, cortex.ReasonBadValue, "env"},
		{"env of ours", func(s *submission) { s.env = map[string]string{"CORTEX_RUN_DIR": "/"} }, cortex.ReasonBadValue, "env.CORTEX_RUN_DIR"},
		{"the longest argument", func(s *submission) { s.command = []string{"x", strings.Repeat("y", maxArg)} }, "", dir},
		{"too long an argument", func(s *submission) { s.command = []string{"x", strings.Repeat("y", maxArg+1)} }, cortex.ReasonBadValue, "command[1]"},
		{"too long a variable", func(s *submission) { s.env = map[string]string{"A": strings.Repeat("y", maxArg)} }, cortex.ReasonBadValue, "env.A"},
		{"too much in all", func(s *submission) {
			s.command = slices.Repeat([]string{strings.Repeat("y", 100_000)}, 25)
		}, cortex.ReasonBadValue, "the kernel takes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			sub := good()
			c.change(&sub)
			spec, err := testServer(t).specOf(sub)
			var p *cortex.Error
			switch {
			case c.reason == "" && (err != nil || spec.Workdir != c.text):
				t.Errorf("got %q, %v", spec.Workdir, err)
			case c.reason != "" && (!errors.As(err, &p) || p.Reason != c.reason || !strings.Contains(p.Message, c.text) || p.Hint == ""):
				t.Errorf("got %v, want %s: …%s…", err, c.reason, c.text)
			}
		})
	}
}
