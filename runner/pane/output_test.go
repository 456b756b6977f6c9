package pane

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cortex/runner/record"
)

func TestOutputBeyondItsBound(t *testing.T) {
	t.Parallel()
	const limit, lines = 64 << 10, 30_000
	tr := prepare(t, t.TempDir(), "seq", "-f", "%09.0f", fmt.Sprint(lines))
	tr.spec.OutputMax = limit
	e := tr.start().end()
	var all bytes.Buffer
	for i := range lines {
		fmt.Fprintf(&all, "%09d\r\n", i+1)
	}
	log := tr.log()
	mark := regexp.MustCompile(`\r\n\[cortex: (\d+) bytes cut\]\r\n`).FindSubmatchIndex(log)
	if mark == nil {
		t.Fatalf("no mark in %d bytes", len(log))
	}
	head, tail := log[:mark[0]], log[mark[1]:]
	if len(head) != limit/2 || !bytes.HasPrefix(all.Bytes(), head) {
		t.Errorf("head of %d bytes", len(head))
	}
	if len(tail) < limit/4 || len(tail) > limit/2 || !bytes.HasSuffix(all.Bytes(), tail) {
		t.Errorf("tail of %d bytes", len(tail))
	}
	if cut := string(log[mark[2]:mark[3]]); cut != fmt.Sprint(e.OutputCut) {
		t.Errorf("%s cut by the mark, %d by the record", cut, e.OutputCut)
	}
	if e.OutputBytes != int64(all.Len()) || e.OutputBytes != int64(len(head)+len(tail))+e.OutputCut || e.OutputLost != 0 {
		t.Errorf("%+v", e)
	}
	tr.inStep()
	names, err := os.ReadDir(tr.dir.Path())
	check(t, err)
	for _, n := range names {
		if strings.HasPrefix(n.Name(), record.OutputLog+".") || strings.HasPrefix(n.Name(), record.OutputTiming+".") {
			t.Errorf("%s is left", n.Name())
		}
	}
}

func TestAPaneThatIsNotReadHoldsNothingUp(t *testing.T) {
	t.Parallel()
	tr := prepare(t, t.TempDir(), "sh", "-c", "head -c 900000 /dev/zero; exit 3")
	tr.blind = true
	e := tr.start().end()
	if e.Code != 3 || e.OutputBytes != 900_000 || len(tr.log()) != 900_000 {
		t.Errorf("%+v", e)
	}
	tr.inStep()
}

func TestLastWordsAreKept(t *testing.T) {
	t.Parallel()
	// A survivor in the background holds the terminal while the agent ends; and the agent may close its own before.
	for name, c := range map[string][2]string{
		"after a background":    {"sleep TOKEN & seq 1 20000; echo end", "19999\r\n20000\r\nend\r\n"},
		"reopened terminal":     {"exec </dev/null >/dev/null 2>&1; sleep 0.1; exec >/dev/tty; echo back", "back\r\n"},
		"swept while it writes": {"setsid sh -c '>up; while :; do echo more; done; : TOKEN' & until [ -e up ]; do sleep 0.01; done; exit 0", "more\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := prepare(t, t.TempDir(), "sh", "-c", c[0])
			e := tr.start().end()
			if log := tr.log(); !bytes.HasSuffix(log, []byte(c[1])) && name != "swept while it writes" || !contains(log, c[1]) {
				t.Errorf("the log ends with %q", log[max(0, len(log)-40):])
			}
			if e.Code != 0 {
				t.Errorf("%+v", e)
			}
			tr.inStep()
		})
	}
}

// onSmallDisk runs the test in a mount namespace of its own (and a user namespace, unless by root), so that it can mount a
// small file system; true there.
func onSmallDisk(t *testing.T) bool {
	if os.Getenv("PANE_TEST_NAMESPACE") == t.Name() {
		check(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "PANE_TEST_NAMESPACE="+t.Name(), "PANE_TEST_PROGRAM="+program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !contains(out, "--- PASS: "+t.Name()) {
		t.Errorf("in a namespace: %v\n%s", err, out)
	}
	return false
}

func smallDisk(t *testing.T, size string) string {
	dir := t.TempDir()
	check(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=700,size="+size))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all room but so many bytes, in a file of that name.
func fill(t *testing.T, dir, name string, but int64) string {
	path := filepath.Join(dir, name)
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	st, err := f.Stat()
	check(t, err)
	check(t, f.Truncate(st.Size()-but))
	return path
}

func TestFullDiskLosesOutputButNoRecord(t *testing.T) {
	t.Parallel()
	if !onSmallDisk(t) {
		return
	}
	dir := smallDisk(t, "4m")
	runs := filepath.Join(dir, "runs")
	check(t, os.Mkdir(runs, 0o700))
	tr := prepare(t, runs, "200000").role("flood")
	tr.spec.OutputMax = 64 << 20
	filler := fill(t, dir, "filler", 128<<10)
	tr.start()
	w := tr.connect()
	s := w.until("trouble", func(s record.State) bool { return s.Error != "" })
	if !strings.Contains(s.Error, "no space left on device") {
		t.Errorf("%+v", s)
	}
	eventually(t, "all is said", func() bool { return w.state().OutputBytes >= 200_000+9 })
	tr.inStep()
	check(t, os.Remove(filler))
	_, err := tr.pane.WriteString("\r")
	check(t, err)
	w.until("no trouble", func(s record.State) bool { return s.Error == "" })
	tr.says("flooded")
	full := fill(t, dir, "again", 0)
	_, err = tr.pane.WriteString("\r")
	check(t, err)
	e := tr.end()
	if e.Code != 7 || e.OutputLost == 0 || e.OutputCut != 0 {
		t.Errorf("%+v", e)
	}
	log := tr.log()
	marks := regexp.MustCompile(`\r\n\[cortex: \d+ bytes lost: no space left on device\]\r\n`).FindAll(log, -1)
	if len(marks) == 0 {
		t.Error("no mark")
	}
	kept := len(log)
	for _, m := range marks {
		kept -= len(m)
	}
	if int64(kept)+e.OutputLost != e.OutputBytes {
		t.Errorf("%d bytes kept, %d lost, %d said", kept, e.OutputLost, e.OutputBytes)
	}
	tr.inStep()
	check(t, os.Remove(full))
}

func TestNoRoomForTheRecordNoStart(t *testing.T) {
	t.Parallel()
	if !onSmallDisk(t) {
		return
	}
	dir := smallDisk(t, "1m")
	runs := filepath.Join(dir, "runs")
	check(t, os.Mkdir(runs, 0o700))
	tr := prepare(t, runs, "touch", "ran")
	filler := fill(t, dir, "filler", 2<<12) // the spec and the claim
	tr.start()
	w := tr.connect()
	s := w.phase(record.PhaseWriting)
	if !strings.Contains(s.Error, "no space left on device") || s.Exit == nil || s.Exit.Cause != record.CauseSpawnError {
		t.Errorf("%+v", s)
	}
	check(t, os.Remove(filler))
	w.phase(record.PhaseEnded)
	e := tr.end()
	if e.Cause != record.CauseSpawnError || !strings.Contains(e.Error, "reserve room for") {
		t.Errorf("%+v", e)
	}
	if _, err := os.Stat(filepath.Join(tr.spec.Workdir, "ran")); err == nil {
		t.Error("it was started")
	}
}
