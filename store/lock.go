package store

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

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

// A procLock is one line of /proc/locks (proc_locks(5)).
type procLock struct {
	pid         int
	write       bool
	dev         string // major:minor in hex
	inode       uint64
	first, last uint64
}

// parseLocks reads the format of /proc/locks; lines of another form are left out, also those of waiters ("->").
func parseLocks(data []byte) []procLock {
	var all []procLock
	for line := range bytes.Lines(data) {
		f := strings.Fields(string(line))
		if len(f) != 8 || f[1] == "->" {
			continue
		}
		id := strings.Split(f[5], ":")
		if len(id) != 3 {
			continue
		}
		l := procLock{write: f[3] == "WRITE", dev: id[0] + ":" + id[1]}
		var errs [4]error
		l.pid, errs[0] = strconv.Atoi(f[4])
		l.inode, errs[1] = strconv.ParseUint(id[2], 10, 64)
		l.first, errs[2] = strconv.ParseUint(f[6], 10, 64)
		if f[7] == "EOF" {
			l.last = 1<<64 - 1
		} else {
			l.last, errs[3] = strconv.ParseUint(f[7], 10, 64)
		}
		if errs == [4]error{} {
			all = append(all, l)
		}
	}
	return all
}

// A lockFile is one of the database's files as stat sees it.
type lockFile struct {
	dev         string
	inode       uint64
	first, last uint64 // the bytes that keep a writer out
}

// findHolder is the pid of the process, other than self, that keeps a writer out of files. Some file systems (btrfs,
// overlayfs) show another device in /proc/locks than in stat, so that the device only decides between several.
func findHolder(locks []procLock, files []lockFile, self int) (int, bool) {
	best, found, sure := 0, false, false
	for _, f := range files {
		for _, l := range locks {
			if !l.write || l.pid == self || l.pid <= 0 || l.inode != f.inode || l.last < f.first || l.first > f.last {
				continue
			}
			if !found || (l.dev == f.dev && !sure) {
				best, found, sure = l.pid, true, l.dev == f.dev
			}
		}
	}
	return best, found
}

// holder names the process that holds the lock, with its command. It opens nothing of the database: closing any other
// descriptor of it would drop SQLite's own locks (fcntl_locking(2)).
func (s *Store) holder() (string, bool) {
	data, err := os.ReadFile("/proc/locks")
	if err != nil {
		return "", false
	}
	var files []lockFile
	add := func(path string, first, last uint64) {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			dev := fmt.Sprintf("%02x:%02x", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))
			files = append(files, lockFile{dev, st.Ino, first, last})
		}
	}
	add(s.path+"-shm", walWriteByte, walWriteByte)
	add(s.path, mainLockFirst, mainLockLast)
	add(s.path+"-shm", walWriteByte, walLockLast)
	pid, ok := findHolder(parseLocks(data), files, os.Getpid())
	if !ok {
		return "", false
	}
	return fmt.Sprintf("process %d (%s)", pid, command(pid)), true
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
