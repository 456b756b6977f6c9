package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cortex"
	"cortex/proc"
	"cortex/runner"
	"cortex/runner/record"
)

// Errors of Freeze, beside ErrNotLive and ErrEnding.
var (
	ErrNoProcess = errors.New("it has no process yet")
	ErrStopped   = errors.New("it is being stopped")
)

// FreezeOrder is the word to freeze a dispatch, or to let it go on.
type FreezeOrder struct {
	Thaw   bool
	By     string
	Via    string
	Reason string
}

// freezePatience bounds an order to freeze: longer than the runner's own bound, so that its answer is known.
const freezePatience = 7 * time.Second

// Freeze freezes a dispatch or lets it go on, and returns when its whole tree has stopped, or runs. What is so already stays as
// it is, without an event. Errors: ErrNotLive, ErrNoProcess, ErrStopped, ErrEnding, runner.ErrOld; others say why it can't be
// done. A stop goes before: it ends a freeze that is under way.
func (s *Supervisor) Freeze(ctx context.Context, id int64, o FreezeOrder) error {
	f := s.follower(id)
	if f == nil {
		return ErrNotLive
	}
	f.freezing.Lock() // until it is told: the audit trail has freezes and thaws in their order
	defer f.freezing.Unlock()
	changed, err := f.changeFreeze(ctx, o)
	if changed {
		f.tellFreeze(o)
	}
	return err
}

func (f *follower) changeFreeze(ctx context.Context, o FreezeOrder) (changed bool, err error) {
	if err := f.mayFreeze(); err != nil {
		return false, err
	}
	claim := f.claimed()
	if claim == nil {
		return false, ErrNoProcess
	}
	if err := f.sup.mayConnect(); err != nil {
		return false, err
	}
	defer f.sup.connected()
	op := record.OpFreeze
	if o.Thaw {
		op = record.OpThaw
	}
	ctx, cancel := context.WithTimeout(ctx, freezePatience)
	defer cancel()
	was, is, err := runner.Freeze(ctx, f.sup.runs, f.d.ID, f.attempt, claim.Runner, op)
	if is.Attempt != 0 {
		f.sawFreeze(is.Freeze, true)
		f.wake()
	}
	if err != nil {
		if now := f.mayFreeze(); now != nil {
			err = now
		} else if refused := new(runner.Refusal); errors.Is(err, runner.ErrGone) ||
			errors.As(err, &refused) && is.Phase != record.PhaseRunning {
			err = ErrEnding
		}
	}
	return was.Freeze.Frozen() != is.Freeze.Frozen(), err
}

func (f *follower) mayFreeze() error {
	switch order, ending := f.standing(); {
	case ending:
		return ErrEnding
	case order != nil || f.stage() == cortex.StageCancelFailed:
		return ErrStopped
	case f.stage() == cortex.StageStarting:
		return ErrNoProcess
	}
	return nil
}

// tellPatience is how long the answer to a freeze waits for its event: whoever reads the audit trail next finds it there. The
// freeze itself needs no database.
const tellPatience = time.Second

func (f *follower) tellFreeze(o FreezeOrder) {
	event := cortex.Event{
		Type: cortex.EventDispatchFrozen, Severity: cortex.Info, DispatchID: &f.d.ID, BeadID: f.d.BeadID,
		Message: fmt.Sprintf("Dispatch %d (%s) was frozen by %s", f.d.ID, f.d.BeadID, o.By),
	}
	if o.Thaw {
		event.Type = cortex.EventDispatchThawed
		event.Message = fmt.Sprintf("Dispatch %d (%s) was thawed by %s", f.d.ID, f.d.BeadID, o.By)
	}
	if o.Reason != "" {
		event.Message += ": " + o.Reason
	}
	if data, err := json.Marshal(map[string]string{"by": o.By, "via": o.Via, "reason": o.Reason}); err == nil { // as strings do
		event.Details = string(data)
	}
	now := time.Now().UTC()
	event.CreatedAt = &now
	told := make(chan struct{})
	f.sup.write("freeze", f.d.ID, func(ctx context.Context) error {
		defer close(told)
		return f.sup.store.AddEvent(ctx, event)
	})
	select {
	case <-told:
	case <-time.After(tellPatience):
	}
}

// sawFreeze takes in what is said of a freeze: the newest of what the runner itself says, and what its file says for as long as
// it says nothing.
func (f *follower) sawFreeze(said *record.Freeze, byRunner bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	newer := said != nil && (f.freeze == nil || said.Changes > f.freeze.Changes)
	switch {
	case byRunner && (newer || !f.freezeSure):
		f.freeze, f.freezeSure = said, true
	case !byRunner && !f.freezeSure:
		f.freeze = said
	}
}

// adopted makes a follower of what an earlier daemon started. Whether it is frozen is known before anybody can ask; what else
// there is to know, and what can't be read, is for adopt.
func adopted(s *Supervisor, d cortex.Dispatch, attempt int) *follower {
	f := newFollower(s, d, attempt)
	dir, err := record.OpenDir(s.runs, d.ID, attempt)
	if err != nil {
		return f
	}
	defer dir.Close()
	freeze := new(record.Freeze)
	if dir.Read(record.FreezeFile, freeze) == nil {
		f.sawFreeze(freeze, false)
	}
	return f
}

func (f *follower) frozen() *record.Freeze {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.freeze
}

// frozenSince is when the dispatch was frozen; nil where it is not.
func (f *follower) frozenSince() *time.Time {
	if freeze := f.frozen(); freeze.Frozen() {
		return &freeze.Since
	}
	return nil
}

// timeLeft is what is left of the timeout: time spent frozen is not used. False where it is not known, since the agent is of
// another boot or has no timeout.
func (f *follower) timeLeft() (time.Duration, bool) {
	if f.timeout == 0 || f.agent == nil {
		return 0, false
	}
	used, known := f.age(*f.agent)
	if freeze := f.frozen(); freeze != nil {
		used -= time.Duration(freeze.TotalMS) * time.Millisecond
		if freeze.Frozen() {
			now, _ := proc.Uptime() // age has read that clock
			used -= now - time.Duration(freeze.SinceMS)*time.Millisecond
		}
	}
	return f.timeout - used, known
}

// setLimit sets the clock of the timeout, where anything has changed: it stands still while the dispatch is frozen.
func (f *follower) setLimit(l *link) {
	freeze := f.frozen()
	if f.timeout == 0 || f.agent == nil || l.limitFor == f.agent && l.limitAt == freeze {
		return
	}
	l.limitFor, l.limitAt = f.agent, freeze
	if freeze.Frozen() {
		l.limit.Stop()
		return
	}
	left, known := f.timeLeft()
	if !known {
		left = f.timeout // it counts from now
	}
	l.limit.Reset(max(0, left))
}
