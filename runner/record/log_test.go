package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// speech is the first n bytes of what all agents here say: each place in it can be told from the others.
func speech(n int) []byte { return allSpeech()[:n:n] }

const speechMax = 2 << 20

var allSpeech = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < speechMax; i++ {
		fmt.Fprintf(&b, "%09d\n", i)
	}
	return b.Bytes()
})

var (
	cutRE  = regexp.MustCompile(`\r\n\[cortex: (\d+) bytes cut\]\r\n`)
	gapRE  = regexp.MustCompile(`\r\n\[cortex: (\d+) bytes (?:cut|lost: [a-z ]+)\]\r\n`)
	lossRE = regexp.MustCompile(`\r\n\[cortex: (\d+) bytes lost: [a-z ]+\]\r\n`)
)

// covers checks that a log is a piece of speech but for the gaps that its marks tell, each of the size told. It returns how
// much of the speech that is.
func covers(log []byte) (int, error) {
	at, rest := 0, log
	all := allSpeech()
	for {
		mark := gapRE.FindSubmatchIndex(rest)
		piece := rest
		if mark != nil {
			piece = rest[:mark[0]]
		}
		if at+len(piece) > len(all) || !bytes.Equal(piece, all[at:at+len(piece)]) {
			return at, fmt.Errorf("%d bytes after place %d are not what was said there: %.40q", len(piece), at, piece)
		}
		at += len(piece)
		if mark == nil {
			return at, nil
		}
		gap, err := strconv.Atoi(string(rest[mark[2]:mark[3]]))
		if err != nil || gap <= 0 {
			return at, fmt.Errorf("mark of %q bytes", rest[mark[2]:mark[3]])
		}
		at += gap
		rest = rest[mark[1]:]
	}
}

// wantLog checks that the log is so much of the speech.
func wantLog(t *testing.T, log []byte, said int) {
	t.Helper()
	if n, err := covers(log); err != nil || n != said {
		t.Errorf("the log covers %d bytes of %d, %v", n, said, err)
	}
}

func create(t testing.TB, d *Dir, limit int64) *LogWriter {
	t.Helper()
	w, err := d.CreateLog(limit)
	check(t, err)
	return w
}

// say writes the next bytes of the speech, up to a place, in pieces.
func say(t testing.TB, w *LogWriter, upTo, piece int) {
	t.Helper()
	all := speech(upTo)
	for at := int(w.Bytes()); at < upTo; {
		n := min(piece, upTo-at)
		check(t, w.Write(all[at:at+n], time.Duration(at)*time.Millisecond))
		at += n
	}
}

func TestLogIsWholeUpToItsBound(t *testing.T) {
	t.Parallel()
	const limit = 16 << 10
	for _, piece := range []int{1, 7, 100, 1000, 5000, 1 << 20} {
		for _, said := range []int{0, 1, 100, limit/2 - 1, limit / 2, limit/2 + 1, 3 * limit / 4, 3*limit/4 + 1, limit - 1, limit,
			limit + 1, 5*limit/4 + 1, 2 * limit, 10*limit + 77} {
			if piece < 100 && said > 2*limit { // its timing, a line a write, is what is bounded then; the fuzzer has more of it
				continue
			}
			t.Run(fmt.Sprintf("%d by %d", said, piece), func(t *testing.T) {
				t.Parallel()
				d := newDir(t)
				w := create(t, d, limit)
				say(t, w, said, piece)
				before := readLog(t, d)
				inStep(t, d)
				check(t, w.Close())
				log := readLog(t, d)
				if !bytes.Equal(log, before) {
					t.Error("closing has changed what the log says")
				}
				inStep(t, d)
				alone(t, d)
				wantLog(t, log, said)
				if w.Bytes() != int64(said) || w.Lost() != 0 {
					t.Errorf("%d bytes said, %d lost", w.Bytes(), w.Lost())
				}
				mark := cutRE.FindSubmatch(log)
				switch {
				case mark == nil && w.Cut() != 0 || mark != nil && string(mark[1]) != fmt.Sprint(w.Cut()):
					t.Errorf("%d are cut, the mark says %q", w.Cut(), mark)
				case piece >= 100 && said <= limit && mark != nil:
					t.Errorf("%d are cut below the bound", w.Cut())
				case said > limit && mark == nil:
					t.Error("nothing is cut beyond the bound")
				case piece >= 100 && mark != nil:
					head, tail := bytes.Index(log, mark[0]), len(log)-bytes.Index(log, mark[0])-len(mark[0])
					if head != limit/2 || tail <= limit/4 || tail > limit/2 {
						t.Errorf("head %d, tail %d", head, tail)
					}
				}
				if len(log) > limit+100 {
					t.Errorf("%d bytes are kept", len(log))
				}
				timing, err := os.Stat(filepath.Join(d.Path(), OutputTiming))
				check(t, err)
				if timing.Size() > limit+200 {
					t.Errorf("%d bytes of timing", timing.Size())
				}
				if _, micros := sumTiming(t, d, OutputTiming); said > 0 && micros != int64((said-1)/piece*piece)*1000 {
					t.Errorf("the timing lasts %d µs, want %d", micros, int64((said-1)/piece*piece)*1000)
				}
			})
		}
	}
}

// However long it goes on, the disk never holds more than the bound, and a little.
func TestLogIsBoundedWhileItIsWritten(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{-1, 1, minOutputMax, 20_001} {
		d := newDir(t)
		w := create(t, d, limit)
		bound := max(limit, minOutputMax)
		if limit <= 0 {
			bound = DefaultOutputMax
		}
		for at := 1997; at < 60_000; at += 1997 {
			say(t, w, at, 1997)
			var log, timing int64
			for _, name := range d.names(t) {
				st, err := os.Stat(filepath.Join(d.Path(), name))
				check(t, err)
				if strings.HasPrefix(name, OutputTiming) {
					timing += st.Size()
				} else {
					log += st.Size()
				}
			}
			if log > bound || timing > bound {
				t.Fatalf("limit %d: %d bytes, %d of timing on the disk after %d", limit, log, timing, at)
			}
		}
		if limit == -1 && w.Cut() != 0 {
			t.Errorf("%d are cut by the default bound", w.Cut())
		}
		check(t, w.Close())
	}
}

// The clock that the caller reads may go back; the timing can't.
func TestTimingNeverGoesBack(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	w := create(t, d, minOutputMax)
	for i, at := range []time.Duration{5 * time.Second, time.Second, -time.Hour, 5*time.Second + 1500*time.Nanosecond, 100_000 * time.Hour} {
		check(t, w.Write(speech(i*10 + 10)[i*10:], at))
	}
	check(t, w.Write(nil, 200_000*time.Hour)) // nothing was said
	check(t, w.Close())
	text, err := os.ReadFile(filepath.Join(d.Path(), OutputTiming))
	check(t, err)
	want := "5.000000 10\n0.000000 10\n0.000000 10\n0.000001 10\n359999994.999999 10\n"
	if string(text) != want {
		t.Errorf("timing %q, want %q", text, want)
	}
	wantLog(t, readLog(t, d), 50)
}

func TestCreateLogBeginsAnew(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	target := filepath.Join(t.TempDir(), "target")
	check(t, os.WriteFile(target, []byte("theirs"), 0o600))
	check(t, os.Symlink(target, filepath.Join(d.Path(), OutputLog)))
	put(t, d, OutputTiming, []byte("1.000000 9\n"))
	w := create(t, d, minOutputMax)
	say(t, w, 100, 30)
	check(t, w.Close())
	wantLog(t, readLog(t, d), 100)
	inStep(t, d)
	if text, err := os.ReadFile(target); err != nil || string(text) != "theirs" {
		t.Errorf("the link was followed: %q, %v", text, err)
	}
	_, err := newDir(t).OpenLog()
	wantErr(t, err, errNone)
	_, err = newDir(t).TailLog(1)
	wantErr(t, err, errNone)
}

// Files of other names are not the log's.
func TestForeignNamesAreNoStretches(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	w := create(t, d, minOutputMax)
	say(t, w, 100, 30)
	check(t, w.Close())
	for _, name := range []string{"output.log.", "output.log.1", "output.log.x-y", "output.log.9-3", "output.log.-1-3", "output.log.1-2-3",
		"output.log.1-", "output.log.99999999999999999999-99999999999999999999", "output.logs.1-2", "output.timing.1-2", ".output.log.1-2"} {
		put(t, d, name, []byte("theirs"))
	}
	wantLog(t, readLog(t, d), 100)
}

// Readers look on while a log is written far beyond its bound, and closed: each finds all that was said before it looked, but
// for what its mark says. The writer turns to another stretch at most once during a look: a folder is not listed in one moment
// (getdents(2) may be cut short by a signal), and of two turns the listing may hold neither.
func TestReadersAreRightAtEveryMoment(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	for round := range 3 {
		d := newDir(t)
		w := create(t, d, limit)
		done := make(chan struct{})
		var looks [2]atomic.Int64
		var results [2]error
		var readers sync.WaitGroup
		for i := range looks {
			readers.Go(func() {
				defer looks[i].Store(1 << 62) // the writer does not wait for this one any more
				results[i] = lookOnUntil(done, d, w, &looks[i])
			})
		}
		for upTo := 1000; upTo <= 600_000+round*9973; upTo += 1000 {
			from := int(w.Bytes())
			say(t, w, upTo, 1000)
			if from/(limit/4) == upTo/(limit/4) {
				continue
			}
			for i := range looks {
				for seen := looks[i].Load(); looks[i].Load() == seen && seen < 1<<62; {
					runtime.Gosched()
				}
			}
		}
		err := w.Close()
		close(done)
		readers.Wait()
		check(t, errors.Join(err, results[0], results[1]))
		inStep(t, d)
		alone(t, d)
	}
}

// lookOnUntil looks at the log again and again, and counts that.
func lookOnUntil(done chan struct{}, d *Dir, w *LogWriter, looks *atomic.Int64) error {
	last := 0
	for end := false; !end; looks.Add(1) {
		select {
		case <-done:
			end = true
		default:
		}
		before := int(w.Bytes()) // the last write may not be in yet
		n, err := lookOn(d)
		if err == nil && (n < before-1000 || n < last) {
			err = fmt.Errorf("%d were said, and %d were found, %d before", before, n, last)
		}
		if err != nil {
			return fmt.Errorf("look %d: %w", looks.Load(), err)
		}
		last = n
	}
	return nil
}

// lookOn reads the log once, and its last line.
func lookOn(d *Dir) (int, error) {
	r, err := d.OpenLog()
	if err != nil {
		return 0, err
	}
	log, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return 0, err
	}
	if int64(len(log)) != r.Size() {
		return 0, fmt.Errorf("%d bytes of %d", len(log), r.Size())
	}
	n, err := covers(log)
	if err != nil {
		return n, err
	}
	if m, err := d.TailLog(1); err != nil || len(m) > 10 {
		return n, fmt.Errorf("the last line is %q, %w", m, err)
	}
	return n, nil
}

// A reader reads the log as it was when it was opened, whatever becomes of it.
func TestAReaderKeepsWhatItOpened(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	w := create(t, d, minOutputMax)
	var readers []*LogReader
	var want [][]byte
	for said := 0; said < 4*minOutputMax; said += 1100 {
		say(t, w, said, 100)
		want = append(want, readLog(t, d))
		r, err := d.OpenLog()
		check(t, err)
		readers = append(readers, r)
	}
	check(t, w.Close())
	for i, r := range readers {
		got, err := io.ReadAll(r)
		check(t, err)
		if !bytes.Equal(got, want[i]) {
			t.Errorf("reader %d: %d bytes, want %d", i, len(got), len(want[i]))
		}
		buf := make([]byte, 300)
		for off := int64(0); off < int64(len(want[i]))+20; off += 17 { // and from any place on
			n, err := r.ReadAt(buf, off)
			rest := want[i][min(int(off), len(want[i])):]
			if !bytes.Equal(buf[:n], rest[:min(len(rest), 300)]) || (n < 300) != errors.Is(err, io.EOF) || n == 300 && err != nil {
				t.Fatalf("reader %d at %d: %d bytes, %v", i, off, n, err)
			}
		}
		check(t, r.Close())
	}
}

// stretched is a log with two stretches of a tail, as a writer leaves it that is killed.
func stretched(t *testing.T) (d *Dir, whole []byte) {
	t.Helper()
	d = newDir(t)
	w := create(t, d, minOutputMax)
	say(t, w, 3*minOutputMax+minOutputMax/8, 50)
	whole = readLog(t, d)
	wantLog(t, whole, 3*minOutputMax+minOutputMax/8)
	if len(w.tail) != 2 || w.tail[1].size == 0 || w.Cut() == 0 {
		t.Fatalf("stretches %+v", w.tail)
	}
	for _, s := range append(w.tail, w.head) { // as the kernel does
		check(t, s.close())
	}
	inStep(t, d)
	return d, whole
}

// A writer that is killed while it brings head and tail together leaves the log in every state between: the reader finds the
// same in each.
func TestJoinInterrupted(t *testing.T) {
	t.Parallel()
	d, whole := stretched(t)
	path := filepath.Join(d.Path(), OutputLog)
	head := int(minOutputMax / 2)
	for n := head; n <= len(whole); n++ {
		put(t, d, OutputLog, whole[:n])
		if got := readLog(t, d); !bytes.Equal(got, whole) {
			t.Fatalf("joined up to byte %d of %d the log reads otherwise, %d bytes", n, len(whole), len(got))
		}
	}
	// Now it is whole, and the stretches go, one file after the other.
	for _, s := range must(d.stretches())(t) {
		for _, name := range []string{s.name, strings.Replace(s.name, OutputLog, OutputTiming, 1)} {
			check(t, d.Remove(name))
			if got := readLog(t, d); !bytes.Equal(got, whole) {
				t.Errorf("without %s the log reads otherwise, %d bytes", name, len(got))
			}
		}
	}
	if st, err := os.Stat(path); err != nil || int(st.Size()) != len(whole) {
		t.Errorf("%v, %v", st, err)
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		check(t, err)
		return v
	}
}

// The same for a writer that is killed while it turns to the next stretch.
func TestTurnInterrupted(t *testing.T) {
	t.Parallel()
	d, whole := stretched(t)
	said := 3*minOutputMax + minOutputMax/8
	found := must(d.stretches())(t)
	if len(found) != 2 {
		t.Fatalf("stretches %v", found)
	}
	check(t, d.Remove(found[0].name))
	for _, step := range []func(){
		func() {},
		func() { check(t, d.Remove(strings.Replace(found[0].name, OutputLog, OutputTiming, 1))) },
		func() { put(t, d, fmt.Sprintf("%s.%d-%d", OutputLog, found[0].head, said), nil) },
		func() { put(t, d, fmt.Sprintf("%s.%d-%d", OutputTiming, found[0].head, said), nil) },
	} {
		step()
		log := readLog(t, d)
		wantLog(t, log, said)
		if !bytes.HasPrefix(log, whole[:minOutputMax/2]) || !bytes.HasSuffix(whole, log[len(log)-minOutputMax/8:]) {
			t.Error("head and end are not what they were")
		}
	}
}

// A writer that is killed between a line of timing and its bytes: at most that one write is timed and not there.
func TestTimingIsAtMostOneWriteAhead(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	w := create(t, d, minOutputMax)
	say(t, w, 100, 10)
	check(t, w.head.log.Truncate(90)) // the bytes were not written any more
	for _, s := range []*stretch{w.head} {
		check(t, s.close())
	}
	sum, _ := sumTiming(t, d, OutputTiming)
	log := readLog(t, d)
	wantLog(t, log, 90)
	if sum-int64(len(log)) != 10 {
		t.Errorf("timing %d, log %d", sum, len(log))
	}
}

func TestTailLog(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long ", 20_000)
	for name, c := range map[string]struct {
		log   string
		lines int
		want  string
	}{
		"none":                  {"a\nb\n", 0, ""},
		"below none":            {"a\nb\n", -1, ""},
		"empty log":             {"", 3, ""},
		"last":                  {"a\nb\nc\n", 1, "c\n"},
		"last two":              {"a\nb\nc\n", 2, "b\nc\n"},
		"as many as there are":  {"a\nb\nc\n", 3, "a\nb\nc\n"},
		"more than there are":   {"a\nb\nc\n", 99, "a\nb\nc\n"},
		"unfinished":            {"a\nb\nc", 1, "c"},
		"unfinished and one":    {"a\nb\nc", 2, "b\nc"},
		"one unfinished":        {"abc", 1, "abc"},
		"one":                   {"abc\n", 1, "abc\n"},
		"a break":               {"\n", 1, "\n"},
		"breaks":                {"\n\n\n\n", 2, "\n\n"},
		"empty last line":       {"a\n\n", 1, "\n"},
		"carriage returns":      {"a\r\nb\r\n", 1, "b\r\n"},
		"no break after return": {"1%\r2%\r3%", 1, "1%\r2%\r3%"},
		"over blocks":           {"first\n" + long + "\nlast\n", 2, long + "\nlast\n"},
		"all over blocks":       {"first\n" + long + "\nlast\n", 3, "first\n" + long + "\nlast\n"},
		"break at a block":      {"first\n" + strings.Repeat("x", 32<<10-1) + "\n", 1, strings.Repeat("x", 32<<10-1) + "\n"},
		"block and break":       {"first\n" + strings.Repeat("x", 32<<10) + "\n", 1, strings.Repeat("x", 32<<10) + "\n"},
		"any bytes":             {"a\n\x00\xff\xfe\n", 1, "\x00\xff\xfe\n"},
	} {
		d := newDir(t)
		put(t, d, OutputLog, []byte(c.log))
		got, err := d.TailLog(c.lines)
		check(t, err)
		if string(got) != c.want {
			t.Errorf("%s: %d bytes %.60q, want %d %.60q", name, len(got), got, len(c.want), c.want)
		}
	}
}

// The last lines come from stretches, mark and head as from one file.
func TestTailLogOverStretches(t *testing.T) {
	t.Parallel()
	d, whole := stretched(t)
	lines := slices.Collect(bytes.Lines(whole))
	for n := range len(lines) + 2 {
		got, err := d.TailLog(n)
		check(t, err)
		if want := bytes.Join(lines[max(0, len(lines)-n):], nil); !bytes.Equal(got, want) {
			t.Fatalf("%d lines: %d bytes, want %d", n, len(got), len(want))
		}
	}
}

// A log without lines is not read into memory as a whole.
func TestTailLogIsBounded(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	put(t, d, OutputLog, nil)
	check(t, os.Truncate(filepath.Join(d.Path(), OutputLog), 20<<20)) // zeros
	f, err := os.OpenFile(filepath.Join(d.Path(), OutputLog), os.O_WRONLY|os.O_APPEND, 0)
	check(t, err)
	_, err = f.WriteString("end")
	check(t, errors.Join(err, f.Close()))
	got, err := d.TailLog(5)
	check(t, err)
	if len(got) != maxTail || !bytes.HasSuffix(got, []byte("\x00end")) {
		t.Errorf("%d bytes", len(got))
	}
}
