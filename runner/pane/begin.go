package pane

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"cortex/internal/fault"
	"cortex/proc"
	"cortex/runner/record"
)

// begin does what has to be there before the agent, and starts it. Room for the exit record comes first: an agent whose
// end could not be recorded is not started. Whatever fails, the end of the attempt is then to be recorded.
func (r *runner) begin() {
	r.screen = openScreen()
	r.began = time.Now()
	r.cause = record.CauseExit
	r.openReady()
	room, err := r.dir.Reserve(record.ExitFile, record.ExitReserve)
	r.room = room
	control, lerr := listen(r.dir)
	r.control = control
	if err = errors.Join(err, lerr); err == nil {
		r.log, err = r.dir.CreateLog(r.spec.OutputMax)
	}
	if err == nil {
		err = r.start()
	}
	catchStrays()
	if err != nil {
		r.never(err)
		return
	}
	fault.Point("pane.started")
	r.unsaid = &record.Started{Format: record.Format, Agent: *r.state.Agent, TTY: r.state.TTY, At: r.state.StartedAt}
	r.sayStarted()
	if r.state.Phase = record.PhaseRunning; r.unsaid == nil {
		r.ready()
	}
}

// start starts the agent and the copying.
func (r *runner) start() error {
	p, err := openTerminal(r.size())
	if err != nil {
		return fmt.Errorf("open a pty: %w", err)
	}
	r.pty = p
	_ = proc.MarkSelf() // where it may not be, the daemon tells what a dead runner left by less
	pid, err := spawn(r.spec, r.environment(), p.tty, r.group, r.dropGroup)
	if err != nil {
		return err
	}
	r.began = time.Now()
	r.agent.pid = pid
	id, err := proc.Of(pid) // it can't be gone: only this goroutine reaps
	if err != nil {
		id = proc.Ident{PID: pid}
	}
	agent := identity(id)
	r.state.Agent, r.state.TTY, r.state.StartedAt = &agent, p.tty.Name(), r.began.UTC()
	r.copying = startCopying(p, r.log, r.screen, r.began)
	return nil
}

// never records that the agent was not started.
func (r *runner) never(err error) {
	if errors.Is(err, unix.EMFILE) {
		err = fmt.Errorf("%w: the limit on open files is too low where the tmux server was started (ulimit -n)", err)
	}
	now := time.Now()
	r.exit = &record.Exit{
		Format: record.Format, ID: r.opts.ID, Attempt: r.opts.Attempt,
		Cause: record.CauseSpawnError, Code: -1, Error: cut(err.Error(), maxError), Again: hostLacks(err),
		StartedAt: r.began.UTC(), EndedAt: now.UTC(), Seconds: now.Sub(r.began).Seconds(),
	}
	r.write()
}

// hostLacks reports whether the agent was not started for want of something that the host may have again: processes,
// memory, descriptors of the whole host, room on the disk or a pty.
func hostLacks(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOSPC)
}

// sayStarted writes started.json. The agent runs by then: where it can't be written the daemon learns from the socket, and
// it is tried again.
func (r *runner) sayStarted() {
	err := r.dir.Write(record.StartedFile, r.unsaid)
	if err != nil {
		r.state.Error = cut(err.Error(), maxError)
		r.retry = time.After(retryEvery)
		return
	}
	if r.state.Error != "" {
		r.state.Error = ""
		r.say()
	}
	r.unsaid = nil
	r.ready()
}
