package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// answers compares what a scenario's commands say with the drill. Times and ids are not the drill's, but the same one of
// the drill is always the same one of ours: what pause answers as its time is the paused_at of the status.
type answers struct {
	ours   map[string]string // by the drill's
	theirs map[string]string // by ours
}

func newAnswers() *answers { return &answers{map[string]string{}, map[string]string{}} }

// same compares a value that is another one on each host.
func (a *answers) same(want, got string) error {
	if ours, ok := a.ours[want]; ok && ours != got {
		return fmt.Errorf("the drill's %s was %s before, and is %s here", want, ours, got)
	}
	a.ours[want] = got
	return nil
}

// distinct is same for a value of which two of the drill's are two of ours.
func (a *answers) distinct(want, got string) error {
	if theirs, ok := a.theirs[got]; ok && theirs != want {
		return fmt.Errorf("%s is the drill's %s, and can't be its %s too", got, theirs, want)
	}
	a.theirs[got] = want
	return a.same(want, got)
}

// loose are the commands whose answers are not compared word for word, each with the reason. All others are.
var loose = []struct {
	command string // how it begins
	whole   bool   // it is all of the command
	why     string
	check   func(a *answers, want string, got said) error
}{
	{"systemctl --user status cortex.service", true,
		"a stand-in of the test's; the drill itself shows this in three ways", func(_ *answers, _ string, got said) error {
			return like(`(?s)^● cortex\.service - .*\n     Active: active \(running\)`, got.out, got.err)
		}},
	{"du -h", false, "the host's: sizes and the home's path", func(_ *answers, _ string, got said) error {
		return like(`^[0-9.]+[KMG]\t/.*/\.cortex/cortex\.db\n$`, got.out, got.err)
	}},
	{"df -h", false, "the host's: sizes and devices", func(_ *answers, _ string, got said) error {
		return like(`(?m)\d+%`, got.out, got.err)
	}},
	{"time sqlite3", false, "the host's: how long it takes, printed by bash on standard error", func(_ *answers, _ string, got said) error {
		return like(`^\s*real\s+\d+m\d+\.\d+s\s+user\s+\S+\s+sys\s+\S+\s*$`, got.err, got.out)
	}},
	{"while [", false, "the drill shows no answer; but the loop must have seen its five", func(_ *answers, _ string, got said) error {
		return like(`^(T\+\d+s: [1-5] dispatches still running\n)+$`, got.out, got.err)
	}},
	{`echo "All dispatches completed`, false, "seconds that the dispatches took", func(_ *answers, _ string, got said) error {
		return like(`^All dispatches completed after \d+ seconds\n$`, got.out, got.err)
	}},
	{"curl -X POST", false, "without -s, so that curl's progress is on standard error", func(a *answers, want string, got said) error {
		return a.object(want, got.out)
	}},
	{"curl -v", false, "curl's own remarks (*) and headers that the drill leaves out", (*answers).exchange},
	{"sqlite3 ~/.cortex/cortex.db \"\nSELECT d.id", false, "ids, pids, times; the contract's session names", (*answers).running},
	{"for dispatch_id", false, "ids; the answers of the cancels stand between the lines that the drill shows", (*answers).cancels},
	{"timeout 5 sqlite3", false, "in WAL mode a reader is never locked out, and it is not here", func(_ *answers, _ string, got said) error {
		return like(`^1\n$`, got.out, got.err)
	}},
	{"sudo lsof", false, "the host's; it must name cortex, and whoever holds the lock", func(_ *answers, _ string, got said) error {
		return errors.Join(like(`(?m)^cortex +\d+ .*/cortex\.db$`, got.out, got.err), like(`(?m)^sqlite3 +\d+ .*/cortex\.db$`, got.out, got.err))
	}},
}

// looseFor is the entry for a command, or -1.
func looseFor(command string) int {
	for i, l := range loose {
		if command == l.command || !l.whole && strings.HasPrefix(command, l.command) {
			return i
		}
	}
	return -1
}

// compare is what is wrong with an answer, nil when it is the drill's.
func (a *answers) compare(c typed, got said) error {
	if got.exit != 0 {
		return fmt.Errorf("exit status %d", got.exit)
	}
	if i := looseFor(c.command); i >= 0 {
		return loose[i].check(a, c.answer, got)
	}
	if got.err != "" {
		return fmt.Errorf("standard error says something")
	}
	switch {
	case c.answer == "": // free
		return nil
	case c.answer == nothing:
		return sameText("", got.out)
	case strings.HasPrefix(c.answer, "{"):
		return a.object(c.answer, got.out)
	}
	if text, ok := strings.CutPrefix(c.answer, `"`); ok && drillMoment.MatchString(strings.TrimSuffix(text, `"`)) {
		return a.value("", c.answer, strings.TrimSpace(got.out))
	}
	return sameText(c.answer+"\n", got.out)
}

func sameText(want, got string) error {
	if want != got {
		return fmt.Errorf("want %q, got %q", want, got)
	}
	return nil
}

// like compares one stream with a pattern; the other must be empty.
func like(pattern, text, other string) error {
	if other != "" {
		return fmt.Errorf("it also says %q", other)
	}
	if !regexp.MustCompile(pattern).MatchString(text) {
		return fmt.Errorf("want something like %s", pattern)
	}
	return nil
}

var (
	drillMoment   = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`)
	drillDuration = regexp.MustCompile(`^\d+[dhms](\d+[hms])?$`)
)

// object compares JSON objects: each key that the drill shows must be there. Key order and spaces are free.
func (a *answers) object(want, got string) error {
	var w, g map[string]json.RawMessage
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		return fmt.Errorf("the drill's answer: %w", err)
	}
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		return fmt.Errorf("our answer: %w", err)
	}
	var problems []error
	for key, value := range w {
		if ours, ok := g[key]; ok {
			problems = append(problems, a.value(key+": ", string(value), string(ours)))
		} else {
			problems = append(problems, fmt.Errorf("%s is missing", key))
		}
	}
	return errors.Join(problems...)
}

// value compares JSON values that are no objects: times and durations by their form, all others exactly.
func (a *answers) value(name, want, got string) error {
	w, g := strings.Trim(want, `"`), strings.Trim(got, `"`)
	switch {
	case drillMoment.MatchString(w):
		at, err := time.Parse(time.RFC3339, g) // which takes fractions and zones as well
		if err != nil || got != `"`+g+`"` || !drillMoment.MatchString(g) || time.Since(at).Abs() > time.Hour {
			return fmt.Errorf("%swant a time of now such as %s, got %s", name, want, got)
		}
		return a.same(w, g)
	case drillDuration.MatchString(w):
		if !drillDuration.MatchString(g) || got != `"`+g+`"` {
			return fmt.Errorf("%swant a duration such as %s, got %s", name, want, got)
		}
	case want != got:
		return fmt.Errorf("%swant %s, got %s", name, want, got)
	}
	return nil
}

// progress is what curl's meter, which it shows where its output is no terminal, leaves before a line.
var progress = regexp.MustCompile(`(?m)^[ 0-9:.kM-]+([<>*] )`)

// exchange compares what curl -v shows: the request's and the answer's lines of the drill in their order, and the body.
func (a *answers) exchange(want string, got said) error {
	said := strings.Split(progress.ReplaceAllString(strings.ReplaceAll(got.err, "\r", "\n"), "$1"), "\n")
	var body string
	for _, line := range strings.Split(want, "\n") {
		if strings.HasPrefix(line, "*") {
			continue
		}
		if !strings.HasPrefix(line, "> ") && !strings.HasPrefix(line, "< ") {
			body += strings.Trim(line, "<> ")
			continue
		}
		for len(said) > 0 && said[0] != line {
			said = said[1:]
		}
		if len(said) == 0 {
			return fmt.Errorf("there is no line %q, or not there", line)
		}
	}
	return a.object(body, got.out)
}

// running compares the rows of the running dispatches with `1234|cortex-abc.123||session-abc-123|2026-02-18 05:45:12|15.8`.
// The drill's pids are empty; ours is on record from the process's start.
func (a *answers) running(want string, got said) error {
	if got.err != "" {
		return fmt.Errorf("standard error says something")
	}
	wants, gots := strings.Split(want, "\n"), strings.Split(strings.TrimSuffix(got.out, "\n"), "\n")
	if len(wants) != len(gots) {
		return fmt.Errorf("want %d rows, got %d", len(wants), len(gots))
	}
	var problems []error
	for i := range wants {
		w := strings.Split(wants[i], "|")
		id, _, _ := strings.Cut(gots[i], "|")
		session := regexp.MustCompile(`[^a-z0-9_-]`).ReplaceAllString("ctx-drill-"+w[1]+"-"+id, "-")
		pattern := `^\d+\|` + regexp.QuoteMeta(w[1]) + `\|[1-9]\d*\|` + session + `\|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\|\d+\.\d$`
		problems = append(problems, a.distinct(w[0], id), like(pattern, gots[i], ""))
	}
	return errors.Join(problems...)
}

// cancels compares the loop that cancels: the drill's lines in their order, each followed by an answer.
func (a *answers) cancels(want string, got said) error {
	if got.err != "" {
		return fmt.Errorf("standard error says something")
	}
	lines := strings.Split(got.out, "\n")
	var problems []error
	for _, line := range strings.Split(want, "\n") {
		const head = "Cancelling dispatch: "
		if len(lines) < 2 || !strings.HasPrefix(lines[0], head) {
			return fmt.Errorf("want a line such as %q", line)
		}
		problems = append(problems,
			a.distinct(strings.TrimPrefix(line, head), strings.TrimPrefix(lines[0], head)),
			a.object(`{"status":"success"}`, lines[1]))
		lines = lines[2:]
	}
	return errors.Join(append(problems, sameText("", strings.Join(lines, "\n")))...)
}
