// Package testenv gives each test a host of its own: a home, a tmux socket directory, a port, the built binaries, and a check
// at the end that nothing is left running.
package testenv

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cortex/proc"
)

// TB is what a host needs of its test: a testing.T, or a run of a property test.
type TB interface {
	Helper()
	Log(args ...any)
	Logf(format string, args ...any)
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
}

// Patience is how long Eventually waits: long, since it is only ever used up by a test that fails.
const Patience = 60 * time.Second

// Eventually waits for a condition, looking often.
func Eventually(t TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain for: %s", Patience, what)
		}
		<-tick.C
	}
}

// Variables by which a test program that was started again knows it: the folder of the binaries, and the test whose namespace
// it runs in.
const (
	BinariesOf  = "CORTEX_TEST_BINARIES"
	namespaceOf = "CORTEX_TEST_NAMESPACE"
)

// Namespace runs the test again in a mount namespace of its own (and in a user namespace, unless by root), in which it may
// mount what nobody else sees. It reports true there; the first run, where it is false, has nothing more to do.
func Namespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(namespaceOf) == t.Name() {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	bin, err := Build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), namespaceOf+"="+t.Name(), BinariesOf+"="+bin.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a namespace: %v\n%s", err, out)
	}
	return false
}

// SmallDisk mounts a file system of a size ("24m") as the host's state folder, in a test that Namespace has started again.
func (h *Host) SmallDisk(size string) {
	h.t.Helper()
	if err := os.MkdirAll(h.State, 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", h.State, "tmpfs", 0, "mode=700,size="+size); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := syscall.Unmount(h.State, syscall.MNT_DETACH); err != nil {
			h.t.Error(err)
		}
	})
}

// Host is a test's own host.
type Host struct {
	t      TB
	Bin    string // folder of the binaries
	Home   string
	State  string // Home/.cortex
	Tmux   string // TMUX_TMPDIR
	Listen string
	Extra  []string // more environment for the daemon, such as CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=2
	Limits []string // words before the daemon's command, such as prlimit and its options
	uid    int      // of everything that runs there; 0: the test's own
}

// Nobody is a user without rights and without control groups, for AsNobody.
const Nobody = 54321

// AsNobody makes all on the host run as an unprivileged user, before anything has run there. It reports false, and does
// nothing, where the test itself is unprivileged: then all does already.
func (h *Host) AsNobody() bool {
	h.t.Helper()
	return h.AsUser(Nobody)
}

// AsUser is AsNobody for a user of the test's own, whose processes are to be counted.
func (h *Host) AsUser(uid int) bool {
	h.t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	h.uid = uid
	for dir, mode := range map[string]os.FileMode{filepath.Dir(h.Home): 0o755, h.Home: 0o700, h.Tmux: 0o700} {
		if err := os.Chmod(dir, mode); err != nil {
			h.t.Fatal(err)
		}
	}
	for _, dir := range []string{h.Home, h.Tmux} {
		if err := os.Chown(dir, uid, uid); err != nil {
			h.t.Fatal(err)
		}
	}
	return true
}

// New makes a host. Its end stops what runs there and fails the test when something is left that should not be.
func New(t TB) *Host {
	t.Helper()
	bin, err := Build()
	if err != nil {
		t.Fatal(err)
	}
	short, err := os.MkdirTemp("/tmp", "ctx") // t.TempDir() is too long for a tmux socket's address
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{
		t: t, Bin: bin.Dir, Home: filepath.Join(short, "home"), State: filepath.Join(short, "home", ".cortex"),
		Tmux: filepath.Join(short, "tmux"), Listen: freePort(t),
	}
	for _, dir := range []string{h.Home, h.Tmux} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		h.Tmuxes("kill-server")
		h.noneLeft()
		if !t.Failed() {
			os.RemoveAll(short)
		}
	})
	return h
}

// freePort is an address that no other test has until t ends, whichever test program it is of: its port was claimed by an
// abstract socket, which goes with the process (unix(7)). It is below the kernel's ports for connections that go out
// (ip_local_port_range), so that none of these takes it while a daemon is restarted.
func freePort(t TB) string {
	for range 1000 {
		port := 10000 + rand.IntN(20000)
		claim, err := net.Listen("unix", fmt.Sprintf("@cortex-test-port-%d", port))
		if err != nil {
			continue
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", address)
		if err != nil {
			claim.Close()
			continue
		}
		l.Close()
		t.Cleanup(func() { claim.Close() })
		return address
	}
	t.Fatal("there is no free port")
	return ""
}

// Environ is the environment of everything on the host.
func (h *Host) Environ() []string {
	return append([]string{
		"HOME=" + h.Home, "TMUX_TMPDIR=" + h.Tmux, "PATH=" + h.Bin + ":" + os.Getenv("PATH"), "LANG=C.UTF-8",
		"CORTEX_API__LISTEN=" + h.Listen, "GORACE=halt_on_error=1 exitcode=66 atexit_sleep_ms=0",
	}, h.Extra...)
}

// Command makes a command that runs on the host.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Dir, cmd.SysProcAttr = h.Environ(), h.Home, &syscall.SysProcAttr{}
	if h.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(h.uid), Gid: uint32(h.uid)}
	}
	return cmd
}

// Run runs a command on the host and returns what it says on standard output; it fails the test when the command fails.
func (h *Host) Run(name string, args ...string) string {
	h.t.Helper()
	out, errout, code := h.Try(name, args...)
	if code != 0 {
		h.t.Fatalf("%s %q: exit %d\n%s%s", name, args, code, out, errout)
	}
	return out
}

// Try is Run for a command that may fail.
func (h *Host) Try(name string, args ...string) (stdout, stderr string, code int) {
	h.t.Helper()
	cmd := h.Command(name, args...)
	var out, errout bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errout, time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		h.t.Fatalf("%s %q: %v", name, args, err)
	}
	return out.String(), errout.String(), cmd.ProcessState.ExitCode()
}

// Cortex runs the command line and returns its standard output without the last line's end.
func (h *Host) Cortex(args ...string) string {
	h.t.Helper()
	return strings.TrimSuffix(h.Run(filepath.Join(h.Bin, "cortex"), args...), "\n")
}

// SQL runs a statement with the sqlite3 command line, as an operator would.
func (h *Host) SQL(statement string) string {
	h.t.Helper()
	return strings.TrimSuffix(h.Run("sqlite3", "-cmd", ".timeout 5000", filepath.Join(h.State, "cortex.db"), statement), "\n")
}

// Tmuxes runs tmux on the host's default server; that there is none is no error.
func (h *Host) Tmuxes(args ...string) string {
	out, _, _ := h.Try("tmux", args...)
	return out
}

// Sessions are the names of the host's ctx- sessions.
func (h *Host) Sessions() []string {
	var names []string
	for _, name := range strings.Fields(h.Tmuxes("list-sessions", "-F", "#{session_name}")) {
		if strings.HasPrefix(name, "ctx-") {
			names = append(names, name)
		}
	}
	return names
}

// Submit submits a command and returns its id.
func (h *Host) Submit(bead string, command ...string) string {
	h.t.Helper()
	return h.Cortex(slices.Concat([]string{"submit", "--bead", bead, "--project", "p", "--"}, command)...)
}

// Status is a dispatch's status, by the API.
func (h *Host) Status(id string) string { return h.Field(id, "status") }

// Field is a field of a dispatch as text, "" where it is null or the daemon does not answer.
func (h *Host) Field(id, name string) string {
	_, a := h.Get("/dispatches/" + id)
	if v, ok := a[name]; ok && v != nil {
		return fmt.Sprint(v)
	}
	return ""
}

// WaitStatus waits until a dispatch has a status.
func (h *Host) WaitStatus(id, want string) {
	h.t.Helper()
	got := ""
	defer func() {
		if h.t.Failed() {
			h.t.Logf("dispatch %s is %q", id, got)
		}
	}()
	Eventually(h.t, "dispatch "+id+" to be "+want, func() bool { got = h.Status(id); return got == want })
}

// WaitRunning waits until a dispatch has its process, and returns that.
func (h *Host) WaitRunning(id string) proc.Ident {
	h.t.Helper()
	var pid int
	Eventually(h.t, "dispatch "+id+" to have a process", func() bool {
		_, err := fmt.Sscan(h.Field(id, "pid"), &pid)
		return err == nil && pid > 0
	})
	ident, err := proc.Of(pid)
	if err != nil && h.Status(id) == "running" {
		h.t.Fatalf("process %d of dispatch %s: %v", pid, id, err)
	}
	return ident
}

// Processes are the live processes of the host, found by its path in their environment or command line: the tests' commands
// that shed their environment carry it as an argument.
func (h *Host) Processes() []string {
	var all []string
	for _, p := range h.processes() {
		all = append(all, fmt.Sprintf("%d %s %q", p.PID, p.Comm, proc.Cmdline(p.PID)))
	}
	return all
}

func (h *Host) processes() []proc.Stat {
	for range 50 { // what hops from process to process may be gone before it is asked
		found, missed := h.look()
		if len(found) > 0 || !missed {
			return found
		}
	}
	return nil
}

// look asks the youngest first; missed: one had gone by then.
func (h *Host) look() (found []proc.Stat, missed bool) {
	all, err := proc.All()
	if err != nil {
		h.t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b proc.Stat) int { return cmp.Compare(b.Start, a.Start) })
	mark := []byte(filepath.Dir(h.Home))
	for _, p := range all {
		if p.Dead() || p.PID == os.Getpid() {
			continue
		}
		for _, name := range []string{"environ", "cmdline"} {
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID, name))
			if err == nil && bytes.Contains(data, mark) {
				found = append(found, p)
				break
			}
			missed = missed || !p.Alive()
		}
	}
	return found, missed
}

// noneLeft fails the test if anything of the host still runs, and ends it.
func (h *Host) noneLeft() {
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	left := h.processes()
	for len(left) > 0 && time.Now().Before(deadline) {
		<-tick.C
		left = h.processes()
	}
	for _, p := range left {
		h.t.Errorf("left running: %d %s %q", p.PID, p.Comm, proc.Cmdline(p.PID))
		if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, proc.ErrGone) {
			h.t.Error(err)
		}
	}
}
