package runner

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"cortex/runner/record"
)

func TestSessionName(t *testing.T) {
	t.Parallel()
	x := func(n int) string { return strings.Repeat("x", n) }
	dash := func(n int) string { return strings.Repeat("-", n) }
	for _, c := range []struct {
		project, bead string
		id            int64
		want          string
	}{
		{"p", "b", 1, "ctx-p-b-1"},
		{"p", "b", 12, "ctx-p-b-12"},
		{"web", "fix_17", 9007199254740993, "ctx-web-fix_17-9007199254740993"},
		{"MiXeD", "CASE", 1, "ctx-mixed-case-1"},
		{"cortex", "cortex-abc.123", 3, "ctx-cortex-cortex-abc-123-3"}, // tmux takes . and : for separators
		{"a:b", "c.d:e", 1, "ctx-a-b-c-d-e-1"},
		{"=p", "@1", 1, "ctx--p--1-1"}, // marks of tmux's targets
		{"$0", "%1", 1, "ctx--0--1-1"},
		{"..", "../../etc/passwd", 1, "ctx----------etc-passwd-1"},
		{"-p", "--bead", 1, "ctx--p---bead-1"},
		{"", "", 1, "ctx---1"},
		{"a b", "c\td\ne\x00f", 1, "ctx-a-b-c-d-e-f-1"},
		{"#{session_name}", "$(reboot)`id`", 1, "ctx---session_name----reboot--id--1"},
		{"projé", "日本語", 1, "ctx-proj------1"},
		{"e\u0301", "🙂", 1, "ctx-e----1"},       // a combining accent is a character of its own
		{"\u212a", "\u0130", 1, "ctx-----1"},    // the Kelvin sign and İ, which have lower case in ASCII
		{"\xff\xfe", "b\xc3", 1, "ctx----b--1"}, // no UTF-8
		{x(40), x(40), 1, "ctx-" + x(40) + "-" + x(40) + "-1"},
		{x(41), "b", 1, "ctx-" + x(40) + "-b-1"},
		{"p", x(5000), 1, "ctx-p-" + x(40) + "-1"},
		{strings.Repeat("ü", 41), "b", 1, "ctx-" + dash(40) + "-b-1"}, // characters, not bytes
		{x(39) + "ÜX", "b", 1, "ctx-" + x(39) + "--b-1"},
	} {
		if got := SessionName(c.project, c.bead, c.id); got != c.want {
			t.Errorf("SessionName(%q, %q, %d) = %q, want %q", c.project, c.bead, c.id, got, c.want)
		}
	}
}

func FuzzSessionName(f *testing.F) {
	for _, s := range []string{"", "p", "A.b:c", "日本語", "\xff", "-", "#{x}", "a\nb", strings.Repeat("Ü", 50), strings.Repeat("x", 50), "p-1"} {
		f.Add(s, "b", int64(1))
		f.Add("p", s, int64(1<<62))
	}
	form := regexp.MustCompile(`^ctx-([a-z0-9_-]*)-[0-9]+$`)
	f.Fuzz(func(t *testing.T, project, bead string, id int64) {
		id = max(1, id&(1<<62-1))
		got := SessionName(project, bead, id)
		m := form.FindStringSubmatch(got)
		if m == nil || !strings.HasSuffix(got, "-"+strconv.FormatInt(id, 10)) {
			t.Fatalf("%q", got)
		}
		want := min(utf8.RuneCountInString(project), nameMax) + 1 + min(utf8.RuneCountInString(bead), nameMax)
		if len(got) != len("ctx--")+want+len(strconv.FormatInt(id, 10)) {
			t.Errorf("%q has not %d characters of the names", got, want)
		}
		if next := SessionName(project, bead, id+1); next == got {
			t.Errorf("two dispatches want %q", got)
		}
		// A name that is legal already stays what it is.
		if p := m[1]; len(p) <= nameMax && SessionName(p, "b", id) != "ctx-"+p+"-b-"+strconv.FormatInt(id, 10) {
			t.Errorf("%q becomes %q", p, SessionName(p, "b", id))
		}
	})
}

func TestTagID(t *testing.T) {
	t.Parallel()
	const runs = "/home/u/.cortex/runs"
	for tag, want := range map[string]int64{
		runs + "/7/1":                   7,
		runs + "/7":                     7,
		runs + "/9223372036854775807/3": 1<<63 - 1,
		"":                              0,
		runs:                            0,
		runs + "/":                      0,
		runs + "//7":                    0,
		runs + "/x/1":                   0,
		runs + "/7x/1":                  0,
		runs + "/99999999999999999999":  0,
		runs + "2/7/1":                  0, // another home, whose path begins with this one's
		"/home/v/.cortex/runs/7/1":      0,
		"7/1":                           0,
	} {
		id, ok := TagID(runs, tag)
		if ok != (want != 0) || ok && id != want {
			t.Errorf("TagID(%q) = %d, %v, want %d", tag, id, ok, want)
		}
	}
}

func TestTmuxServer(t *testing.T) {
	t.Parallel()
	for tmux, want := range map[string]int{
		"/tmp/tmux-1000/default,4711,3": 4711,
		"/tmp/a,b,c/default,4711,0":     4711,
		"/tmp/1,2,3,4711,0":             4711,
		"":                              0,
		"4711":                          0,
		"/tmp/s,4711":                   0,
		"/tmp/s,,0":                     0,
		"/tmp/s,x,0":                    0,
		"/tmp/s,0,0":                    0,
		"/tmp/s,1,0":                    0, // never to be signalled
		"/tmp/s,-4711,0":                0,
		"/tmp/s,99999999999999999999,0": 0,
	} {
		pid, ok := TmuxServer(record.Claim{Tmux: tmux})
		if ok != (want != 0) || ok && pid != want {
			t.Errorf("TmuxServer(%q) = %d, %v, want %d", tmux, pid, ok, want)
		}
	}
}
