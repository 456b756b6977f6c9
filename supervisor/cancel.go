package supervisor

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"cortex"
	"cortex/internal/fault"
	"cortex/runner"
	"cortex/runner/record"
	"cortex/store"
)

// Errors of Cancel.
var (
	ErrNotLive = errors.New("it does not live")
	ErrEnding  = errors.New("it has just ended")
)

// Cancel orders a dispatch to be stopped. It returns when the order is on record, and says where; the stop itself goes on,
// and Gone tells when nothing is left. A second order can only shorten the grace. The order takes effect also where it could
// not be recorded: then the error says so.
func (s *Supervisor) Cancel(ctx context.Context, id int64, order record.Order) (recorded string, err error) {
	f := s.follower(id)
	if f == nil {
		return "", ErrNotLive
	}
	return f.stop(ctx, order)
}

// Grace is the dispatch's own grace.
func (s *Supervisor) Grace(id int64) (time.Duration, error) {
	spec, err := runner.Spec(s.runs, id)
	return time.Duration(spec.GraceMS) * time.Millisecond, err
}

func (f *follower) stop(ctx context.Context, order record.Order) (recorded string, err error) {
	f.ordering.Lock()
	defer f.ordering.Unlock()
	before, ending := f.standing()
	switch {
	case ending:
		return "", ErrEnding
	case before != nil && before.GraceMS <= order.GraceMS:
		return f.recorded, nil
	case before != nil: // the first one's reason stays
		shorter := *before
		shorter.GraceMS = order.GraceMS
		order = shorter
	}
	order.Format = record.Format
	fault.Point("cancel.order")
	f.recorded, err = f.record(ctx, order)
	fault.Point("cancel.recorded")
	if errors.Is(err, store.ErrNotRunning) {
		switch _, ending := f.standing(); {
		case ending:
			return "", ErrEnding
		case f.left(): // its start was given back meanwhile: another one may have it already
			return "", ErrNotLive
		}
	}
	if err != nil {
		f.log.Error("a stop order is not on record; it is carried out all the same", "err", err)
	}
	f.mu.Lock()
	f.order, f.view = &order, cortex.StageCancelling
	f.mu.Unlock()
	f.giveUp(errStopOrder)
	f.wake()
	return f.recorded, err
}

// wake makes the follower look at its order. It never waits: a word that is already there is enough.
func (f *follower) wake() {
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

// left reports whether it is taken out of what lives.
func (f *follower) left() bool {
	select {
	case <-f.gone:
		return true
	default:
		return false
	}
}

func (f *follower) standing() (order *record.Order, ending bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.order, f.ending
}

// record makes an order durable before its first effect: in runs/, and in the database or, where that is locked, in the stop
// journal. On a full disk the journal alone has room.
func (f *follower) record(ctx context.Context, order record.Order) (string, error) {
	if err := f.writeOrder(order); err != nil {
		f.log.Warn("can't write a stop order into runs/; the database or the stop journal has it", "err", err)
	}
	event := cortex.Event{
		Type: cortex.EventDispatchCancelling, Severity: cortex.Info, DispatchID: &f.d.ID, BeadID: f.d.BeadID,
		Message: fmt.Sprintf("Dispatch %d (%s) is being stopped: %s", f.d.ID, f.d.BeadID, order.Reason),
	}
	return f.sup.store.OrderStop(ctx, f.d.ID, f.attempt, order, event)
}

func (f *follower) writeOrder(order record.Order) error {
	dir, err := record.RemakeDir(f.sup.runs, f.d.ID, f.attempt)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Write(record.OrderFile, order)
}

// timeUp stops a dispatch that has used up its time.
func (f *follower) timeUp(l *link) {
	if left, known := f.timeLeft(); known && left > 0 { // it was frozen meanwhile
		l.limitFor = nil
		f.setLimit(l)
		return
	}
	spec, err := runner.Spec(f.sup.runs, f.d.ID)
	if err != nil {
		f.log.Warn("can't read the grace of a dispatch; it gets none", "err", err)
	}
	_, err = f.stop(f.sup.ctx, record.Order{
		By: string(cortex.ByTimeout), Reason: fmt.Sprintf("it ran longer than its timeout of %v", f.timeout),
		GraceMS: spec.GraceMS, At: time.Now().UTC(),
	})
	if err != nil && !errors.Is(err, ErrEnding) && f.sup.ctx.Err() == nil {
		f.log.Error("a timeout is not on record", "err", err)
	}
	f.obey(l)
}

// obey passes the order on record to the runner. One that does not take it is woken, should somebody have stopped it; if
// that does not help takeOver follows.
func (f *follower) obey(l *link) {
	order, _ := f.standing()
	if order == nil || order == l.ordered {
		return
	}
	grace := time.Duration(order.GraceMS) * time.Millisecond
	if l.pressed != order {
		l.pressed = order
		l.takeover.Reset(grace + obeyPatience)
	}
	err := runner.ErrGone
	if l.conn != nil {
		ctx, cancel := context.WithTimeout(f.sup.ctx, askPatience)
		defer cancel()
		fault.Point("cancel.effect")
		err = l.conn.Stop(ctx, syscall.SIGTERM, grace)
	}
	switch {
	case err == nil:
		l.ordered = order
	case errors.Is(err, runner.ErrGone), errors.Is(err, runner.ErrSilent):
		f.signalRunner(syscall.SIGCONT)
	default:
		f.log.Error("the runner refuses to stop", "err", err)
	}
}

// takeOver ends a runner that does not do what it was told, so that the daemon can do it. Its agent dies with it
// (PR_SET_PDEATHSIG); what else is left of the tree is swept as after a runner's death.
func (f *follower) takeOver(l *link) {
	f.log.Error("a runner does not obey; ending it")
	f.signalRunner(syscall.SIGKILL)
	l.drop()
	l.retry.Reset(0)
}

// endUnsettled ends a runner that has claimed its attempt and has no process, though the start was given up long ago: a
// pause waits for it.
func (f *follower) endUnsettled(l *link) {
	select {
	case <-f.settled:
	default:
		f.takeOver(l)
	}
}

func (f *follower) signalRunner(sig syscall.Signal) {
	claim := f.claimed()
	if claim == nil {
		return
	}
	id, here := runner.Ident(claim.Runner)
	if !here {
		return
	}
	if err := id.Signal(sig); err != nil {
		f.log.Warn("can't signal the runner", "pid", id.PID, "signal", sig, "err", err)
	}
}
