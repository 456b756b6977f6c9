package pane

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cortex/proc"
	"cortex/runner/record"
)

func TestStop(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep TOKEN & wait; done")
	tr.start().says("ready")
	w := tr.connect()
	if m := w.ask(record.Request{Op: record.OpStop}); m.Error != "" || m.State.Phase != record.PhaseStopping {
		t.Errorf("%+v", m)
	}
	e := tr.end()
	// Exit 0 after a signal of ours is not success: the cause says so.
	if e.Cause != record.CauseStop || e.Code != 0 {
		t.Errorf("%+v", e)
	}
	tr.says("bye")
}

func TestStopReachesAStoppedAgent(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "sh", "-c", "echo ready; kill -STOP $$; sleep TOKEN")
	tr.start().says("ready")
	w := tr.connect()
	agent := w.phase(record.PhaseRunning).Agent
	eventually(t, "it is stopped", func() bool { return stateOf(t, agent.PID) == 'T' })
	w.ask(record.Request{Op: record.OpStop})
	if e := tr.end(); e.Cause != record.CauseStop || e.Signal != 15 {
		t.Errorf("%+v", e)
	}
}

func stateOf(t *testing.T, pid int) byte {
	all, err := proc.All()
	check(t, err)
	for _, s := range all {
		if s.PID == pid {
			return s.State
		}
	}
	return 0
}

func TestGrace(t *testing.T) {
	t.Parallel()
	t.Run("ends what ignores TERM", func(t *testing.T) {
		t.Parallel()
		tr := prepare(t, t.TempDir(), "TOKEN").role("deaf").start().says("ready")
		w := tr.connect()
		asked := time.Now()
		w.ask(record.Request{Op: record.OpStop, GraceMS: 300})
		e := tr.end()
		if e.Cause != record.CauseStop || e.Signal != 9 || e.Code != -1 || e.EndedAt.Sub(asked) < 299*time.Millisecond {
			t.Errorf("%+v", e)
		}
	})
	t.Run("is only made shorter", func(t *testing.T) {
		t.Parallel()
		tr := prepare(t, t.TempDir(), "TOKEN").role("deaf").start().says("ready")
		w := tr.connect()
		w.ask(record.Request{Op: record.OpStop, GraceMS: 3_600_000})
		if s := w.state(); s.Phase != record.PhaseStopping {
			t.Errorf("%+v", s)
		}
		w.ask(record.Request{Op: record.OpStop, GraceMS: 1})
		w.ask(record.Request{Op: record.OpStop, GraceMS: 3_600_000})
		if e := tr.end(); e.Cause != record.CauseStop || e.Signal != 9 {
			t.Errorf("%+v", e)
		}
	})
}

func TestSignal(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "sh", "-c", "trap 'echo one' USR1; echo ready; while :; do sleep 0.02; done; : TOKEN")
	tr.start().says("ready")
	w := tr.connect()
	if m := w.ask(record.Request{Op: record.OpSignal, Signal: int(unix.SIGUSR1)}); m.Error != "" || m.State.Phase != record.PhaseRunning {
		t.Errorf("%+v", m)
	}
	tr.says("one")
	w.ask(record.Request{Op: record.OpSignal, Signal: 9})
	if e := tr.end(); e.Cause != record.CauseExit || e.Signal != 9 {
		t.Errorf("%+v", e)
	}
}

// What an agent leaves behind when it ends, in every way there is to get away.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"background": "sh -c 'trap \"\" HUP; >up; sleep TOKEN; sleep TOKEN' &",
		"setsid":     "setsid sh -c '>up; exec sleep TOKEN' &",
		"double":     "(setsid sh -c 'sleep TOKEN & sleep TOKEN & >up; exit' &);",
		"nohup":      "nohup setsid sh -c '>up; exec sleep TOKEN' >/dev/null 2>&1 </dev/null &",
		"no env":     "env -i /usr/bin/setsid /bin/sh -c '>up; exec /bin/sleep TOKEN' </dev/null >/dev/null 2>&1 &",
		"stopped":    "setsid sh -c '>up; kill -STOP $$; sleep TOKEN' &",
		"ignoring":   "setsid sh -c 'trap \"\" TERM HUP INT; >up; sleep TOKEN; sleep TOKEN' &",
	} {
		for how, end := range map[string]string{"exit 0": "exit 0", "stop": "echo ready; exec sleep TOKEN"} {
			for layer, noCgroup := range map[string]bool{"by its group": false, "by its tree": true} {
				t.Run(name+", "+how+", "+layer, func(t *testing.T) {
					t.Parallel()
					tr := prepare(t, t.TempDir(), "sh", "-c", script+" until [ -e up ]; do sleep 0.01; done; "+end)
					tr.spec.NoCgroup = noCgroup
					tr.start()
					want := record.CauseExit
					if how == "stop" {
						want = record.CauseStop
						tr.says("ready").connect().ask(record.Request{Op: record.OpStop})
					}
					e := tr.end()
					if e.Cause != want || want == record.CauseExit && e.Code != 0 {
						t.Errorf("%+v", e)
					}
					if how == "exit 0" && len(e.Swept) == 0 {
						t.Errorf("nothing swept: %+v", e)
					}
				})
			}
		}
	}
}

func TestNothingIsLeftOf(t *testing.T) {
	t.Parallel()
	t.Run("a hopper", func(t *testing.T) {
		t.Parallel()
		tr := prepare(t, t.TempDir(), "TOKEN").role("hopper")
		tr.start().end()
		if !contains(tr.log(), "hop") {
			t.Error("it did not hop")
		}
	})
	t.Run("a process without its first thread", func(t *testing.T) {
		t.Parallel()
		tr := prepare(t, t.TempDir(), "TOKEN").role("headless").start().says("ready")
		w := tr.connect()
		agent := w.phase(record.PhaseRunning).Agent
		eventually(t, "its first thread has ended", func() bool { return stateOf(t, agent.PID) == 'Z' })
		w.ask(record.Request{Op: record.OpStop, Signal: int(unix.SIGWINCH), GraceMS: 100})
		if e := tr.end(); e.Cause != record.CauseStop || e.Signal != 9 {
			t.Errorf("%+v", e)
		}
		if (proc.Ident{PID: agent.PID, Start: agent.Start}).Exists() {
			t.Error("it is there still")
		}
	})
	t.Run("many", func(t *testing.T) {
		t.Parallel()
		tr := prepare(t, t.TempDir(), "sh", "-c",
			"for i in $(seq 40); do setsid sh -c '>$0; exec sleep TOKEN' up$i & done; until [ $(ls | wc -l) = 40 ]; do sleep 0.01; done; exit 5")
		e := tr.start().end()
		if e.Code != 5 || len(e.Swept) != maxListed || len(e.Swept)+e.SweptMore < 40 {
			t.Errorf("%+v", e)
		}
	})
}

func TestHangUp(t *testing.T) {
	t.Parallel()
	for name, hang := range map[string]func(*trial){
		"the pane is closed": func(tr *trial) { tr.pane.Close() },
		"HUP":                func(tr *trial) { tr.cmd.Process.Signal(syscall.SIGHUP) },
		"TERM":               func(tr *trial) { tr.cmd.Process.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := prepare(t, t.TempDir(), "sh", "-c", "trap 'echo hup' HUP; setsid sleep TOKEN & echo ready; while :; do sleep 0.02; done")
			tr.spec.GraceMS = 300
			tr.start().says("ready")
			w := tr.connect()
			w.phase(record.PhaseRunning)
			hang(tr)
			e := tr.end()
			if e.Cause != record.CauseHangup || e.Signal != 9 {
				t.Errorf("%+v", e)
			}
			tr.says("hup")
		})
	}
	t.Run("after a stop", func(t *testing.T) {
		t.Parallel()
		tr := prepare(t, t.TempDir(), "TOKEN").role("deaf")
		tr.spec.GraceMS = 200
		tr.start().says("ready")
		tr.connect().ask(record.Request{Op: record.OpStop, GraceMS: 3_600_000})
		check(t, tr.pane.Close())
		if e := tr.end(); e.Cause != record.CauseStop || e.Signal != 9 {
			t.Errorf("%+v", e)
		}
	})
}

// Signals that mean nothing to a runner must not end it: its agent would end without a record.
func TestOtherSignals(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "sh", "-c", "echo ready; read x; exit 4").start().says("ready")
	for _, sig := range []syscall.Signal{unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGPWR} {
		check(t, tr.cmd.Process.Signal(sig))
	}
	tr.connect().state()
	_, err := tr.pane.WriteString("\r")
	check(t, err)
	if e := tr.end(); e.Code != 4 {
		t.Errorf("%+v", e)
	}
}

func TestAgentDiesWithItsRunner(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "TOKEN").role("deaf").start().says("ready")
	check(t, tr.cmd.Process.Kill())
	tr.wait()
	eventually(t, "the agent is dead", func() bool { return len(tr.left()) == 0 })
	if tr.dir.Exists(record.ExitFile) {
		t.Error("an exit record by a runner that was killed")
	}
	tr.says("ready") // the log reads
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "sleep", "TOKEN").start()
	w := tr.connect()
	w.phase(record.PhaseRunning)
	for _, c := range []struct {
		q    record.Request
		want string
	}{
		{record.Request{Op: "dance"}, `no operation "dance"`},
		{record.Request{Op: record.OpStatus, Format: 99}, "format 99; this runner speaks up to 1"},
		{record.Request{Op: record.OpStop, Signal: 65}, "no signal 65"},
		{record.Request{Op: record.OpSignal, Signal: -1}, "no signal -1"},
	} {
		if m := w.ask(c.q); m.Error != c.want || m.State.Phase != record.PhaseRunning {
			t.Errorf("%+v: %+v", c.q, m)
		}
	}
	fmt.Fprintln(w.c, `{"format":`)
	if m := w.next(); !strings.HasPrefix(m.Error, "not a request") {
		t.Errorf("%+v", m)
	}
	// One that never ends is cut off; others go on.
	long := tr.connect()
	go long.c.Write([]byte(strings.Repeat("x", maxRequest+1)))
	long.until("refusal", func(record.State) bool { return true })
	if m := long.next(); m == nil || !strings.Contains(m.Error, "at most 65536 bytes") {
		t.Errorf("%+v", m)
	}
	if w.state().Phase != record.PhaseRunning {
		t.Error("it does not go on")
	}
	w.ask(record.Request{Op: record.OpStop})
	tr.end()
}

// Connections that are not read, are not closed, or are too many never hold the runner up.
func TestDeafConnections(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "sleep", "TOKEN").start()
	w := tr.connect()
	w.phase(record.PhaseRunning)
	line, err := json.Marshal(record.Request{Format: record.Format, Seq: 1, Op: record.OpStatus})
	check(t, err)
	line = append(line, '\n')
	for range 5 {
		deaf := tr.connect()
		go func() { // until it is dropped
			for {
				if _, err := deaf.c.Write(line); err != nil {
					return
				}
			}
		}()
	}
	for range 2 * maxConnections {
		tr.connect()
	}
	for range 100 {
		w.state()
	}
	w.ask(record.Request{Op: record.OpStop})
	w.phase(record.PhaseEnded)
	tr.end()
}

func TestRemovedFolder(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "sh", "-c", "rm -rf $CORTEX_RUN_DIR; exit 6").start()
	if code := tr.wait(); code != exitDone {
		t.Errorf("status %d, %s", code, tr.screen())
	}
	dir, err := record.OpenDir(tr.runs, 7, 1)
	check(t, err)
	defer dir.Close()
	var e record.Exit
	if err := dir.Read(record.ExitFile, &e); err != nil || e.Code != 6 {
		t.Errorf("%+v, %v", e, err)
	}
}

// The agent runs as the same user and may write in the folder: what it puts there is not followed.
func TestLinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "sh", "-c", "cd $CORTEX_RUN_DIR; rm exit.json.new; ln -s ../../precious exit.json.new; ln -s ../../precious exit.json; exit 2")
	precious := filepath.Join(tr.runs, "precious")
	check(t, os.WriteFile(precious, []byte("precious"), 0o600))
	tr.start()
	if code := tr.wait(); code != exitDone {
		t.Errorf("status %d, %s", code, tr.screen())
	}
	var e record.Exit
	if err := tr.dir.Read(record.ExitFile, &e); err != nil || e.Code != 2 {
		t.Errorf("%+v, %v", e, err)
	}
	if got, err := os.ReadFile(precious); string(got) != "precious" {
		t.Errorf("%q, %v", got, err)
	}
}
