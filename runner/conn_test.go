package runner

import (
	"errors"
	"net"
	"path/filepath"
	"testing"

	"cortex/runner/record"
)

// A question that could not be asked is waited for by nobody, and forgotten.
func TestQuestionThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	address := &net.UnixAddr{Net: "unix", Name: filepath.Join(t.TempDir(), "s")}
	l, err := net.ListenUnix("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to, err := net.DialUnix("unix", nil, address)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := to.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c := &Conn{conn: to, replies: map[int64]chan string{}}
	if err := c.ask(t.Context(), record.Request{Op: record.OpStatus}); !errors.Is(err, ErrGone) || len(c.replies) != 0 {
		t.Errorf("%v, %d questions are left", err, len(c.replies))
	}
}
