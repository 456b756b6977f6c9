package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cortex"
	"cortex/internal/fault"
	"cortex/runner"
	"cortex/runner/record"
	"cortex/tmux"
)

const (
	// askPatience bounds a question to a runner, which answers at once unless it is stopped.
	askPatience = 2 * time.Second
	// reconnectMax is the longest pause between two tries to reach a runner that lives and does not answer.
	reconnectMax = 2 * time.Second
	// obeyPatience is how long beyond the grace a runner may take to end what it was told to stop, before the daemon does it.
	obeyPatience = 5 * time.Second
	// sweepPatience is how long a sweep may take before its runner must have said that processes survive.
	sweepPatience = 30 * time.Second
)

// follower is the one goroutine of a dispatch that lives. Its fields belong to that goroutine, but for those said to be
// guarded.
type follower struct {
	sup     *Supervisor
	d       cortex.Dispatch
	attempt int
	log     *slog.Logger

	session  tmux.Session
	unopened bool          // its start has surely opened no session
	timeout  time.Duration // 0: none
	verdict  *record.Verdict
	started  bool // its process is on its way into the database
	cut      bool // it runs, and its runner can't be spoken to: its folder was removed

	agent    *record.Process // once it is known
	reported map[string]bool // files of the attempt that are damaged and were told of

	startCtx context.Context // ends when the start is to be given up; its cause says why
	giveUp   context.CancelCauseFunc
	poke     chan struct{} // an order is there
	settled  chan struct{} // closed when it has a process, or was given back, or has ended
	settle   func()
	gone     chan struct{} // closed when nothing of it is left

	byHand   sync.Once  // a stop by hand is carried out once
	ordering sync.Mutex // held while an order is put on record
	recorded string     // guarded by ordering; where the standing order is on record
	freezing sync.Mutex // held while it is being frozen or thawed

	mu      sync.Mutex
	order   *record.Order // guarded by mu; the stop that is on record
	claim   *record.Claim // guarded by mu
	view    cortex.Stage  // guarded by mu
	ending  bool          // guarded by mu; its end is being recorded: orders come too late
	trouble string        // guarded by mu; what keeps it from ending, for /health

	freeze     *record.Freeze // guarded by mu; nil where it never was frozen
	freezeSure bool           // guarded by mu; the runner itself has said so
}

func newFollower(s *Supervisor, d cortex.Dispatch, attempt int) *follower {
	f := &follower{
		sup: s, d: d, attempt: attempt, log: s.log.With("dispatch", d.ID, "attempt", attempt),
		poke: make(chan struct{}, 1), settled: make(chan struct{}), gone: make(chan struct{}), view: d.Stage,
		reported: map[string]bool{},
	}
	f.settle = sync.OnceFunc(func() { close(f.settled) })
	f.startCtx, f.giveUp = context.WithCancelCause(s.ctx)
	return f
}

func (f *follower) attempted() cortex.Attempt {
	return cortex.Attempt{Dispatch: f.d, Number: f.attempt}
}

func (f *follower) stage() cortex.Stage {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view
}

func (f *follower) setClaim(c *record.Claim) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.claim = c
}

func (f *follower) claimed() *record.Claim {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.claim
}

func (f *follower) limits(spec record.Spec) {
	f.timeout = time.Duration(spec.TimeoutMS) * time.Millisecond
}

// wait waits, and reports false when the daemon stops meanwhile.
func (f *follower) wait(d time.Duration) bool { return f.sup.wait(d) }

// run is the follower's life: begin brings it to a point from which it can be followed.
func (f *follower) run(begin func(*follower) bool) {
	defer f.giveUp(nil)
	defer f.settle()
	if !begin(f) {
		return
	}
	if f.verdict == nil && !f.cut && !f.follow() {
		return
	}
	if why := f.again(); why != "" {
		f.log.Error("a start failed", "err", why)
		f.sup.tellFailed(errors.New(why))
		f.giveBack(why)
		return
	}
	f.conclude()
}

// again is why a runner has started nothing, where that was for want of something that the host may have again; else "".
func (f *follower) again() string {
	facts, err := f.mustLook()
	if err != nil || facts.Exit == nil || !facts.Exit.Again {
		return ""
	}
	return facts.Exit.Error
}

// link is what a follower has of its runner at the moment.
type link struct {
	conn   *runner.Conn
	states <-chan record.State
	pause  time.Duration // before the next try to connect
	retry  *time.Timer

	limit    *time.Timer     // fires when the dispatch has used up its time
	limitFor *record.Process // whose time that is
	limitAt  *record.Freeze  // the freezes that it takes into account
	claimed  *time.Timer     // fires when a start that was given up has been claimed for too long without a process
	takeover *time.Timer     // fires when a stop has not been obeyed
	ordered  *record.Order   // the order that the runner behind conn has taken
	pressed  *record.Order   // the order for which takeover runs
}

// follow stays with the runner until it has ended. It reports false when the daemon stops first.
func (f *follower) follow() bool {
	l := &link{retry: time.NewTimer(0), limit: newStopped(), claimed: newStopped(), takeover: newStopped()}
	defer l.close()
	givenUp := f.startCtx.Done()
	for {
		select {
		case <-givenUp:
			givenUp = nil
			l.claimed.Reset(claimPatience)
		case <-l.claimed.C:
			f.endUnsettled(l)
		case <-l.retry.C:
			if ended := f.reach(l); ended {
				return true
			}
			f.obey(l)
		case st, ok := <-l.states:
			if !ok { // the runner's end, or its death
				l.drop()
				l.retry.Reset(0)
				continue
			}
			f.saw(l, st)
		case <-f.poke:
			f.setLimit(l)
			f.obey(l)
		case <-l.limit.C:
			f.timeUp(l)
		case <-l.takeover.C:
			f.takeOver(l)
		case <-f.sup.ctx.Done():
			return false
		}
	}
}

func newStopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

func (l *link) drop() {
	if l.conn != nil {
		l.conn.Close() // whatever it says, there is nothing more to do with it
	}
	l.conn, l.states, l.ordered = nil, nil, nil
}

func (l *link) close() {
	l.drop()
	l.retry.Stop()
	l.limit.Stop()
	l.claimed.Stop()
	l.takeover.Stop()
}

// saw takes in what the runner says of itself.
func (f *follower) saw(l *link, st record.State) {
	if f.claimed() == nil {
		f.setClaim(&record.Claim{Runner: st.Runner, Session: st.Session}) // its file is damaged
	}
	f.sawFreeze(st.Freeze, true)
	if st.Agent != nil && !f.started {
		f.hasProcess(st)
	}
	f.setLimit(l)
	switch st.Phase {
	case record.PhaseStuck:
		f.survived(st.Survivors)
		l.takeover.Stop() // it does what can be done
	case record.PhaseWriting:
		f.setTrouble("its exit record can't be written: " + st.Error)
		l.takeover.Stop()
		f.settle()
	case record.PhaseSweeping:
		f.setTrouble("")
		if l.pressed != nil {
			l.takeover.Reset(sweepPatience)
		}
	case record.PhaseEnded:
		f.settle()
	}
}

// hasProcess records the agent's process, its pty and its session in one update.
func (f *follower) hasProcess(st record.State) {
	f.started, f.agent = true, st.Agent
	f.setStage(cortex.StageRunning)
	f.settle()
	pid, tty, session := int64(st.Agent.PID), st.TTY, st.Session
	fault.Point("follow.started")
	f.sup.write("start", f.d.ID, func(ctx context.Context) error {
		return f.sup.store.Started(ctx, f.d.ID, f.attempt, pid, tty, session)
	})
}

// age is how long ago a process on record started; false where it was in another boot, since nobody knows how long the host
// was off.
func (f *follower) age(p record.Process) (time.Duration, bool) {
	id, here := runner.Ident(p)
	if !here {
		return 0, false
	}
	age, err := id.Age()
	if err != nil {
		f.log.Warn("can't read the boot clock", "err", err)
	}
	return age, err == nil
}

func (f *follower) setStage(s cortex.Stage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.order == nil || s == cortex.StageCancelFailed { // a stop that is on record stays the stage
		f.view = s
	}
}

func (f *follower) setTrouble(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trouble = text
}

// survived says that processes of the dispatch can't be killed: an error, and still running.
func (f *follower) survived(left []record.Survivor) {
	text := ""
	for _, p := range left {
		text += fmt.Sprintf("; pid %d (uid %d) %s: %s", p.PID, p.UID, p.Command, p.Why)
	}
	f.mu.Lock()
	first := f.view != cortex.StageCancelFailed
	f.view = cortex.StageCancelFailed
	f.trouble = "processes survive SIGKILL" + text
	f.mu.Unlock()
	if !first {
		return
	}
	event := cortex.Event{
		Type: cortex.EventCancelFailed, Severity: cortex.Err, DispatchID: &f.d.ID, BeadID: f.d.BeadID,
		Message: fmt.Sprintf("Dispatch %d (%s): processes survive and are tried again%s", f.d.ID, f.d.BeadID, text),
	}
	f.sup.write("survivors", f.d.ID, func(ctx context.Context) error {
		return f.sup.store.SetStage(ctx, f.d.ID, cortex.StageCancelFailed, &event)
	})
}
