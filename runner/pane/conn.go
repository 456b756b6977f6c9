package pane

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"cortex/runner/record"
)

// conn is one connection to the control socket.
type conn struct {
	f   *os.File
	out chan []byte // the loop sends and closes
}

func newConn(fd int) *conn {
	return &conn{f: os.NewFile(uintptr(fd), record.Socket), out: make(chan []byte, queued)}
}

// send queues a message, and drops the connection where it takes none: its daemon connects again and asks.
func (n *conn) send(msg []byte) {
	select {
	case n.out <- msg:
	default:
		n.f.Close() // its goroutines end, and the reader tells
	}
}

// write is a goroutine. It ends with the queue, and closes the connection.
func (n *conn) write() {
	failed := false
	for msg := range n.out {
		if failed {
			continue
		}
		err := n.f.SetWriteDeadline(time.Now().Add(sendWithin))
		if err == nil {
			_, err = n.f.Write(msg)
		}
		if err != nil {
			failed = true
			n.f.Close()
		}
	}
	n.f.Close()
}

// read is a goroutine. It ends with the connection, and tells the loop.
func (n *conn) read(c *control) {
	lines := bufio.NewScanner(n.f)
	lines.Buffer(nil, maxRequest)
	for lines.Scan() {
		if !c.hand(decode(n, lines.Bytes())) {
			return
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		if !c.hand(call{from: n, bad: fmt.Sprintf("a request is at most %d bytes", maxRequest)}) {
			return
		}
	}
	select {
	case c.left <- n:
	case <-c.quit:
	}
}

// hand gives a call to the loop; false when that has ended.
func (c *control) hand(l call) bool {
	select {
	case c.calls <- l:
		return true
	case <-c.quit:
		return false
	}
}

func decode(from *conn, line []byte) call {
	l := call{from: from}
	switch err := json.Unmarshal(line, &l.req); {
	case err != nil:
		l.bad = "not a request: " + err.Error()
	case l.req.Format < 1 || l.req.Format > record.Format:
		l.bad = fmt.Sprintf("format %d; this runner speaks up to %d", l.req.Format, record.Format)
	}
	return l
}
