package e2e

import (
	_ "embed"
	"strings"
	"testing"
	"time"
)

//go:embed testdata/drill.md
var drill string

// An operator types each command of the maintenance drill, and gets what stands there. Each scenario has a host and a
// network namespace of its own.
func TestDrill(t *testing.T) {
	t.Parallel()
	commands := parseDrill(t, drill)
	if len(commands) != 108 {
		t.Fatalf("the drill has %d commands, not 108", len(commands))
	}
	run := 0
	for _, sc := range scenarios {
		var own []typed
		for _, c := range commands {
			if strings.HasPrefix(c.section, sc.section) {
				own = append(own, c)
			}
		}
		run += len(own)
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			sc.play(t, own)
		})
	}
	if run != len(commands) {
		t.Errorf("%d of the drill's %d commands are in a scenario", run, len(commands))
	}
}

// play runs a scenario and compares its answers.
func (sc *scenario) play(t *testing.T, commands []typed) {
	script := sc.script(t, commands)
	shell := newDrillShell(t)
	shell.run(t, script)
	answers := newAnswers()
	for n, c := range commands {
		got, ok := shell.said(n)
		if !ok {
			t.Errorf("%v: the shell did not come to it\n$ %s", c, c.command)
			break
		}
		if err := answers.compare(c, got); err != nil {
			t.Errorf("%v: %v\n$ %s\nwanted:\n%s\ngot (exit status %d):\n%s%s", c, err, c.command, c.answer, got.exit, got.out, got.err)
		}
	}
	daemon := shell.file("daemon.log")
	if strings.Contains(daemon, "DATA RACE") {
		t.Error("the daemon has a data race")
	}
	if t.Failed() {
		t.Logf("the shell:\n%s\nthe daemon:\n%s", shell.file("shell.log"), daemon)
	}
}

// Each entry of the table of loose comparisons is for a command that the drill has.
func TestDrillLooseIsUsed(t *testing.T) {
	t.Parallel()
	used := map[int]bool{}
	for _, c := range parseDrill(t, drill) {
		used[looseFor(c.command)] = true
	}
	for i, l := range loose {
		if !used[i] {
			t.Errorf("no command of the drill begins with %q", l.command)
		}
	}
}

// The comparison sees what is wrong; a blind one would let every answer pass.
func TestDrillCompare(t *testing.T) {
	t.Parallel()
	const (
		pause  = `{"status": "success", "message": "Scheduler paused", "timestamp": "2026-02-18T06:01:00Z"}`
		at     = `"2026-02-18T06:01:00Z"`
		status = "{\n  \"state\": \"paused\",\n  \"paused_duration\": \"3m45s\",\n  \"resumed_at\": null\n}"
		curl   = "*   Trying 127.0.0.1:8900...\n> POST /scheduler/resume HTTP/1.1\n> Host: 127.0.0.1:8900\n>\n" +
			"< HTTP/1.1 500 Internal Server Error\n< Content-Type: application/json\n<\n{\"error\": \"Database lock timeout\", \"code\": 500}"
		rows = "1234|cortex-abc.123||session-abc-123|2026-02-18 05:45:12|15.8"
	)
	verbose := func(head string) string {
		return "> POST /scheduler/resume HTTP/1.1\r\n> Host: 127.0.0.1:8900\r\n> Accept: */*\r\n> \r\n" + head + "\r\n< Content-Type: application/json\r\n< \r\n"
	}
	locked := `{"error":"Database lock timeout","code":500,"reason":"db_locked","hint":"…"}` + "\n"
	sql := "sqlite3 ~/.cortex/cortex.db \"\nSELECT d.id …"
	for _, c := range []struct {
		name, command, answer string
		got                   said
		ok                    bool
	}{
		{"number", "curl", "7", said{"7\n", "", 0}, true},
		{"another number", "curl", "7", said{"8\n", "", 0}, false},
		{"no answer", "curl", "7", said{"", "", 0}, false},
		{"exit status", "curl", "7", said{"7\n", "", 1}, false},
		{"standard error", "curl", "7", said{"7\n", "oops", 0}, false},
		{"free", "curl", "", said{"anything", "", 0}, true},
		{"free, but failed", "curl", "", said{"anything", "", 1}, false},
		{"nothing", "curl", nothing, said{"", "", 0}, true},
		{"something", "curl", nothing, said{"{}\n", "", 0}, false},
		{"text", "systemctl status | grep", "     Active: inactive (dead)", said{"     Active: inactive (dead)\n", "", 0}, true},
		{"spaces", "systemctl status | grep", "     Active: inactive (dead)", said{"Active: inactive (dead)\n", "", 0}, false},
		{"a time", "curl", at, said{drillNow(at), "", 0}, true},
		{"a fraction", "curl", at, said{strings.ReplaceAll(drillNow(at), "Z", ".5Z"), "", 0}, false},
		{"a zone", "curl", at, said{strings.ReplaceAll(drillNow(at), "Z", "+00:00"), "", 0}, false},
		{"an old time", "curl", at, said{at, "", 0}, false},
		{"null", "curl", at, said{"null\n", "", 0}, false},
		{"object", "curl", pause, said{drillNow(`{"timestamp":"2026-02-18T06:01:00Z","message":"Scheduler paused","status":"success","more":[]}`), "", 0}, true},
		{"a key is missing", "curl", pause, said{`{"message":"Scheduler paused","status":"success"}`, "", 0}, false},
		{"a word differs", "curl", pause, said{drillNow(`{"timestamp":"2026-02-18T06:01:00Z","message":"Paused","status":"success"}`), "", 0}, false},
		{"two objects", "curl", status, said{`{}{}`, "", 0}, false},
		{"durations", "curl", status, said{`{"state":"paused","paused_duration":"12s","resumed_at":null}`, "", 0}, true},
		{"a Go duration", "curl", status, said{`{"state":"paused","paused_duration":"1h3m45s","resumed_at":null}`, "", 0}, false},
		{"not null", "curl", status, said{drillNow(`{"state":"paused","paused_duration":"12s","resumed_at":"2026-02-18T06:01:00Z"}`), "", 0}, false},
		{"verbose", "curl -v", curl, said{locked, verbose("< HTTP/1.1 500 Internal Server Error"), 0}, true},
		{"verbose, another status", "curl -v", curl, said{locked, verbose("< HTTP/1.1 503 Service Unavailable"), 0}, false},
		{"verbose, no header", "curl -v", curl, said{locked, "> POST /scheduler/resume HTTP/1.1\n> Host: 127.0.0.1:8900\n< HTTP/1.1 500 Internal Server Error\n", 0}, false},
		{"verbose, another body", "curl -v", curl, said{`{"error":"locked","code":500}`, verbose("< HTTP/1.1 500 Internal Server Error"), 0}, false},
		{"rows", sql, rows, said{"12|cortex-abc.123|4711|ctx-drill-cortex-abc-123-12|2026-02-18 05:45:12|0.0\n", "", 0}, true},
		{"rows, no pid", sql, rows, said{"12|cortex-abc.123||ctx-drill-cortex-abc-123-12|2026-02-18 05:45:12|0.0\n", "", 0}, false},
		{"rows, of another", sql, rows, said{"12|cortex-abc.123|4711|ctx-drill-cortex-abc-123-1|2026-02-18 05:45:12|0.0\n", "", 0}, false},
		{"cancel", "for dispatch_id", "Cancelling dispatch: 1234", said{"Cancelling dispatch: 12\n{\"status\":\"success\"}\n", "", 0}, true},
		{"cancel refused", "for dispatch_id", "Cancelling dispatch: 1234", said{"Cancelling dispatch: 12\n{\"error\":\"x\"}\n", "", 0}, false},
		{"cancel, too many", "for dispatch_id", "Cancelling dispatch: 1234", said{"Cancelling dispatch: 12\n{\"status\":\"success\"}\nCancelling dispatch: 13\n", "", 0}, false},
	} {
		err := newAnswers().compare(typed{command: c.command, answer: c.answer}, c.got)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// The same time of the drill is the same time of ours, in all of a scenario.
func TestDrillCompareRemembers(t *testing.T) {
	t.Parallel()
	const at = `"2026-02-18T06:01:00Z"`
	answers := newAnswers()
	c := typed{command: "curl", answer: at}
	first := drillNow(at)
	if err := answers.compare(c, said{first, "", 0}); err != nil {
		t.Fatal(err)
	}
	if err := answers.compare(c, said{first, "", 0}); err != nil {
		t.Error(err)
	}
	if answers.compare(c, said{`"` + drillLater() + `"`, "", 0}) == nil {
		t.Error("another time passes for the same")
	}
}

const drillTime = "2026-02-18T06:01:00Z"

// drillNow is an answer of the drill's with today's time.
func drillNow(text string) string {
	return strings.ReplaceAll(text, drillTime, time.Now().UTC().Format(time.RFC3339))
}

func drillLater() string { return time.Now().Add(time.Minute).UTC().Format(time.RFC3339) }
