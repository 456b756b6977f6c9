package pane

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cortex/internal/fault"
	"cortex/proc"
	"cortex/runner/record"
)

// Bounds that keep an exit record below its reserve however its strings are escaped.
const (
	maxError  = 512 // bytes
	maxListed = 20  // processes
)

// again tries again what failed.
func (r *runner) again() {
	switch {
	case r.state.Phase == record.PhaseStuck:
		r.sweep()
	case r.exit != nil:
		if r.control == nil {
			if c, err := listen(r.dir); err == nil { // else the record's own error is the one to tell
				r.control = c
			}
		}
		r.write()
	default:
		if r.unsaid != nil {
			r.sayStarted()
		}
		if r.freezer.unsaid {
			r.writeFreeze()
		}
	}
}

// finish takes in the last of what was said, and goes on to write the exit record. Nothing of the agent is left.
func (r *runner) finish() {
	r.enter(record.PhaseSweeping)
	var err error
	r.aside(func() { err = r.copying.finish() }, func() {
		r.copying.trouble = nil
		if err != nil {
			r.trouble("output log", err)
		}
		r.exit = r.exitRecord()
		r.write()
	})
}

// exitRecord is how the agent ended.
func (r *runner) exitRecord() *record.Exit {
	r.agent.mu.Lock()
	defer r.agent.mu.Unlock()
	a := &r.agent
	e := &record.Exit{
		Format: record.Format, ID: r.opts.ID, Attempt: r.opts.Attempt, Cause: r.cause,
		Code: a.status.ExitStatus(), // -1 where a signal did it
		Core: a.status.CoreDump(),

		StartedAt: r.state.StartedAt, EndedAt: a.at.UTC(), Seconds: a.at.Sub(r.began).Seconds(),

		OutputBytes: r.log.Bytes(), OutputCut: r.log.Cut(), OutputLost: r.log.Lost(),
		MaxRSSKiB:  a.usage.Maxrss,
		CPUSeconds: time.Duration(a.usage.Utime.Nano() + a.usage.Stime.Nano()).Seconds(),
	}
	if a.status.Signaled() {
		e.Signal = int(a.status.Signal())
	}
	byStart := func(a, b proc.Ident) int { return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.PID, b.PID)) }
	for _, id := range slices.SortedFunc(maps.Keys(r.swept), byStart) {
		if len(e.Swept) == maxListed {
			e.SweptMore = len(r.swept) - maxListed
			break
		}
		e.Swept = append(e.Swept, fmt.Sprintf("%d %s", id.PID, strings.ToValidUTF8(r.swept[id].Comm, "?")))
	}
	return e
}

// write writes the exit record, and tries again until it can: nobody else knows how the agent ended.
func (r *runner) write() {
	var err error
	r.aside(func() { err = r.writeExit() }, func() {
		r.state.Exit = r.exit
		if err == nil {
			fault.Point("pane.exited")
			r.state.Error = ""
			r.ended = true
			r.enter(record.PhaseEnded)
			r.ready()
			return
		}
		failed := cut("exit record: "+err.Error(), maxError)
		if r.state.Phase != record.PhaseWriting || r.state.Error != failed {
			r.state.Phase, r.state.Error = record.PhaseWriting, failed
			r.say()
		}
		r.ready()
		r.retry = time.After(retryEvery)
	})
}

// writeExit does not run in the loop, which leaves folder and room alone meanwhile.
func (r *runner) writeExit() error {
	fault.Point("pane.exit")
	if err := fault.Err("pane.exit.write"); err != nil {
		return err
	}
	if r.dir.Gone() { // somebody has removed it, and our room with it; the socket keeps the old one
		dir, err := record.RemakeDir(r.opts.Runs, r.opts.ID, r.opts.Attempt)
		if err != nil {
			return err
		}
		r.dir = dir
		if err := r.closeRoom(); err != nil {
			return err
		}
	}
	if r.room == nil {
		room, err := r.dir.Reserve(record.ExitFile, record.ExitReserve)
		if err != nil {
			return err
		}
		r.room = room
	}
	return r.room.Write(r.exit)
}

func (r *runner) closeRoom() error {
	if r.room == nil {
		return nil
	}
	err := r.room.Close()
	r.room = nil
	return err
}

// close gives all back. The record is written: an error is for whoever reads the pane.
func (r *runner) close() error {
	var err error
	if r.control != nil {
		err = r.control.close()
	}
	if r.copying == nil && r.log != nil {
		err = errors.Join(err, r.log.Close())
	}
	if r.pty != nil {
		err = errors.Join(err, r.pty.close())
	}
	err = errors.Join(err, r.screen.close())
	if r.copying != nil {
		r.copying.close()
	}
	return errors.Join(err, r.closeRoom(), r.removeGroup(), r.dir.Close())
}

// cut shortens s to n bytes, and makes it UTF-8.
func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n-len("…")] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
