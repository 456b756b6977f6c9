package store

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// The bytes that SQLite locks: in the main file from PENDING_BYTE on (os.h: 0x40000000, 512 bytes), in the -shm file those
// of the WAL index (wal.c: 120 write, 121 checkpoint, 122 recover, 123 to 127 readers, 128 the file itself).
const (
	mainLockFirst = 0x40000000
	mainLockLast  = mainLockFirst + 511
	walWriteByte  = 120
	walLockLast   = 128
)

// A lockProbe asks who locks the database's files, and takes no lock itself. It keeps a descriptor of each file that it was
// asked about until SQLite has closed all of its own: closing any descriptor of a file drops the process's locks on it
// (fcntl_locking(2)).
type lockProbe struct {
	mu    sync.Mutex
	files []probed // guarded by mu
}

// probed is an open file. While it is open no other has its inode.
type probed struct {
	inode uint64
	f     *os.File
}

// ask reports whether another process has a write lock on a byte of path from first to last, and its pid. The pid is 0 or -1
// where the kernel can't tell it: a process of another pid namespace, an open file description lock.
func (p *lockProbe) ask(path string, first, last int64) (int, bool) {
	return p.conflict(unix.F_RDLCK, path, first, last)
}

// conflict is ask for a lock of another process that keeps one of the kind how from being taken.
func (p *lockProbe) conflict(how int16, path string, first, last int64) (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, err := p.open(path)
	if err != nil {
		return 0, false
	}
	lock := unix.Flock_t{Type: how, Whence: io.SeekStart, Start: first, Len: last - first + 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, false
	}
	return int(lock.Pid), lock.Type != unix.F_UNLCK
}

// open returns the kept descriptor of path. With mu held.
func (p *lockProbe) open(path string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, err
	}
	for _, known := range p.files {
		if known.inode == st.Ino {
			return known.f, nil
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	err = unix.Fstat(int(f.Fd()), &st) // it may have been replaced since
	p.files = append(p.files, probed{st.Ino, f})
	return f, err
}

// close is called when SQLite has closed its descriptors.
func (p *lockProbe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, known := range p.files {
		known.f.Close()
	}
	p.files = nil
}

// othersWrite reports whether another process is in a write transaction.
func (s *Store) othersWrite() bool {
	_, ok := s.locks.ask(s.path+"-shm", walWriteByte, walWriteByte)
	return ok
}

// holder names the process that keeps a writer out, with its command.
func (s *Store) holder() (string, bool) {
	for _, l := range []struct {
		path        string
		first, last int64
	}{
		{s.path + "-shm", walWriteByte, walWriteByte},
		{s.path, mainLockFirst, mainLockLast},
		{s.path + "-shm", walWriteByte, walLockLast},
	} {
		if pid, ok := s.locks.ask(l.path, l.first, l.last); ok && pid > 0 {
			return fmt.Sprintf("process %d (%s)", pid, command(pid)), true
		}
	}
	return "", false
}

// command is what ps would show for pid, made fit for one line.
func command(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(data) == 0 {
		data, err = os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			return "command unknown"
		}
	}
	line := strings.TrimSpace(strings.ReplaceAll(string(bytes.TrimRight(data, "\x00\n")), "\x00", " "))
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, line)
	if r := []rune(line); len(r) > 120 {
		line = string(r[:120]) + "..."
	}
	return line
}
