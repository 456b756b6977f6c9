package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Errors of reading and creating; also fs.ErrNotExist where a file is not there.
var (
	ErrTaken  = errors.New("already there")             // Create: somebody was first
	ErrTorn   = errors.New("damaged")                   // not regular, not whole, or not what its name says
	ErrNewer  = errors.New("written by a newer cortex") // its format is above Format
	errTooBig = fmt.Errorf("%w: larger than %d MiB", ErrTorn, maxFile>>20)
)

// maxFile bounds what is read into memory: a submit may be 8 MiB, and JSON may write a byte of it as six.
const maxFile = 64 << 20

// Dir is an open folder in runs/. Everything in it is reached relative to its descriptor and without following links,
// since the agent runs as the same user and may write there.
type Dir struct{ f *os.File }

// OpenDir opens runs/<id>, or runs/<id>/<attempt> where attempt is not 0. The path of runs itself is trusted.
func OpenDir(runs string, id int64, attempt int) (*Dir, error) {
	return openDir(runs, id, attempt, false)
}

// MakeDir is OpenDir for a folder that is made, durably and with mode 0700, where it is not there yet.
func MakeDir(runs string, id int64, attempt int) (*Dir, error) {
	return openDir(runs, id, attempt, true)
}

// RemakeDir is MakeDir where the folders above may have been removed, too: what is recorded of an end must not depend on
// them. Nothing is started in such a folder, since it has no spec.
func RemakeDir(runs string, id int64, attempt int) (*Dir, error) {
	if err := os.MkdirAll(runs, 0o700); err != nil {
		return nil, err
	}
	top, err := MakeDir(runs, id, 0)
	if err != nil {
		return nil, err
	}
	if err := top.Close(); err != nil {
		return nil, err
	}
	return MakeDir(runs, id, attempt)
}

func openDir(runs string, id int64, attempt int, create bool) (*Dir, error) {
	names := []string{strconv.FormatInt(id, 10)}
	if attempt != 0 {
		names = append(names, strconv.Itoa(attempt))
	}
	f, err := os.OpenFile(runs, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		parent := &Dir{f}
		// Only the last folder is made: an attempt of a dispatch that has no folder has no spec either.
		if create && i == len(names)-1 {
			err := unix.Mkdirat(int(f.Fd()), name, 0o700)
			if err == nil {
				err = f.Sync()
			}
			if err != nil && !errors.Is(err, fs.ErrExist) {
				parent.Close()
				return nil, fmt.Errorf("make %s: %w", filepath.Join(f.Name(), name), err)
			}
		}
		next, err := parent.Open(name, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
		parent.Close()
		if err != nil {
			return nil, err
		}
		f = next
	}
	return &Dir{f}, nil
}

// Close closes the folder's descriptor.
func (d *Dir) Close() error { return d.f.Close() }

// Path is the folder's absolute path, for people and for the agent's environment.
func (d *Dir) Path() string { return d.f.Name() }

// SocketPath is an address for the socket name in this folder that fits into the 108 bytes of sun_path however long the
// folder's own path is (proc(5), /proc/self/fd). It is valid while d is open.
func (d *Dir) SocketPath(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.f.Fd(), name)
}

// Sync makes created and renamed names durable.
func (d *Dir) Sync() error { return d.f.Sync() }

// Open opens name in the folder by openat(2), never following a link. O_CLOEXEC is always set.
func (d *Dir) Open(name string, flags int, mode uint32) (*os.File, error) {
	path := filepath.Join(d.f.Name(), name)
	for {
		fd, err := unix.Openat(int(d.f.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// OpenRegular opens a regular file for reading. A FIFO, a device or a link in its place is ErrTorn, and never blocks.
func (d *Dir) OpenRegular(name string) (*os.File, error) {
	f, err := d.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("%s: %w: not a regular file", filepath.Join(d.f.Name(), name), ErrTorn)
	case err != nil:
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w: not a regular file", f.Name(), ErrTorn)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Exists reports whether something of that name is there, whatever it is.
func (d *Dir) Exists(name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(int(d.f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// Remove removes a file; that it is not there is no error.
func (d *Dir) Remove(name string) error {
	err := unix.Unlinkat(int(d.f.Fd()), name, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "remove", Path: filepath.Join(d.f.Name(), name), Err: err}
	}
	return nil
}

// RemoveTemps removes what Write and Create of name have left where their process was killed. Nobody may be writing it.
func (d *Dir) RemoveTemps(name string) error {
	f, err := d.Open(".", os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	err = errors.Join(err, f.Close())
	for _, n := range names {
		if strings.HasPrefix(n, "."+name+".") {
			err = errors.Join(err, d.Remove(n))
		}
	}
	return err
}

// Read decodes the JSON file name into v. Errors: fs.ErrNotExist, ErrTorn, ErrNewer, or of reading.
func (d *Dir) Read(name string, v any) error {
	f, err := d.OpenRegular(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() > maxFile {
		return errors.Join(err, fmt.Errorf("%s: %w", f.Name(), errTooBig))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if len(data) > maxFile {
		return fmt.Errorf("%s: %w", f.Name(), errTooBig)
	}
	if err := decode(data, v); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

func decode(data []byte, v any) error {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%w: %w", ErrTorn, err)
	}
	if head.Format > Format {
		return fmt.Errorf("%w: format %d, this one reads up to %d", ErrNewer, head.Format, Format)
	}
	if head.Format < 1 {
		return fmt.Errorf("%w: no format version", ErrTorn)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrTorn, err)
	}
	return nil
}

// Write makes name hold v, durably and as a whole: a reader sees the old file or the new one.
func (d *Dir) Write(name string, v any) error {
	tmp, err := d.writeTemp(name, v)
	if err != nil {
		return err
	}
	return d.Rename(tmp, name)
}

// Create is Write for a name that nobody may have taken; ErrTaken when somebody has. Of any number of callers, in any
// number of processes, exactly one succeeds (link(2) fails where the name exists).
func (d *Dir) Create(name string, v any) error {
	tmp, err := d.writeTemp(name, v)
	if err != nil {
		return err
	}
	defer d.Remove(tmp)
	err = unix.Linkat(int(d.f.Fd()), tmp, int(d.f.Fd()), name, 0)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", filepath.Join(d.f.Name(), name), ErrTaken)
	}
	if err != nil {
		return &fs.PathError{Op: "link", Path: filepath.Join(d.f.Name(), name), Err: err}
	}
	return d.Sync()
}

// Rename renames a file within the folder, durably.
func (d *Dir) Rename(from, to string) error {
	fd := int(d.f.Fd())
	if err := unix.Renameat(fd, from, fd, to); err != nil {
		return &os.LinkError{Op: "rename", Old: filepath.Join(d.f.Name(), from), New: to, Err: err}
	}
	return d.Sync()
}

var temps atomic.Uint64

// writeTemp writes v durably into a temporary file of this call's own and returns its name.
func (d *Dir) writeTemp(name string, v any) (string, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	tmp := fmt.Sprintf(".%s.%d.%d", name, os.Getpid(), temps.Add(1))
	if err := d.Remove(tmp); err != nil {
		return "", err
	}
	f, err := d.Open(tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		d.Remove(tmp) // the write's error is the one to tell
		return "", err
	}
	return tmp, nil
}
