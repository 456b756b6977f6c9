package proc

import (
	"bytes"
	"strconv"

	"golang.org/x/sys/unix"
)

// A mark tells whatever a process has forked: its value of RLIMIT_LOCKS. Linux has not looked at that limit since 2.4.25
// (getrlimit(2)) and nobody sets it, but it is handed down by fork(2) and kept by execve(2), setsid(2), a cleared environment
// and another uid, and /proc/<pid>/limits shows it to everybody. Only a process that sets this very limit sheds it.
//
// A mark is derived from an identity, so that it is never used twice in a boot and need not be recorded. Later processes have
// lower ones: without privilege a limit can only be lowered, and who is below a marked process can so still be marked.

// markBits are those of a pid in a mark: PID_MAX_LIMIT is 2^22 (linux/threads.h).
const markBits = 22

// mark is never RLIM_INFINITY, and above 0 for 300 years of uptime.
func (i Ident) mark() uint64 { return 1<<62 - (i.Start<<markBits | uint64(i.PID)) }

// MarkSelf gives this process its mark, which it hands down from now on. EPERM where an administrator has set the limit
// lower: then nothing has changed.
func MarkSelf() error {
	mark := Self().mark()
	return unix.Setrlimit(unix.RLIMIT_LOCKS, &unix.Rlimit{Cur: mark, Max: mark})
}

// HasMark reports whether the process that has pid now has the mark of the process i, dead or not, as i itself has. A zombie
// has none. Errors: ErrGone, or of reading.
func HasMark(pid int, i Ident) (bool, error) {
	var buf [4096]byte
	n, err := slurp(unix.AT_FDCWD, "/proc/"+strconv.Itoa(pid)+"/limits", buf[:])
	if err != nil {
		return false, err
	}
	_, rest, _ := bytes.Cut(buf[:n], []byte("\nMax file locks "))
	fields := bytes.Fields(rest[:max(bytes.IndexByte(rest, '\n'), 0)]) // soft, hard, unit
	return len(fields) > 1 && string(fields[1]) == strconv.FormatUint(i.mark(), 10), nil
}
