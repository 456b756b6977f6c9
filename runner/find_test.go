package runner

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cortex/proc"
	"cortex/runner/record"
)

func TestLookReadsAllRecords(t *testing.T) {
	t.Parallel()
	runs := t.TempDir()
	_, err := Look(runs, 7, 1)
	wantErr(t, err, fs.ErrNotExist)
	d := makeDir(t, runs, 1)
	f, err := Look(runs, 7, 1)
	check(t, err)
	if f.Attempt != 1 || f.Claim != nil || f.Started != nil || f.Order != nil || f.Exit != nil || f.Verdict != nil || len(f.Damaged) > 0 {
		t.Errorf("an empty folder: %+v", f)
	}
	check(t, d.Create(record.ClaimFile, record.Claim{Format: 1, Session: "s"}))
	check(t, d.Write(record.StartedFile, record.Started{Format: 1, TTY: "/dev/pts/3"}))
	check(t, d.Write(record.OrderFile, record.Order{Format: 1, By: "operator"}))
	check(t, d.Write(record.ExitFile, record.Exit{Format: 1, Code: 3}))
	check(t, d.Write(record.VerdictFile, record.Verdict{Format: 1, Kind: record.VerdictLost}))
	f, err = Look(runs, 7, 1)
	check(t, err)
	if f.Claim.Session != "s" || f.Started.TTY != "/dev/pts/3" || f.Order.By != "operator" || f.Exit.Code != 3 ||
		f.Verdict.Kind != record.VerdictLost || len(f.Damaged) > 0 {
		t.Errorf("%+v", f)
	}
}

// A damaged record is as good as none, and is told; the others count.
func TestLookWithDamagedRecords(t *testing.T) {
	t.Parallel()
	files := []string{record.ClaimFile, record.StartedFile, record.OrderFile, record.ExitFile, record.VerdictFile}
	for how, c := range map[string]struct {
		lay  func(path string) error
		want error
	}{
		"empty":   {func(p string) error { return os.WriteFile(p, nil, 0o600) }, record.ErrTorn},
		"half":    {func(p string) error { return os.WriteFile(p, []byte(`{"format":1,"at":"20`), 0o600) }, record.ErrTorn},
		"zeros":   {func(p string) error { return os.WriteFile(p, make([]byte, 300), 0o600) }, record.ErrTorn},
		"newer":   {func(p string) error { return os.WriteFile(p, []byte(`{"format":2}`), 0o600) }, record.ErrNewer},
		"link":    {func(p string) error { return os.Symlink("/dev/zero", p) }, record.ErrTorn},
		"FIFO":    {func(p string) error { return unix.Mkfifo(p, 0o600) }, record.ErrTorn},
		"folder":  {func(p string) error { return os.Mkdir(p, 0o700) }, record.ErrTorn},
		"foreign": {func(p string) error { return os.WriteFile(p, []byte("claim: yes\n"), 0o600) }, record.ErrTorn},
	} {
		for _, damaged := range files {
			t.Run(how+" "+damaged, func(t *testing.T) {
				t.Parallel()
				runs := t.TempDir()
				d := makeDir(t, runs, 1)
				for _, name := range files {
					if name != damaged {
						check(t, d.Write(name, record.Order{Format: 1})) // what all have in common
					}
				}
				check(t, c.lay(filepath.Join(d.Path(), damaged)))
				f, err := Look(runs, 7, 1)
				check(t, err)
				if got := f.Damaged[damaged]; len(f.Damaged) != 1 || !errors.Is(got, c.want) || !strings.Contains(got.Error(), damaged) {
					t.Errorf("damaged: %v", f.Damaged)
				}
				if !f.Begun() {
					t.Error("it was not begun")
				}
				there := map[string]bool{
					record.ClaimFile: f.Claim != nil, record.StartedFile: f.Started != nil, record.OrderFile: f.Order != nil,
					record.ExitFile: f.Exit != nil, record.VerdictFile: f.Verdict != nil,
				}
				for name, ok := range there {
					if ok != (name != damaged) {
						t.Errorf("%s is there: %v", name, ok)
					}
				}
			})
		}
	}
}

// What only a newer cortex can read says neither that an attempt lives nor that it has ended; what is torn never will.
func TestUnknown(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{record.ClaimFile: true, record.ExitFile: true, record.VerdictFile: true,
		record.StartedFile: false, record.OrderFile: false} {
		runs := t.TempDir()
		d := makeDir(t, runs, 1)
		for format, unknown := range map[int]bool{0: false, record.Format + 1: want} { // no format: torn
			check(t, d.Write(name, record.Order{Format: format}))
			f, err := Look(runs, 7, 1)
			check(t, err)
			if got := f.Unknown() != nil; got != unknown || f.Begun() != (name != record.OrderFile) {
				t.Errorf("%s of format %d: unknown %v, begun %v", name, format, got, f.Begun())
			}
		}
		if name != record.ExitFile {
			check(t, d.Write(record.ExitFile, record.Exit{Format: 1}))
			f, err := Look(runs, 7, 1)
			check(t, err)
			if f.Unknown() != nil {
				t.Errorf("%s: how it ended is known: %v", name, f.Unknown())
			}
		}
	}
}

func TestSpec(t *testing.T) {
	t.Parallel()
	runs := t.TempDir()
	_, err := Spec(runs, 7)
	wantErr(t, err, fs.ErrNotExist)
	d := makeDir(t, runs, 0)
	_, err = Spec(runs, 7)
	wantErr(t, err, fs.ErrNotExist)
	check(t, d.Write(record.SpecFile, record.Spec{Format: 1, ID: 7, Bead: "b"}))
	s, err := Spec(runs, 7)
	check(t, err)
	if s.Bead != "b" {
		t.Errorf("%+v", s)
	}
	check(t, d.Write(record.SpecFile, record.Spec{Format: 1, ID: 8}))
	_, err = Spec(runs, 7) // a folder that was copied or renamed
	wantErr(t, err, record.ErrTorn)
	check(t, d.Write(record.SpecFile, record.Spec{Format: 2, ID: 7}))
	_, err = Spec(runs, 7)
	wantErr(t, err, record.ErrNewer)
}

// Only folders whose names cortex itself writes are dispatches and attempts.
func TestListAndAttemptsIgnoreForeignNames(t *testing.T) {
	t.Parallel()
	runs := t.TempDir()
	_, err := List(filepath.Join(runs, "none"))
	wantErr(t, err, fs.ErrNotExist)
	_, err = Attempts(runs, 7)
	wantErr(t, err, fs.ErrNotExist)
	lay := func(folder string) {
		for _, name := range []string{"1", "7", "12", "2147483648", "9223372036854775807", // the last two are no attempt of a 32-bit int
			"0", "-1", "+3", "07", "7 ", " 7", "7x", "0x7", "1e3", "٧", "9223372036854775808", "..7", ".7", "spec", "7.new"} {
			check(t, os.MkdirAll(filepath.Join(folder, name), 0o700))
		}
		check(t, os.WriteFile(filepath.Join(folder, "21"), nil, 0o600))
		check(t, os.Symlink(filepath.Join(folder, "1"), filepath.Join(folder, "22")))
		check(t, unix.Mkfifo(filepath.Join(folder, "23"), 0o600))
	}
	lay(runs)
	lay(filepath.Join(runs, "7"))
	ids, err := List(runs)
	check(t, err)
	slices.Sort(ids)
	if want := []int64{1, 7, 12, 2147483648, 9223372036854775807}; !slices.Equal(ids, want) {
		t.Errorf("List: %v, want %v", ids, want)
	}
	attempts, err := Attempts(runs, 7)
	check(t, err)
	slices.Sort(attempts)
	if len(attempts) < 3 || !slices.Equal(attempts[:3], []int{1, 7, 12}) || len(attempts) > 5 {
		t.Errorf("Attempts: %v", attempts)
	}
	// A link in a dispatch's place is not followed.
	_, err = Attempts(runs, 22)
	if err == nil {
		t.Error("the attempts behind a link were listed")
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	runs := t.TempDir()
	for range 2 { // no folder need be there, and revoking twice is no error
		ok, err := Revoke(runs, 7, 1, record.Claim{Reason: "paused"})
		check(t, err)
		if !ok {
			t.Error("not revoked")
		}
	}
	f, err := Look(runs, 7, 1)
	check(t, err)
	if f.Claim == nil || !f.Claim.Revoked || f.Claim.Format != record.Format || f.Claim.Reason != "paused" {
		t.Errorf("%+v", f.Claim)
	}
	wantErr(t, claim(runs, 1), record.ErrTaken)

	makeDir(t, runs, 2)
	check(t, claim(runs, 2))
	ok, err := Revoke(runs, 7, 2, record.Claim{})
	check(t, err)
	if ok {
		t.Error("a claimed attempt was revoked")
	}
	// Who has a claim that can't be read is not known: neither answer is right.
	d := makeDir(t, runs, 3)
	check(t, os.WriteFile(filepath.Join(d.Path(), record.ClaimFile), []byte("{"), 0o600))
	ok, err = Revoke(runs, 7, 3, record.Claim{})
	wantErr(t, err, record.ErrTorn)
	if ok {
		t.Error("revoked and damaged")
	}
}

// A runner and the daemon want an attempt at the same time: one of them has it, and both know which.
func TestRevokeAgainstAClaim(t *testing.T) {
	t.Parallel()
	runs := t.TempDir()
	makeDir(t, runs, 0)
	cmd := exec.Command("/proc/self/exe", runs)
	cmd.Env = append(os.Environ(), roleEnv+"=claimer", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	orders, err := cmd.StdinPipe()
	check(t, err)
	answers, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	says := bufio.NewScanner(answers)
	won := map[bool]int{}
	for attempt := 1; attempt <= 150; attempt++ {
		makeDir(t, runs, attempt).Close()
		fmt.Fprintln(orders, attempt)
		first := attempt%10 == 0
		if first {
			says.Scan() // the runner is first for certain
		} else {
			for range attempt % 20 { // shifts the one against the other
				_, err := Look(runs, 7, attempt)
				check(t, err)
			}
		}
		revoked, err := Revoke(runs, 7, attempt, record.Claim{Reason: "test"})
		check(t, err)
		if !first {
			says.Scan()
		}
		if want := map[bool]string{true: "lost", false: "claimed"}[revoked]; says.Text() != want || first && revoked {
			t.Fatalf("attempt %d: revoked %v, and the runner says %s", attempt, revoked, says.Text())
		}
		f, err := Look(runs, 7, attempt)
		check(t, err)
		if f.Claim == nil || f.Claim.Revoked != revoked || (f.Claim.Runner.PID == cmd.Process.Pid) == revoked {
			t.Fatalf("attempt %d: revoked %v, and the claim is %+v", attempt, revoked, f.Claim)
		}
		won[revoked]++
	}
	check(t, orders.Close())
	check(t, cmd.Wait())
	t.Logf("revoked %d, claimed %d", won[true], won[false])
}

func TestDeadAndIdent(t *testing.T) {
	t.Parallel()
	self := here(proc.Self())
	if id, ok := Ident(self); !ok || id != proc.Self() || Dead(self) {
		t.Errorf("this process: %v, %v, dead %v", id, ok, Dead(self))
	}
	change := func(f func(*record.Process)) record.Process { p := self; f(&p); return p }
	for name, c := range map[string]struct {
		p    record.Process
		here bool
	}{
		"nobody":                 {record.Process{}, false},
		"another boot":           {change(func(p *record.Process) { p.Boot = "0b9e7a52-0000-4000-8000-000000000000" }), false},
		"no boot":                {change(func(p *record.Process) { p.Boot = "" }), false},
		"another pid namespace":  {change(func(p *record.Process) { p.PIDNS++ }), false},
		"no pid namespace":       {change(func(p *record.Process) { p.PIDNS = 0 }), false},
		"pid 0":                  {change(func(p *record.Process) { p.PID = 0 }), false},
		"a group":                {change(func(p *record.Process) { p.PID = -p.PID }), false},
		"a pid used again":       {change(func(p *record.Process) { p.Start++ }), true},
		"no start":               {change(func(p *record.Process) { p.Start = 0 }), true},
		"a pid that can't be":    {change(func(p *record.Process) { p.PID = 1 << 30 }), true},
		"init, by another start": {change(func(p *record.Process) { p.PID, p.Start = 1, 1<<60 }), true},
	} {
		if id, ok := Ident(c.p); ok != c.here || !ok && id != (proc.Ident{}) {
			t.Errorf("%s: %v, %v", name, id, ok)
		}
		if !Dead(c.p) {
			t.Errorf("%s is not dead", name)
		}
	}
}

// A process that has ended is dead, also before its parent has taken note of that.
func TestTheEndedAreDead(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	check(t, err)
	check(t, cmd.Start())
	id, err := proc.Of(cmd.Process.Pid)
	check(t, err)
	p := here(id)
	if Dead(p) {
		t.Error("dead while it runs")
	}
	check(t, in.Close())
	over := time.After(30 * time.Second)
	for tick := time.NewTicker(time.Millisecond); !Dead(p); {
		select {
		case <-tick.C:
		case <-over:
			t.Fatal("it is not dead")
		}
	}
	if !id.Exists() {
		t.Error("it is no zombie: the test proves less")
	}
	check(t, cmd.Wait())
	if !Dead(p) {
		t.Error("it lives again")
	}
}
