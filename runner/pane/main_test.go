package pane

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// roleEnv names what the test binary is to be when it is an agent or the runner's parent.
const roleEnv = "PANE_TEST_ROLE"

// program is the built cortex-runner.
var program string

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		play, ok := roles[role]
		if !ok {
			fmt.Fprintln(os.Stderr, "no role", role)
			os.Exit(100)
		}
		play()
		os.Exit(0)
	}
	os.Exit(build(m))
}

// build builds the program, once for the tests and again by a test that was started in a namespace of its own.
func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pane")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if program = os.Getenv("PANE_TEST_PROGRAM"); program == "" {
		program = filepath.Join(dir, "cortex-runner")
		cmd := exec.Command("go", "build", "-o", program, "cortex/cmd/cortex-runner")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// roles are the programs that the test binary can be; the arguments are its own.
var roles = map[string]func(){
	"report":   report,
	"deaf":     deaf,
	"hopper":   hopper,
	"headless": headless,
	"flood":    flood,
	"masked":   masked,
}

// seen is what an agent sees of itself.
type seen struct {
	Args  [][]byte
	Env   [][]byte
	Dir   string
	Stdin string
}

// report prints what it sees.
func report() {
	s := seen{}
	for _, a := range os.Args[1:] {
		s.Args = append(s.Args, []byte(a))
	}
	for _, e := range os.Environ() {
		s.Env = append(s.Env, []byte(e))
	}
	s.Dir, _ = os.Getwd()
	s.Stdin, _ = os.Readlink("/proc/self/fd/0")
	json.NewEncoder(os.Stdout).Encode(s)
}

// deaf ignores what it can, and stays.
func deaf() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT)
	fmt.Println("ready")
	<-make(chan int)
}

// hopper lives for a moment, in a session of its own, and leaves a child like itself.
func hopper() {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		os.Exit(1)
	}
	fmt.Println("hop")
}

// headless ends its first thread and runs on: /proc shows it as a zombie.
func headless() {
	fmt.Println("ready")
	runtime.LockOSThread()
	unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
}

// flood writes the number of bytes that its argument says, in lines, then waits for a typed line, and writes as much again.
func flood() {
	var n int
	fmt.Sscan(os.Args[1], &n)
	line := []byte(strings.Repeat("x", 98) + "\r\n")
	for range 2 {
		for left := n; left > 0; left -= len(line) {
			os.Stdout.Write(line)
		}
		fmt.Printf("flooded\r\n")
		var b [1]byte
		os.Stdin.Read(b[:])
	}
	os.Exit(7)
}

func init() {
	if os.Getenv(roleEnv) == "headless" {
		runtime.LockOSThread() // the main goroutine is on the first thread
	}
}

// masked becomes the program of its arguments, with every signal ignored and blocked, as careless parents leave them.
func masked() {
	runtime.LockOSThread()
	ignore := [8]uint64{1}
	for sig := uintptr(1); sig <= 64; sig++ {
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&ignore)), 0, 8, 0, 0)
	}
	all := unix.Sigset_t{}
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, nil); err != nil {
		panic(err)
	}
	env := os.Environ()
	for i, e := range env {
		if strings.HasPrefix(e, roleEnv+"=") {
			env[i] = "WAS_MASKED=1"
		}
	}
	panic(syscall.Exec(os.Args[1], os.Args[1:], env))
}

func contains(b []byte, s string) bool { return bytes.Contains(b, []byte(s)) }
