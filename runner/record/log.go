package record

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The log of an attempt is output.log, every byte that the agent said, and output.timing, when: a line "SECONDS BYTES" a
// write, seconds since the write before with six decimals, as script(1) writes it (scriptreplay(1) skips the first line of
// a typescript, which output.log does not have: put one before it). The bytes of the timing add up to the log's size.
//
// A log is complete up to its bound. Beyond it the first half stays (the head), and what comes next goes in turn to
// stretches of a quarter each, of which the last two are kept (the tail):
//
//	output.log.<head>-<from>, output.timing.<head>-<from>
//
// holds what was said from position <from> on, where the first <head> bytes of output.log are the head. At the end the
// stretches are appended to output.log, after a line that says how much was cut, and removed. As long as output.log is
// shorter than head, line and stretches together, the stretches count, so that a reader is right at every moment and after
// every crash.

// DefaultOutputMax is the bound of a log whose spec gives none, in bytes.
const DefaultOutputMax = 64 << 20

// minOutputMax keeps a stretch larger than the lines that mark cuts and losses.
const minOutputMax = 4 << 10

func cutMark(n int64) string { return fmt.Sprintf("\r\n[cortex: %d bytes cut]\r\n", n) }

func lossMark(n int64, cause error) string {
	why := "write error"
	var errno syscall.Errno
	if errors.As(cause, &errno) {
		why = errno.Error()
	}
	return fmt.Sprintf("\r\n[cortex: %d bytes lost: %s]\r\n", n, why)
}

// LogWriter writes a log. One goroutine writes; the counters may be read by any.
type LogWriter struct {
	dir  *Dir
	max  int64
	head *stretch
	tail []*stretch // at most two, the oldest first
	last int64      // time of the last write to the log, µs since the start

	headLast int64 // time of the last write to the head

	owed  int64 // bytes lost since the last mark
	cause error // why

	bytes, cut, lost atomic.Int64
}

// Bytes is how many bytes were handed to Write.
func (w *LogWriter) Bytes() int64 { return w.bytes.Load() }

// Cut is how many of these the bound has taken out of the log.
func (w *LogWriter) Cut() int64 { return w.cut.Load() }

// Lost is how many of these never came into the log, because of an error such as a full disk.
func (w *LogWriter) Lost() int64 { return w.lost.Load() }

// CreateLog makes the folder's log anew. It keeps at most about limit bytes, and as many of timing; 0 means DefaultOutputMax.
func (d *Dir) CreateLog(limit int64) (*LogWriter, error) {
	if limit <= 0 {
		limit = DefaultOutputMax
	}
	old, err := d.stretches()
	for _, s := range old {
		err = errors.Join(err, d.removeStretch(strings.TrimPrefix(s.name, OutputLog)))
	}
	if err != nil {
		return nil, err
	}
	w := &LogWriter{dir: d, max: max(limit, minOutputMax)}
	head, err := d.createStretch("", 0, w.max/2)
	if err != nil {
		return nil, err
	}
	w.head = head
	return w, nil
}

// Write appends p, said at the given time since the agent's start. It keeps what it can: the error says why bytes were
// lost, later writes try again, and the first that succeeds marks the gap.
func (w *LogWriter) Write(p []byte, at time.Duration) error {
	w.bytes.Add(int64(len(p)))
	now := max(at.Microseconds(), w.last)
	if err := w.settle(now); err != nil {
		w.lose(len(p), err)
		return err
	}
	for len(p) > 0 {
		s, err := w.current()
		if err != nil {
			w.lose(len(p), err)
			return err
		}
		n, err := w.append(s, p[:min(int64(len(p)), s.limit-s.size)], now)
		s.said += int64(n)
		p = p[n:]
		if err != nil {
			w.lose(len(p), err)
			return err
		}
	}
	return nil
}

func (w *LogWriter) lose(n int, cause error) {
	w.lost.Add(int64(n))
	w.owed += int64(n)
	w.cause = cause
}

// settle marks the bytes lost since the last mark.
func (w *LogWriter) settle(now int64) error {
	if w.owed == 0 {
		return nil
	}
	s, err := w.current()
	if err != nil {
		return err
	}
	size, timed, last := s.size, s.timed, w.last
	if _, err := w.append(s, []byte(lossMark(w.owed, w.cause)), now); err != nil {
		w.last = last
		return errors.Join(err, s.backTo(size, timed))
	}
	w.owed = 0
	return nil
}

func (w *LogWriter) append(s *stretch, p []byte, now int64) (int, error) {
	n, err := s.append(p, now-w.last)
	if n > 0 {
		w.last = now
	}
	return n, err
}

// current is the stretch to write to, a new one where the last is full. The oldest makes room first, so that the disk
// never holds more than the bound.
func (w *LogWriter) current() (*stretch, error) {
	s := w.head
	if len(w.tail) > 0 {
		s = w.tail[len(w.tail)-1]
	}
	if !s.full() {
		return s, nil
	}
	if len(w.tail) == 2 {
		oldest := w.tail[0]
		if err := w.dir.removeStretch(oldest.suffix); err != nil {
			return nil, err
		}
		w.cut.Add(oldest.said)
		w.tail = w.tail[1:]
		if err := oldest.close(); err != nil {
			return nil, err
		}
	}
	from := s.from + s.size
	next, err := w.dir.createStretch(fmt.Sprintf(".%d-%d", w.head.size, from), from, w.max/4)
	if err != nil {
		return nil, err
	}
	if next.since = w.last; len(w.tail) == 0 && w.headLast == 0 {
		w.headLast = w.last
	}
	w.tail = append(w.tail, next)
	return next, nil
}

// Close marks what was lost, brings head and tail together and closes the files. Where there is no room for that, the
// stretches stay as they are, and the log reads the same.
func (w *LogWriter) Close() error {
	err := w.settle(w.last)
	if len(w.tail) > 0 {
		err = errors.Join(err, w.join())
	}
	for _, s := range append(w.tail, w.head) {
		err = errors.Join(err, s.close())
	}
	return err
}

// join appends the tail to the head. The timing goes first: once the log is whole the stretches don't count any more.
func (w *LogWriter) join() error {
	first := w.tail[0]
	size, timed := w.head.size, w.head.timed
	undo := func(err error) error { return errors.Join(err, w.head.backTo(size, timed)) }

	mark := ""
	if cut := first.from - size; cut > 0 {
		mark = cutMark(cut)
		line := timingLine(first.since-w.headLast, len(mark))
		if err := extend(w.head.timing, &w.head.timed, line); err != nil {
			return undo(err)
		}
	}
	for _, s := range w.tail {
		if err := copyWhole(w.head.timing, &w.head.timed, s.timing, s.timed); err != nil {
			return undo(err)
		}
	}
	if err := extend(w.head.log, &w.head.size, []byte(mark)); err != nil {
		return undo(err)
	}
	for _, s := range w.tail {
		if err := copyWhole(w.head.log, &w.head.size, s.log, s.size); err != nil {
			return undo(err)
		}
	}
	var err error
	for _, s := range w.tail {
		err = errors.Join(err, w.dir.removeStretch(s.suffix))
	}
	return err
}

// timingLine is one line of the timing: µs since the write before, bytes.
func timingLine(delta int64, n int) []byte {
	return fmt.Appendf(nil, "%d.%06d %d\n", delta/1e6, delta%1e6, n)
}

// stretchName finds the two numbers in the name of a stretch of the log.
func stretchName(name string) (head, from int64, ok bool) {
	rest, ok := strings.CutPrefix(name, OutputLog+".")
	if !ok {
		return 0, 0, false
	}
	h, f, ok := strings.Cut(rest, "-")
	if !ok {
		return 0, 0, false
	}
	head, herr := strconv.ParseInt(h, 10, 64)
	from, ferr := strconv.ParseInt(f, 10, 64)
	return head, from, herr == nil && ferr == nil && head >= 0 && from >= head
}

func (d *Dir) removeStretch(suffix string) error {
	return errors.Join(d.Remove(OutputLog+suffix), d.Remove(OutputTiming+suffix))
}

func (d *Dir) createStretch(suffix string, from, limit int64) (*stretch, error) {
	if err := d.removeStretch(suffix); err != nil {
		return nil, err
	}
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL
	log, err := d.Open(OutputLog+suffix, flags, 0o600)
	if err != nil {
		return nil, err
	}
	timing, err := d.Open(OutputTiming+suffix, flags, 0o600)
	if err != nil {
		return nil, errors.Join(err, log.Close(), d.removeStretch(suffix))
	}
	return &stretch{suffix: suffix, log: log, timing: timing, limit: limit, from: from}, nil
}

// stretch is a part of the log in files of its own: the head, or a quarter of the tail.
type stretch struct {
	suffix      string
	log, timing *os.File
	limit       int64 // of the log and of the timing, bytes
	from        int64 // position of its first byte in the whole log, had nothing been cut
	size, timed int64 // bytes in the log, in the timing
	said        int64 // of size, what the agent said; the rest are marks
	since       int64 // time of the last write before it, µs since the start
}

func (s *stretch) full() bool { return s.size >= s.limit || s.timed >= s.limit }

// append writes p, and before it its line of timing, so that where one of the two fails both can be kept in step without
// taking new room. It returns how much of p is in the log.
func (s *stretch) append(p []byte, delta int64) (int, error) {
	line := timingLine(delta, len(p))
	if n, err := writeAt(s.timing, line, s.timed); n < len(line) {
		return 0, errors.Join(err, s.timing.Truncate(s.timed))
	}
	n, err := writeAt(s.log, p, s.size)
	if n < len(p) {
		line = nil
		if n > 0 {
			line = timingLine(delta, n)
			_, werr := writeAt(s.timing, line, s.timed)
			err = errors.Join(err, werr)
		}
		err = errors.Join(err, s.timing.Truncate(s.timed+int64(len(line))))
	}
	s.size += int64(n)
	s.timed += int64(len(line))
	return n, err
}

// backTo takes back what was written beyond these sizes.
func (s *stretch) backTo(size, timed int64) error {
	s.size, s.timed = size, timed
	return errors.Join(s.log.Truncate(size), s.timing.Truncate(timed))
}

func (s *stretch) close() error { return errors.Join(s.log.Close(), s.timing.Close()) }

// writeAt is f.WriteAt with the truth about how much of p was written: where a disk gets full in the middle, that says 0 for
// what its first pwrite(2) has put into the file (os.File.WriteAt, Go 1.26).
func writeAt(f *os.File, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		m, err := unix.Pwrite(int(f.Fd()), p[n:], off+int64(n))
		n += max(m, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return n, &os.PathError{Op: "write", Path: f.Name(), Err: err}
		}
	}
	return n, nil
}

func extend(f *os.File, size *int64, p []byte) error {
	n, err := writeAt(f, p, *size)
	*size += int64(n)
	return err
}

// copyWhole appends the first n bytes of src to dst, in small pieces since the runner's memory counts.
func copyWhole(dst *os.File, size *int64, src *os.File, n int64) error {
	buf := make([]byte, 32<<10)
	for off := int64(0); off < n; {
		got, err := src.ReadAt(buf[:min(n-off, int64(len(buf)))], off)
		if got == 0 {
			return fmt.Errorf("read back %s: %w", src.Name(), err)
		}
		if err := extend(dst, size, buf[:got]); err != nil {
			return err
		}
		off += int64(got)
	}
	return nil
}
