package proc

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// All lists the processes of the host (threads are not listed), in the order of their pids. What vanishes meanwhile, or may
// not be read, is left out; any other trouble (no free descriptor, say) fails the whole, so that an incomplete list is never
// taken for proof.
//
// The names in /proc are listed again after each reading of stats, which takes far longer, until no new one is there: else a
// process that forks every other millisecond and exits is listed, gone when its stat is to be read, and never met. (It may
// have any pid: once the host has come to pid_max, new ones are below old ones.) A snapshot it is not, for all that: a
// parent's entry may be gone when its child's is read.
func All() ([]Stat, error) {
	dir, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc: %w", err)
	}
	defer unix.Close(dir)
	all := make([]Stat, 0, 256)
	entries := make([]byte, 16<<10)
	var known, now []int
	for range maxListings {
		if now, err = pids(dir, entries, now[:0]); err != nil {
			return nil, fmt.Errorf("list /proc: %w", err)
		}
		fresh, err := appendNew(&all, dir, known, now)
		if err != nil {
			return nil, err
		}
		if !fresh {
			break
		}
		if len(known) > 0 {
			slices.SortFunc(all, func(a, b Stat) int { return cmp.Compare(a.PID, b.PID) })
		}
		known, now = now, known
	}
	return all, nil
}

// maxListings bounds how often All looks for newer processes: a host may fork without end.
const maxListings = 100

// Layout of struct linux_dirent64 (getdents(2)): 8 bytes of inode, 8 of offset, then length, type, name.
const (
	direntLen  = 16
	direntName = 19
)

// pids appends the pids that dir, an open /proc, lists: the kernel does it in their order. It takes the entries apart itself:
// os.ReadDir allocates several times for each, and this runs in a race.
func pids(dir int, entries []byte, list []int) ([]int, error) {
	if _, err := unix.Seek(dir, 0, unix.SEEK_SET); err != nil {
		return list, err
	}
	for {
		n, err := unix.ReadDirent(dir, entries)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return list, err
		}
		for rest := entries[:n]; len(rest) > 0; {
			if len(rest) <= direntName {
				return list, errDirent
			}
			size := int(binary.NativeEndian.Uint16(rest[direntLen:]))
			if size <= direntName || size > len(rest) {
				return list, errDirent
			}
			if pid := leadingNumber(rest[direntName:size]); pid > 0 {
				list = append(list, pid)
			}
			rest = rest[size:]
		}
	}
}

var errDirent = errors.New("not the format of getdents64(2)")

// leadingNumber reads the digits that name begins with; 0 where it begins with none. In /proc only pids do.
func leadingNumber(name []byte) int {
	n := 0
	for _, c := range name {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}

// appendNew appends to all the stats of those pids in now that are not in known (both are sorted), if they are there and may
// be read. It says whether there were any.
func appendNew(all *[]Stat, dir int, known, now []int) (fresh bool, err error) {
	var buf [statSize]byte
	for _, pid := range now {
		for len(known) > 0 && known[0] < pid {
			known = known[1:]
		}
		if len(known) > 0 && known[0] == pid {
			continue
		}
		fresh = true
		n, err := slurp(dir, strconv.Itoa(pid)+"/stat", buf[:])
		switch {
		case errors.Is(err, ErrGone) || err == unix.EPERM || err == unix.EACCES:
			continue
		case err != nil:
			return fresh, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
		}
		s, err := parseStat(buf[:n])
		if err != nil {
			return fresh, err
		}
		*all = append(*all, s)
	}
	return fresh, nil
}

// Descendants picks from all those whose parent, or parent's parent and so on, is one of roots, in the order of all,
// without the roots themselves. Who was orphaned hangs below its subreaper or init (PR_SET_CHILD_SUBREAPER(2const)).
func Descendants(all []Stat, roots ...int) []Stat {
	children := make(map[int][]int, len(all)) // pid: its children's
	for i := range all {
		children[all[i].PPID] = append(children[all[i].PPID], all[i].PID)
	}
	below := make(map[int]bool) // false for a root; since the list is no snapshot, it may even hold a circle
	for _, r := range roots {
		below[r] = false
	}
	queue := slices.Clone(roots)
	for len(queue) > 0 {
		pid := queue[0]
		queue = queue[1:]
		for _, c := range children[pid] {
			if _, seen := below[c]; !seen {
				below[c] = true
				queue = append(queue, c)
			}
		}
	}
	var found []Stat
	for _, s := range all {
		if below[s.PID] {
			found = append(found, s)
		}
	}
	return found
}

// UID is the real user id of the process that has pid now. Errors: ErrGone, or of reading.
func UID(pid int) (int, error) {
	var buf [4096]byte
	path := "/proc/" + strconv.Itoa(pid) + "/status"
	n, err := slurp(unix.AT_FDCWD, path, buf[:])
	if err != nil {
		return 0, err
	}
	// The kernel writes a newline in the name as \n there, so that no name can look like this line.
	_, rest, _ := bytes.Cut(buf[:n], []byte("\nUid:"))
	fields := bytes.Fields(rest[:max(bytes.IndexByte(rest, '\n'), 0)])
	if len(fields) == 0 {
		return 0, fmt.Errorf("%s: no Uid", path)
	}
	return strconv.Atoi(string(fields[0]))
}

// cmdlineMax bounds a Cmdline, in bytes: it is for people.
const cmdlineMax = 1024

// Cmdline is the command line of the process that has pid now, for people to read: arguments divided by spaces, control
// characters as '?', cut to 1 KiB; its name in brackets where there is none (kernel threads, zombies); "" where it is gone.
//
// The kernel reads it from the process's memory, and waits for the locks of that: of a process in state D the answer may
// never come.
func Cmdline(pid int) string {
	var buf [cmdlineMax]byte
	n, err := slurp(unix.AT_FDCWD, "/proc/"+strconv.Itoa(pid)+"/cmdline", buf[:])
	if line := bytes.TrimRight(buf[:n], "\x00"); err == nil && len(line) > 0 {
		for i, c := range line {
			switch {
			case c == 0:
				line[i] = ' '
			case c < ' ' || c == 0x7f:
				line[i] = '?'
			}
		}
		return string(line)
	}
	s, err := statOf(pid)
	if err != nil {
		return ""
	}
	return "[" + s.Comm + "]"
}

// WaitChannel names the kernel function in which the process that has pid now sleeps; "" where it does not, or where that
// may not be seen.
func WaitChannel(pid int) string {
	var buf [128]byte
	n, err := slurp(unix.AT_FDCWD, "/proc/"+strconv.Itoa(pid)+"/wchan", buf[:])
	if err != nil || n == 1 && buf[0] == '0' {
		return ""
	}
	return string(buf[:n])
}

// HasEnv reports whether the environment that the process with pid was started with has entry (NAME=value), exactly.
// Errors: ErrGone; EACCES for another user's process; of reading. For a moment during an execve(2) an environment reads as
// empty, so that a no is sure only after a second look.
func HasEnv(pid int, entry string) (bool, error) {
	if entry == "" {
		return false, nil
	}
	fd, err := open(unix.AT_FDCWD, "/proc/"+strconv.Itoa(pid)+"/environ")
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 16<<10)
	matched := 0 // bytes of entry that the present variable begins with; -1 where it is another
	for {
		n, err := read(fd, buf)
		if err != nil {
			return false, err
		}
		if n == 0 {
			return matched == len(entry), nil
		}
		for _, c := range buf[:n] {
			switch {
			case c == 0 && matched == len(entry):
				return true, nil
			case c == 0:
				matched = 0
			case matched >= 0 && matched < len(entry) && entry[matched] == c:
				matched++
			default:
				matched = -1
			}
		}
	}
}
