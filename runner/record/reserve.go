package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Reserved is room on the disk for a record that must not fail for lack of it.
type Reserved struct {
	dir  *Dir
	name string
	f    *os.File
	size int64
}

// Reserve takes room for a record of up to size bytes, as <name>.new. fallocate(2) keeps it on every file system that has
// it; elsewhere zeros are written.
func (d *Dir) Reserve(name string, size int64) (*Reserved, error) {
	r := &Reserved{dir: d, name: name, size: size}
	if err := d.Remove(r.temp()); err != nil {
		return nil, err
	}
	f, err := d.Open(r.temp(), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	r.f = f
	if err := r.allocate(); err != nil {
		return nil, errors.Join(&os.PathError{Op: "reserve room for", Path: filepath.Join(d.Path(), name), Err: err},
			f.Close(), d.Remove(r.temp()))
	}
	return r, nil
}

func (r *Reserved) temp() string { return r.name + ".new" }

func (r *Reserved) allocate() error {
	for {
		err := unix.Fallocate(int(r.f.Fd()), 0, 0, r.size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS):
			_, err = r.f.WriteAt(make([]byte, r.size), 0)
			return err
		}
		return err
	}
}

// Write makes the record's name hold v, durably and as a whole, in the room reserved. It may be called again after an
// error. Where somebody has taken the reserved file away, it is an ordinary Write.
func (r *Reserved) Write(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if int64(len(data)) > r.size {
		return fmt.Errorf("%s: %d bytes, room is reserved for %d", r.name, len(data), r.size)
	}
	if !r.there() {
		return r.dir.Write(r.name, v)
	}
	if _, err := r.f.WriteAt(data, 0); err != nil {
		return err
	}
	if err := r.f.Truncate(int64(len(data))); err != nil {
		return err
	}
	if err := r.f.Sync(); err != nil {
		return err
	}
	return r.dir.Rename(r.temp(), r.name)
}

// there reports whether the reserved file still has its name: the agent may write in this folder.
func (r *Reserved) there() bool {
	var byName, byFile unix.Stat_t
	return unix.Fstatat(int(r.dir.f.Fd()), r.temp(), &byName, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		unix.Fstat(int(r.f.Fd()), &byFile) == nil && byName.Dev == byFile.Dev && byName.Ino == byFile.Ino
}

// Close gives the file back; the room stays with it.
func (r *Reserved) Close() error { return r.f.Close() }

// Gone reports whether the folder itself has been removed, so that nothing can be written into it.
func (d *Dir) Gone() bool {
	var st unix.Stat_t
	return unix.Fstat(int(d.f.Fd()), &st) == nil && st.Nlink == 0
}
