package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

// crashed is a host whose daemon was killed: its main file has grown since a backup was made, and its write-ahead log has what
// came later, an order to pause among it.
type crashed struct {
	*testenv.Host
	db, backup, whole  string // files: the database, an old copy of it, one of its last checkpoint
	ended, runs, waits string // dispatches, none of which the old copy knows; the last one is in the log alone
}

func crash(t *testing.T) crashed {
	t.Helper()
	h := testenv.New(t)
	c := crashed{Host: h, db: filepath.Join(h.State, "cortex.db"), backup: h.Home + "/backup", whole: h.Home + "/whole"}
	d := h.Start()
	pause := func(copy string) {
		t.Helper()
		if code, a := h.Post("/scheduler/pause", ""); code != 200 {
			t.Fatalf("pause: %d %v", code, a)
		}
		h.Run("cp", c.db, copy)
	}
	recorded := func(n int) {
		t.Helper()
		testenv.Eventually(t, "the ends in the database", func() bool {
			return h.SQL("SELECT count(*) FROM dispatches WHERE completed_at IS NOT NULL") == strconv.Itoa(n)
		})
	}
	h.Submit("early", "true")
	recorded(1)
	pause(c.backup)
	h.Post("/scheduler/resume", "")
	c.ended = h.Submit("ended", "sh", "-c", "exit 9")
	c.runs = h.Submit("runs", "sleep", "100000")
	h.WaitRunning(c.runs)
	recorded(2)
	h.SQL(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
		INSERT INTO events (event_type, message) SELECT 'filler', hex(randomblob(100)) FROM n`)
	pause(c.whole)
	c.waits = h.Submit("waits", once(h)...)
	d.Kill()
	if st, err := os.Stat(c.db + "-wal"); err != nil || st.Size() == 0 {
		t.Fatalf("no log is left: %v", err)
	}
	return c
}

// files tells whether anything of the database or beside it has changed.
func (c crashed) files() string {
	return c.Run("sh", "-c", "cd "+c.State+"; ls; sha256sum cortex.db cortex.db-wal ids")
}

// restore runs the command line's restore.
func (c crashed) restore(file string) (out, errout string, code int) {
	return c.Try(filepath.Join(c.Bin, "cortex"), "db", "restore", file)
}

// all checks that a daemon that has just started knows all that there was.
func (c crashed) all(t *testing.T) {
	t.Helper()
	if _, a := c.Get("/status"); a["scheduler_state"] != "paused" || a["running_count"] != 1.0 || a["pending_count"] != 1.0 {
		t.Errorf("%v", a)
	}
	if s, x := c.Status(c.ended), c.Field(c.ended, "exit_code"); s != "failed" || x != "9" {
		t.Errorf("%s, exit code %s", s, x)
	}
	if got := c.SQL("PRAGMA integrity_check"); got != "ok" {
		t.Error(got)
	}
	next, err1 := strconv.Atoi(c.Submit("next", "true"))
	last, err2 := strconv.Atoi(c.waits)
	if err1 != nil || err2 != nil || next <= last {
		t.Errorf("id %d after %d (%v, %v)", next, last, err1, err2)
	}
}

// A backup that is restored after a crash, with a write-ahead log that does not fit it: the log is set aside, what runs/ knows
// is taken in, what runs is adopted, the pause of the backup holds, no id is used twice; and it can be undone.
func TestRestoreAfterACrash(t *testing.T) {
	t.Parallel()
	c := crash(t)
	out := c.Cortex("db", "restore", "backup") // a path from here, the home
	aside, _, _ := strings.Cut(strings.TrimPrefix(out, "The old database is "), "\n")
	if !strings.Contains(out, "1 dispatches") || !strings.HasPrefix(aside, c.db+".before-restore-") {
		t.Fatalf("%s", out)
	}
	if _, err := os.Stat(aside + "-wal"); err != nil {
		t.Error(err)
	}
	d := c.Start()
	c.all(t)
	if got := c.SQL("SELECT group_concat(type) FROM health_events WHERE event_type = 'database_replaced'"); got != "info" {
		t.Errorf("events of the replaced file: %s", got)
	}
	d.Stop()

	// Undone: what the set-aside log has is in it again.
	if out := c.Cortex("db", "restore", aside, "-o", "json"); !strings.Contains(out, `"pending":1`) || !strings.Contains(out, `"restored":"`+aside) {
		t.Errorf("%s", out)
	}
	c.Start()
	if got := c.SQL("SELECT event_type FROM events WHERE dispatch_id = " + c.waits); got != "dispatch_submitted" {
		t.Errorf("events of the one that waits: %s", got)
	}
	c.Post("/scheduler/resume", "")
	c.WaitStatus(c.waits, "failed")
	if ran(c.Host) != 1 {
		t.Errorf("ran %d times", ran(c.Host))
	}
}

// A backup that is copied over the database by cp, with the log of a crash beside it: SQLite applies that log. Where the two
// make a database, an event tells; where they don't, the start ends, changes nothing, and says what to do.
func TestCopyOverACrash(t *testing.T) {
	t.Parallel()
	c := crash(t)
	c.Run("cp", c.backup, c.db)
	before := c.files()
	d := c.Launch()
	dead(t, d)
	if log := d.Log(); d.ExitCode() != 1 || !strings.Contains(log, "damaged") || !strings.Contains(log, "cortex db restore") ||
		!strings.Contains(log, "cortex db rebuild") {
		t.Errorf("exit %d: %s", d.ExitCode(), log)
	}
	if after := c.files(); !strings.Contains(after, "cortex.db-wal") || sums(after) != sums(before) {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	c.Run("cp", c.whole, c.db)
	c.Start()
	c.all(t)
	if got := c.SQL("SELECT type FROM health_events WHERE event_type = 'database_replaced' AND message LIKE '%write-ahead log%'"); got != "warning" {
		t.Errorf("events of the replaced file: %q", got)
	}
}

// sums are the lines of sha256sum in what files says.
func sums(files string) string {
	var found []string
	for line := range strings.Lines(files) {
		if strings.Contains(line, "  cortex.db") {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

// What is no sound backup of cortex's is refused before anything is touched, and so is a restore under a daemon or under
// another program that has the database open.
func TestRestoreIsRefused(t *testing.T) {
	t.Parallel()
	c := crash(t)
	bad := func(name, make string) string {
		path := filepath.Join(c.Home, name)
		c.Run("sh", "-c", fmt.Sprintf(make, path))
		return path
	}
	before := c.files()
	for file, want := range map[string]string{
		c.Home + "/none":          "no such file",
		c.Home:                    "no regular file",
		c.db:                      "the database itself",
		bad("empty", "true > %s"): "it is empty",
		bad("text", "yes no database | head -c 40960 > %s"):                              "damaged",
		bad("half", "head -c 20480 "+c.backup+" > %s"):                                   "damaged",
		bad("foreign", "sqlite3 %s 'CREATE TABLE t (x)'"):                                "not a database of cortex",
		bad("none-yet", "sqlite3 %s 'PRAGMA user_version = 0; VACUUM'"):                  "damaged",
		bad("newer", "cp "+c.backup+" %[1]s; sqlite3 %[1]s 'PRAGMA user_version = 999'"): "newer cortex",
	} {
		if out, errout, code := c.restore(file); code != 1 || !strings.Contains(errout, want) || out != "" {
			t.Errorf("%s: exit %d, %s%s; want %q", file, code, out, errout, want)
		}
	}
	if after := c.files(); strings.Replace(after, "cortex.lock\n", "", 1) != strings.Replace(before, "cortex.lock\n", "", 1) {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}

	shell := c.Command("sqlite3", c.db)
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answered := filepath.Join(c.Home, "answered")
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(in, "SELECT count(*) FROM dispatches;\n.shell touch %s\n", answered)
	waitFile(t, answered)
	if _, errout, code := c.restore(c.backup); code != 1 || !strings.Contains(errout, fmt.Sprintf("process %d (sqlite3", shell.Process.Pid)) {
		t.Errorf("exit %d, %s", code, errout)
	}
	in.Close()
	if err := shell.Wait(); err != nil {
		t.Error(err)
	}
	c.Start()
	c.all(t)
	if _, errout, code := c.restore(c.backup); code != 1 || !strings.Contains(errout, "another cortex runs") {
		t.Errorf("exit %d, %s", code, errout)
	}
	if left, err := filepath.Glob(c.db + ".*"); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}
