package proc

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Stat is what /proc/<pid>/stat says of a process, in this process's pid namespace.
type Stat struct {
	Ident
	PPID    int // 0 where the parent is in another pid namespace
	PGRP    int
	SID     int
	TTYNr   int    // device number of the controlling terminal, 0 for none
	Threads int    // that have not ended; of a zombie 1, or more where only its first thread has ended
	State   byte   // R, S, D, T, t, Z, X, I ... (proc(5))
	Comm    string // at most 15 bytes of any kind, as the process set it
}

// Dead reports whether s is only left to be reaped. A process whose first thread has ended while others run on is shown as
// a zombie, too: it is alive, and can be killed.
func (s Stat) Dead() bool {
	switch s.State {
	case 'Z', 'X', 'x':
		return s.Threads <= 1
	}
	return false
}

// statSize holds any stat: a name, and 52 numbers of at most 20 digits.
const statSize = 2048

var errStat = errors.New("not the format of /proc/<pid>/stat")

// statOf reads the stat of pid. Errors: ErrGone, or of reading.
func statOf(pid int) (Stat, error) {
	if pid <= 0 {
		return Stat{}, ErrGone
	}
	var buf [statSize]byte
	n, err := slurp(unix.AT_FDCWD, "/proc/"+strconv.Itoa(pid)+"/stat", buf[:])
	if err != nil {
		return Stat{}, err
	}
	return parseStat(buf[:n])
}

// parseStat takes a stat apart. The name in parentheses may hold anything, ") R 1" and newlines included; no field after it
// holds a parenthesis, so that the last ')' ends it (proc(5)).
func parseStat(line []byte) (Stat, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 2 || end < open || line[open-1] != ' ' || end+2 > len(line) {
		return Stat{}, fmt.Errorf("%w: %q", errStat, line)
	}
	s := Stat{Comm: string(line[open+1 : end])}
	n := numbers{rest: line[:open-1]}
	s.PID = int(n.next())
	n.rest = line[end+1:]
	if state := n.field(); len(state) == 1 {
		s.State = state[0]
	} else {
		n.bad = true
	}
	s.PPID, s.PGRP, s.SID, s.TTYNr = int(n.next()), int(n.next()), int(n.next()), int(n.next())
	for range 12 { // fields 8 to 19
		n.field()
	}
	s.Threads = int(n.next())
	n.field()
	s.Start = n.start() - uint64(bootOffset()/tick) // in two's complement, where the offset is negative
	if n.bad || s.PID <= 0 {
		return Stat{}, fmt.Errorf("%w: %q", errStat, line)
	}
	return s, nil
}

// numbers reads fields divided by single spaces, without allocating.
type numbers struct {
	rest []byte
	bad  bool // a field was missing or no number
}

func (n *numbers) field() []byte {
	n.rest = bytes.TrimLeft(n.rest, " ")
	end := bytes.IndexAny(n.rest, " \n")
	if end < 0 {
		end = len(n.rest)
	}
	f := n.rest[:end]
	n.rest = n.rest[end:]
	n.bad = n.bad || len(f) == 0
	return f
}

func (n *numbers) next() int64 {
	v, err := strconv.ParseInt(string(n.field()), 10, 64)
	n.bad = n.bad || err != nil
	return v
}

func (n *numbers) start() uint64 {
	v, err := strconv.ParseUint(string(n.field()), 10, 64)
	n.bad = n.bad || err != nil
	return v
}

// open opens a file of /proc for reading. Errors: ErrGone where the process's folder is not there, or as they are.
func open(dir int, path string) (int, error) {
	for {
		fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		switch {
		case err == unix.EINTR:
		case err == unix.ENOENT || err == unix.ESRCH:
			return -1, ErrGone
		default:
			return fd, err
		}
	}
}

// read reads what is next of an open file of /proc; 0 at its end. A process may go between open and read: ErrGone.
func read(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR:
		case err == unix.ESRCH || err == unix.ENOENT:
			return 0, ErrGone
		default:
			return max(n, 0), err
		}
	}
}

// slurp reads a small file of /proc into buf, and no more of it than fits.
func slurp(dir int, path string, buf []byte) (int, error) {
	fd, err := open(dir, path)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	total := 0
	for total < len(buf) {
		n, err := read(fd, buf[total:])
		if err != nil {
			return total, err
		}
		if n == 0 {
			break
		}
		total += n
	}
	return total, nil
}
