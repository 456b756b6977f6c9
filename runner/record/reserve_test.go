package record

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func reserve(t *testing.T, d *Dir) *Reserved {
	t.Helper()
	r, err := d.Reserve(ExitFile, ExitReserve)
	check(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

// wantExit checks that the record says so, and that nothing but it is in the folder.
func wantExit(t *testing.T, d *Dir, code int) {
	t.Helper()
	var e Exit
	check(t, d.Read(ExitFile, &e))
	if e.Code != code {
		t.Errorf("%+v, want code %d", e, code)
	}
	if names := d.names(t); !slices.Contains(names, ExitFile) || len(names) != 1 {
		t.Errorf("in the folder: %q", names)
	}
}

func TestReserveTakesRoomThatIsThere(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	put(t, d, ExitFile+".new", []byte("of an earlier one, and longer than what comes"))
	r := reserve(t, d)
	var st unix.Stat_t
	check(t, unix.Stat(filepath.Join(d.Path(), ExitFile+".new"), &st))
	if st.Blocks*512 < ExitReserve || st.Mode&0o777 != 0o600 {
		t.Errorf("%d bytes are allocated, mode %o", st.Blocks*512, st.Mode)
	}
	if d.Exists(ExitFile) {
		t.Error("the record is there before it is written")
	}
	check(t, r.Write(Exit{Format: Format, Code: 3}))
	wantExit(t, d, 3)
	check(t, r.Write(Exit{Format: Format, Code: 4})) // its room is used up: an ordinary one
	wantExit(t, d, 4)
}

func TestReservedRefusesWhatIsLarger(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	r := reserve(t, d)
	if err := r.Write(Exit{Format: Format, Error: strings.Repeat("x", ExitReserve)}); err == nil {
		t.Error("it was written")
	}
	if err := r.Write(func() {}); err == nil {
		t.Error("a function was written")
	}
	if d.Exists(ExitFile) {
		t.Error("there is a record")
	}
	// The largest that fits, and one after errors.
	e := Exit{Format: Format, Code: 5}
	check(t, r.Write(e))
	wantExit(t, d, 5)
}

// The agent may write in the folder, too.
func TestReservedFileTakenAway(t *testing.T) {
	t.Parallel()
	target := filepath.Join(t.TempDir(), "target")
	check(t, os.WriteFile(target, []byte("theirs"), 0o600))
	for name, meddle := range map[string]func(path string) error{
		"removed":       os.Remove,
		"moved":         func(path string) error { return os.Rename(path, target+".moved") },
		"link":          func(path string) error { os.Remove(path); return os.Symlink(target, path) },
		"dangling link": func(path string) error { os.Remove(path); return os.Symlink(target+".none", path) },
		"another file":  func(path string) error { os.Remove(path); return os.WriteFile(path, []byte("{}"), 0o600) },
		"FIFO":          func(path string) error { os.Remove(path); return unix.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDir(t)
			r := reserve(t, d)
			path := filepath.Join(d.Path(), ExitFile+".new")
			check(t, meddle(path))
			soon(t, "the write", func() { check(t, r.Write(Exit{Format: Format, Code: 9})) })
			check(t, d.Remove(ExitFile+".new"))
			wantExit(t, d, 9)
			if text, err := os.ReadFile(target); err != nil || string(text) != "theirs" {
				t.Errorf("the link was followed: %q, %v", text, err)
			}
		})
	}
}

// A link in the record's own place is replaced, never followed.
func TestReservedReplacesALinkInItsPlace(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	r := reserve(t, d)
	target := filepath.Join(t.TempDir(), "target")
	check(t, os.Symlink(target, filepath.Join(d.Path(), ExitFile)))
	check(t, r.Write(Exit{Format: Format, Code: 2}))
	wantExit(t, d, 2)
	if _, err := os.Stat(target); err == nil {
		t.Error("the link was followed")
	}
}

func TestReservedIsWrittenOnAFullDisk(t *testing.T) {
	t.Parallel()
	if !onSmallDisk(t) {
		return
	}
	disk := mount(t, "tmpfs", "mode=700,size=256k")
	d := makeDir(t, disk)
	r := reserve(t, d)
	filler := fill(t, disk, 0)
	if _, err := d.Reserve(OrderFile, ExitReserve); err == nil {
		t.Error("room was reserved where there is none")
	} else {
		wantErr(t, err, unix.ENOSPC)
	}
	if d.Exists(OrderFile + ".new") {
		t.Error("what could not be reserved is left")
	}
	wantErr(t, d.Write(OrderFile, Order{Format: Format}), unix.ENOSPC)
	wantErr(t, d.Create(ClaimFile, Claim{Format: Format}), unix.ENOSPC)
	if names := d.names(t); !slices.Equal(names, []string{ExitFile + ".new"}) {
		t.Errorf("left: %q", names)
	}
	if n := free(t, disk); n != 0 {
		t.Fatalf("%d bytes are free: the test proves nothing", n)
	}
	check(t, r.Write(Exit{Format: Format, Code: 6, Error: strings.Repeat("x", ExitReserve-400)}))
	wantExit(t, d, 6)
	check(t, os.Remove(filler))
}

// Without the reserved file a full disk is an error, the old record stays, and the next try succeeds once there is room.
func TestReservedFileTakenAwayOnAFullDisk(t *testing.T) {
	t.Parallel()
	if !onSmallDisk(t) {
		return
	}
	disk := mount(t, "tmpfs", "mode=700,size=256k")
	d := makeDir(t, disk)
	r := reserve(t, d)
	check(t, os.Remove(filepath.Join(d.Path(), ExitFile+".new")))
	filler := fill(t, disk, 0)
	for range 3 {
		wantErr(t, r.Write(Exit{Format: Format, Code: 6}), unix.ENOSPC)
	}
	if names := d.names(t); len(names) != 0 {
		t.Errorf("left: %q", names)
	}
	check(t, os.Remove(filler))
	check(t, r.Write(Exit{Format: Format, Code: 6}))
	wantExit(t, d, 6)
}

// ramfs has no fallocate(2): there zeros are written.
func TestReserveWithoutFallocate(t *testing.T) {
	t.Parallel()
	if !onSmallDisk(t) {
		return
	}
	d := makeDir(t, mount(t, "ramfs", "mode=700"))
	r := reserve(t, d)
	if err := unix.Fallocate(int(r.f.Fd()), 0, 0, 1); err == nil {
		t.Fatal("ramfs has fallocate: the test proves nothing")
	}
	st, err := r.f.Stat()
	check(t, err)
	if st.Size() != ExitReserve {
		t.Errorf("%d bytes", st.Size())
	}
	check(t, r.Write(Exit{Format: Format, Code: 8}))
	wantExit(t, d, 8)
}
