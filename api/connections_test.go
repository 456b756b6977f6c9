package api

import (
	"net"
	"net/http"
	"path/filepath"
	"testing"
)

// Of more connections than may be open the one that is quiet for longest goes; while all are in use a new one waits.
func TestBoundedConnections(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	b := bound(l, 2)
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	accept := func() net.Conn {
		t.Helper()
		c, err := b.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	first := dial()
	dial()
	ours := []net.Conn{accept(), accept()}
	b.track(ours[0], http.StateActive)
	b.track(ours[1], http.StateActive)
	b.track(ours[0], http.StateIdle)
	dial()
	b.track(accept(), http.StateActive)
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Error("the quiet one was not closed")
	}
	dial()
	waits := make(chan error, 1)
	go func() {
		c, err := b.Accept()
		if err == nil {
			b.track(c, http.StateActive)
			t.Cleanup(func() { c.Close() })
		}
		waits <- err
	}()
	b.track(ours[1], http.StateClosed)
	if err := <-waits; err != nil {
		t.Error(err)
	}
	dial()
	go func() {
		_, err := b.Accept()
		waits <- err
	}()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waits; err == nil {
		t.Error("one more was accepted")
	}
}
