package supervisor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"cortex"
	"cortex/proc"
	"cortex/runner"
	"cortex/runner/record"
)

// Every way in which an attempt can end, as it stands in runs/.
func TestOutcome(t *testing.T) {
	t.Parallel()
	exit := func(cause string, code, signal int) *record.Exit {
		return &record.Exit{Cause: cause, Code: code, Signal: signal, Seconds: 2.5, Error: "no such file"}
	}
	order := func(by cortex.Stopper) *record.Order { return &record.Order{By: string(by), Reason: "too long"} }
	verdict := func(kind string) *record.Verdict { return &record.Verdict{Kind: kind, Detail: "why"} }
	null := -1000
	for name, c := range map[string]struct {
		facts    runner.Facts
		status   cortex.Status
		category cortex.Category
		by       cortex.Stopper
		code     int // null: none
	}{
		"exit 0":                        {runner.Facts{Exit: exit("exit", 0, 0)}, "completed", "", "", 0},
		"exit 3":                        {runner.Facts{Exit: exit("exit", 3, 0)}, "failed", "exit_nonzero", "", 3},
		"killed by somebody":            {runner.Facts{Exit: exit("exit", -1, 9)}, "failed", "signal", "", 137},
		"cancelled, exit 0":             {runner.Facts{Exit: exit("stop", 0, 0), Order: order("operator")}, "cancelled", "", "operator", 0},
		"cancelled, by SIGTERM":         {runner.Facts{Exit: exit("stop", -1, 15), Order: order("operator")}, "cancelled", "", "operator", 143},
		"timeout, exit 0":               {runner.Facts{Exit: exit("stop", 0, 0), Order: order("timeout")}, "failed", "timeout", "timeout", 0},
		"stopped, the order is lost":    {runner.Facts{Exit: exit("stop", 0, 0)}, "cancelled", "", "operator", 0},
		"ended before the order came":   {runner.Facts{Exit: exit("exit", 0, 0), Order: order("operator")}, "completed", "", "", 0},
		"session closed, exit 0":        {runner.Facts{Exit: exit("hangup", 0, 0)}, "failed", "signal", "", 0},
		"session closed, by SIGHUP":     {runner.Facts{Exit: exit("hangup", -1, 1)}, "failed", "signal", "", 129},
		"closed while it was cancelled": {runner.Facts{Exit: exit("hangup", -1, 1), Order: order("operator")}, "cancelled", "", "operator", 129},
		"never started":                 {runner.Facts{Exit: exit("spawn_error", -1, 0)}, "failed", "spawn_error", "", null},
		"lost":                          {runner.Facts{Verdict: verdict("lost")}, "failed", "lost", "", null},
		"lost while cancelled":          {runner.Facts{Verdict: verdict("cancelled")}, "cancelled", "", "operator", null},
		"lost in its timeout":           {runner.Facts{Verdict: verdict("timeout")}, "failed", "timeout", "timeout", null},
		"no spec":                       {runner.Facts{Verdict: verdict("spawn_error")}, "failed", "spawn_error", "", null},
		"a verdict of a later cortex":   {runner.Facts{Verdict: verdict("eaten")}, "failed", "lost", "", null},
		"both: the exit record counts":  {runner.Facts{Exit: exit("exit", 0, 0), Verdict: verdict("lost")}, "completed", "", "", 0},
	} {
		end := outcome(c.facts)
		code := null
		if end.ExitCode != nil {
			code = *end.ExitCode
		}
		if end.Status != c.status || end.Category != c.category || end.StoppedBy != c.by || code != c.code {
			t.Errorf("%s: %s %s by %q, exit code %d; want %s %s by %q, %d",
				name, end.Status, end.Category, end.StoppedBy, code, c.status, c.category, c.by, c.code)
		}
		if !cortex.Running.May(end.Status) {
			t.Errorf("%s: running may not become %s", name, end.Status)
		}
		if end.Status == cortex.Failed && end.Summary == "" {
			t.Errorf("%s: a failure without a summary", name)
		}
		e := endEvent(cortex.Dispatch{ID: 7, BeadID: "b-1"}, end, time.Now())
		if !strings.Contains(e.Message, "Dispatch 7 (b-1)") || (e.Severity == cortex.Warning) != (end.Status == cortex.Failed) {
			t.Errorf("%s: event %+v", name, e)
		}
	}
}

func TestVerdictKind(t *testing.T) {
	t.Parallel()
	for want, order := range map[string]*record.Order{
		record.VerdictLost: nil, record.VerdictCancelled: {By: "operator"}, record.VerdictTimeout: {By: "timeout"},
	} {
		if got := verdictKind(order); got != want {
			t.Errorf("%+v: %s, want %s", order, got, want)
		}
	}
}

// Who is a member of what a dead runner left, and who certainly is not.
func TestLeftOf(t *testing.T) {
	t.Parallel()
	p := func(pid, ppid, sid int, start uint64) proc.Stat {
		return proc.Stat{Ident: proc.Ident{PID: pid, Start: start}, PPID: ppid, SID: sid, State: 'S'}
	}
	const agent, daemon, server, otherRunner = 100, 50, 60, 70
	zombie := p(112, 1, agent, 1012)
	zombie.State = 'Z'
	const away = 2 // the runner of a dispatch from inside which the server was started
	inherited := map[int]bool{105: true, server: true, 61: true, otherRunner: true, 71: true, 109: true, 110: true, 111: true}
	all := []proc.Stat{
		p(1, 0, 1, 1), p(away, 1, away, 400), p(daemon, 1, daemon, 500), p(server, away, server, 600), p(otherRunner, server, otherRunner, 700),
		p(71, otherRunner, 71, 710), // another dispatch's agent, under a server that was started from inside this one
		p(61, server, 61, 610),      // a person's shell under that server
		p(agent, 1, agent, 1000),    // the agent
		p(101, agent, agent, 1001),  // its child
		p(102, 1, agent, 1002),      // orphaned in its session
		p(103, 101, 103, 1003),      // a session of its own, below
		p(104, 103, 104, 1004),      // and below that
		p(105, 1, 105, 1005),        // away, but it carries the folder
		p(106, 105, 106, 1006),      // its child
		p(107, 1, 107, 1007),        // somebody else
		p(108, 1, agent, 900),       // in a session of that number, but older than it
		p(109, 1, agent, 990),       // older than the runner, whatever it has inherited
		p(110, 61, 110, 1010),       // started by a person in a pane, with what the server has inherited
		p(111, away, 111, 1011),     // away, and orphaned below that runner
		zombie,
	}
	ours := traces{
		runner: proc.Ident{PID: 99, Start: 995}, agent: proc.Ident{PID: agent, Start: 1000},
		others: map[int]bool{daemon: true, otherRunner: true, away: true}, servers: map[int]bool{server: true},
	}
	want := map[int]bool{100: true, 101: true, 102: true, 103: true, 104: true, 105: true, 106: true, 111: true}
	got := map[int]bool{}
	for _, s := range leftOf(all, ours, func(pid int) bool { return inherited[pid] }) {
		got[s.PID] = true
	}
	for _, s := range all {
		if got[s.PID] != want[s.PID] {
			t.Errorf("process %d: member %v, want %v", s.PID, got[s.PID], want[s.PID])
		}
	}
	// The pid of the agent is another process's by now: neither that nor its session is ours.
	all[slices.IndexFunc(all, func(s proc.Stat) bool { return s.PID == agent })] = p(agent, 1, agent, 2000)
	for _, s := range leftOf(all, ours, func(int) bool { return false }) {
		t.Errorf("process %d is a member after the agent's pid was used again", s.PID)
	}
	ours.agent = proc.Ident{}
	if left := leftOf(all, ours, func(int) bool { return false }); left != nil {
		t.Errorf("of an agent that never was: %v", left)
	}
}
