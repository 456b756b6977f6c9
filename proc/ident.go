// Package proc knows the processes of a Linux host: who one is (a pid alone is reused), which are below which, and how to
// end a set of them so that none is left. It reads /proc and sends signals. It never decides which processes are whose,
// keeps no record, and knows neither sessions nor dispatches. A bare pid stays in here: whoever keeps one across time keeps
// an Ident.
//
// What /proc does not show is not there for this package. With the mount option hidepid=2 these are the processes of other
// users, and with hidepid=1 their stat can't be read (proc(5)).
package proc

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone says that a pid is free, or belongs to another process now.
var ErrGone = errors.New("no such process")

// Ident is one process of this boot, in this pid namespace.
type Ident struct {
	PID   int
	Start uint64 // when it started, in clock ticks since boot: field 22 of /proc/<pid>/stat, as the host's own clock has it
}

// Of identifies the process that has pid now, a zombie included. Errors: ErrGone, or of reading /proc.
func Of(pid int) (Ident, error) {
	s, err := statOf(pid)
	return s.Ident, err
}

// Self identifies this process. Start is 0 where /proc can't be read.
func Self() Ident { return self() }

var self = sync.OnceValue(func() Ident {
	s, err := statOf(os.Getpid())
	if err != nil {
		return Ident{PID: os.Getpid()}
	}
	return s.Ident
})

// Alive reports whether the process is there and not dead: not a zombie, unless other threads of it live on. Where that
// can't be found out (no free descriptor) the answer is true, so that nothing is taken for dead unseen.
func (i Ident) Alive() bool {
	s, err := statOf(i.PID)
	if err != nil {
		return i.unread(err)
	}
	return s.Ident == i && !s.Dead()
}

// Age is how long ago the process started, by the boot clock: setting the wall clock does not change it. Whether it still
// lives is not asked.
func (i Ident) Age() (time.Duration, error) {
	now, err := Uptime()
	return now - time.Duration(i.Start)*tick, err
}

// Uptime is the host's own boot clock, whatever time namespace this process is in.
func Uptime() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(now.Nano()) - bootOffset(), nil
}

// Exists reports whether the process still has its pid, be it as a zombie. Where that can't be found out it is true.
func (i Ident) Exists() bool {
	s, err := statOf(i.PID)
	if err != nil {
		return i.unread(err)
	}
	return s.Ident == i
}

// unread says whether a process whose stat gave err has to be taken for there.
func (i Ident) unread(err error) bool {
	return !errors.Is(err, ErrGone) && i.PID > 0 && unix.Kill(i.PID, 0) != unix.ESRCH
}

// Signal sends sig to this process and to no other, however often its pid has been used since. A zombie takes it without
// effect; sig 0 only checks. Errors: ErrGone; syscall.EPERM as it is; others where the identity can't be checked, and then
// nothing was sent.
//
// A pidfd (pidfd_open(2), Linux 5.3) holds the process that had the pid when it was opened. The start time is compared
// after that: if it is ours, then the pidfd is ours too, or holds one that is dead, which pidfd_send_signal(2) tells.
func (i Ident) Signal(sig syscall.Signal) error {
	if i.PID <= 0 { // to kill(2) a group, or everybody
		return ErrGone
	}
	fd, err := unix.PidfdOpen(i.PID, 0)
	switch {
	case err == nil:
		defer unix.Close(fd)
	case err == unix.ENOSYS || err == unix.EPERM:
		// An older kernel, or a seccomp filter (older container engines): pidfd_open itself asks for no permission.
		return i.compareAndKill(sig)
	case err == unix.ESRCH || err == unix.EINVAL || err == unix.ENOENT:
		return ErrGone // the last two: it is now the id of a thread
	default:
		return os.NewSyscallError("pidfd_open", err)
	}
	if err := i.compare(); err != nil {
		return err
	}
	switch err := unix.PidfdSendSignal(fd, sig, nil, 0); {
	case err == nil:
		return nil
	case err == unix.ESRCH:
		return ErrGone
	case err == unix.ENOSYS: // filtered alone
		return i.compareAndKill(sig)
	default:
		return err
	}
}

// compare gives ErrGone unless the pid is still this process's.
func (i Ident) compare() error {
	now, err := Of(i.PID)
	if err == nil && now != i {
		err = ErrGone
	}
	return err
}

// compareAndKill is Signal without a pidfd. Between its two steps the pid could in theory be freed and, after all other
// pids have been used, given to a new process: nothing better exists there.
func (i Ident) compareAndKill(sig syscall.Signal) error {
	if err := i.compare(); err != nil {
		return err
	}
	err := unix.Kill(i.PID, sig)
	if err == unix.ESRCH {
		return ErrGone
	}
	return err
}

// BootID tells this boot from others (random(4)), since start times begin anew with each; "" where it can't be read.
func BootID() string { return bootID() }

var bootID = sync.OnceValue(func() string {
	var buf [64]byte
	n, err := slurp(unix.AT_FDCWD, "/proc/sys/kernel/random/boot_id", buf[:])
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(buf[:n]))
})

// tick is the unit of start times: every architecture that Go runs on shows them in 1/100 s (proc(5)).
const tick = time.Second / 100

// bootOffset is what this process's time namespace adds to the boot clock, and so to every start time that it reads: a
// daemon in another one than its runners must know them all the same. 0 where there are no such namespaces (before Linux 5.6).
var bootOffset = sync.OnceValue(func() time.Duration {
	var buf [256]byte
	n, err := slurp(unix.AT_FDCWD, "/proc/self/timens_offsets", buf[:])
	if err != nil {
		return 0
	}
	return parseBootOffset(string(buf[:n]))
})

// parseBootOffset reads the line "boottime SECONDS NANOSECONDS" (time_namespaces(7)).
func parseBootOffset(text string) time.Duration {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "boottime" {
			continue
		}
		s, serr := strconv.ParseInt(f[1], 10, 64)
		ns, nerr := strconv.ParseInt(f[2], 10, 64)
		if serr == nil && nerr == nil {
			return time.Duration(s)*time.Second + time.Duration(ns)
		}
	}
	return 0
}

// PIDNamespace is the inode of this process's pid namespace (pid_namespaces(7)), since a pid means nothing in another; 0
// where it can't be read.
func PIDNamespace() uint64 { return pidNamespace() }

var pidNamespace = sync.OnceValue(func() uint64 {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0
	}
	return st.Ino
})
