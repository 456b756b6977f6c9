package pane

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"cortex/cgroup"
	"cortex/proc"
	"cortex/runner/record"
)

const patience = 60 * time.Second

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	over := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// trial is one attempt, run by the real program on a pty of the test's, which stands for the pane.
type trial struct {
	t     *testing.T
	runs  string
	spec  record.Spec
	dir   *record.Dir
	token string // is in the command line of everything that the agent leaves behind

	wrap    []string   // put before the program's command line
	extra   []*os.File // descriptors that the program inherits
	blind   bool       // nobody reads the pane
	session string

	cmd   *exec.Cmd
	pane  *os.File
	ended chan struct{} // closed when the program has ended

	mu    sync.Mutex
	shown bytes.Buffer // guarded by mu
}

// prepare makes an attempt's folders and spec. The test binary is the agent in the role, or the command as given.
func prepare(t *testing.T, runs string, command ...string) *trial {
	t.Helper()
	tr := &trial{t: t, runs: runs, token: fmt.Sprintf("86400.%09d", rand.IntN(1e9)), session: "ctx-p-b-7"}
	for i, c := range command {
		command[i] = strings.ReplaceAll(c, "TOKEN", tr.token)
	}
	tr.spec = record.Spec{
		Format: record.Format, ID: 7, Bead: "b", Project: "p", CreatedAt: time.Now().UTC(),
		Command: command, Workdir: t.TempDir(), Stdin: record.StdinPTY,
		Env: []record.Raw{"PATH=/usr/local/bin:/usr/bin:/bin"}, GraceMS: 10_000, OutputMax: 1 << 20, Columns: 200, Rows: 50,
	}
	top, err := record.MakeDir(runs, 7, 0)
	check(t, err)
	check(t, top.Close())
	tr.dir, err = record.MakeDir(runs, 7, 1)
	check(t, err)
	t.Cleanup(func() { tr.dir.Close() })
	return tr
}

func (tr *trial) role(name string) *trial {
	self, err := os.Executable()
	check(tr.t, err)
	tr.spec.Command = append([]string{self}, tr.spec.Command...)
	tr.spec.Env = append(tr.spec.Env, record.Raw(roleEnv+"="+name))
	return tr
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start writes the spec and starts the program.
func (tr *trial) start() *trial {
	tr.t.Helper()
	top, err := record.OpenDir(tr.runs, 7, 0)
	check(tr.t, err)
	check(tr.t, top.Write(record.SpecFile, tr.spec))
	check(tr.t, top.Close())
	return tr.launch()
}

func (tr *trial) launch() *trial {
	tr.t.Helper()
	argv := append(tr.wrap, program, tr.runs, "7", "1", tr.session)
	tr.cmd = exec.Command(argv[0], argv[1:]...)
	tr.cmd.Env = append(os.Environ(), "TERM=tmux-256color", "TMUX=/tmp/t,1,2")
	tr.cmd.ExtraFiles = tr.extra
	if len(tr.wrap) > 0 {
		tr.cmd.Env = append(tr.cmd.Env, roleEnv+"=masked")
	}
	pane, err := pty.StartWithSize(tr.cmd, &pty.Winsize{Cols: 80, Rows: 24})
	check(tr.t, err)
	pane = unblock(tr.t, pane)
	tr.pane, tr.ended = pane, make(chan struct{})
	read := make(chan struct{})
	go func() {
		defer close(read)
		if !tr.blind {
			io.Copy(tr, pane)
		}
	}()
	go func() {
		tr.cmd.Wait()
		close(tr.ended)
	}()
	tr.t.Cleanup(func() {
		tr.cmd.Process.Kill()
		<-tr.ended
		pane.Close()
		<-read
		for _, s := range tr.left() {
			s.Signal(syscall.SIGKILL)
		}
		// A runner that a test has killed leaves its group.
		var claim record.Claim
		if tr.dir.Read(record.ClaimFile, &claim) == nil {
			if g, ok := cgroup.Find(claim.Cgroup); ok {
				check(tr.t, errors.Join(g.Kill(), g.AwaitEmpty(context.Background()), g.Remove()))
			}
		}
	})
	return tr
}

// unblock makes a pty's master one whose Close interrupts a Read; the pty package leaves it blocking.
func unblock(t *testing.T, f *os.File) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	check(t, err)
	check(t, unix.SetNonblock(fd, true))
	check(t, f.Close())
	return os.NewFile(uintptr(fd), "pane")
}

// Write takes in what the pane shows.
func (tr *trial) Write(p []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.shown.Write(p)
}

func (tr *trial) screen() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.shown.String()
}

// left lists the processes with the trial's token that live, but for the program itself.
func (tr *trial) left() []proc.Stat {
	all, err := proc.All()
	check(tr.t, err)
	var found []proc.Stat
	for _, s := range all {
		if !s.Dead() && s.PID != os.Getpid() && strings.Contains(proc.Cmdline(s.PID), tr.token) {
			found = append(found, s)
		}
	}
	return found
}

// wait waits for the program's end, and returns its exit status.
func (tr *trial) wait() int {
	tr.t.Helper()
	select {
	case <-tr.ended:
	case <-time.After(patience):
		tr.t.Fatalf("the runner does not end; phase %+v", tr.connect().state())
	}
	return tr.cmd.ProcessState.ExitCode()
}

// end waits for the program's end, and reads the exit record. Nothing of the agent may be left by then.
func (tr *trial) end() record.Exit {
	tr.t.Helper()
	if code := tr.wait(); code != exitDone {
		tr.t.Fatalf("the runner's exit status is %d; it shows %q", code, tr.screen())
	}
	if left := tr.left(); len(left) > 0 {
		tr.t.Errorf("left: %+v", left)
	}
	var e record.Exit
	check(tr.t, tr.dir.Read(record.ExitFile, &e))
	if e.Format != record.Format || e.ID != 7 || e.Attempt != 1 {
		tr.t.Errorf("exit record of another attempt: %+v", e)
	}
	for _, name := range []string{record.Socket, record.ExitFile + ".new"} {
		if tr.dir.Exists(name) {
			tr.t.Errorf("%s is left", name)
		}
	}
	return e
}

// log is what the log says now.
func (tr *trial) log() []byte {
	tr.t.Helper()
	r, err := tr.dir.OpenLog()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	check(tr.t, err)
	defer r.Close()
	out, err := io.ReadAll(r)
	check(tr.t, err)
	return out
}

// says waits until the log has s.
func (tr *trial) says(s string) *trial {
	tr.t.Helper()
	eventually(tr.t, fmt.Sprintf("the log says %q", s), func() bool { return contains(tr.log(), s) })
	return tr
}

// inStep checks that the timing's bytes add up to the log's: at once or, where the last write may still be under way, in a
// moment.
func (tr *trial) inStep() {
	tr.t.Helper()
	eventually(tr.t, "the timing adds up to the log", func() bool { return tr.timed() == len(tr.log()) })
}

func (tr *trial) timed() int {
	tr.t.Helper()
	timing, err := os.ReadFile(filepath.Join(tr.dir.Path(), record.OutputTiming))
	check(tr.t, err)
	sum := 0
	for line := range strings.Lines(string(timing)) {
		_, n, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		size, err := strconv.Atoi(n)
		if !ok || err != nil {
			tr.t.Fatalf("timing line %q", line)
		}
		sum += size
	}
	return sum
}

// wire is a connection to the runner.
type wire struct {
	t     *testing.T
	c     net.Conn
	lines *bufio.Scanner
	seq   int64
}

// connect connects to the runner, and waits for its socket.
func (tr *trial) connect() *wire {
	tr.t.Helper()
	var c net.Conn
	eventually(tr.t, "the socket answers", func() bool {
		var err error
		c, err = net.Dial("unix", tr.dir.SocketPath(record.Socket))
		return err == nil
	})
	tr.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	lines := bufio.NewScanner(c)
	lines.Buffer(nil, 1<<20)
	return &wire{t: tr.t, c: c, lines: lines}
}

// next is the next message; nil at the connection's end.
func (w *wire) next() *record.Message {
	w.t.Helper()
	if !w.lines.Scan() {
		if err := w.lines.Err(); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			w.t.Fatal(err)
		}
		return nil
	}
	var m record.Message
	check(w.t, json.Unmarshal(w.lines.Bytes(), &m))
	return &m
}

// until reads on to a state that has what is wanted.
func (w *wire) until(what string, ok func(record.State) bool) record.State {
	w.t.Helper()
	for {
		m := w.next()
		if m == nil {
			w.t.Fatalf("the connection ended before %s", what)
		}
		if m.State != nil && ok(*m.State) {
			return *m.State
		}
	}
}

func (w *wire) phase(p string) record.State {
	w.t.Helper()
	return w.until("phase "+p, func(s record.State) bool { return s.Phase == p })
}

// ask sends a request and returns the answer to it.
func (w *wire) ask(q record.Request) record.Message {
	w.t.Helper()
	w.seq++
	q.Seq = w.seq
	if q.Format == 0 {
		q.Format = record.Format
	}
	check(w.t, json.NewEncoder(w.c).Encode(q))
	for {
		m := w.next()
		if m == nil {
			w.t.Fatal("the connection ended before the answer")
		}
		if m.Seq == w.seq {
			return *m
		}
	}
}

func (w *wire) state() record.State { return *w.ask(record.Request{Op: record.OpStatus}).State }
