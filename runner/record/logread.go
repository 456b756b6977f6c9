package record

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// looks bounds how often a reader begins again because the writer has turned to the next stretch meanwhile.
const looks = 100

// maxTail bounds what TailLog returns, in bytes: a log need not have lines.
const maxTail = 8 << 20

// LogReader reads a log as it was when it was opened: head, the mark of what was cut, tail. It is for one goroutine.
type LogReader struct {
	parts []part
	size  int64
	off   int64
}

// part is a piece of the log: the first size bytes of a file, or a text.
type part struct {
	f    *os.File
	text string
	size int64
}

func (p part) ReadAt(b []byte, off int64) (int, error) {
	if p.f == nil {
		return copy(b, p.text[off:]), nil
	}
	return p.f.ReadAt(b, off)
}

// OpenLog opens the log for reading, also while it is being written and after a crash of its writer. Errors:
// fs.ErrNotExist where there is none, ErrTorn where something else is in its place, or of reading.
func (d *Dir) OpenLog() (*LogReader, error) {
	for range looks {
		r, err := d.openLog()
		if !errors.Is(err, errTurned) {
			return r, err
		}
	}
	return nil, fmt.Errorf("%s: the writer is too fast to read along", d.Path())
}

var errTurned = errors.New("the writer has turned to another stretch")

// openLog opens the stretches before it looks at the log's size: the writer removes them only after the log is whole.
func (d *Dir) openLog() (*LogReader, error) {
	found, err := d.stretches()
	if err != nil {
		return nil, err
	}
	tail := &LogReader{}
	for _, s := range found {
		f, err := d.OpenRegular(s.name)
		if errors.Is(err, fs.ErrNotExist) {
			err = errTurned
		}
		if err == nil {
			err = tail.add(f)
		}
		if err != nil {
			return nil, errors.Join(err, tail.Close())
		}
	}
	f, err := d.OpenRegular(OutputLog)
	if err != nil {
		return nil, errors.Join(err, tail.Close())
	}
	whole := &LogReader{}
	if err := whole.add(f); err != nil {
		return nil, errors.Join(err, tail.Close())
	}
	// A listing that the writer turned in is no snapshot: one of the stretches, or all, may be missing.
	again, err := d.stretches()
	if err == nil && !slices.Equal(again, found) {
		err = errTurned
	}
	if err != nil {
		return nil, errors.Join(err, tail.Close(), whole.Close())
	}
	if len(found) == 0 {
		return whole, nil
	}
	head, mark := found[0].head, ""
	if cut := found[0].from - head; cut > 0 {
		mark = cutMark(cut)
	}
	if whole.size >= head+int64(len(mark))+tail.size {
		return whole, tail.Close()
	}
	parts := []part{{f: f, size: min(head, whole.size)}, {text: mark, size: int64(len(mark))}}
	r := &LogReader{parts: append(parts, tail.parts...)}
	for _, p := range r.parts {
		r.size += p.size
	}
	return r, nil
}

func (r *LogReader) add(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.parts = append(r.parts, part{f: f, size: st.Size()})
	r.size += st.Size()
	return nil
}

type found struct {
	name       string
	head, from int64
}

// stretches lists the log's stretches in their order.
func (d *Dir) stretches() ([]found, error) {
	f, err := d.Open(".", os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	var all []found
	for _, name := range names {
		if head, from, ok := stretchName(name); ok {
			all = append(all, found{name, head, from})
		}
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(a.from, b.from) })
	return all, nil
}

// Size is how many bytes there are to read.
func (r *LogReader) Size() int64 { return r.size }

// Read implements io.Reader.
func (r *LogReader) Read(b []byte) (int, error) {
	n, err := r.ReadAt(b, r.off)
	r.off += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (r *LogReader) ReadAt(b []byte, off int64) (int, error) {
	done := 0
	for _, p := range r.parts {
		if off >= p.size {
			off -= p.size
			continue
		}
		want := min(int64(len(b)-done), p.size-off)
		n, err := p.ReadAt(b[done:done+int(want)], off)
		done += n
		if int64(n) < want {
			return done, err // the file has become shorter
		}
		if done == len(b) {
			return done, nil
		}
		off = 0
	}
	return done, io.EOF
}

// Close closes the reader's files.
func (r *LogReader) Close() error {
	var err error
	for _, p := range r.parts {
		if p.f != nil {
			err = errors.Join(err, p.f.Close())
		}
	}
	return err
}

// TailLog returns the last lines of the log, read from its end; a last line without a line break counts as one. At most
// 8 MiB are returned, the last ones. Errors as of OpenLog.
func (d *Dir) TailLog(lines int) ([]byte, error) {
	r, err := d.OpenLog()
	if err != nil {
		return nil, err
	}
	out, err := r.tail(lines)
	return out, errors.Join(err, r.Close())
}

func (r *LogReader) tail(lines int) ([]byte, error) {
	if lines <= 0 {
		return nil, nil
	}
	const block = 32 << 10
	lowest := max(0, r.size-maxTail)
	start := lowest
	buf := make([]byte, block)
	for end := r.size; end > lowest; {
		begin := max(lowest, end-block)
		b := buf[:end-begin]
		if n, err := r.ReadAt(b, begin); n < len(b) {
			return nil, fmt.Errorf("the log became shorter: %w", err)
		}
		// The break that ends the last line begins no further one.
		if end == r.size && b[len(b)-1] == '\n' {
			b = b[:len(b)-1]
		}
		for lines > 0 {
			i := bytes.LastIndexByte(b, '\n')
			if i < 0 {
				break
			}
			if lines--; lines == 0 {
				start = begin + int64(i) + 1
			}
			b = b[:i]
		}
		if lines == 0 {
			break
		}
		end = begin
	}
	out := make([]byte, r.size-start)
	n, err := r.ReadAt(out, start)
	if n == len(out) {
		err = nil
	}
	return out[:n], err
}
