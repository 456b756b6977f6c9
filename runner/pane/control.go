package pane

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cortex/runner/record"
)

const (
	maxConnections = 16
	maxRequest     = 64 << 10 // bytes of one
	queued         = 16       // messages that wait for a slow connection; one more and it is dropped
	sendWithin     = 2 * time.Second
	backlog        = 16
)

// control is the socket that the runner is spoken to by. The loop owns the connections and sends to them; a goroutine
// accepts, and each connection has one that reads and one that writes. None can make the loop wait.
type control struct {
	dir      *record.Dir
	listener *os.File
	calls    chan call
	joined   chan *conn
	left     chan *conn
	quit     chan struct{}
	all      map[*conn]struct{}
	running  sync.WaitGroup
}

// call is a request, or what is wrong with one.
type call struct {
	from *conn
	req  record.Request
	bad  string
}

// listen opens the attempt's socket, with mode 0600 before anybody can connect. Raw calls, since package net would double
// the program.
func listen(dir *record.Dir) (*control, error) {
	if err := dir.Remove(record.Socket); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	path := dir.SocketPath(record.Socket)
	err = os.NewSyscallError("bind "+record.Socket, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, backlog))
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	c := &control{
		dir: dir, listener: os.NewFile(uintptr(fd), record.Socket),
		calls: make(chan call), joined: make(chan *conn), left: make(chan *conn), quit: make(chan struct{}),
		all: make(map[*conn]struct{}),
	}
	c.running.Go(c.accept)
	return c, nil
}

// accept is a goroutine.
func (c *control) accept() {
	raw, err := c.listener.SyscallConn()
	if err != nil {
		return // closed already
	}
	for {
		var fd int
		var aerr error
		err := raw.Read(func(l uintptr) bool {
			fd, _, aerr = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return aerr != unix.EAGAIN
		})
		switch {
		case err != nil: // close
			return
		case aerr == unix.EINTR || aerr == unix.ECONNABORTED:
			continue
		case aerr != nil: // no descriptor, no memory
			if !c.wait(time.Second) {
				return
			}
			continue
		}
		if !trusted(fd) {
			unix.Close(fd)
			continue
		}
		select {
		case c.joined <- newConn(fd):
		case <-c.quit:
			unix.Close(fd)
			return
		}
	}
}

// trusted reports whether the other side is this user or root.
func trusted(fd int) bool {
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && (peer.Uid == 0 || int(peer.Uid) == os.Geteuid())
}

func (c *control) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.quit:
		return false
	case <-t.C:
		return true
	}
}

// join takes a new connection in; the loop calls it.
func (c *control) join(n *conn, hello []byte) {
	if len(c.all) == maxConnections {
		n.f.Close()
		return
	}
	c.all[n] = struct{}{}
	c.running.Go(func() { n.read(c) })
	c.running.Go(n.write)
	n.send(hello)
}

// leave forgets a connection whose reader has ended; the loop calls it.
func (c *control) leave(n *conn) {
	delete(c.all, n)
	close(n.out)
}

// say sends a message to all; the loop calls it.
func (c *control) say(msg []byte) {
	for n := range c.all {
		n.send(msg)
	}
}

// close lets each connection take what waits for it, within bounds, and ends all. The socket goes first, so that nobody
// finds a runner that is no more.
func (c *control) close() error {
	err := c.dir.Remove(record.Socket)
	close(c.quit)
	err = errors.Join(err, c.listener.Close())
	for n := range c.all {
		close(n.out)
	}
	c.running.Wait()
	return err
}
