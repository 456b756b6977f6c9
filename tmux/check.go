package tmux

import (
	"errors"
	"fmt"
	"time"

	"cortex"
)

// Check says how tmux is, from memory: it asks nobody. That no server runs is in order, since the next start brings one.
func (c *Client) Check() cortex.Check {
	c.mu.Lock()
	a, last, sessions, closed := c.attempt, c.last, c.sessions, c.closed
	c.mu.Unlock()
	check := cortex.Check{Name: "tmux"}
	switch {
	case closed:
		check.Detail = "closed"
		check.Hint = "cortex is stopping"
		return check
	case a == nil:
		check.OK, check.Detail = true, "not used yet; the first start connects"
		return check
	}
	select {
	case <-a.ready:
	default:
		return connecting(check, a, last)
	}
	switch {
	case errors.Is(a.err, errNoServer):
		check.OK, check.Detail = true, "no server runs; the next start brings one"
	case errors.Is(a.err, ErrVersion):
		check.Detail = a.err.Error()
		check.Hint = "what runs, runs on; nothing starts until the tmux package of the server is back, or that server has ended: " +
			"let what runs end (or cancel it), then kill the server; both is noticed"
	case a.err != nil:
		check.Detail = a.err.Error()
		check.Hint = "try `tmux new-session -d` as the same user; look at ~/.tmux.conf, or set tmux.binary or tmux.socket"
	case a.conn.isOver():
		check.OK, check.Detail = true, fmt.Sprintf("the connection to server %d ended; the next start connects again", last.PID)
	default:
		return connected(check, a.conn, sessions)
	}
	return check
}

func connecting(check cortex.Check, a *attempt, last Server) cortex.Check {
	took := time.Since(a.since)
	check.OK = took < answerTimeout
	check.Detail = fmt.Sprintf("connecting for %s", took.Round(time.Second))
	if !check.OK {
		check.Hint = "a server that is stopped (kill -CONT), or a command in ~/.tmux.conf that does not end"
		if last.PID != 0 {
			check.Detail += fmt.Sprintf("; the last server was %d", last.PID)
		}
	}
	return check
}

func connected(check cortex.Check, conn *conn, sessions int) cortex.Check {
	check.OK = true
	check.Detail = fmt.Sprintf("server %d, version %s, %d sessions when last listed", conn.server.PID, conn.server.Version, sessions)
	if late := conn.overdue(); late > answerTimeout {
		check.OK = false
		check.Detail = fmt.Sprintf("server %d has not answered for %s", conn.server.PID, late.Round(time.Second))
		check.Hint = fmt.Sprintf("see what it does: ps -o pid,stat,wchan,cmd -p %d; where it is stopped: kill -CONT %d",
			conn.server.PID, conn.server.PID)
	} else if conn.exitUnattached {
		check.OK = false
		check.Detail += "; its option exit-unattached is on: dispatches end with it when cortex stops"
		check.Hint = "tmux set-option -s exit-unattached off, and out of ~/.tmux.conf; or give cortex a server of its own (tmux.socket)"
	}
	return check
}
