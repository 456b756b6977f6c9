package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cortex/internal/testenv"
)

// stranger is another user of the host, where the test may choose its user.
const stranger = 65534

// Who may not is refused in the contract's shape, and nothing of it starts a command or pauses anything.
func TestRefusals(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	token, err := os.ReadFile(filepath.Join(h.State, "token"))
	if err != nil {
		t.Fatal(err)
	}
	bearer := "Authorization: Bearer " + strings.TrimSpace(string(token))
	const run = `{"bead_id":"b","command":["touch","/tmp/never"]}`
	for _, c := range []struct {
		name, path string
		args       []string
		reason     string // empty: it is let in
		other      bool   // as another user
	}{
		{"no token", "/dispatches", []string{"-d", run}, "token_required", false},
		{"a wrong token", "/dispatches", []string{"-d", run, "-H", "Authorization: Bearer 0123456789012345678901234567890123456789"}, "token_invalid", false},
		{"the token in the URL", "/dispatches?token=" + strings.TrimSpace(string(token)), []string{"-d", run}, "token_required", false},
		{"a foreign host", "/dispatches", []string{"-d", run, "-H", bearer, "-H", "Host: evil.example:8900"}, "foreign_host", false},
		{"an empty host", "/status", []string{"-H", "Host;"}, "foreign_host", false},
		{"a foreign origin", "/dispatches", []string{"-d", run, "-H", bearer, "-H", "Origin: https://evil.example"}, "foreign_origin", false},
		{"the null origin", "/scheduler/pause", []string{"-X", "POST", "-H", "Origin: null"}, "foreign_origin", false},
		{"another site", "/scheduler/pause", []string{"-X", "POST", "-H", "Sec-Fetch-Site: cross-site"}, "foreign_origin", false},
		{"another port of this host", "/status", []string{"-H", "Sec-Fetch-Site: same-site"}, "foreign_origin", false},
		{"another user with the token", "/dispatches", []string{"-d", run, "-H", bearer}, "peer_refused", true},
		{"another user pauses", "/scheduler/pause", []string{"-X", "POST"}, "peer_refused", true},
		{"another user cancels", "/dispatches/cancel", []string{"-d", `{"status":"running"}`}, "peer_refused", true},
		{"another user looks", "/status", nil, "peer_refused", true},
		{"another user follows", "/events?follow=true", nil, "peer_refused", true},
		{"another site follows", "/events", []string{"-H", "Accept: text/event-stream", "-H", "Sec-Fetch-Site: cross-site"}, "foreign_origin", false},
		{"another user scrapes", "/metrics", nil, "", true},
		{"a bad body", "/dispatches", []string{"-d", `{"bead_id":`, "-H", bearer}, "bad_json", false},
		{"an unknown field", "/dispatches", []string{"-d", `{"bead_id":"b","cmd":["true"]}`, "-H", bearer}, "unknown_field", false},
		{"a field of later", "/dispatches", []string{"-d", `{"bead_id":"b","command":["true"],"idle_timeout":"1h"}`, "-H", bearer}, "not_available", false},
		{"a number for a command", "/dispatches", []string{"-d", `{"bead_id":"b","command":7}`, "-H", bearer}, "bad_value", false},
		{"no command", "/dispatches", []string{"-d", `{"bead_id":"b"}`, "-H", bearer}, "missing_command", false},
		{"an empty command", "/dispatches", []string{"-d", `{"bead_id":"b","command":[]}`, "-H", bearer}, "missing_command", false},
		{"NUL in an argument", "/dispatches", []string{"-d", `{"bead_id":"b","command":["echo","a\u0000b"]}`, "-H", bearer}, "bad_value", false},
		{"no such directory", "/dispatches", []string{"-d", `{"bead_id":"b","command":["true"],"workdir":"/no/such"}`, "-H", bearer}, "bad_workdir", false},
		{"a path with dots", "/x/../status", []string{"--path-as-is"}, "not_found", false},
		{"a path with two slashes", "//status", []string{"--path-as-is"}, "not_found", false},
		{"a wrong method", "/status", []string{"-X", "DELETE"}, "method_not_allowed", false},
	} {
		args := append([]string{"-s", "--max-time", "30", "http://" + h.Listen + c.path}, c.args...)
		cmd := h.Command("curl", args...)
		cmd.Dir = "/"
		if c.other {
			if os.Geteuid() != 0 {
				continue // only root may be somebody else; package api tests the rest of it
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
		}
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if c.reason == "" {
			if !strings.Contains(string(out), "\ncortex_dispatches_running ") {
				t.Errorf("%s: %s", c.name, out)
			}
			continue
		}
		var p struct {
			Error, Reason, Hint string
			Code                int
		}
		if err := json.Unmarshal(out, &p); err != nil || p.Reason != c.reason || p.Error == "" || p.Hint == "" || p.Code < 400 {
			t.Errorf("%s: %s (%v), want %s", c.name, out, err, c.reason)
		}
	}
	if got := h.SQL("SELECT count(*) FROM dispatches"); got != "0" {
		t.Errorf("%s dispatches were accepted", got)
	}
	if _, a := h.Get("/status"); a["scheduler_state"] != "running" {
		t.Errorf("the scheduler is %v", a["scheduler_state"])
	}
}

// What is no request that can be read is refused in the same shape.
func TestUnreadableRequests(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	for request, want := range map[string]string{
		"GET /status HTTP/1.1\r\n\r\n":                                          "403 foreign_host",
		"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n": "400 bad_request",
		"GET /status HTTP/1.1\r\nHost: a b\r\n\r\n":                             "403 foreign_host",
		"GET /% HTTP/1.1\r\nHost: " + h.Listen + "\r\n\r\n":                     "400 bad_request",
		"hello\r\n\r\n": "400 bad_request",
		"GET /status HTTP/1.1\r\nHost: " + h.Listen + "\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n": "431 bad_request",
	} {
		conn, err := net.Dial("tcp", h.Listen)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%.60q: %v", request, err)
			continue
		}
		var p struct {
			Error, Reason, Hint string
			Code                int
		}
		err = json.NewDecoder(resp.Body).Decode(&p)
		got := fmt.Sprint(resp.StatusCode, " ", p.Reason)
		if err != nil || got != want || p.Code != resp.StatusCode || p.Error == "" || p.Hint == "" || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%.60q: %s (%+v, %v), want %s", request, got, p, err, want)
		}
	}
}

// A body over 8 MiB is refused before it is parsed, one just below is taken.
func TestBodySize(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	body := func(size int) string {
		const head, tail = `{"bead_id":"b","command":["true"],"nosuch":"`, `"}`
		return head + strings.Repeat("x", size-len(head)-len(tail)) + tail
	}
	if code, a := h.Post("/dispatches", body(8<<20+1)); code != 413 || a["reason"] != "too_large" {
		t.Errorf("over: %d %v", code, a)
	}
	if code, a := h.Post("/dispatches", body(8<<20)); code != 400 || a["reason"] != "unknown_field" {
		t.Errorf("at the limit: %d %v", code, a)
	}
}
