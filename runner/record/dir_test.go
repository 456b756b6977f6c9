package record

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFoldersAreMadeOneBelowTheOther(t *testing.T) {
	t.Parallel()
	runs := t.TempDir()
	_, err := OpenDir(runs, 7, 0)
	wantErr(t, err, errNone)
	_, err = MakeDir(runs, 7, 1) // a dispatch without a folder has no spec, and no attempts
	wantErr(t, err, errNone)
	_, err = MakeDir(filepath.Join(runs, "none"), 7, 0)
	wantErr(t, err, errNone)
	for range 2 {
		top, err := MakeDir(runs, 7, 0)
		check(t, err)
		d, err := MakeDir(runs, 7, 1)
		check(t, err)
		for dir, path := range map[*Dir]string{top: filepath.Join(runs, "7"), d: filepath.Join(runs, "7", "1")} {
			st, err := os.Stat(path)
			check(t, err)
			if dir.Path() != path || st.Mode() != os.ModeDir|0o700 {
				t.Errorf("%s, want %s; mode %v", dir.Path(), path, st.Mode())
			}
			if dir.Gone() {
				t.Errorf("%s is gone", path)
			}
			check(t, dir.Sync())
			check(t, dir.Close())
		}
	}
	d, err := OpenDir(runs, 7, 1)
	check(t, err)
	defer d.Close()
	check(t, os.RemoveAll(filepath.Join(runs, "7")))
	if !d.Gone() {
		t.Error("a removed folder is not gone")
	}
	if err := d.Write(ExitFile, Exit{Format: Format}); err == nil {
		t.Error("a record was written into a folder that is gone")
	}
}

func TestNoLinkToAFolderIsFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := t.TempDir()
	check(t, os.Mkdir(filepath.Join(elsewhere, "1"), 0o700))
	for name, lay := range map[string]func(runs string) error{
		"dispatch": func(runs string) error { return os.Symlink(elsewhere, filepath.Join(runs, "7")) },
		"attempt": func(runs string) error {
			return errors.Join(os.Mkdir(filepath.Join(runs, "7"), 0o700),
				os.Symlink(filepath.Join(elsewhere, "1"), filepath.Join(runs, "7", "1")))
		},
		"dangling": func(runs string) error {
			return errors.Join(os.Mkdir(filepath.Join(runs, "7"), 0o700),
				os.Symlink(filepath.Join(elsewhere, "2"), filepath.Join(runs, "7", "1")))
		},
		"file": func(runs string) error {
			return errors.Join(os.Mkdir(filepath.Join(runs, "7"), 0o700),
				os.WriteFile(filepath.Join(runs, "7", "1"), nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runs := t.TempDir()
			check(t, lay(runs))
			for open, f := range map[string]func(string, int64, int) (*Dir, error){"open": OpenDir, "make": MakeDir} {
				if d, err := f(runs, 7, 1); err == nil {
					t.Errorf("%s: %s was opened", open, d.Path())
					d.Close()
				}
			}
			if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) != 1 {
				t.Errorf("where the link leads: %v, %v", entries, err)
			}
		})
	}
}

// The agent may put anything in a record's place, to make the daemon read something else, or wait for ever.
func TestWhatIsNoRegularFileIsTorn(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret.json")
	check(t, os.WriteFile(secret, []byte(`{"format":1,"code":3}`), 0o600))
	cases := map[string]func(path string) error{
		"link":          func(path string) error { return os.Symlink(secret, path) },
		"dangling link": func(path string) error { return os.Symlink(secret+"x", path) },
		"link to null":  func(path string) error { return os.Symlink("/dev/null", path) },
		"loop":          func(path string) error { return os.Symlink(filepath.Base(path), path) },
		"FIFO":          func(path string) error { return unix.Mkfifo(path, 0o600) },
		"folder":        func(path string) error { return os.Mkdir(path, 0o700) },
		"socket": func(path string) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
		},
	}
	if os.Geteuid() == 0 { // nobody else can make a device
		cases["device"] = func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) }
	}
	for name, lay := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runs, err := os.MkdirTemp("/tmp", "rec") // short enough for a socket's address
			check(t, err)
			t.Cleanup(func() { os.RemoveAll(runs) })
			d := makeDir(t, runs)
			for _, file := range []string{ExitFile, OutputLog} {
				check(t, lay(filepath.Join(d.Path(), file)))
			}
			soon(t, "reading a "+name, func() {
				var e Exit
				wantErr(t, d.Read(ExitFile, &e), ErrTorn)
				if e.Code != 0 {
					t.Errorf("it was read: %+v", e)
				}
				_, err := d.OpenRegular(ExitFile)
				wantErr(t, err, ErrTorn)
				_, err = d.OpenLog()
				wantErr(t, err, ErrTorn)
				_, err = d.TailLog(3)
				wantErr(t, err, ErrTorn)
			})
			if !d.Exists(ExitFile) || d.Exists(SpecFile) {
				t.Error("Exists is wrong")
			}
		})
	}
}

func TestReadTellsTornFromNewerFromNone(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	whole := `{"format":1,"id":7,"attempt":1,"cause":"exit","code":3}`
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"whole":             {whole, nil},
		"spaces around":     {" \n" + whole + "\n\n", nil},
		"unknown field":     {`{"format":1,"code":3,"later":{}}`, nil},
		"empty":             {"", ErrTorn},
		"newline":           {"\n", ErrTorn},
		"half":              {whole[:30], ErrTorn},
		"all but its brace": {whole[:len(whole)-1], ErrTorn},
		"zeros":             {strings.Repeat("\x00", 4096), ErrTorn},
		"zeros after":       {whole + strings.Repeat("\x00", 4096), ErrTorn},
		"two":               {whole + whole, ErrTorn},
		"garbage":           {"\x7fELF\x02\x01", ErrTorn},
		"null":              {"null", ErrTorn},
		"list":              {"[1]", ErrTorn},
		"number":            {"1", ErrTorn},
		"no format":         {`{"code":3}`, ErrTorn},
		"format 0":          {`{"format":0}`, ErrTorn},
		"format below":      {`{"format":-1}`, ErrTorn},
		"format in words":   {`{"format":"1"}`, ErrTorn},
		"format half":       {`{"format":1.5}`, ErrTorn},
		"format huge":       {`{"format":1e99}`, ErrTorn},
		"field of a kind":   {`{"format":1,"code":"3"}`, ErrTorn},
		"format 2":          {`{"format":2,"code":3}`, ErrNewer},
		"format 2, changed": {`{"format":2,"code":{"status":3}}`, ErrNewer},
	} {
		put(t, d, ExitFile, []byte(c.text))
		var e Exit
		err := d.Read(ExitFile, &e)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err == nil && e.Code != 3 {
			t.Errorf("%s: %+v", name, e)
		}
		if err != nil && !strings.Contains(err.Error(), filepath.Join(d.Path(), ExitFile)) {
			t.Errorf("%s: the error does not name the file: %v", name, err)
		}
		if errors.Is(err, ErrTorn) && errors.Is(err, ErrNewer) {
			t.Errorf("%s: torn and newer at once: %v", name, err)
		}
	}
	check(t, d.Remove(ExitFile))
	wantErr(t, d.Read(ExitFile, &Exit{}), errNone)
	check(t, d.Remove(ExitFile))
}

func TestNamesInTheFolderNeverLeadOutOfIt(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	target := filepath.Join(t.TempDir(), "target")
	check(t, os.WriteFile(target, []byte("old"), 0o600))
	link := filepath.Join(d.Path(), OrderFile)

	check(t, os.Symlink(target, link))
	if f, err := d.Open(OrderFile, os.O_WRONLY|os.O_TRUNC, 0); err == nil {
		f.Close()
		t.Error("a link was opened for writing")
	}
	wantErr(t, d.Create(OrderFile, Order{Format: Format}), ErrTaken)
	check(t, d.Write(OrderFile, Order{Format: Format, By: "operator"})) // takes the link's place
	var o Order
	check(t, d.Read(OrderFile, &o))
	if o.By != "operator" {
		t.Errorf("%+v", o)
	}
	check(t, d.Remove(OrderFile))
	check(t, os.Symlink(target, link))
	check(t, d.Remove(OrderFile)) // the link, not what it leads to
	if text, err := os.ReadFile(target); err != nil || string(text) != "old" {
		t.Errorf("what the link led to is now %q, %v", text, err)
	}
	// A temporary file that is in the way, be it a link, is replaced.
	check(t, os.Symlink(target, filepath.Join(d.Path(), fmt.Sprintf(".%s.%d", OrderFile, os.Getpid()))))
	check(t, d.Write(OrderFile, Order{Format: Format}))
	if text, err := os.ReadFile(target); err != nil || string(text) != "old" {
		t.Errorf("the temporary file's link was followed: %q, %v", text, err)
	}
}

func TestFilesAreForTheirOwnerAlone(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	check(t, d.Write(SpecFile, Spec{Format: Format}))
	check(t, d.Create(ClaimFile, Claim{Format: Format}))
	r, err := d.Reserve(ExitFile, ExitReserve)
	check(t, err)
	defer r.Close()
	w, err := d.CreateLog(minOutputMax)
	check(t, err)
	check(t, w.Write(make([]byte, 2*minOutputMax), 0))
	defer w.Close()
	names := d.names(t)
	if len(names) < 9 {
		t.Errorf("only %q", names)
	}
	for _, name := range names {
		st, err := os.Lstat(filepath.Join(d.Path(), name))
		check(t, err)
		if st.Mode() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
	}
}

// A socket's address has 108 bytes; a home may be longer.
func TestFoldersWithLongPaths(t *testing.T) {
	t.Parallel()
	runs := t.TempDir()
	for len(runs) < 3000 {
		runs = filepath.Join(runs, strings.Repeat("long", 50))
	}
	check(t, os.MkdirAll(runs, 0o700))
	d := makeDir(t, runs)
	check(t, d.Write(SpecFile, Spec{Format: Format, ID: 7}))
	var s Spec
	check(t, d.Read(SpecFile, &s))
	if s.ID != 7 {
		t.Errorf("%+v", s)
	}
	l, err := net.Listen("unix", d.SocketPath(Socket))
	check(t, err)
	defer l.Close()
	if st, err := os.Stat(filepath.Join(d.Path(), Socket)); err != nil || st.Mode().Type() != os.ModeSocket {
		t.Errorf("%v, %v", st, err)
	}
	c, err := net.Dial("unix", d.SocketPath(Socket))
	check(t, err)
	check(t, c.Close())
}

// Readers look on while a record is replaced again and again: each sees one that was written, and whole.
func TestWriteIsAtomic(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	long := strings.Repeat("x", 100_000)
	order := func(i int) Order {
		o := Order{Format: Format, GraceMS: int64(i)}
		if i%2 == 0 {
			o.Reason = long
		}
		return o
	}
	check(t, d.Write(OrderFile, order(0)))
	stop, read := make(chan struct{}), make(chan error)
	for range 2 {
		go func() {
			last := int64(0)
			for {
				var o Order
				err := d.Read(OrderFile, &o)
				switch {
				case err != nil:
				case o.GraceMS < last:
					err = fmt.Errorf("%d came back after %d", o.GraceMS, last)
				case (o.GraceMS%2 == 0) != (o.Reason == long):
					err = fmt.Errorf("a mixture: %d with %d bytes", o.GraceMS, len(o.Reason))
				}
				last = o.GraceMS
				select {
				case <-stop:
					read <- err
					return
				default:
				}
				if err != nil {
					<-stop
					read <- err
					return
				}
			}
		}()
	}
	for i := range 300 {
		check(t, d.Write(OrderFile, order(i)))
	}
	close(stop)
	for range 2 {
		check(t, <-read)
	}
	if names := d.names(t); !slices.Equal(names, []string{OrderFile}) {
		t.Errorf("left: %q", names)
	}
}

func TestARecordThatCannotBeWrittenLeavesTheOldOne(t *testing.T) {
	t.Parallel()
	d := newDir(t)
	check(t, d.Write(ExitFile, Exit{Format: Format, Code: 1}))
	if err := d.Write(ExitFile, map[string]any{"format": 1, "code": func() {}}); err == nil {
		t.Error("no error")
	}
	var e Exit
	check(t, d.Read(ExitFile, &e))
	if e.Code != 1 || len(d.names(t)) != 1 {
		t.Errorf("%+v, %q", e, d.names(t))
	}
}

// Processes that want the same claim: exactly one gets it, and whoever reads it finds that one's, whole.
func TestOneProcessWinsAClaim(t *testing.T) {
	t.Parallel()
	for range 3 {
		runs := t.TempDir()
		d := makeDir(t, runs)
		const rivals = 8
		type player struct {
			cmd  *exec.Cmd
			gate io.WriteCloser
			says *bufio.Scanner
		}
		var all []player
		for range rivals {
			cmd := exec.Command("/proc/self/exe", runs)
			cmd.Env = append(os.Environ(), roleEnv+"=rival", "GORACE=atexit_sleep_ms=0")
			cmd.Stderr = os.Stderr
			gate, err := cmd.StdinPipe()
			check(t, err)
			out, err := cmd.StdoutPipe()
			check(t, err)
			check(t, cmd.Start())
			all = append(all, player{cmd, gate, bufio.NewScanner(out)})
		}
		for _, p := range all {
			p.says.Scan() // ready
		}
		for _, p := range all {
			check(t, p.gate.Close())
		}
		var winners []int
		for _, p := range all {
			p.says.Scan()
			if p.says.Text() == "won" {
				winners = append(winners, p.cmd.Process.Pid)
			}
			check(t, p.cmd.Wait())
		}
		var c Claim
		check(t, d.Read(ClaimFile, &c))
		if len(winners) != 1 || c.Runner.PID != winners[0] {
			t.Errorf("won by %v, and the claim is %d's", winners, c.Runner.PID)
		}
		if names := d.names(t); !slices.Equal(names, []string{ClaimFile}) {
			t.Errorf("left: %q", names)
		}
	}
}

// The same within one process.
func TestOneCallerWinsAClaim(t *testing.T) {
	t.Parallel()
	for range 50 {
		d := newDir(t)
		const callers = 16
		gate, results := make(chan struct{}), make([]chan error, callers)
		for i := range results {
			results[i] = make(chan error, 1)
			go func() {
				<-gate
				results[i] <- d.Create(ClaimFile, Claim{Format: Format, Session: fmt.Sprint(i), At: time.Now()})
			}()
		}
		close(gate)
		var winners []string
		for i, r := range results {
			if err := <-r; err == nil {
				winners = append(winners, fmt.Sprint(i))
			} else if !errors.Is(err, ErrTaken) {
				t.Error(err)
			}
		}
		var c Claim
		check(t, d.Read(ClaimFile, &c))
		if !slices.Equal(winners, []string{c.Session}) {
			t.Errorf("won by %q, and the claim is %s's", winners, c.Session)
		}
	}
}
