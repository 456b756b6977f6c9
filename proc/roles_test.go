package proc

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func forever() {
	for {
		unix.Select(0, nil, nil, nil, nil)
	}
}

func stubborn(dir string) {
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	mark(dir)
	forever()
}

func closed(dir string) {
	mark(dir)
	for fd := range 3 {
		unix.Close(fd)
	}
	forever()
}

// daemon leaves a child with a session of its own, without environment and descriptors, and ends.
func daemon(dir string) {
	spawn(dir, "closed", &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}})
}

func sid(pid int) int { s, _ := unix.Getsid(pid); return s }

const oddName = ") R 1 (\n)"

func named(dir string) {
	if err := os.WriteFile("/proc/self/comm", []byte(oddName), 0); err != nil {
		panic(err)
	}
	mark(dir)
	forever()
}

// headless ends its first thread: the process shows as a zombie and lives on.
func headless(dir string) {
	ready := make(chan bool)
	go func() {
		runtime.LockOSThread()
		ready <- true
		mark(dir)
		forever()
	}()
	<-ready
	syscall.Syscall(unix.SYS_EXIT, 0, 0, 0)
}

// rawFork is fork(2). In the child there is one thread and no Go scheduler: it may only make raw system calls, from
// functions that neither split the stack nor are instrumented.
//
//go:norace
//go:nosplit
func rawFork() uintptr {
	pid, _, _ := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	return pid
}

//go:norace
//go:nosplit
func rawExit() { syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0) }

//go:norace
//go:nosplit
func rawSleep(d time.Duration) {
	ts := unix.Timespec{Sec: int64(d / time.Second), Nsec: int64(d % time.Second)}
	for { // what is left of it after each signal: the Go runtime sends itself some
		_, _, err := syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), uintptr(unsafe.Pointer(&ts)), 0)
		if err != unix.EINTR {
			return
		}
	}
}

// hopper forks a new session every 2 ms and lets the parent exit. All of them are named like DIR.
func hopper(dir string) {
	if err := os.WriteFile("/proc/self/comm", []byte(filepath.Base(dir)), 0); err != nil {
		panic(err)
	}
	mark(dir)
	hop()
}

//go:norace
//go:nosplit
func hop() {
	for range 30000 {
		rawSleep(2 * time.Millisecond)
		if rawFork() != 0 {
			rawExit()
		}
		syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	}
	rawExit()
}

const crowdSize = 200

func crowd(dir string) { gather(); mark(dir); forever() }

//go:norace
//go:nosplit
func gather() {
	for range crowdSize {
		if rawFork() == 0 {
			rawSleep(roleLife)
			rawExit()
		}
	}
}

// bomb forks two that fork two, and so on, to 2^8 processes at most; each waits a little before it does.
func bomb(dir string) { mark(dir); explode() }

//go:norace
//go:nosplit
func explode() {
	for range 8 {
		rawSleep(3 * time.Millisecond)
		rawFork()
	}
	rawSleep(roleLife)
	rawExit()
}

// keeper has a child, and at once another when that dies.
func keeper(dir string) { mark(dir); keep() }

//go:norace
//go:nosplit
func keep() {
	for range 10000 {
		pid := rawFork()
		if pid == 0 {
			rawSleep(roleLife)
			rawExit()
		}
		for {
			if _, _, err := syscall.RawSyscall6(unix.SYS_WAIT4, pid, 0, 0, 0, 0, 0); err != unix.EINTR {
				break
			}
		}
	}
	rawExit()
}

// tracer holds its child in a ptrace stop on its way out (PTRACE_O_TRACEEXIT), so that SIGKILL does not end it.
func tracer(dir string) {
	pid := spawn(dir, "plain", &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Ptrace: true}})
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "tracer:", err)
			os.Exit(1)
		}
	}
	_, err := unix.Wait4(pid, nil, 0, nil)
	check(err)
	check(unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEEXIT|unix.PTRACE_O_EXITKILL))
	check(unix.PtraceCont(pid, 0))
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, 0, nil)
		check(err)
		if ws.Stopped() && ws.TrapCause() == unix.PTRACE_EVENT_EXIT {
			forever()
		}
		if ws.Exited() || ws.Signaled() {
			os.Exit(1)
		}
		// Signals are kept from it: it does not even stop. ESRCH: it is on its way out by now.
		if err := unix.PtraceCont(pid, 0); err != unix.ESRCH {
			check(err)
		}
	}
}

// seccomp signals a child where a filter refuses pidfd_open, as container engines did: with DIR's base name's errno.
func seccomp(dir string) {
	pid := spawn(dir, "plain", &syscall.ProcAttr{})
	child, err := Of(pid)
	fail := func(what string, err error) {
		fmt.Printf("%s: %v\n", what, err)
		unix.Kill(pid, unix.SIGKILL)
		os.Exit(1)
	}
	if err != nil {
		fail("Of", err)
	}
	errno := unix.ENOSYS
	if filepath.Base(dir) == "EPERM" {
		errno = unix.EPERM
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_PIDFD_OPEN, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fail("no_new_privs", err)
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		fail("seccomp", err)
	}
	if _, err := unix.PidfdOpen(pid, 0); err != errno {
		fail("filtered pidfd_open", err)
	}
	if err := (Ident{PID: pid, Start: child.Start + 1}).Signal(unix.SIGKILL); err != ErrGone {
		fail("Signal to another start", err)
	}
	if !child.Alive() {
		fail("child", fmt.Errorf("killed by a signal to another start"))
	}
	if err := child.Signal(unix.SIGKILL); err != nil {
		fail("Signal", err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || ws.Signal() != unix.SIGKILL {
		fail("wait", fmt.Errorf("%v %v", ws, err))
	}
	if err := child.Signal(unix.SIGKILL); err != ErrGone {
		fail("Signal to nobody", err)
	}
	fmt.Println("ok")
}

// full has no free descriptor: nothing can be read, and nothing may be taken for gone.
func full(string) {
	me := Self()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: 0}); err != nil {
		panic(err)
	}
	all, err := All()
	_, ofErr := Of(me.PID)
	sigErr := me.Signal(0)
	fmt.Println(len(all), err == nil, ofErr == nil, ofErr == ErrGone, sigErr == nil, sigErr == ErrGone, me.Alive(), me.Exists())
}

// report is what the runner role says on its standard output.
type report struct {
	Marked []int // who was ready before the sweep
	Before []Stat
	Frozen []string // what was wrong with a freeze and a thaw before the sweep
	Swept  Swept
	Err    string
	After  []Stat // descendants that are alive after it
	Took   time.Duration
}

// runnerRole plays the runner: subreaper of a scenario, which it then sweeps. The scenario is the name of DIR.
func runnerRole(dir string) {
	die := func(err error) {
		fmt.Fprintln(os.Stderr, "runner:", err)
		os.Exit(1)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		die(err)
	}
	me := os.Getpid()
	find := func() ([]Stat, error) {
		all, err := All()
		return Descendants(all, me), err
	}
	reap := func() {
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 && err != unix.EINTR {
				return
			}
		}
	}
	sc := scenarios[filepath.Base(dir)]
	sc.set(dir)
	var r report
	ready := func() bool {
		reap()
		before, err := find()
		if err != nil {
			die(err)
		}
		r.Before, r.Marked = before, marks(dir)
		return sc.ready(r)
	}
	if !poll(ready) {
		die(fmt.Errorf("not ready: %+v", r))
	}
	if os.Getenv(freezesFirst) != "" {
		ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
		r.Frozen = freezeAndThaw(ctx, find, reap)
		stop()
	}
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	began := time.Now()
	swept, err := Sweep(ctx, find, reap)
	r.Took, r.Swept = time.Since(began), swept
	if err != nil {
		r.Err = err.Error()
	}
	after, err := find()
	if err != nil {
		die(err)
	}
	for _, s := range after {
		if !s.Dead() {
			r.After = append(r.After, s)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		die(err)
	}
}

// marks lists the pids that were marked in dir.
func marks(dir string) []int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
