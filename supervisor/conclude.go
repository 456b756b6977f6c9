package supervisor

import (
	"errors"
	"io/fs"
	"time"

	"cortex/internal/fault"
	"cortex/runner"
	"cortex/runner/record"
	"cortex/tmux"
)

// conclude records how the dispatch ended. Nothing of it is left by then: its runner saw to that, or the daemon does now;
// its session is gone; and only then its end is written.
func (f *follower) conclude() {
	f.mu.Lock()
	f.ending = true
	f.mu.Unlock()
	f.settle() // its runner has ended, or is dead, or never was: nothing of it can start any more
	facts, ok := f.lastFacts()
	if f.claimed() == nil {
		f.setClaim(facts.Claim)
	}
	if !ok || !f.closeSession() {
		return
	}
	f.dropGroup(facts.Claim)
	end := outcome(facts)
	end.Event = endEvent(f.d, end, time.Now())
	fault.Point("finish.before")
	f.sup.leave(f, &end)
	if _, err := f.sup.store.Finish(f.sup.ctx, f.d.ID, end); err != nil {
		if f.sup.ctx.Err() == nil {
			f.log.Error("can't record an end; it stays in runs/ and is taken in at the next start", "err", err)
		}
		return
	}
	fault.Point("finish.after")
	f.sup.recorded(f.d.ID)
}

// lastFacts returns what is on record of the attempt, with an exit record or a verdict in it: where there is none the daemon
// sweeps what a dead runner left, and writes the verdict. It reports false when the daemon stops first.
func (f *follower) lastFacts() (runner.Facts, bool) {
	for {
		facts, err := f.mustLook()
		if unknown := facts.Unknown(); unknown != nil {
			f.unknown(unknown)
			if !f.wait(reconnectMax) {
				return facts, false
			}
			continue
		}
		if err == nil && (facts.Exit != nil || facts.Verdict != nil) {
			f.keepOrder(&facts)
			return facts, true
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = f.writeVerdict(facts)
		}
		if err != nil && !errors.Is(err, errRecorded) {
			f.setTrouble("its end can't be written: " + err.Error())
			f.log.Error("can't conclude a dispatch; trying again", "err", err)
			if !f.wait(time.Second) {
				return facts, false
			}
		}
	}
}

// keepOrder fills in a stop order that could not be written into runs/ (a full disk) and is known here or from the journal.
func (f *follower) keepOrder(facts *runner.Facts) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if facts.Order == nil {
		facts.Order = f.order
	}
}

// writeVerdict writes down how an attempt ended that left no exit record, once nothing of it is left.
func (f *follower) writeVerdict(facts runner.Facts) error {
	v := f.verdict
	if v == nil {
		var err error
		if v, err = f.lost(facts); err != nil {
			return err
		}
		f.verdict = v
	}
	v.Format = record.Format
	if v.At.IsZero() {
		v.At, v.Seconds = time.Now().UTC(), f.lived(facts)
	}
	dir, err := record.RemakeDir(f.sup.runs, f.d.ID, f.attempt)
	if err != nil {
		return err
	}
	defer dir.Close()
	fault.Point("verdict.write")
	return dir.Write(record.VerdictFile, v)
}

// lived is how long ago the agent started, in seconds; nil where it never did or that is unknown.
func (f *follower) lived(facts runner.Facts) *float64 {
	if facts.Started == nil {
		return nil
	}
	age, known := f.age(facts.Started.Agent)
	if !known {
		return nil
	}
	seconds := age.Seconds()
	return &seconds
}

// closeSession closes the dispatch's own session, and no other. It returns when tmux says that it is gone; where tmux does
// not answer it asks again. It reports false when the daemon stops first.
func (f *follower) closeSession() bool {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, reconnectMax) {
		err := f.killSession()
		if err == nil || errors.Is(err, tmux.ErrVersion) && f.runnerDead() {
			return true // a server that can't be asked closes a session by itself when the process in it has ended
		}
		f.setTrouble("its tmux session can't be closed: " + err.Error())
		f.log.Warn("can't close a session; trying again", "session", f.session.Name, "err", err)
		if !f.wait(pause) {
			return false
		}
	}
}

func (f *follower) runnerDead() bool {
	claim := f.claimed()
	return claim != nil && runner.Dead(claim.Runner)
}

// killSession closes the session. One that is not known (the start's reply was lost, or an earlier daemon opened it) is found
// by its tag, the attempt's folder.
func (f *follower) killSession() error {
	if f.session.ID != "" {
		return f.sup.tmux.Kill(f.sup.ctx, f.session)
	}
	sessions, err := f.sup.tmux.Sessions(f.sup.ctx)
	if err != nil {
		return err
	}
	for _, session := range sessions {
		if session.Tag == f.folder() {
			return f.sup.tmux.Kill(f.sup.ctx, session)
		}
	}
	return nil
}
