package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const (
	roleEnv      = "RECORD_TEST_ROLE"      // makes the test binary a rival for a claim
	namespaceEnv = "RECORD_TEST_NAMESPACE" // names the test that was started again in a mount namespace
)

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "rival" {
		os.Exit(rival())
	}
	goleak.VerifyTestMain(m)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// makeDir makes the folder of an attempt in runs.
func makeDir(t testing.TB, runs string) *Dir {
	t.Helper()
	top, err := MakeDir(runs, 7, 0)
	check(t, err)
	check(t, top.Close())
	d, err := MakeDir(runs, 7, 1)
	check(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

func newDir(t testing.TB) *Dir {
	t.Helper()
	return makeDir(t, t.TempDir())
}

// names lists what is in the folder.
func (d *Dir) names(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir(d.Path())
	check(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func put(t testing.TB, d *Dir, name string, data []byte) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(d.Path(), name), data, 0o600))
}

// readLog is what a reader finds now.
func readLog(t testing.TB, d *Dir) []byte {
	t.Helper()
	r, err := d.OpenLog()
	check(t, err)
	out, err := io.ReadAll(r)
	check(t, err)
	if int64(len(out)) != r.Size() {
		t.Errorf("read %d bytes, the size is %d", len(out), r.Size())
	}
	check(t, r.Close())
	return out
}

// sumTiming adds up a file of timing: bytes and µs.
func sumTiming(t testing.TB, d *Dir, name string) (size, micros int64) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(d.Path(), name))
	check(t, err)
	for line := range strings.Lines(string(data)) {
		var s, us, n int64
		if c, err := fmt.Sscanf(line, "%d.%06d %d\n", &s, &us, &n); c != 3 || err != nil || n <= 0 || s < 0 || us < 0 {
			t.Fatalf("%s has the line %q", name, line)
		}
		size, micros = size+n, micros+s*1e6+us
	}
	return size, micros
}

// inStep checks that in each part of the log, which is not being written, the timing adds up to the bytes.
func inStep(t testing.TB, d *Dir) {
	t.Helper()
	for _, name := range d.names(t) {
		suffix, ok := strings.CutPrefix(name, OutputLog)
		if !ok {
			continue
		}
		st, err := os.Stat(filepath.Join(d.Path(), name))
		check(t, err)
		if sum, _ := sumTiming(t, d, OutputTiming+suffix); sum != st.Size() {
			t.Errorf("%s has %d bytes, its timing adds up to %d", name, st.Size(), sum)
		}
	}
}

// alone reports whether the log is the one file that it has to be in the end, with its timing.
func alone(t testing.TB, d *Dir) {
	t.Helper()
	for _, name := range d.names(t) {
		if strings.HasPrefix(name, OutputLog+".") || strings.HasPrefix(name, OutputTiming+".") {
			t.Errorf("%s is left", name)
		}
	}
}

// rival creates a claim once its standard input ends, and says whether it was first.
func rival() int {
	d, err := OpenDir(os.Args[1], 7, 1)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	switch err := d.Create(ClaimFile, Claim{Format: Format, Runner: Process{PID: os.Getpid()}}); {
	case err == nil:
		fmt.Println("won")
	case errors.Is(err, ErrTaken):
		fmt.Println("lost")
	default:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// onSmallDisk runs the test again in a mount namespace of its own (and a user namespace, unless by root), so that it can
// mount a small file system; true there.
func onSmallDisk(t *testing.T) bool {
	t.Helper()
	if os.Getenv(namespaceEnv) == t.Name() {
		check(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), namespaceEnv+"="+t.Name(), "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a namespace: %v\n%s", err, out)
	}
	return false
}

// mount mounts a file system for the test.
func mount(t *testing.T, kind, options string) string {
	t.Helper()
	dir := t.TempDir()
	check(t, unix.Mount(kind, dir, kind, 0, options))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// page is the unit in which a tmpfs gives room.
var page = int64(os.Getpagesize())

// fill takes all room but so many pages.
func fill(t *testing.T, dir string, pages int64) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	for block := make([]byte, page); ; {
		if _, err := f.Write(block); err != nil {
			wantErr(t, err, unix.ENOSPC)
			break
		}
	}
	st, err := f.Stat()
	check(t, err)
	check(t, f.Truncate((st.Size()/page-pages)*page))
	return path
}

// free is the room that is left, in bytes.
func free(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	check(t, unix.Statfs(dir, &st))
	return int64(st.Bavail) * st.Bsize
}

// soon runs f and fails the test if it does not return: what never blocks.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s blocks", what)
	}
}

var errNone = fs.ErrNotExist
