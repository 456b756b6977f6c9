package pane

import (
	"errors"
	"math"
	"os"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// terminal is the agent's pty. The runner keeps the agent's side open, too: a master whose other side nobody holds reads
// as EIO at once and for ever, though a process that closed its terminal may open it again.
type terminal struct {
	master *os.File // never blocks a thread: it has a poller and deadlines
	tty    *os.File
}

func openTerminal(size *pty.Winsize) (*terminal, error) {
	master, tty, err := pty.Open()
	if err != nil {
		return nil, err
	}
	err = pty.Setsize(master, size)
	if err == nil {
		err = setUTF8(tty)
	}
	// The package's ioctls have made the descriptor a blocking one (os.File.Fd), which a deadline could not interrupt.
	fd := -1
	if err == nil {
		fd, err = unix.FcntlInt(master.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err = errors.Join(err, master.Close()); err != nil {
		return nil, errors.Join(err, tty.Close())
	}
	return &terminal{os.NewFile(uintptr(fd), "/dev/ptmx"), tty}, nil
}

// setUTF8 lets the terminal's own line editing erase characters, not bytes (termios(3), IUTF8).
func setUTF8(tty *os.File) error {
	t, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return os.NewSyscallError("tcgetattr", err)
	}
	t.Iflag |= unix.IUTF8
	return os.NewSyscallError("tcsetattr", unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, t))
}

func (t *terminal) resize(size *pty.Winsize) error { return pty.Setsize(t.master, size) }

func (t *terminal) close() error { return errors.Join(t.master.Close(), t.tty.Close()) }

// size is the agent's: the pane's, but never below the spec's, since a program can crash on a tiny terminal.
func (r *runner) size() *pty.Winsize {
	columns, rows := r.screen.size()
	return &pty.Winsize{
		Cols: uint16(min(max(columns, r.spec.Columns, 1), math.MaxUint16)),
		Rows: uint16(min(max(rows, r.spec.Rows, 1), math.MaxUint16)),
	}
}

// resize follows the pane.
func (r *runner) resize() {
	if r.pty == nil || r.exit != nil {
		return
	}
	if err := r.pty.resize(r.size()); err != nil {
		r.trouble("resize", err)
	}
}
