package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"cortex"
	"cortex/cgroup"
	"cortex/proc"
	"cortex/runner"
	"cortex/runner/record"
)

// sweepLimit bounds one try to sweep what a dead runner left; what survives it is tried again.
const sweepLimit = 10 * time.Second

// lost sweeps what a runner left that died without an exit record, and returns the verdict. What is left alive is an error,
// and the caller tries again: as long as it lives the dispatch has not ended.
func (f *follower) lost(facts runner.Facts) (*record.Verdict, error) {
	if facts.Claim != nil && facts.Claim.Revoked {
		facts.Claim = nil // ours, in place of one that was removed
	}
	if facts.Claim == nil {
		facts.Claim = f.claimed()
	}
	order, _ := f.standing()
	if order == nil {
		order = facts.Order
	}
	v := &record.Verdict{Kind: verdictKind(order)}
	if facts.Claim == nil && f.hangUp() {
		return nil, errRecorded
	}
	switch damaged := facts.Damaged[record.ClaimFile]; {
	case facts.Claim == nil && damaged != nil:
		v.Detail = fmt.Sprintf("nobody answers, and who ran it can't be read: %v", damaged)
	case facts.Claim == nil:
		v.Detail = "its folder in runs/ was removed while it ran"
	case facts.Claim.Runner.Boot != proc.BootID():
		v.Detail, v.Proven = "the host was restarted while it ran", true
		return v, nil
	case facts.Claim.Runner.PIDNS != proc.PIDNamespace():
		v.Detail, v.Proven = "it ran in another container or pid namespace, which is gone", true
		return v, nil
	default:
		v.Detail = fmt.Sprintf("its runner (pid %d) died without an exit record", facts.Claim.Runner.PID)
		if damaged := facts.Damaged[record.ExitFile]; damaged != nil {
			v.Detail = fmt.Sprintf("how it ended can't be read: %v", damaged)
		}
	}
	proven, err := f.killGroup(facts.Claim)
	if err != nil {
		return nil, err
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
	if proven {
		v.Proven = true
		v.Detail += "; its control group was ended, and is empty"
		return v, nil
	}
	v.Detail += fmt.Sprintf("; %d processes that it left were ended (not proven to be all: without a runner and a control group, "+
		"one that has set its limit of file locks, its environment and its session anew can't be told)", len(swept.Killed))
	f.notProven(v.Detail)
	return v, nil
}

// errRecorded says that there is an exit record after all.
var errRecorded = errors.New("its runner has recorded its end meanwhile")

// hangUp closes the session of an attempt whose folder was removed: its runner, which can't be spoken to without that, then
// ends what runs, and records it in a folder that it makes anew. It reports whether that came.
func (f *follower) hangUp() bool {
	if err := f.killSession(); err != nil {
		f.log.Warn("can't close the session of a dispatch whose folder is gone", "err", err)
		return false
	}
	for wait := 10 * time.Millisecond; wait < hangUpPatience; wait *= 2 {
		if facts, err := runner.Look(f.sup.runs, f.d.ID, f.attempt); err == nil && facts.Exit != nil {
			return true
		}
		if !f.wait(wait) {
			return false
		}
	}
	return false
}

// hangUpPatience bounds the wait for a runner that was hung up: its grace for that, 3 s, and the sweep.
const hangUpPatience = 4 * time.Second

// killGroup ends all in the attempt's control group, and reports whether that is proof: that it had one, which is empty now.
// Processes that survive are an error.
func (f *follower) killGroup(claim *record.Claim) (bool, error) {
	group, ok := f.groupOf(claim)
	if !ok {
		return false, nil
	}
	if err := group.Kill(); err != nil {
		return false, fmt.Errorf("kill the control group of dispatch %d: %w", f.d.ID, err)
	}
	ctx, cancel := context.WithTimeout(f.sup.ctx, sweepLimit)
	defer cancel()
	if err := group.AwaitEmpty(ctx); err != nil {
		if members, merr := group.Members(); merr == nil && len(members) > 0 {
			f.survived(survivorsOf(members))
		}
		return false, fmt.Errorf("the control group of dispatch %d is not empty: %w", f.d.ID, err)
	}
	return true, group.Remove()
}

// groupOf is the control group that a claim names, where that is the attempt's: a record that an agent has forged is not
// followed to the group of somebody else.
func (f *follower) groupOf(claim *record.Claim) (*cgroup.Group, bool) {
	if claim == nil || filepath.Base(claim.Cgroup) != record.CgroupName(f.d.ID, f.attempt, claim.Runner.PID) {
		return nil, false
	}
	if _, here := runner.Ident(claim.Runner); !here {
		return nil, false
	}
	return cgroup.Find(claim.Cgroup)
}

// survivorsOf describes members of a group that took SIGKILL and are still there.
func survivorsOf(pids []int) []record.Survivor {
	var left []record.Survivor
	for _, pid := range pids {
		uid, err := proc.UID(pid)
		if err != nil {
			uid = -1
		}
		left = append(left, record.Survivor{PID: pid, UID: uid, Command: "unknown", Why: "alive after cgroup.kill; " + proc.WaitChannel(pid)})
	}
	return left
}

// dropGroup removes what an attempt that has ended left of its control group: an empty folder, where its runner was killed
// after the exit record.
func (f *follower) dropGroup(claim *record.Claim) {
	group, ok := f.groupOf(claim)
	if !ok {
		return
	}
	if err := group.Remove(); err != nil {
		f.log.Warn("a control group is left", "err", err)
	}
}

func (f *follower) notProven(detail string) {
	event := cortex.Event{
		Type: cortex.EventNotProven, Severity: cortex.Warning, DispatchID: &f.d.ID, BeadID: f.d.BeadID,
		Message: fmt.Sprintf("Dispatch %d (%s): %s", f.d.ID, f.d.BeadID, detail),
	}
	f.sup.write("not proven", f.d.ID, func(ctx context.Context) error { return f.sup.store.AddEvent(ctx, event) })
}

// folder is the path of the attempt's folder, whether it is there or not.
func (f *follower) folder() string {
	return filepath.Join(f.sup.runs, strconv.FormatInt(f.d.ID, 10), strconv.Itoa(f.attempt))
}

// maxLooks bounds how often a sweep lists all processes anew because one had gone before it could be asked whose it was.
const maxLooks = 50

func (f *follower) sweep(facts runner.Facts) (proc.Swept, error) {
	ctx, cancel := context.WithTimeout(f.sup.ctx, sweepLimit)
	defer cancel()
	t := traces{folder: "CORTEX_RUN_DIR=" + f.folder()}
	t.others, t.servers = f.others(facts.Claim)
	if c := facts.Claim; c != nil && !t.others[c.Runner.PID] {
		t.runner = proc.Ident{PID: c.Runner.PID, Start: c.Runner.Start}
	}
	if s := facts.Started; s != nil {
		t.agent = proc.Ident{PID: s.Agent.PID, Start: s.Agent.Start}
	}
	return proc.Sweep(ctx, func() ([]proc.Stat, error) {
		for look := 1; ; look++ {
			all, err := proc.All()
			if err != nil {
				return nil, err
			}
			gone := false
			left := leftOf(all, t, func(pid int) bool {
				has, err := t.on(pid)
				gone = gone || errors.Is(err, proc.ErrGone)
				return has
			})
			if len(left) > 0 || !gone || look == maxLooks {
				return left, nil
			}
		}
	}, nil)
}

// others are the processes that are certainly not this dispatch's, whatever they have inherited: the daemon, the runners of
// other dispatches, and the tmux servers that they run on (one that was started from inside a dispatch has inherited
// from it for ever, and so have all its panes).
func (f *follower) others(claim *record.Claim) (others, servers map[int]bool) {
	others, servers = map[int]bool{proc.Self().PID: true}, map[int]bool{}
	server := func(c *record.Claim) {
		if pid, ok := runner.TmuxServer(*c); ok {
			servers[pid] = true
		}
	}
	if claim != nil {
		server(claim)
	}
	for _, o := range f.sup.followers() {
		if c := o.claimed(); o != f && c != nil {
			others[c.Runner.PID] = true
			server(c)
		}
	}
	return others, servers
}

// traces are what tells the processes of an attempt whose runner is dead.
type traces struct {
	runner  proc.Ident   // whose mark they have; zero where it is not known
	agent   proc.Ident   // whose session they may be in; zero where it is not known
	folder  string       // an entry of their environment
	others  map[int]bool // pids that are not theirs
	servers map[int]bool // pids of tmux servers, which are not theirs either, nor is anything below them
}

// on reports whether a process has inherited from the attempt. Another user's environment can't be read, and is no error.
func (t traces) on(pid int) (bool, error) {
	if t.runner.PID != 0 {
		if has, err := proc.HasMark(pid, t.runner); has || errors.Is(err, proc.ErrGone) {
			return has, err
		}
	}
	return proc.HasEnv(pid, t.folder)
}

// leftOf finds what is left of a dispatch whose runner is dead: its agent, the members of its agent's session, what has
// inherited from it, and all that descends from these. It is pure but for inherits, which looks into a process: into the
// youngest first, since what forks and exits all the time is among them.
func leftOf(all []proc.Stat, t traces, inherits func(pid int) bool) []proc.Stat {
	sessionIsOurs := t.agent.PID != 0
	for _, s := range all {
		if s.PID == t.agent.PID && s.Start != t.agent.Start {
			sessionIsOurs = false // the pid is another process's by now, and so is the session of that number
		}
	}
	excluded := maps.Clone(t.others)
	maps.Copy(excluded, t.servers)
	for _, s := range proc.Descendants(all, slices.Collect(maps.Keys(t.servers))...) {
		excluded[s.PID] = true
	}
	member := map[int]bool{}
	youngestFirst := func(a, b proc.Stat) int { return cmp.Compare(b.Start, a.Start) }
	for _, s := range slices.SortedFunc(slices.Values(all), youngestFirst) {
		if excluded[s.PID] || s.Start < t.runner.Start {
			continue
		}
		inSession := sessionIsOurs && s.SID == t.agent.PID && s.Start >= t.agent.Start
		member[s.PID] = s.Ident == t.agent || inSession || inherits(s.PID)
	}
	for grown := true; grown; {
		grown = false
		for _, s := range all {
			if !member[s.PID] && member[s.PPID] && !excluded[s.PID] {
				member[s.PID], grown = true, true
			}
		}
	}
	var left []proc.Stat
	for _, s := range all {
		if member[s.PID] && !s.Dead() {
			left = append(left, s)
		}
	}
	return left
}
