package tmux

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// controlName is our own session's name, or how it begins.
const controlName = "cortex"

// establish connects. A server that was just about to end when we came is given up for the next one.
func (c *Client) establish(ctx context.Context, mayStart bool) (*conn, error) {
	for try := 1; ; try++ {
		there, err := c.reachable(ctx)
		if err == nil && !there {
			if err = c.restore(ctx); err == nil {
				there, err = c.reachable(ctx)
			}
		}
		if err != nil {
			return nil, err
		}
		if !there && !mayStart {
			return nil, errNoServer
		}
		conn, err := c.openAndAdopt(ctx, mayStart)
		if err == nil || try == 3 || ctx.Err() != nil {
			return conn, err
		}
		still, lookErr := c.reachable(ctx)
		if lookErr != nil || still == there {
			return nil, err
		}
	}
}

// mismatch is what a client says, and nothing else tells, when the server is of another version (tmux 3.3a, client.c: "protocol
// version mismatch (client 8, server 7)", exit status 1). Versions with the same protocol talk to each other.
const mismatch = "protocol version mismatch"

var opened atomic.Uint64

// openAndAdopt starts a client and waits for its first words; ctx is the Client's life, no caller's.
func (c *Client) openAndAdopt(ctx context.Context, mayStart bool) (*conn, error) {
	// Unique even where two processes of one pid, in two namespaces, share a server.
	name := fmt.Sprintf("%s-new-%d-%d-%x", controlName, os.Getpid(), opened.Add(1), time.Now().UnixNano()&0xffffff)
	conn, err := c.open(mayStart, name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := c.adopt(ctx, conn); err != nil {
		ended := conn.isOver()
		conn.close()
		switch {
		case ctx.Err() != nil:
			return nil, ErrClosed
		case ended && strings.Contains(conn.reason(), mismatch):
			return nil, fmt.Errorf("%w: %w (server %d%s)", ErrUnavailable, ErrVersion, c.listener(ctx), conn.reason())
		case ended:
			return nil, fmt.Errorf("%w: its client ended at once%s", ErrUnavailable, conn.reason())
		}
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = conn.server
	c.watch(conn.server, conn)
	c.log.Info("connected to tmux", "pid", conn.server.PID, "version", conn.server.Version, "socket", conn.socket)
	return conn, nil
}

// adopt asks the server who it is and gives the control session its name.
func (c *Client) adopt(ctx context.Context, conn *conn) error {
	if err := conn.awaitOpen(ctx); err != nil {
		return err
	}
	replies, err := conn.do(ctx, []string{"display-message", "-p",
		"#{pid}:#{version}:#{session_id}:#{exit-unattached}:#{@cortex_control}:#{@cortex}"},
		[]string{"display-message", "-p", "#{socket_path}"})
	if err != nil {
		return err
	}
	last := replies[len(replies)-1]
	if last.failed || len(replies) != 2 {
		return fmt.Errorf("%w: %s", ErrRefused, last.text())
	}
	fields := strings.SplitN(replies[0].text(), ":", 6)
	if len(fields) != 6 {
		return fmt.Errorf("tmux said %q of itself", replies[0].text())
	}
	if fields[4] != "on" || fields[5] != c.owner {
		return fmt.Errorf("the control client is in session %s, which is not its own: a hook in the tmux configuration moves it", fields[2])
	}
	if conn.server.PID, err = strconv.Atoi(fields[0]); err != nil {
		return fmt.Errorf("tmux said %q of itself", replies[0].text())
	}
	conn.server.Version, conn.session, conn.socket = fields[1], fields[2], replies[1].text()
	conn.exitUnattached = fields[3] == "1" || fields[3] == "on"
	if conn.server.Start, err = startTime(conn.server.PID); err != nil {
		c.log.Warn("can't read the start time of the tmux server", "pid", conn.server.PID, "err", err)
	}
	return c.name(ctx, conn)
}

// name renames the control session to cortex, or cortex-2 ... where that is taken. One that an earlier client of this owner
// left behind is ended first: there is one Client for an owner, and it has one connection.
func (c *Client) name(ctx context.Context, conn *conn) error {
	rows, err := list(ctx, conn)
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for _, r := range rows {
		if r.control && r.owner == c.owner && r.id != conn.session {
			if _, err := conn.do(ctx, []string{"kill-session", "-t", r.id}); err != nil {
				return err
			}
			continue
		}
		taken[r.name] = true
	}
	for n := 1; n < maxNames; n++ {
		name := numbered(controlName, n)
		if taken[name] {
			continue
		}
		replies, err := conn.do(ctx, []string{"rename-session", "-t", conn.session, name})
		if err != nil {
			return err
		}
		if !replies[0].failed {
			return nil
		}
		c.log.Info("the control session can't have its name", "name", name, "err", replies[0].text())
		taken[name] = true
		if n > 20 { // not a matter of names that are taken
			break
		}
	}
	return nil
}
