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

// FuzzParse: whatever comes, no block ends that did not begin; and whatever is inside of a block comes out as it was.
func FuzzParse(f *testing.F) {
	f.Add("%begin 1 2 1\nfoo\n%end 1 2 1\n%exit")
	f.Add("%begin 1 2 0\n%begin 1 2 1\n%error 1 2 0\n%output %1 x")
	f.Add("%begin  1 2\n\n%end")
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		var p parser
		begun, ended := 0, 0
		for _, line := range lines {
			if strings.HasPrefix(line, "%begin ") {
				begun++
			}
			if e := p.line(line); e.kind == eventReply {
				ended++
			}
		}
		if ended > begun {
			t.Errorf("%d blocks began, %d ended", begun, ended)
		}

		const guard = "1795496191 270 1"
		content := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return l == "%end "+guard || l == "%error "+guard })
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
