package pane

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const nonblock = unix.O_NONBLOCK

// signals are those that the runner acts on.
type signals struct {
	child chan os.Signal // SIGCHLD
	size  chan os.Signal // SIGWINCH
	end   chan os.Signal // the pane's end, or somebody's kill: HUP, INT, QUIT, TERM
}

// reset gives this process, and with it the agent, a clean start, whatever it was started from: no signal ignored or
// blocked (nohup and a script's & ignore some, and ignored ones stay ignored over execve(2)), no descriptor but 0, 1
// and 2 inherited. It makes this process a subreaper, and keeps its memory small.
func reset() (signals, error) {
	// At most two goroutines ever have something to do at once; each P costs memory, and one GC worker.
	runtime.GOMAXPROCS(2)
	debug.SetGCPercent(10)
	s := signals{make(chan os.Signal, 1), make(chan os.Signal, 1), make(chan os.Signal, 1)}
	signal.Notify(s.child, unix.SIGCHLD)
	signal.Notify(s.size, unix.SIGWINCH)
	signal.Notify(s.end, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	if err := stopIgnoring(); err != nil {
		return s, err
	}
	// The mask is the thread's: of this one, which forks.
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil); err != nil {
		return s, os.NewSyscallError("sigprocmask", err)
	}
	if err := closeOnExec(); err != nil {
		return s, err
	}
	return s, os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// catchStrays keeps signals that nobody has a reason to send from ending the runner, and with it the agent, without a record.
// Nobody reads them. It comes after the agent's start, since each takes the runtime 60 µs to set up.
func catchStrays() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGVTALRM,
		unix.SIGPROF, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGIO, unix.SIGPWR, unix.SIGSTKFLT)
}

// stopIgnoring sets what is ignored to its default. Signals that this process catches are default in the agent anyhow;
// the runtime leaves some of the others (TSTP, TTIN, TTOU, two of the real-time ones) as it found them.
func stopIgnoring() error {
	const (
		last    = 64 // _NSIG of Linux, but for MIPS
		setSize = 8  // bytes of its sigset_t
		ignored = 1  // SIG_IGN
	)
	// The kernel's struct sigaction differs from one architecture to the next; its handler comes first, but for MIPS, and
	// zeros mean SIG_DFL everywhere.
	var zero [8]uint64
	for sig := uintptr(1); sig <= last; sig++ {
		if sig == uintptr(unix.SIGKILL) || sig == uintptr(unix.SIGSTOP) {
			continue
		}
		var now [8]uint64
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&now)), setSize, 0, 0)
		if errno == 0 && *(*uintptr)(unsafe.Pointer(&now)) == ignored {
			_, _, errno = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&zero)), 0, setSize, 0, 0)
		}
		if errno != 0 {
			return fmt.Errorf("rt_sigaction of %s: %w", unix.SignalName(syscall.Signal(sig)), errno)
		}
	}
	return nil
}

// closeOnExec keeps inherited descriptors from the agent. They can't be closed here: some are the Go runtime's own.
func closeOnExec() error {
	err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	if err != unix.ENOSYS && err != unix.EINVAL && err != unix.EPERM {
		return os.NewSyscallError("close_range", err)
	}
	// Before Linux 5.11, or in a container that does not know the call.
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range open {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
