package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"cortex"
	"cortex/internal/fault"
	"cortex/internal/rlimit"
	"cortex/runner"
	"cortex/runner/record"
	"cortex/store"
)

// adopters is how many folders of runs/ are read at a time.
const adopters = 8

// errNoClaim is why an attempt is taken back that nobody had claimed when the daemon started.
var errNoClaim = errors.New("the daemon ended before a runner had claimed it")

// AdoptLive follows what runs/ shows to be alive, without the database: for a daemon that starts while that is locked, so
// that it knows what lives. Adopt does the rest when the database opens.
func (s *Supervisor) AdoptLive() error {
	ids, err := runner.List(s.runs)
	if err != nil {
		return fmt.Errorf("list runs: %w", err)
	}
	orders := s.store.JournalOrders()
	s.each(ids, func(id int64) error {
		attempt, err := s.latest(id)
		if err != nil || attempt == 0 {
			return err
		}
		facts, err := runner.Look(s.runs, id, attempt)
		if err != nil || facts.Exit != nil || facts.Verdict != nil ||
			facts.Claim != nil && (facts.Claim.Revoked || runner.Dead(facts.Claim.Runner)) {
			return err // it does not live; without a claim it may begin to, unless it is given back
		}
		spec, err := runner.Spec(s.runs, id)
		if err != nil {
			return err
		}
		d := store.RowOf(spec)
		d.Status, d.Stage = cortex.Running, cortex.StageStarting
		f := adopted(s, d, attempt)
		f.order = orders[id]
		s.follow(f, (*follower).adopt)
		return nil
	})
	return nil
}

// Adopt takes in what runs/ knows and the database does not, and follows what the database calls running. A folder that
// can't be understood is reported and left as it is; it never stops the rest.
func (s *Supervisor) Adopt(ctx context.Context) error {
	fault.Point("adopt.begin")
	ids, err := runner.List(s.runs)
	if err != nil {
		return fmt.Errorf("list runs: %w", err)
	}
	if err := s.store.SettleByHand(ctx); err != nil {
		return err
	}
	rows, err := s.store.Statuses(ctx)
	if err != nil {
		return err
	}
	forgotten, err := s.store.Forgotten(ctx)
	if err != nil {
		return err
	}
	running, err := s.store.Running(ctx)
	if err != nil {
		return err
	}
	orders, err := s.store.StopOrders(ctx)
	if err != nil {
		return err
	}
	known := map[int64]cortex.Dispatch{}
	for _, d := range running {
		known[d.ID] = d
		if d.Accepted && !slices.Contains(ids, d.ID) {
			ids = append(ids, d.ID) // its folder is gone; it can't run any more
		}
	}
	sessions := s.sessions(ctx)
	s.each(ids, func(id int64) error {
		status, inTable := rows[id]
		switch {
		case s.store.Fresh(id):
			return nil // it is being submitted, and was not there when the rows were read
		case !inTable && forgotten[id]:
			return nil
		case !inTable:
			return s.restore(ctx, id, sessions[id])
		case status == cortex.Pending || status == cortex.PendingRetry:
			return s.adoptPending(ctx, id)
		case status == cortex.Running:
			return s.adoptRunning(known[id], orders[id])
		case sessions[id]:
			return s.adoptEndedByHand(ctx, id)
		}
		return nil
	})
	s.store.TakenIn()
	return nil
}

// each runs fn for every id, some at a time, and reports what fails. What fails for want of descriptors is done again.
func (s *Supervisor) each(ids []int64, fn func(int64) error) {
	slices.Sort(ids)
	todo := make(chan int64)
	var wg sync.WaitGroup
	for range adopters {
		wg.Go(func() {
			for id := range todo {
				err := fn(id)
				for rlimit.Scarce(err) && s.wait(100*time.Millisecond) {
					err = fn(id)
				}
				if err != nil {
					s.unreadable(id, err)
				}
			}
		})
	}
	for _, id := range ids {
		todo <- id
	}
	close(todo)
	wg.Wait()
}

func (s *Supervisor) unreadable(id int64, err error) {
	s.log.Error("can't take in a folder of runs/", "dispatch", id, "err", err)
	event := cortex.Event{
		Type: cortex.EventRunUnreadable, Severity: cortex.Err, DispatchID: &id,
		Message: fmt.Sprintf("runs/%d can't be taken in and is left as it is: %v", id, err),
	}
	s.write("unreadable run", id, func(ctx context.Context) error { return s.store.AddEvent(ctx, event) })
}

// latest is the number of the newest attempt that has a folder, 0 where there is none.
func (s *Supervisor) latest(id int64) (int, error) {
	attempts, err := runner.Attempts(s.runs, id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, err
	case len(attempts) == 0:
		return 0, nil
	}
	return slices.Max(attempts), nil
}

// restore takes in a dispatch whose row is not in the database: that is an older backup, or it ended between the commit of a
// crash and now. What was never committed was never answered, and is removed.
func (s *Supervisor) restore(ctx context.Context, id int64, hasSession bool) error {
	spec, err := runner.Spec(s.runs, id)
	if errors.Is(err, fs.ErrNotExist) {
		return s.store.Discard(id)
	}
	if err != nil {
		return err
	}
	attempt, begun, err := s.begun(id)
	if err != nil {
		return err
	}
	status := cortex.Pending
	if begun {
		status = cortex.Running
	}
	d, err := s.store.Restore(ctx, spec, attempt, status)
	if err != nil {
		return err
	}
	if begun && !hasSession {
		if facts, err := runner.Look(s.runs, id, attempt); err == nil && (facts.Exit != nil || facts.Verdict != nil) {
			return s.restoreEnd(ctx, d, facts)
		}
	}
	if begun {
		s.follow(adopted(s, d, attempt), (*follower).adopt)
		return nil
	}
	return s.adoptPending(ctx, id)
}

// restoreEnd records the end of a dispatch of which nothing is left to follow: its runner or a daemon has seen to that before
// it wrote how it ended.
func (s *Supervisor) restoreEnd(ctx context.Context, d cortex.Dispatch, facts runner.Facts) error {
	end := outcome(facts)
	end.Event = endEvent(d, end, time.Now())
	_, err := s.store.Finish(ctx, d.ID, end)
	return err
}

// begun tells the newest attempt, and whether a runner has had it: a revoked one never ran, nor one that is to be started
// again.
func (s *Supervisor) begun(id int64) (attempt int, begun bool, err error) {
	attempt, err = s.latest(id)
	if err != nil || attempt == 0 {
		return attempt, false, err
	}
	facts, err := runner.Look(s.runs, id, attempt)
	return attempt, facts.Begun(), err
}

// adoptPending looks after a row that waits. runs/ may know better: an older backup was restored, or the daemon ended between
// two steps.
func (s *Supervisor) adoptPending(ctx context.Context, id int64) error {
	if err := s.store.FinishAccept(id); err != nil {
		return err
	}
	d, err := s.store.Get(ctx, id)
	if err != nil || !d.Accepted {
		return err
	}
	cancelled, err := s.cancelledBefore(id)
	if err != nil {
		return err
	}
	if cancelled != nil {
		_, _, err := s.store.CancelPending(ctx, id, cancelled.Actor)
		if errors.Is(err, store.ErrNotPending) {
			err = nil // the stop journal's order was faster
		}
		return err
	}
	attempt, begun, err := s.begun(id)
	if err != nil {
		return err
	}
	if err := s.store.FinishChange(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if attempt <= d.Attempts && !begun {
		spec, err := runner.Spec(s.runs, id)
		if err != nil {
			return err
		}
		return s.store.TakeChange(ctx, d, spec)
	}
	if attempt < d.Attempts || attempt == d.Attempts && d.Status == cortex.PendingRetry {
		return nil // an attempt that is accounted for
	}
	status := cortex.Pending
	if begun {
		status = cortex.Running
	}
	spec, err := runner.Spec(s.runs, id)
	if err != nil {
		return err
	}
	if d, err = s.store.Restore(ctx, spec, attempt, status); err != nil {
		return err
	}
	if begun {
		s.follow(adopted(s, d, attempt), (*follower).adopt)
	}
	return nil
}

func (s *Supervisor) cancelledBefore(id int64) (*record.Verdict, error) {
	dir, err := record.OpenDir(s.runs, id, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	v := new(record.Verdict)
	if err := dir.Read(record.CancelledFile, v); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return v, nil
}

// adoptRunning follows a row that the database calls running.
func (s *Supervisor) adoptRunning(d cortex.Dispatch, journalled *record.Order) error {
	attempt, err := s.latest(d.ID)
	if rlimit.Scarce(err) {
		return err
	}
	if err != nil {
		s.unreadable(d.ID, err) // followed all the same, by what its row says
	}
	f := adopted(s, d, max(attempt, d.Attempts))
	f.order = journalled
	s.follow(f, (*follower).adopt)
	return nil
}

// sessions are the ids of the dispatches that have a tmux session.
func (s *Supervisor) sessions(ctx context.Context) map[int64]bool {
	found := map[int64]bool{}
	all, err := s.tmux.Sessions(ctx)
	if err != nil {
		s.log.Warn("can't list tmux sessions", "err", err)
	}
	for _, session := range all {
		if id, ok := runner.TagID(s.runs, session.Tag); ok {
			found[id] = true
		}
	}
	return found
}

// adopt brings an attempt that an earlier daemon started to a point from which it can be followed.
func (f *follower) adopt() bool {
	facts, err := f.mustLook()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.sup.unreadable(f.d.ID, err)
	}
	if spec, err := runner.Spec(f.sup.runs, f.d.ID); err != nil {
		f.log.Warn("can't read the spec of a dispatch; its timeout is not known", "err", err)
	} else {
		f.limits(spec)
	}
	f.mu.Lock()
	if f.order == nil {
		f.order = facts.Order
	}
	ordered := f.order != nil
	if ordered {
		f.view = cortex.StageCancelling
	}
	f.mu.Unlock()
	if ordered {
		f.wake()
	}
	switch {
	case facts.Exit != nil || facts.Verdict != nil || facts.Damaged[record.ClaimFile] != nil:
		return true
	case facts.Claim == nil && f.d.PID != nil:
		// It had a process, so that its claim was removed: it can't be given back.
		return true
	case facts.Claim == nil || facts.Claim.Revoked:
		if ordered {
			f.giveUp(errStopOrder)
		}
		return f.resolve(errNoClaim)
	}
	f.setClaim(facts.Claim)
	if facts.Started != nil {
		f.settle()
	}
	return true
}
