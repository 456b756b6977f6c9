package pane

import (
	"encoding/json"
	"fmt"
	"syscall"
	"time"

	"cortex/runner/record"
)

// retryEvery is how often what failed is tried again.
const retryEvery = time.Second

// maxSignal is the highest signal number of Linux.
const maxSignal = 64

// loop is all that happens between the agent's start and the end: one event after the other, none of which waits.
func (r *runner) loop() {
	for !r.ended {
		// A nil channel is never ready: nobody connects where there is no socket, and nothing is copied before the start.
		var joined, left chan *conn
		var calls chan call
		if r.control != nil {
			joined, left, calls = r.control.joined, r.control.left, r.control.calls
		}
		var gone chan struct{}
		var trouble chan error
		if r.copying != nil {
			gone, trouble = r.copying.gone, r.copying.trouble
		}
		select {
		case <-r.signals.child:
			r.reap()
			r.keepFrozen()
		case <-r.signals.size:
			r.resize()
		case <-r.signals.end:
			r.hangUp()
		case <-gone:
			r.copying.gone = nil
			r.hangUp()
		case err := <-trouble:
			r.logTrouble(err)
		case n := <-joined:
			r.control.join(n, r.message(0, ""))
		case n := <-left:
			r.control.leave(n)
		case l := <-calls:
			r.answer(l)
		case <-r.grace:
			r.grace = nil
			r.sweep()
		case <-r.retry:
			r.retry = nil
			r.again()
		case after := <-r.done:
			after()
		}
	}
}

// aside does work on a goroutine of its own, so that the loop goes on, and then after in the loop. The loop does not end
// before.
func (r *runner) aside(work, after func()) {
	go func() {
		work()
		r.done <- after
	}()
}

// enter changes the phase, and tells.
func (r *runner) enter(phase string) {
	if r.state.Phase != phase {
		r.state.Phase = phase
		r.say()
	}
}

// message is the present state as a line for the socket, in answer to the request seq where that is not 0.
func (r *runner) message(seq int64, refused string) []byte {
	if r.log != nil {
		r.state.OutputBytes, r.state.OutputLost = r.log.Bytes(), r.log.Lost()
	}
	state := r.state
	line, err := json.Marshal(record.Message{Format: record.Format, Seq: seq, Error: refused, State: &state})
	if err != nil {
		panic(err) // a State is strings and numbers: a bug
	}
	return append(line, '\n')
}

// say tells every connection the present state.
func (r *runner) say() {
	if r.control != nil {
		r.control.say(r.message(0, ""))
	}
}

// trouble tells what does not work, while all goes on.
func (r *runner) trouble(what string, err error) {
	r.state.Error = cut(what+": "+err.Error(), maxError)
	r.say()
}

// logTrouble tells that the log loses bytes, or no longer does.
func (r *runner) logTrouble(err error) {
	if err != nil {
		r.trouble("output log", err)
		return
	}
	r.state.Error = ""
	r.say()
}

// answer does what a request asks for, and replies with the state that comes of it.
func (r *runner) answer(l call) {
	refused := l.bad
	switch {
	case refused != "":
	case l.req.Op == record.OpFreeze || l.req.Op == record.OpThaw:
		r.changeFreeze(l) // which replies in its time
		return
	default:
		refused = r.do(l.req)
	}
	r.reply(l, refused)
}

func (r *runner) reply(l call, refused string) {
	// A connection that has been given up since takes no reply.
	if _, there := r.control.all[l.from]; there {
		l.from.send(r.message(l.req.Seq, refused))
	}
}

// do returns why the request is refused.
func (r *runner) do(q record.Request) (refused string) {
	if q.Signal < 0 || q.Signal > maxSignal {
		return fmt.Sprintf("no signal %d", q.Signal)
	}
	sig := syscall.Signal(q.Signal)
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	switch q.Op {
	case record.OpStatus:
	case record.OpStop:
		r.stop(sig, r.graceOf(q))
	case record.OpSignal:
		r.reap()
		if err := r.agent.signal(sig); err != nil {
			return fmt.Sprintf("%s: %v", sig, err)
		}
	default:
		return fmt.Sprintf("no operation %q", q.Op)
	}
	return ""
}

// graceOf is the request's grace; the spec's where it gives none, and none where it is negative.
func (r *runner) graceOf(q record.Request) time.Duration {
	ms := q.GraceMS
	if ms == 0 {
		ms = r.spec.GraceMS
	}
	return time.Duration(max(ms, 0)) * time.Millisecond
}
