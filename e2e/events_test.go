package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cortex/internal/testenv"
)

// follower follows the events as a browser does: it comes back, with the id of the last piece, whenever it is cut off.
type follower struct {
	t     *testing.T
	h     *testenv.Host
	query string
	end   context.CancelFunc
	ended chan struct{}

	mu     sync.Mutex
	last   string   // guarded by mu, as are the next two
	pieces []string // "id word message"
	opened int
}

// follow begins to follow and returns when the daemon has answered.
func follow(t *testing.T, h *testenv.Host, query, last string) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{t: t, h: h, query: query, last: last, end: cancel, ended: make(chan struct{})}
	go f.run(ctx)
	t.Cleanup(f.stop)
	f.awaitOpen(1)
	return f
}

func (f *follower) stop() {
	f.end()
	<-f.ended
}

// awaitOpen waits until it was let in n times.
func (f *follower) awaitOpen(n int) {
	f.t.Helper()
	testenv.Eventually(f.t, "the stream of events", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.opened >= n })
}

func (f *follower) run(ctx context.Context) {
	defer close(f.ended)
	for ctx.Err() == nil {
		f.read(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond): // between two tries to come back
		}
	}
}

func (f *follower) read(ctx context.Context) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.h.Listen+"/events?follow=true"+f.query, nil)
	if err != nil {
		f.t.Error(err)
		return
	}
	f.mu.Lock()
	if f.last != "" {
		req.Header.Set("Last-Event-ID", f.last)
	}
	f.mu.Unlock()
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return // no daemon
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		f.t.Errorf("%s: %s, %s", f.query, resp.Status, resp.Header.Get("Content-Type"))
		return
	}
	var id, word, data string
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		name, value, _ := strings.Cut(in.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "event":
			word = value
		case "data":
			data = value
		case "":
			if in.Text() == "" {
				f.take(id, word, data)
				id, word, data = "", "", ""
			}
		case "retry":
		default:
			f.t.Errorf("a line %q", in.Text())
		}
	}
}

// take takes a piece that is whole.
func (f *follower) take(id, word, data string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id == "" {
		f.t.Errorf("a piece without id: %s", data)
	}
	f.last = id
	if data == "" {
		f.opened++ // or a sign of life
		return
	}
	var e struct {
		ID             int64
		Event, Message string
	}
	if err := json.Unmarshal([]byte(data), &e); err != nil || fmt.Sprint(e.ID) != id || strings.ReplaceAll(e.Event, "\n", " ") != word {
		f.t.Errorf("piece %s %s: %s (%v)", id, word, data, err)
	}
	f.pieces = append(f.pieces, id+" "+word+" "+e.Message)
}

func (f *follower) got() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.pieces)
}

// words are the events that came, by their stable words.
func (f *follower) words() string {
	var all []string
	for _, p := range f.got() {
		all = append(all, strings.Fields(p)[1])
	}
	return strings.Join(all, " ")
}

func (f *follower) await(word string) {
	f.t.Helper()
	testenv.Eventually(f.t, "the event "+word, func() bool { return strings.Contains(f.words(), word) })
}

// eventIDs are the ids of a list of events.
func eventIDs(t *testing.T, h *testenv.Host, query string) string {
	t.Helper()
	code, a := h.Get("/events" + query)
	list, ok := a["events"].([]any)
	if code != http.StatusOK || !ok {
		t.Fatalf("%s: %d %v", query, code, a)
	}
	var ids []string
	for _, e := range list {
		ids = append(ids, fmt.Sprint(e.(map[string]any)["id"]))
	}
	return strings.Join(ids, "\n")
}

// awaitStarted waits until the trail says that the daemon has started, and returns the id of that, its newest event.
func awaitStarted(t *testing.T, h *testenv.Host) string {
	t.Helper()
	var id string
	testenv.Eventually(t, "daemon_started", func() bool { id = eventIDs(t, h, "?event=daemon_started"); return id != "" })
	return id
}

func TestEventsList(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	h.WaitStatus(h.Submit("ok", "true"), "completed")
	h.WaitStatus(h.Submit("bad", "sh", "-c", "exit 3"), "failed")
	h.Post("/scheduler/pause", `{"reason":"lunch","by":"ann"}`)
	waits := h.Submit("ok", "true")
	for query, where := range map[string]string{
		"":                                 "1",
		"?follow=false":                    "1",
		"?type=warning":                    "type = 'warning'",
		"?type=warning,info&type=critical": "type IN ('warning', 'info', 'critical')",
		"?event=dispatch_started":          "event_type = 'dispatch_started'",
		"?event=dispatch_started,dispatch_failed":       "event_type IN ('dispatch_started', 'dispatch_failed')",
		"?event=dispatch_started&event=dispatch_failed": "event_type IN ('dispatch_started', 'dispatch_failed')",
		"?dispatch=2":   "dispatch_id = 2",
		"?dispatch=999": "0",
		"?bead=ok":      "bead_id = 'ok'",
		"?bead=ok&event=dispatch_submitted&dispatch=" + waits: "dispatch_id = " + waits,
		"?since=1h":                             "1",
		"?since=2999-01-01T00:00:00Z":           "0",
		"?bead=" + url.QueryEscape("' OR 1 --"): "0",
	} {
		want := h.SQL("SELECT id FROM health_events WHERE " + where + " ORDER BY id DESC")
		if got := eventIDs(t, h, query); got != want || want == "" != (where == "0") {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}

	// Page for page all come, once, whatever comes meanwhile.
	all := eventIDs(t, h, "")
	var pages []string
	for cursor := ""; ; {
		code, a := h.Get("/events?limit=2" + cursor)
		if code != http.StatusOK {
			t.Fatalf("%d %v", code, a)
		}
		pages = append(pages, eventIDs(t, h, "?limit=2"+cursor))
		if a["next_cursor"] == nil {
			break
		}
		cursor = "&cursor=" + a["next_cursor"].(string)
		h.Post("/scheduler/pause", "")
	}
	if got := strings.Join(pages, "\n"); got != all {
		t.Errorf("pages %q, want %q", got, all)
	}

	_, a := h.Get("/events?event=dispatch_failed")
	e := a["events"].([]any)[0].(map[string]any)
	if e["type"] != "warning" || e["event"] != "dispatch_failed" || e["dispatch_id"] != 2.0 || e["bead_id"] != "bad" ||
		len(fmt.Sprint(e["created_at"])) != len("2026-02-18T06:01:00Z") || !strings.Contains(e["message"].(string), "2") {
		t.Errorf("%v", e)
	}
	h.SQL(`UPDATE events SET details = '{"a": 1}' WHERE event_type = 'scheduler_paused'`)
	_, a = h.Get("/events?event=scheduler_paused&limit=1&cursor=999999")
	if e := a["events"].([]any)[0].(map[string]any); e["dispatch_id"] != nil || e["bead_id"] != nil || fmt.Sprint(e["details"]) != "map[a:1]" {
		t.Errorf("%v", e)
	}
}

func TestEventsBadQueries(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	for query, hint := range map[string]string{
		"type=warn":                      "warning",
		"type=":                          "critical",
		"type=info,,error":               "critical",
		"event=dispatch_faild":           `"dispatch_failed"`,
		"event=nothing_like_it":          "dispatch_failed, ",
		"event=":                         "daemon_started",
		"events=dispatch_failed":         `"event"`,
		"status=failed":                  "type, event",
		"dispatch=0":                     "bead",
		"dispatch=x":                     "bead",
		"dispatch=":                      "bead",
		"dispatch=1&dispatch=2":          "",
		"bead=":                          "",
		"since=yesterday":                "since",
		"limit=0":                        "",
		"limit=1001":                     "",
		"limit=x":                        "",
		"cursor=x":                       "next_cursor",
		"cursor=0":                       "next_cursor",
		"after=1":                        "cursor",
		"follow=maybe":                   "",
		"follow=true&cursor=5":           "after",
		"follow=true&after=x":            "last event",
		"follow=true&after=":             "last event",
		"follow=true&after=-1":           "last event",
		"follow=true&after=1&since=1h":   "",
		"follow=true&after=1&limit=5":    "",
		"follow=true&after=999999999":    "only new ones",
		"follow=true&event=nothing":      "",
		"follow=true&limit=0":            "",
		"follow=true&dispatch=" + "1%00": "",
	} {
		code, a := h.Get("/events?" + query)
		if code != 400 || a["reason"] != "bad_query" || a["error"] == "" || !strings.Contains(fmt.Sprint(a["hint"]), hint) || a["hint"] == "" {
			t.Errorf("%s: %d %v", query, code, a)
		}
	}
	if code, a := h.Post("/events", ""); code != 405 || a["reason"] != "method_not_allowed" {
		t.Errorf("POST: %d %v", code, a)
	}
	if out := h.Run("curl", "-s", "-H", "Last-Event-ID: x", "http://"+h.Listen+"/events?follow"); !strings.Contains(out, `"bad_query"`) {
		t.Errorf("a bad Last-Event-ID: %s", out)
	}
}

// What happens is sent as it happens, in the form of server-sent events, to each as its filter says.
func TestEventsFollow(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	awaitStarted(t, h)
	gate := newTurnstile(t, h, "gate")
	old := h.Submit("old", gate.command(h, 0)...)
	h.WaitRunning(old)
	gate.pass(1)
	h.WaitStatus(old, "completed")
	all := follow(t, h, "", "")
	ends := follow(t, h, "&event=dispatch_completed,dispatch_failed", "")
	bead := follow(t, h, "&bead=new&type=warning", "")
	past := follow(t, h, "&since=1h&dispatch="+old, "")
	two := follow(t, h, "&limit=2&bead=old", "")
	past.await("dispatch_completed")
	two.await("dispatch_completed")

	h.Post("/scheduler/pause", "")
	all.await("scheduler_paused")
	id := h.Submit("new", gate.command(h, 3)...)
	all.await("dispatch_submitted")
	h.Post("/scheduler/resume", "")
	all.await("scheduler_resumed")
	all.await("dispatch_started")
	gate.pass(1)
	all.await("dispatch_failed")
	h.WaitStatus(id, "failed")
	if got := all.words(); got != "scheduler_paused dispatch_submitted scheduler_resumed dispatch_started dispatch_failed" {
		t.Errorf("all: %s", got)
	}
	ends.await("dispatch_failed")
	bead.await("dispatch_failed")
	if ends.words() != "dispatch_failed" || bead.words() != "dispatch_failed" {
		t.Errorf("ends: %s; bead: %s", ends.words(), bead.words())
	}
	if got := past.words(); got != "dispatch_submitted dispatch_started dispatch_completed" {
		t.Errorf("since: %s", got)
	}
	if got := two.words(); got != "dispatch_started dispatch_completed" {
		t.Errorf("the newest two: %s", got)
	}

	// What a person writes comes, too, and can't break the form.
	h.SQL("INSERT INTO events (event_type, message, details) VALUES ('by' || char(10) || 'hand', 'a' || char(10) || 'b', '{' || char(10) || '}')")
	testenv.Eventually(t, "the event by hand", func() bool { return len(all.got()) == 6 })

	// A browser's EventSource says by Accept that it follows; HEAD tells without following.
	url := "http://" + h.Listen + "/events"
	testenv.Eventually(t, "a stream by Accept", func() bool {
		out, _, _ := h.Try("curl", "-sN", "--max-time", "1", "-H", "Accept: text/event-stream", url)
		return strings.HasPrefix(out, "retry: 1000\nid: ")
	})
	if out := h.Run("curl", "-sI", "--max-time", "30", url+"?follow"); !strings.Contains(out, "Content-Type: text/event-stream") {
		t.Errorf("HEAD: %s", out)
	}
	// They do not hold up the daemon's end.
	d.Stop()
	if strings.Contains(d.Log(), "requests in flight are cut") {
		t.Error("the followers had to be cut off")
	}
}
