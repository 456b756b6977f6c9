package api

import (
	"net"
	"net/http"
	"sync"
	"time"

	"cortex/internal/rlimit"
)

// graceTime is how long a new connection has to send something before it counts as quiet.
const graceTime = 250 * time.Millisecond

// maxConnections is how many connections each listener has open: clients that keep them take no descriptor that the daemon's
// own work needs. Where the limit can't be read it is as for a small one.
func maxConnections() int {
	_, limit, err := rlimit.Descriptors()
	if limit == 0 && err != nil {
		limit = 64
	}
	return max(limit/8, 4)
}

// bounded is a listener that has at most max connections open. For one more the one that has been quiet for longest is
// closed; while none is, it waits for one.
type bounded struct {
	net.Listener
	max     int
	changed chan struct{} // a connection was closed or has become quiet
	closed  chan struct{}
	once    sync.Once

	mu   sync.Mutex
	open map[net.Conn]link // guarded by mu
}

// link is a connection's state and since when it has that.
type link struct {
	state http.ConnState
	since time.Time
}

func bound(l net.Listener, most int) *bounded {
	return &bounded{
		Listener: l, max: most, changed: make(chan struct{}, 1), closed: make(chan struct{}), open: map[net.Conn]link{},
	}
}

func (b *bounded) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	for !b.makeRoom(time.Now()) {
		t := time.NewTimer(graceTime)
		select {
		case <-b.changed:
		case <-t.C:
		case <-b.closed:
			t.Stop()
			c.Close() // nobody has spoken on it
			return nil, net.ErrClosed
		}
		t.Stop()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[c] = link{http.StateNew, time.Now()}
	return c, nil
}

func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

// makeRoom reports whether there is room for one more connection, and makes it where one is quiet.
func (b *bounded) makeRoom(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.open) < b.max {
		return true
	}
	var quiet net.Conn
	for c, l := range b.open {
		silent := l.state == http.StateIdle || l.state == http.StateNew && now.Sub(l.since) >= graceTime
		if silent && (quiet == nil || l.since.Before(b.open[quiet].since)) {
			quiet = c
		}
	}
	if quiet == nil {
		return false
	}
	delete(b.open, quiet)
	quiet.Close() // its error is that of a connection nobody waits for
	return true
}

// track is for http.Server.ConnState. Connections of other listeners are not looked at.
func (b *bounded) track(c net.Conn, state http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ours := b.open[c]; !ours {
		return
	}
	switch state {
	case http.StateNew, http.StateActive, http.StateIdle:
		b.open[c] = link{state, time.Now()}
	default:
		delete(b.open, c)
	}
	select {
	case b.changed <- struct{}{}:
	default:
	}
}
