package supervisor

import (
	"context"
	"fmt"
	"time"

	"cortex"
	"cortex/proc"
	"cortex/runner"
	"cortex/runner/record"
)

// sweepLimit bounds one try to sweep what a dead runner left; what survives it is tried again.
const sweepLimit = 10 * time.Second

// lost sweeps what a runner left that died without an exit record, and returns the verdict. What is left alive is an error,
// and the caller tries again: as long as it lives the dispatch has not ended.
func (f *follower) lost(facts runner.Facts) (*record.Verdict, error) {
	if facts.Claim == nil {
		facts.Claim = f.claimed()
	}
	order, _ := f.standing()
	if order == nil {
		order = facts.Order
	}
	v := &record.Verdict{Kind: verdictKind(order)}
	switch {
	case facts.Claim == nil:
		v.Detail = "its claim was removed, and its runner is gone"
	case facts.Claim.Runner.Boot != proc.BootID():
		v.Detail, v.Proven = "the host was restarted while it ran", true
		return v, nil
	case facts.Claim.Runner.PIDNS != proc.PIDNamespace():
		v.Detail, v.Proven = "it ran in another container or pid namespace, which is gone", true
		return v, nil
	default:
		v.Detail = fmt.Sprintf("its runner (pid %d) died without an exit record", facts.Claim.Runner.PID)
	}
	swept, err := f.sweep(facts)
	if err != nil {
		return nil, err
	}
	if len(swept.Survivors) > 0 {
		left := make([]record.Survivor, len(swept.Survivors))
		for i, s := range swept.Survivors {
			left[i] = record.Survivor{PID: s.PID, UID: s.UID, Command: s.Command, Why: s.Why}
		}
		f.survived(left)
		return nil, fmt.Errorf("%d processes of dispatch %d survive", len(left), f.d.ID)
	}
	v.Detail += fmt.Sprintf("; %d processes that it left were ended (not proven to be all: without a runner, one that has shed "+
		"its environment, its session and its parents can't be told)", len(swept.Killed))
	f.notProven(v.Detail)
	return v, nil
}

func (f *follower) notProven(detail string) {
	event := cortex.Event{
		Type: cortex.EventNotProven, Severity: cortex.Warning, DispatchID: &f.d.ID, BeadID: f.d.BeadID,
		Message: fmt.Sprintf("Dispatch %d (%s): %s", f.d.ID, f.d.BeadID, detail),
	}
	f.sup.write("not proven", f.d.ID, func(ctx context.Context) error { return f.sup.store.AddEvent(ctx, event) })
}

func (f *follower) sweep(facts runner.Facts) (proc.Swept, error) {
	ctx, cancel := context.WithTimeout(f.sup.ctx, sweepLimit)
	defer cancel()
	dir, err := record.MakeDir(f.sup.runs, f.d.ID, f.attempt)
	if err != nil {
		return proc.Swept{}, err
	}
	entry := "CORTEX_RUN_DIR=" + dir.Path()
	dir.Close()
	others := f.others(facts.Claim)
	return proc.Sweep(ctx, func() ([]proc.Stat, error) {
		all, err := proc.All()
		if err != nil {
			return nil, err
		}
		return leftOf(all, facts.Started, others, func(pid int) bool {
			has, err := proc.HasEnv(pid, entry)
			return err == nil && has // a process that vanished or is another user's is not known to be ours
		}), nil
	}, nil)
}

// others are the processes that are certainly not this dispatch's, whatever their environment says: the daemon, the tmux
// server (one that was started from inside a dispatch carries its environment for ever) and the runners of other dispatches.
func (f *follower) others(claim *record.Claim) map[int]bool {
	not := map[int]bool{proc.Self().PID: true}
	if claim != nil {
		if pid, ok := runner.TmuxServer(*claim); ok {
			not[pid] = true
		}
	}
	for _, o := range f.sup.followers() {
		if c := o.claimed(); o != f && c != nil {
			not[c.Runner.PID] = true
		}
	}
	return not
}

// leftOf finds what is left of a dispatch whose runner is dead: its agent, the members of its agent's session, what carries
// its folder in the environment, and all that descends from these. It is pure but for carries, which looks into a process.
func leftOf(all []proc.Stat, started *record.Started, others map[int]bool, carries func(pid int) bool) []proc.Stat {
	var agent proc.Ident
	if started != nil {
		agent = proc.Ident{PID: started.Agent.PID, Start: started.Agent.Start}
	}
	sessionIsOurs := agent.PID != 0
	for _, s := range all {
		if s.PID == agent.PID && s.Start != agent.Start {
			sessionIsOurs = false // the pid is another process's by now, and so is the session of that number
		}
	}
	member := map[int]bool{}
	excluded := func(s proc.Stat) bool { return others[s.PID] || others[s.PPID] }
	for _, s := range all {
		inSession := sessionIsOurs && s.SID == agent.PID && s.Start >= agent.Start
		if !excluded(s) && (s.Ident == agent || inSession || carries(s.PID)) {
			member[s.PID] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, s := range all {
			if !member[s.PID] && member[s.PPID] && !excluded(s) {
				member[s.PID], grown = true, true
			}
		}
	}
	var left []proc.Stat
	for _, s := range all {
		if member[s.PID] && s.State != 'Z' && s.State != 'X' {
			left = append(left, s)
		}
	}
	return left
}
