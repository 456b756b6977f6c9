package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cortex/internal/testenv"
	"cortex/proc"
)

// firstRunner makes the test binary, where it names a recording, a runner of the first released format: it writes the records
// and says the words that such a runner wrote and said (testdata/runner1.json, recorded from one), and knows no others. Its
// arguments are the attempt's folder, the id, the session and the agent's script.
const firstRunner = "CORTEX_E2E_RUNNER1"

// recording is what a runner of the first format says, with the marks of what was different each time filled in.
type recording struct {
	said  map[string]json.RawMessage
	marks map[string]string
}

func (r recording) text(name string) []byte {
	text := string(r.said[name])
	for mark, value := range r.marks {
		text = strings.ReplaceAll(text, `"@`+mark+`@"`, value)
	}
	return append([]byte(text), '\n')
}

func becomeFirstRunner(data, folder, id, session, script string) error {
	text, err := os.ReadFile(data)
	if err != nil {
		return err
	}
	r := recording{marks: map[string]string{"ID": id, "SESSION": strconv.Quote(session), "TMUX": strconv.Quote(os.Getenv("TMUX")),
		"NOW": strconv.Quote(time.Now().UTC().Format(time.RFC3339Nano)), "RUNNER": onRecord(os.Getpid())}}
	if err := json.Unmarshal(text, &r.said); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "claim.json"), r.text("claim.json"), 0o600); err != nil {
		return err
	}
	socket, err := net.Listen("unix", filepath.Join(folder, "runner.sock"))
	if err != nil {
		return err
	}
	agent := exec.Command("sh", "-c", script)
	if err := agent.Start(); err != nil {
		return err
	}
	r.marks["AGENT"] = onRecord(agent.Process.Pid)
	if err := os.WriteFile(filepath.Join(folder, "started.json"), r.text("started.json"), 0o600); err != nil {
		return err
	}
	ended := make(chan error)
	go func() { ended <- agent.Wait() }()
	conns, requests := make(chan net.Conn), make(chan []byte)
	go func() {
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			conns <- conn
			go func() {
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					requests <- append([]byte(nil), lines.Bytes()...)
				}
			}()
		}
	}()
	var all []net.Conn
	say := func(what string) {
		for _, c := range all {
			c.Write(r.text(what))
		}
	}
	cause := "exit"
	for {
		select {
		case conn := <-conns:
			all = append(all, conn)
			conn.Write(r.text("running"))
		case request := <-requests:
			if string(request)+"\n" != string(r.text("request")) {
				return fmt.Errorf("request %s, the first ones were %s", request, r.said["request"])
			}
			cause = "stop"
			say("stopping")
			say("reply")
			agent.Process.Signal(syscall.SIGTERM)
		case <-ended:
			status := agent.ProcessState.Sys().(syscall.WaitStatus)
			r.marks["CAUSE"], r.marks["CODE"] = strconv.Quote(cause), strconv.Itoa(status.ExitStatus())
			r.marks["SIGNAL"] = "0"
			if status.Signaled() {
				r.marks["SIGNAL"] = strconv.Itoa(int(status.Signal()))
			}
			say("sweeping")
			if err := os.WriteFile(filepath.Join(folder, "exit.json"), r.text("exit.json"), 0o600); err != nil {
				return err
			}
			say("ended")
			return nil
		}
	}
}

// onRecord is a process as it stood in records of the first format.
func onRecord(pid int) string {
	id, err := proc.Of(pid)
	if err != nil {
		return "null"
	}
	return fmt.Sprintf(`{"boot":%q,"pid_ns":%d,"pid":%d,"start":%d}`, proc.BootID(), proc.PIDNamespace(), id.PID, id.Start)
}

// Runners of the first released format that live are adopted by every later daemon: one is cancelled, one ends by itself. None can be frozen.
func TestFirstRunners(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	data, err := filepath.Abs("testdata/runner1.json")
	if err != nil {
		t.Fatal(err)
	}
	spec, err := os.ReadFile("testdata/format1/8/spec.json")
	if err != nil {
		t.Fatal(err)
	}
	gate := filepath.Join(h.Home, "gate")
	for id, script := range map[string]string{"8": "sleep 100000", "9": "until [ -e " + gate + " ]; do sleep 0.02; done; exit 7"} {
		folder, session := filepath.Join(h.State, "runs", id, "1"), "ctx-old-waiting-"+id
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(spec), `"id":8`, `"id":`+id, 1)
		if err := os.WriteFile(filepath.Join(folder, "..", "spec.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		h.Run("tmux", "new-session", "-d", "-s", session, "-e", firstRunner+"="+data, self, folder, id, session, script, ";",
			"set-option", "-t", "="+session+":", "@cortex", h.State, ";", "set-option", "-t", "="+session+":", "@cortex_run", folder)
		waitFile(t, filepath.Join(folder, "started.json"))
	}
	h.Cortex("db", "rebuild")
	h.Start()
	agent := h.WaitRunning("8")
	h.WaitRunning("9")
	if h.Status("8") != "running" || h.Status("9") != "running" {
		t.Errorf("%s, %s", h.Status("8"), h.Status("9"))
	}
	for _, verb := range []string{"freeze", "thaw"} { // of which it knows nothing
		if code, a := h.Post("/dispatches/8/"+verb, ""); code != 409 || a["reason"] != "not_supported" || h.Field("8", "frozen_since") != "" {
			t.Errorf("%s: %d %v", verb, code, a)
		}
	}
	if code, a := h.Post("/dispatches/8/cancel?wait=30s", `{"grace":"1s"}`); code != 200 || agent.Alive() {
		t.Errorf("cancel: %d %v, alive %v", code, a, agent.Alive())
	}
	h.Run("touch", gate)
	h.WaitStatus("9", "failed")
	for id, want := range map[string]string{"8": "cancelled 143 operator", "9": "failed 7 "} {
		if got := h.Status(id) + " " + h.Field(id, "exit_code") + " " + h.Field(id, "stopped_by"); got != want {
			t.Errorf("dispatch %s: %q, want %q", id, got, want)
		}
	}
	if left := h.Sessions(); len(left) != 0 {
		t.Errorf("sessions left: %v", left)
	}
}
