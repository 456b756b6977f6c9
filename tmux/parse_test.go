package tmux

import (
	"slices"
	"strings"
	"testing"
)

func TestParser(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		lines string
		want  []string
	}{
		{"reply", "%begin 1 2 1\nfoo\n%end 1 2 1", []string{"ours: foo"}},
		{"error", "%begin 1 2 1\nno such\n%error 1 2 1", []string{"ours failed: no such"}},
		{"empty reply", "%begin 1 2 1\n%end 1 2 1", []string{"ours: "}},
		{"the opening command's", "%begin 1 2 0\n%end 1 2 0\n%begin 1 3 1\n%end 1 3 1", []string{"other: ", "ours: "}},
		{"notification between", "%sessions-changed\n%begin 1 2 1\n%end 1 2 1\n%window-add @1",
			[]string{"note: %sessions-changed", "ours: ", "note: %window-add @1"}},
		{"content like a notification", "%begin 1 2 1\n%exit\n%begin 1 3 1\n%end 1 3 1\n%end 1 2\n%end 1 2 1",
			[]string{"ours: %exit|%begin 1 3 1|%end 1 3 1|%end 1 2"}},
		{"exit", "%exit", []string{"exit: "}},
		{"exit with reason", "%exit server exited", []string{"exit: server exited"}},
		{"begin that is none", "%begin\n%begin x y z\n%begin 1 2\n%begin 1 2 ", []string{
			"note: %begin", "note: %begin x y z", "note: %begin 1 2", "note: %begin 1 2 "}},
		{"message", "duplicate session: cortex\n%exit", []string{"text: duplicate session: cortex", "exit: "}},
		{"block that never ends", "%begin 1 2 1\nfoo", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var p parser
			var got []string
			for line := range strings.SplitSeq(tt.lines, "\n") {
				if e := p.line(line); e.kind != eventNone {
					got = append(got, describe(e))
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func describe(e event) string {
	switch e.kind {
	case eventReply:
		who := "other"
		if e.ours {
			who = "ours"
		}
		if e.reply.failed {
			who += " failed"
		}
		return who + ": " + strings.Join(e.reply.lines, "|")
	case eventExit:
		return "exit: " + e.text
	case eventNotification:
		return "note: " + e.text
	}
	return "text: " + e.text
}

// FuzzParse: whatever comes, each line is a part of a block or an event of its own, as it was; a block ends by its own guard
// and by no other; and whatever is inside of one comes out as it was. testdata has what tmux 3.3a says.
func FuzzParse(f *testing.F) {
	f.Add("%begin 1 2 1\nfoo\n%end 1 2 1\n%exit")
	f.Add("%begin 1 2 0\n%begin 1 2 1\n%error 1 2 0\n%output %1 x")
	f.Add("%begin  1 2\n\n%end")
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		var p parser
		var content []string
		for _, line := range lines {
			guard := p.guard
			e := p.line(line)
			switch {
			case guard == "" && p.guard != "":
				content = nil
				if line != "%begin "+p.guard || e.kind != eventNone {
					t.Errorf("%q begins a block and gives %s", line, describe(e))
				}
			case guard != "" && e.kind == eventNone:
				content = append(content, line)
			case guard != "":
				end := map[bool]string{false: "%end ", true: "%error "}[e.reply.failed] + guard
				if e.kind != eventReply || line != end || !slices.Equal(e.reply.lines, content) || p.guard != "" {
					t.Errorf("%q in the block %q of %q gives %s", line, guard, content, describe(e))
				}
			case e.kind == eventExit && (line == "%exit" && e.text == "" || line == "%exit "+e.text):
			case e.kind == eventNotification && e.text == line && strings.HasPrefix(line, "%"):
			case e.kind == eventText && e.text == line && !strings.HasPrefix(line, "%"):
			default:
				t.Errorf("%q outside of a block gives %s", line, describe(e))
			}
		}

		const guard = "1795496191 270 1"
		content = slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return l == "%end "+guard || l == "%error "+guard })
		p = parser{}
		p.line("%begin " + guard)
		for _, line := range content {
			if e := p.line(line); e.kind != eventNone {
				t.Fatalf("%q inside of a block gives %s", line, describe(e))
			}
		}
		if e := p.line("%end " + guard); e.kind != eventReply || !e.ours || e.reply.failed || !slices.Equal(e.reply.lines, content) {
			t.Errorf("got %s, want %q", describe(e), content)
		}
	})
}
