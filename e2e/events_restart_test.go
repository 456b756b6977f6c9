package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cortex/internal/testenv"
)

// A follower that comes back with Last-Event-ID, to a daemon that was killed, or stopped, and started again while things happened,
// was told of everything, once, in the order in which it happened.
func TestEventsFollowAcrossRestarts(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	start := awaitStarted(t, h)
	f := follow(t, h, "", "")
	ends := follow(t, h, "&event=dispatch_completed,dispatch_failed", "")
	for i := range 6 {
		gate := newTurnstile(t, h, fmt.Sprint("gate", i))
		waits := h.Submit("waits", gate.command(h, i)...)
		h.WaitRunning(waits)
		for range 3 {
			h.Submit("b", "true")
		}
		if i%3 == 2 {
			d.Stop()
		} else {
			d.Kill()
		}
		gate.pass(1)
		d = h.Start()
		h.Cortex("pause")
		h.Cortex("resume")
		want := map[bool]string{true: "completed", false: "failed"}[i == 0]
		h.WaitStatus(waits, want)
	}
	testenv.Eventually(t, "all to end", func() bool {
		return h.SQL("SELECT count(*) FROM dispatches WHERE status IN ('completed', 'failed')") == "24"
	})
	h.Cortex("pause", "--reason", "the last")
	testenv.Eventually(t, "the last event", func() bool { return strings.Contains(strings.Join(f.got(), "\n"), "the last") })
	trail := "SELECT id || ' ' || event_type || ' ' || message FROM health_events WHERE id > " + start + " %s ORDER BY id"
	if got, want := strings.Join(f.got(), "\n"), h.SQL(fmt.Sprintf(trail, "")); got != want {
		t.Errorf("it was told\n%s\nand there are\n%s", got, want)
	}
	want := h.SQL(fmt.Sprintf(trail, "AND event_type IN ('dispatch_completed', 'dispatch_failed')"))
	testenv.Eventually(t, "the last end", func() bool { return len(ends.got()) >= strings.Count(want, "\n")+1 })
	if got := strings.Join(ends.got(), "\n"); got != want {
		t.Errorf("of ends it was told\n%s\nand there are\n%s", got, want)
	}

	// From the very beginning, and from the last one.
	again := follow(t, h, "&after=0", "")
	testenv.Eventually(t, "all events", func() bool {
		return strings.Join(again.got(), "\n") == h.SQL("SELECT id || ' ' || event_type || ' ' || message FROM health_events ORDER BY id")
	})
	header := follow(t, h, "&after=0&type=info", start)
	testenv.Eventually(t, "what came after the header's id", func() bool {
		return strings.Join(header.got(), "\n") == h.SQL(fmt.Sprintf(trail, "AND type = 'info'"))
	})
}

// While the database is locked the trail can be read and followed; what happened meanwhile comes when it is written.
func TestEventsWhileLocked(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	before := awaitStarted(t, h)
	f := follow(t, h, "", "")
	unlock := lock(t, h, "BEGIN EXCLUSIVE;")
	if code, a := h.Post("/scheduler/pause", `{"reason":"in the journal"}`); code != http.StatusOK || a["recorded"] != "journal" {
		t.Errorf("pause: %d %v", code, a)
	}
	if got := eventIDs(t, h, ""); got != before {
		t.Errorf("%q, want %q", got, before)
	}
	// A daemon that can't write yet is followed, too.
	d.Kill()
	h.Start()
	g := follow(t, h, "", before)
	if f.words() != "" {
		t.Errorf("before anything was written: %s", f.words())
	}
	unlock()
	for _, f := range []*follower{f, g} {
		f.await("scheduler_paused")
		f.await("daemon_started")
		testenv.Eventually(t, "all", func() bool {
			return len(strings.Fields(eventIDs(t, h, ""))) == len(strings.Fields(before))+len(f.got())
		})
	}
}

// A reader that takes nothing is cut off; when it comes back nothing is lost. Whoever reads is sent everything meanwhile.
func TestEventsCutASlowReader(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	start := awaitStarted(t, h)
	h.SQL(`WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
		INSERT INTO events (event_type, message) SELECT 'daemon_started', hex(zeroblob(1000)) FROM n`)
	slow, err := net.Dial("unix", filepath.Join(h.State, "cortex.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	began := time.Now()
	if _, err := fmt.Fprintf(slow, "GET /events?follow=true&after=%s HTTP/1.1\r\nHost: localhost\r\n\r\n", start); err != nil {
		t.Fatal(err)
	}
	quick := follow(t, h, "", start)
	testenv.Eventually(t, "the quick reader to have all", func() bool { return len(quick.got()) == 10000 })
	testenv.Eventually(t, "the slow reader to be cut off", func() bool { return hungUp(t, slow) })
	sent, err := io.ReadAll(slow)
	if n := bytes.Count(sent, []byte("\ndata: ")); err != nil || n == 0 || n > 2000 || time.Since(began) < 20*time.Second {
		t.Errorf("the slow reader had %d events in %s (%v)", n, time.Since(began), err)
	}
}

// hungUp reports whether the other end has closed, without reading what it sent before.
func hungUp(t *testing.T, c net.Conn) bool {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fds := []unix.PollFd{{}}
	if err := raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		_, err = unix.Poll(fds, 0)
	}); err != nil {
		t.Fatal(err)
	}
	return err == nil && fds[0].Revents&unix.POLLHUP != 0
}

// So many may follow that the others still get in; whoever is one too many is told so.
func TestEventsTooManyFollowers(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Limits = []string{"prlimit", "--nofile=128:128"} // 16 connections of each listener, 8 followers of both
	h.Start()
	var all []*follower
	for range 8 {
		all = append(all, follow(t, h, "", ""))
	}
	if _, text := h.AskText(http.MethodGet, "/metrics", ""); !strings.Contains(text, "\ncortex_event_followers 8\n") {
		t.Error("the metric does not say 8 followers")
	}
	if code, a := h.Get("/events?follow"); code != http.StatusServiceUnavailable || a["reason"] != "too_many_followers" {
		t.Errorf("one more: %d %v", code, a)
	}
	if _, errout, code := cli(h, "events", "-f"); code != 1 || !strings.Contains(errout, "8 follow the events already") {
		t.Errorf("one more: exit %d, %s", code, errout)
	}
	for range 30 {
		if code, _ := h.Post("/scheduler/pause", ""); code != http.StatusOK {
			t.Errorf("pause: %d", code)
		}
	}
	all[0].stop()
	testenv.Eventually(t, "room for another", func() bool {
		out, _, _ := h.Try("curl", "-sN", "--max-time", "1", "http://"+h.Listen+"/events?follow")
		return strings.HasPrefix(out, "retry: ")
	})
}
