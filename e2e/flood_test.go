package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cortex/internal/testenv"
)

var floodMiB = flag.Int("flood", 128, "MiB that the agent of TestLogFlood writes")

const floodKept = 16 << 20 // bytes of output.log, by runner.output_max

// An agent writes as fast as it can: its log stays bounded, with its head and its tail, the others and the API go on, the memory
// of daemon, runner and tmux server stays what it is, and a reader that takes nothing does not slow it.
func TestLogFlood(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{fmt.Sprint("CORTEX_RUNNER__OUTPUT_MAX=", floodKept)}
	d := h.Start()
	h.WaitStatus(h.Submit("first", "true"), "completed") // it starts the tmux server
	const word = "100000001 "
	words := *floodMiB << 20 / len(word)
	last := 100000000 + words
	id := h.Submit("flood", "sh", "-c", fmt.Sprintf(`seq 100000001 %d | tr "\n" " "; exit 7`, last))
	agent := h.WaitRunning(id)
	dir := filepath.Join(h.State, "runs", id, "1")
	parents := map[string]int{"daemon": d.PID(), "tmux server": serverPID(t, h), "runner": parentOf(t, agent.PID)}
	stuckReader(t, h, "/dispatches/"+id+"/output")

	most := map[string]int{}
	kept, others := int64(0), 0
	for h.Status(id) == "running" {
		other := h.Submit("other", "sh", "-c", "exit 3")
		h.WaitStatus(other, "failed")
		if x := h.Field(other, "exit_code"); x != "3" {
			t.Errorf("exit code %s beside the flood", x)
		}
		if code, _ := h.Get("/dispatches/" + id + "/output?tail=10"); code != http.StatusOK {
			t.Errorf("output: %d", code)
		}
		others++
		kept = max(kept, sizes(dir))
		for name, pid := range parents {
			most[name] = max(most[name], rss(pid))
		}
	}
	t.Logf("%d MiB in %s s, %d others meanwhile; at most %v KiB resident, %d bytes kept", *floodMiB, h.Field(id, "duration_s"), others, most, kept)
	if h.Status(id) != "failed" || h.Field(id, "exit_code") != "7" || others == 0 {
		t.Errorf("%s, exit code %s, %d others", h.Status(id), h.Field(id, "exit_code"), others)
	}
	if kept > floodKept+floodKept/8 {
		t.Errorf("%d bytes were kept meanwhile", kept)
	}
	for name, limit := range map[string]int{"daemon": 200 << 10, "tmux server": 32 << 10, "runner": 32 << 10} {
		if most[name] > limit {
			t.Errorf("%s: %d KiB resident", name, most[name])
		}
	}
	log, err := os.ReadFile(filepath.Join(dir, "output.log"))
	if err != nil {
		t.Fatal(err)
	}
	if len(log) > floodKept+floodKept/8 || len(log) < floodKept/2 {
		t.Errorf("output.log has %d bytes", len(log))
	}
	cut := words*len(word) - (len(log) - len(cutLine(log)))
	if !bytes.HasPrefix(log, []byte(word)) || !bytes.HasSuffix(log, fmt.Appendf(nil, " %d ", last)) ||
		string(cutLine(log)) != fmt.Sprintf("\r\n[cortex: %d bytes cut]\r\n", cut) {
		t.Errorf("head %q, mark %q (%d are cut), tail %q", log[:20], cutLine(log), cut, log[len(log)-20:])
	}
	if timed := timed(t, dir); timed != len(log) {
		t.Errorf("the timing is of %d bytes, the log has %d", timed, len(log))
	}
}

// cutLine is the mark of the cut.
func cutLine(log []byte) []byte {
	from := bytes.Index(log, []byte("\r\n[cortex: "))
	if from < 0 {
		return nil
	}
	end := bytes.Index(log[from:], []byte("]\r\n"))
	return log[from : from+end+len("]\r\n")]
}

// timed is how many bytes the timing file accounts for.
func timed(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "output.timing"))
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for line := range strings.Lines(string(text)) {
		_, n, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		bytes, err := strconv.Atoi(n)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		sum += bytes
	}
	return sum
}

// sizes is the size of all parts of a log together.
func sizes(dir string) int64 {
	parts, _ := filepath.Glob(filepath.Join(dir, "output.log*")) // the pattern is right
	sum := int64(0)
	for _, p := range parts {
		if st, err := os.Stat(p); err == nil { // one that was dropped meanwhile is no more
			sum += st.Size()
		}
	}
	return sum
}

// rss is a process's resident memory in KiB, 0 where it is gone.
func rss(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib int
	fmt.Sscan(rest, &kib)
	return kib
}

func parentOf(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "PPid:")
	var parent int
	if _, err := fmt.Sscan(rest, &parent); err != nil {
		t.Fatal(err)
	}
	return parent
}

// stuckReader asks for something and never reads the answer.
func stuckReader(t *testing.T, h *testenv.Host, path string) {
	t.Helper()
	c, err := net.Dial("tcp", h.Listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, h.Listen); err != nil {
		t.Fatal(err)
	}
}
