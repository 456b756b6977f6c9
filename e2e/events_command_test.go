package e2e

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cortex/internal/testenv"
)

// output is what a command has said so far.
type output struct {
	mu   sync.Mutex
	text []byte // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// background runs the command line until the test's end.
type background struct {
	cmd      *exec.Cmd
	out, err output
	done     chan struct{}
}

func start(t *testing.T, h *testenv.Host, args ...string) *background {
	t.Helper()
	b := &background{cmd: h.Command(filepath.Join(h.Bin, "cortex"), args...), done: make(chan struct{})}
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.err
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { b.cmd.Wait(); close(b.done) }()
	t.Cleanup(func() { b.cmd.Process.Kill(); <-b.done })
	return b
}

// cortex events -f says what happens, waits for a daemon that is away, says so, and goes on where it was.
func TestEventsCommandFollows(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	first := awaitStarted(t, h)
	text := start(t, h, "events", "-f", "--limit", "1")
	lines := start(t, h, "events", "-f", "-o", "json", "--since", "1h", "--type", "info,warning")
	for i := range 2 {
		testenv.Eventually(t, "the command to follow", func() bool {
			return strings.Count(text.out.String(), "daemon_started") == i+1 && strings.Count(lines.out.String(), `"daemon_started"`) == i+1
		})
		d.Kill()
		for _, b := range []*background{text, lines} {
			testenv.Eventually(t, "the command to say that the daemon is away", func() bool {
				return strings.Count(b.err.String(), "the daemon is away; waiting 30s") == i+1
			})
		}
		d = h.Start()
		h.WaitStatus(h.Submit("b", "true"), "completed")
	}
	testenv.Eventually(t, "all events", func() bool {
		count := h.SQL("SELECT count(*) FROM events")
		return fmt.Sprint(strings.Count(text.out.String(), "\n")) == count && fmt.Sprint(strings.Count(lines.out.String(), "\n")) == count
	})
	want := h.SQL("SELECT id || ' ' || event_type FROM events ORDER BY id")
	var got []string
	for in := bufio.NewScanner(strings.NewReader(text.out.String())); in.Scan(); {
		words := strings.Fields(in.Text())
		got = append(got, words[0]+" "+words[3])
	}
	if strings.Join(got, "\n") != want || !strings.HasPrefix(text.out.String(), first+" ") {
		t.Errorf("it said\n%s\nand there are\n%s", strings.Join(got, "\n"), want)
	}
	if n := strings.Count(text.err.String(), "the daemon is back"); n != 2 {
		t.Errorf("it said %d times that the daemon is back: %s", n, text.err.String())
	}
	for _, b := range []*background{text, lines} {
		b.cmd.Process.Signal(syscall.SIGINT)
		<-b.done
		if code := b.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("after INT: exit %d, %s", code, b.err.String())
		}
	}
}

// Its patience has an end.
func TestEventsCommandGivesUp(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	b := start(t, h, "events", "-f", "--limit", "1")
	testenv.Eventually(t, "the command to follow", func() bool { return strings.Contains(b.out.String(), "daemon_started") })
	d.Stop()
	began := time.Now()
	<-b.done
	if code, took := b.cmd.ProcessState.ExitCode(), time.Since(began); code != 69 || took < 20*time.Second || took > 50*time.Second {
		t.Errorf("exit %d after %s: %s", code, took, b.err.String())
	}
	if !strings.Contains(b.err.String(), "No daemon answers") {
		t.Errorf("it said %s", b.err.String())
	}
}

func TestEventsCommand(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	for _, args := range [][]string{{"events"}, {"events", "-f"}, {"events", "-f", "-o", "json"}} {
		if out, errout, code := cli(h, args...); code != 69 || out != "" || errout == "" {
			t.Errorf("%v without a daemon: exit %d, %q, %q", args, code, out, errout)
		}
	}
	h.Start()
	h.WaitStatus(h.Submit("bad", "sh", "-c", "exit 3"), "failed")
	h.Cortex("pause", "--reason", "a\u202eb")
	for line, where := range map[string]string{
		"":                           "1",
		"--type warning":             "type = 'warning'",
		"--type warning --type info": "1",
		"--event dispatch_failed,dispatch_started": "event_type IN ('dispatch_failed', 'dispatch_started')",
		"--dispatch 1":                        "dispatch_id = 1",
		"--bead bad --event dispatch_started": "event_type = 'dispatch_started'",
		"--since 2999-01-01T00:00:00Z":        "0",
		"--limit 1000":                        "1",
	} {
		var ids []string
		rows := strings.Split(h.Cortex(append([]string{"events"}, strings.Fields(line)...)...), "\n")
		for _, row := range rows[1:] {
			ids = append(ids, strings.Fields(row)[0])
		}
		want := h.SQL("SELECT id FROM events WHERE " + where + " ORDER BY id DESC")
		if got := strings.Join(ids, "\n"); got != want || !strings.HasPrefix(rows[0], "ID  TIME") {
			t.Errorf("events %s: %q, want %q", line, got, want)
		}
	}
	if out := h.Cortex("events", "--event", "scheduler_paused"); strings.Contains(out, "\u202e") || !strings.Contains(out, `a\u202eb`) {
		t.Errorf("what people write reaches the terminal: %q", out)
	}
	out, errout, _ := cli(h, "events", "--limit", "1")
	cursor := strings.TrimPrefix(strings.TrimSpace(errout), "there are more: --cursor ")
	next := h.Cortex("events", "--limit", "1", "--cursor", cursor)
	if strings.Count(out, "\n") != 2 || !strings.HasPrefix(strings.Split(out, "\n")[1], cursor+" ") || strings.Contains(next, "scheduler_paused") {
		t.Errorf("the next page after %q (%s): %q", out, errout, next)
	}
	if v := object(t, h, "events", "--bead", "none"); len(v["events"].([]any)) != 0 || v["next_cursor"] != nil {
		t.Errorf("%v", v)
	}
	for _, line := range []string{"events --type warn", "events --event dispatch_faild", "events --dispatch x", "events --limit 0",
		"events --since soon", "events -f --cursor 5", "events -f --limit 0", "events x", "events -f --tail 5"} {
		if out, errout, code := cli(h, strings.Fields(line)...); code != 2 || out != "" || !strings.HasPrefix(errout, "cortex: ") {
			t.Errorf("cortex %s: exit %d, %q, %q", line, code, out, errout)
		}
	}
}
