package tmux

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Every word of a pane's command arrives as it was, through tmux's parser and past every shell.
func TestArgvArrives(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for c := 1; c < 256; c++ {
		all.WriteByte(byte(c))
	}
	words := []string{
		"with spaces", " ", "", "''", `"`, `it's`, `$(touch x)`, "`touch x`", "$HOME", "${HOME}", "~", "~root", "#{session_name}", "#(touch x)",
		"#S", "##", ";", `\;`, `end;`, `end\;`, `\`, `\\`, `\n`, "\n", "two\nlines\r\n", "\t", "{", "}", "{ kill-server }", "%if", "%begin 1 2 1",
		"-x", "--", "-", "größe 世界 🙂", "\xff\xfe", "a=b", "%H:%M", "*", "?", "!", "\x1b[31m", "\\u00e9", "\\033", "# comment", all.String(),
		strings.Repeat("long ", 3000),
	}
	w := newWorld(t, "")
	c := w.client("/owner")
	out := filepath.Join(t.TempDir(), "out ;$HOME")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.NewSession(context.Background(), New{Name: "argv", Argv: func(name string) []string {
		return append([]string{self, "role-argv", out, name}, words...)
	}})
	if err != nil {
		t.Fatal(err)
	}
	var raw []byte
	eventually(t, "the command to write its arguments", func() bool { raw, err = os.ReadFile(out); return err == nil })
	var got []string
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	want := []string{"argv"}
	for _, word := range words { // JSON has no invalid UTF-8
		b, err := json.Marshal(word)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &word); err != nil {
			t.Fatal(err)
		}
		want = append(want, word)
	}
	if len(got) != len(want) {
		t.Fatalf("%d words arrived, %d were sent: %q", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("word %d arrived as %q, want %q", i, got[i], want[i])
		}
	}
}

func TestOptionValue(t *testing.T) {
	t.Parallel()
	if got := optionValue("/home/jo hn/größe/.cortex"); got != "/home/jo hn/größe/.cortex" {
		t.Errorf("a usual path became %q", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "s"))
		v := optionValue(s)
		if strings.ContainsAny(v, ":\n\x00\x7f") {
			t.Errorf("%q has what a list can't hold", v)
		}
		if got := fromOption(v); got != s {
			t.Errorf("%q came back as %q", s, got)
		}
	})
}

// Owner and tag come back from a real server as they were.
func TestOwnerAndTag(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"/home/a/.cortex", "/with space/x", "/größe/世界/🙂", "a:b:c", "new\nline", "%41", "#{session_name}", "#S", "%H", "-x", "", "end;", "$HOME", "~",
		"\xff", "\u0085\u00a0", `back\slash`, `"'`, "{}", "\t\x1b",
	} {
		t.Run(s, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			c := w.client(s)
			opened, err := c.NewSession(context.Background(), New{Name: "x", Argv: sleeping, Tag: s})
			if err != nil {
				t.Fatal(err)
			}
			if got := mustSessions(t, c)["x"]; got != opened || got.Owner != s || got.Tag != s {
				t.Errorf("listed %+v, opened %+v", got, opened)
			}
			if names := w.names(); !slices.Contains(names, "cortex") {
				t.Errorf("no control session in %q", names)
			}
			if err := c.Kill(context.Background(), opened); err != nil {
				t.Error(err)
			}
			if _, there := mustSessions(t, c)["x"]; there {
				t.Error("the session is still there")
			}
		})
	}
}
