package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cortex/internal/testenv"
)

// hold sets a hold and returns its id.
func hold(t *testing.T, h *testenv.Host, body string) string {
	t.Helper()
	code, a := h.Post("/holds", body)
	if code != http.StatusCreated || a["id"] == nil || a["recorded"] != nil || a["lifted_at"] != nil {
		t.Fatalf("hold %s: %d %v", body, code, a)
	}
	return fmt.Sprint(a["id"])
}

func lift(t *testing.T, h *testenv.Host, id string) {
	t.Helper()
	if code, a := h.Ask(http.MethodDelete, "/holds/"+id, ""); code != http.StatusOK || a["lifted_at"] == nil {
		t.Fatalf("lift %s: %d %v", id, code, a)
	}
}

// held are the scopes of the holds in force, one a line.
func held(h *testenv.Host) string {
	_, a := h.Get("/holds")
	var scopes []string
	list, _ := a["holds"].([]any)
	for _, one := range list {
		scopes = append(scopes, fmt.Sprint(one.(map[string]any)["scope"]))
	}
	slices.Sort(scopes)
	return strings.Join(scopes, "\n")
}

// passedBy submits something that no hold covers and waits for its end. What was submitted before and still waits then was
// held back: it would have had its turn before.
func passedBy(t *testing.T, h *testenv.Host, waits ...string) {
	t.Helper()
	h.WaitStatus(submit(t, h, map[string]any{"bead_id": "free", "project": "free", "command": []string{"true"}}), "completed")
	for _, id := range waits {
		if got := h.Status(id); got != "pending" {
			t.Errorf("dispatch %s is %s, though it is held", id, got)
		}
	}
}

// Holds stack: what two of them cover waits for both to be lifted, and what none covers starts meanwhile. A pause beside them is
// lifted alone, and lifting what is lifted changes nothing.
func TestHoldsStack(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	first := hold(t, h, `{"scope":"project:p","reason":"one","by":"ann"}`)
	second := hold(t, h, `{"scope":"bead:b","reason":"two"}`)
	third := hold(t, h, `{"scope":"project:p","reason":"one again"}`)
	both := h.Submit("b", "true")
	one := h.Submit("other", "true")
	passedBy(t, h, both, one)
	lift(t, h, first)
	passedBy(t, h, both, one)
	lift(t, h, third)
	h.WaitStatus(one, "completed")
	passedBy(t, h, both)

	all := hold(t, h, `{"reason":"everything","by":"ann"}`)
	if code, a := h.Post("/scheduler/pause", `{"by":"bob"}`); code != 200 {
		t.Fatalf("pause: %d %v", code, a)
	}
	if _, a := h.Get("/scheduler/status"); a["paused_by"] != "ann" || a["reason"] != "everything" || len(a["holds"].([]any)) != 3 {
		t.Errorf("%v", a)
	}
	code, a := h.Post("/scheduler/resume", `{"hold":`+all+`,"by":"ann"}`)
	if code != 200 || a["message"] != "Hold "+all+" lifted; still held: operator" || len(a["remaining_holds"].([]any)) != 1 {
		t.Errorf("%d %v", code, a)
	}
	if _, a := h.Get("/scheduler/status"); a["state"] != "paused" || a["paused_by"] != "bob" {
		t.Errorf("%v", a)
	}
	if code, a := h.Post("/scheduler/resume", ""); code != 200 || a["message"] != "Scheduler resumed" {
		t.Errorf("%d %v", code, a)
	}
	passedBy(t, h, both)
	if got := held(h); got != "bead:b" {
		t.Errorf("a resume leaves %q", got)
	}
	code, a = h.Ask(http.MethodDelete, "/holds/"+second, `{"reason":"done","by":"eve"}`)
	if code != 200 || a["lifted_by"] != "eve" || a["lifted_reason"] != "done" || a["scope"] != "bead:b" {
		t.Errorf("%d %v", code, a)
	}
	h.WaitStatus(both, "completed")
	code, again := h.Ask(http.MethodDelete, "/holds/"+second, `{"by":"mallory"}`)
	if code != 200 || fmt.Sprint(again) != fmt.Sprint(a) {
		t.Errorf("lifted twice: %d %v, before %v", code, again, a)
	}
	want := "hold_set,hold_set,hold_set,hold_lifted,hold_lifted,scheduler_paused,scheduler_paused,scheduler_resumed,scheduler_resumed,hold_lifted"
	if got := h.SQL("SELECT group_concat(event_type) FROM (SELECT * FROM health_events WHERE event_type LIKE 'hold%' OR event_type LIKE 'scheduler%' ORDER BY id)"); got != want {
		t.Errorf("events %s, want %s", got, want)
	}
}

// A hold of each scope keeps back what it names, and nothing else.
func TestHoldScopes(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	labels := map[string]string{"project": "p:1", "agent": "a b", "provider": "it's", "bead": "b-ä"}
	dispatch := func(change map[string]any) string {
		body := map[string]any{"bead_id": labels["bead"], "project": labels["project"], "agent": labels["agent"],
			"provider": labels["provider"], "command": []string{"true"}}
		for k, v := range change {
			body[k] = v
		}
		return submit(t, h, body)
	}
	for kind, name := range labels {
		column := map[string]string{"bead": "bead_id"}[kind]
		if column == "" {
			column = kind
		}
		id := hold(t, h, fmt.Sprintf(`{"scope":"%s:%s"}`, kind, name))
		waits := dispatch(nil)
		other := dispatch(map[string]any{column: name + "x"})
		h.WaitStatus(other, "completed")
		passedBy(t, h, waits)
		lift(t, h, id)
		h.WaitStatus(waits, "completed")
	}
	all := hold(t, h, `{"scope":"all"}`)
	waits := dispatch(nil)
	if _, a := h.Get("/scheduler/status"); a["state"] != "paused" || h.Status(waits) != "pending" {
		t.Errorf("%v, and it is %s", a, h.Status(waits))
	}
	if _, metrics := h.AskText(http.MethodGet, "/metrics", ""); !strings.Contains(metrics, `cortex_holds{kind="operator"} 1`) {
		t.Error("no metric tells of the hold")
	}
	next := dispatch(nil)
	one := hold(t, h, fmt.Sprintf(`{"scope":"dispatch:%s"}`, waits))
	lift(t, h, all)
	h.WaitStatus(next, "completed")
	passedBy(t, h, waits)
	lift(t, h, one)
	h.WaitStatus(waits, "completed")
	if _, a := h.Get("/scheduler/status"); a["state"] != "running" || a["resumed_at"] == nil {
		t.Errorf("%v", a)
	}
}

// Holds survive restarts and kill -9, with all that they say.
func TestHoldsSurvive(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	web := hold(t, h, `{"scope":"project:web","reason":"schema","by":"ann","until":"`+until+`"}`)
	hold(t, h, `{"scope":"agent:claude"}`)
	waits := []string{
		submit(t, h, map[string]any{"bead_id": "b", "project": "web", "command": []string{"true"}}),
		submit(t, h, map[string]any{"bead_id": "b", "agent": "claude", "command": []string{"true"}}),
	}
	before := fmt.Sprint(h.Get("/holds"))
	if !strings.Contains(before, "kind:ttl") || !strings.Contains(before, "until:"+until) || !strings.Contains(before, "by:ann") {
		t.Errorf("holds %s", before)
	}
	for _, end := range []func(){d.Kill, func() { d.Stop() }, func() { d.Kill() }} {
		end()
		d = h.Start()
		if after := fmt.Sprint(h.Get("/holds")); after != before {
			t.Errorf("after the restart %s, before %s", after, before)
		}
		passedBy(t, h, waits...)
	}
	lift(t, h, web)
	d.Kill()
	h.Start()
	h.WaitStatus(waits[0], "completed")
	passedBy(t, h, waits[1])
}

// While the database is locked a hold goes into the stop journal; it is in force at once, also for the daemons that come after,
// and has its number when the database opens. It can't be lifted meanwhile, and what was refused is not done later.
func TestHoldsOnALockedDatabase(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	before := hold(t, h, `{"scope":"bead:before"}`)
	first := h.Submit("before", "true")
	second := submit(t, h, map[string]any{"bead_id": "b", "project": "web", "command": []string{"true"}})
	h.WaitStatus(second, "completed")
	unlock := lock(t, h, "BEGIN EXCLUSIVE;")

	code, a := h.Post("/holds", `{"scope":"project:web","reason":"while locked","by":"ann"}`)
	if code != http.StatusCreated || a["id"] != nil || a["recorded"] != "journal" || a["reason"] != "while locked" {
		t.Errorf("%d %v", code, a)
	}
	code, a = h.Ask(http.MethodDelete, "/holds/"+before, "")
	if code != http.StatusInternalServerError || a["reason"] != "db_locked" || a["error"] != "Database lock timeout" {
		t.Errorf("lift: %d %v", code, a)
	}
	code, a = h.Ask(http.MethodDelete, "/holds/db", "")
	if code != http.StatusConflict || a["reason"] != "hold_computed" || !strings.Contains(fmt.Sprint(a["error"]), "sqlite3") {
		t.Errorf("lift of cortex's own: %d %v", code, a)
	}
	want := "all\nbead:before\nproject:web" // all: cortex's own, of kind db
	if got := held(h); got != want {
		t.Errorf("held: %q", got)
	}
	d.Kill()
	d = h.Start() // on the locked database: of what that knows it knows nothing yet
	if got := held(h); !strings.Contains(got, "project:web") {
		t.Errorf("after a kill, locked: %q", got)
	}
	d.Kill()
	unlock()
	d = h.Start()
	tookIn(t, h, d)
	if code, a := h.Ask(http.MethodDelete, "/holds/db", ""); code != http.StatusNotFound {
		t.Errorf("lift of what is over: %d %v", code, a)
	}
	waits := submit(t, h, map[string]any{"bead_id": "b", "project": "web", "command": []string{"true"}})
	passedBy(t, h, waits, first)
	id := h.SQL("SELECT id FROM holds WHERE scope = 'project:web' AND lifted_at IS NULL AND own = 1 AND reason = 'while locked'")
	lift(t, h, id)
	h.WaitStatus(waits, "completed")
	lift(t, h, before)
	h.WaitStatus(first, "completed")
}

// A hold ends by itself: while a daemon runs, and where none did the next one lifts it, dated at its end, before it starts
// anything.
func TestHoldEndsWithoutADaemon(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	d := h.Start()
	hold(t, h, `{"scope":"bead:soon","ttl":"100ms"}`)
	h.WaitStatus(h.Submit("soon", "true"), "completed")

	id := hold(t, h, `{"scope":"project:p","ttl":"10h"}`)
	waits := h.Submit("b", "true")
	passedBy(t, h, waits)
	d.Kill()
	h.SQL("UPDATE holds SET until = datetime('now', '-1 hour') || '.123' WHERE id = " + id)
	h.Start()
	h.Cortex("wait", waits) // until the database has it, too
	if got := h.SQL("SELECT lifted_at = until, lifted_by FROM holds WHERE id = " + id); got != "1|cortex" {
		t.Errorf("lifted %s", got)
	}
	if got := h.SQL("SELECT count(*) FROM holds h, health_events e WHERE h.id = " + id +
		" AND e.event_type = 'hold_lifted' AND e.created_at = h.until"); got != "1" {
		t.Errorf("%s events at its end", got)
	}
	order := h.SQL("SELECT event_type FROM health_events WHERE dispatch_id = " + waits + ` OR details LIKE '%"holds":[` + id +
		"]%' ORDER BY id")
	if lifted, ended := strings.Index(order, "hold_lifted"), strings.Index(order, "dispatch_completed"); lifted < 0 || lifted > ended {
		t.Errorf("in this order: %s", order)
	}
	if got := h.SQL("SELECT dispatched_at > until FROM dispatches d, holds h WHERE h.id = " + id + " AND d.id = " + waits); got != "1" {
		t.Error("it was started before the hold's end")
	}
}

// After a hold is answered nothing that it covers starts, whatever happens around it, and what it does not cover goes on:
// submits, holds of every scope, and kill -9 in a row.
func TestNothingHeldStartsAfterTheAnswer(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_SCHEDULER__MAX_CONCURRENT_DISPATCHES=50"}
	d := h.Start()
	sent := map[string]int{}
	send := func(name string, count int) {
		body := fmt.Sprintf(`{"bead_id":"%[1]s","project":"%[1]s","agent":"%[1]s","provider":"%[1]s","command":["sh","-c","echo start >> %[2]s/starts-%[1]s"]}`,
			name, h.Home)
		sent[name] += count
		var wg sync.WaitGroup
		for range count {
			wg.Go(func() {
				if code, a := h.Post("/dispatches", body); code != 201 {
					t.Errorf("submit: %d %v", code, a)
				}
			})
		}
		wg.Wait()
	}
	starts := func(name string) int {
		out, _, _ := h.Try("cat", h.Home+"/starts-"+name)
		return strings.Count(out, "start")
	}
	for round := range 12 {
		scope := []string{"project:a", "agent:a", "provider:a", "bead:a"}[round%4]
		send("a", 10)
		free := submit(t, h, map[string]any{"bead_id": "free", "command": []string{"true"}})
		id := hold(t, h, `{"scope":"`+scope+`"}`)
		if round%3 == 2 {
			d.Kill()
			d = h.Start()
		}
		// What has its process now may still be on its way to its first write: wait until all of these have ended.
		testenv.Eventually(t, "what runs to end", func() bool {
			_, a := h.Get("/status")
			return a["running_count"] == 0.0
		})
		before := starts("a")
		send("a", 5)
		send("b", 3)
		if round%2 == 1 {
			d.Kill()
			d = h.Start()
		}
		h.WaitStatus(free, "completed")
		testenv.Eventually(t, "what is not held to start", func() bool { return starts("b") == sent["b"] })
		if after := starts("a"); after != before {
			t.Fatalf("round %d: %d dispatches started while %s was held", round, after-before, scope)
		}
		if got := h.SQL("SELECT count(*) FROM dispatches d, holds h WHERE h.id = " + id +
			" AND d.project = 'a' AND d.dispatched_at > h.since AND d.status <> 'pending'"); got != "0" {
			t.Fatalf("round %d: %s claims after the hold of %s", round, got, scope)
		}
		lift(t, h, id)
	}
	testenv.Eventually(t, "all to complete", func() bool {
		_, a := h.Get("/status")
		return a["running_count"] == 0.0 && a["pending_count"] == 0.0
	})
	for name, n := range sent {
		if got := starts(name); got != n {
			t.Errorf("%d starts of %d dispatches %s", got, n, name)
		}
	}
}

// The daemon dies between the steps of setting or lifting a hold: what it did not make durable did not happen.
func TestDeathWithinHold(t *testing.T) {
	t.Parallel()
	for point, inForce := range map[string]bool{"pause.before": false, "pause.durable": true, "pause.settled": true, "resume.before": true} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := faulty(t, point+":kill")
			d := h.Start()
			post(h, "/holds", `{"scope":"project:p"}`)
			if point == "resume.before" {
				h.Ask(http.MethodDelete, "/holds/1", "")
			}
			dead(t, d)
			whole(h)
			h.Start()
			if got := held(h) == "project:p"; got != inForce {
				t.Errorf("in force: %v, want %v", got, inForce)
			}
		})
	}
}

// A start that is under way when its hold comes is given back before the answer; one that another hold covers is left to come
// through.
func TestHoldGivesStartsBack(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	id := submitFaulty(h, "pane.claim:hang", "sh", "-c", "echo ran >> "+h.Home+"/ran")
	testenv.Eventually(t, "its session", func() bool { return len(h.Sessions()) == 1 })
	other := hold(t, h, `{"scope":"project:other"}`)
	revoked := func() bool {
		_, _, code := h.Try("grep", "-q", `"revoked"`, h.State+"/runs/"+id+"/1/claim.json")
		return code == 0
	}
	if revoked() {
		t.Error("another's hold has its start revoked")
	}
	hold(t, h, `{"scope":"project:`+h.Field(id, "project")+`"}`)
	if !revoked() {
		t.Error("its start was not revoked when the hold was answered")
	}
	h.WaitStatus(id, "pending")
	testenv.Eventually(t, "its session to go", func() bool { return len(h.Sessions()) == 0 })
	lift(t, h, other)
	passedBy(t, h, id)
	if ran(h) != 0 {
		t.Error("it ran after the hold was answered")
	}
}

func TestHoldsAreListedInPages(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	if code, text := h.AskText(http.MethodGet, "/holds", ""); code != 200 || strings.TrimSpace(text) != `{"holds":[],"next_cursor":null}` {
		t.Errorf("none: %d %s", code, text)
	}
	for i := range 5 {
		id := hold(t, h, fmt.Sprintf(`{"scope":"bead:b%d"}`, i))
		if i%2 == 0 {
			lift(t, h, id)
		}
	}
	page := func(query string) (ids []string, next string) {
		t.Helper()
		code, a := h.Get("/holds?" + query)
		if code != 200 {
			t.Fatalf("%s: %d %v", query, code, a)
		}
		for _, one := range a["holds"].([]any) {
			hold := one.(map[string]any)
			ids = append(ids, fmt.Sprint(hold["id"]))
			if lifted := hold["lifted_at"] != nil; lifted != (hold["scope"] == "bead:b0" || hold["scope"] == "bead:b2" || hold["scope"] == "bead:b4") {
				t.Errorf("%v", hold)
			}
		}
		if a["next_cursor"] != nil {
			next = fmt.Sprint(a["next_cursor"])
		}
		return ids, next
	}
	if ids, _ := page(""); fmt.Sprint(ids) != "[2 4]" {
		t.Errorf("in force: %v", ids)
	}
	var got []string
	for query := "all&limit=2"; query != ""; {
		ids, next := page(query)
		got = append(got, fmt.Sprint(ids))
		if query = ""; next != "" {
			query = "all=true&limit=2&cursor=" + next
		}
	}
	if fmt.Sprint(got) != "[[5 4] [3 2] [1]]" {
		t.Errorf("pages %v", got)
	}
}

func TestBadHolds(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	for _, c := range []struct {
		method, path, body string
		code               int
		reason             string
	}{
		{"POST", "/holds", `{"scope":"projects:web"}`, 400, "bad_value"},
		{"POST", "/holds", `{"ttl":"31d"}`, 400, "bad_value"},
		{"POST", "/holds", `{"ttl":"1h","until":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"}`, 400, "bad_value"},
		{"POST", "/holds", `{"until":"2020-01-01T00:00:00Z"}`, 400, "bad_value"},
		{"POST", "/holds", `{"kind":"disk"}`, 400, "bad_value"},
		{"POST", "/holds", `{"scopes":"all"}`, 400, "unknown_field"},
		{"POST", "/holds", `[]`, 400, "bad_json"},
		{"GET", "/holds?limit=1", "", 400, "bad_query"},
		{"GET", "/holds?all=perhaps", "", 400, "bad_query"},
		{"GET", "/holds?all&limit=0", "", 400, "bad_query"},
		{"GET", "/holds?all&cursor=x", "", 400, "bad_query"},
		{"DELETE", "/holds/99", "", 404, "not_found"},
		{"DELETE", "/holds/0", "", 404, "not_found"},
		{"DELETE", "/holds/99999999999999999999", "", 404, "not_found"},
		{"DELETE", "/holds/-1", "", 404, "not_found"},
		{"DELETE", "/holds/null", "", 404, "not_found"},
		{"DELETE", "/holds/disk", "", 404, "not_found"},
		{"DELETE", "/holds/1", `{"ttl":"1h"}`, 400, "unknown_field"},
		{"POST", "/scheduler/resume", `{"hold":99}`, 404, "not_found"},
		{"POST", "/scheduler/resume", `{"hold":"1"}`, 400, "bad_value"},
		{"POST", "/scheduler/resume", `{"hold":0}`, 400, "bad_value"},
		{"POST", "/scheduler/resume", `{"hold":1.5}`, 400, "bad_value"},
	} {
		code, a := h.Ask(c.method, c.path, c.body)
		if code != c.code || a["reason"] != c.reason || a["hint"] == "" {
			t.Errorf("%s %s %s: %d %v", c.method, c.path, c.body, code, a)
		}
	}
	if got := h.SQL("SELECT count(*) FROM holds"); got != "0" {
		t.Errorf("%s holds were set all the same", got)
	}
}

// A pause that lasts longer than scheduler.paused_warning is told once, whichever daemon runs; the next one again.
func TestPausedWarning(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Extra = []string{"CORTEX_SCHEDULER__PAUSED_WARNING=200ms"}
	d := h.Start()
	count := func() string {
		return h.SQL("SELECT count(*) FROM health_events WHERE event_type = 'paused_long' AND type = 'warning'")
	}
	hold(t, h, `{"scope":"project:p"}`) // no pause
	h.Post("/scheduler/pause", `{"reason":"forgotten","by":"ann"}`)
	testenv.Eventually(t, "the warning", func() bool { return count() == "1" })
	if got := h.SQL("SELECT message FROM health_events WHERE event_type = 'paused_long'"); !strings.Contains(got, "by ann: forgotten") {
		t.Errorf("%q", got)
	}
	for _, end := range []func(){d.Kill, func() { d.Stop() }} {
		end()
		d = h.Start()
		_, first := h.Get("/scheduler/status")
		testenv.Eventually(t, "a pass of the restarted daemon", func() bool {
			h.Post("/scheduler/pause", "")
			_, a := h.Get("/scheduler/status")
			return a["last_tick"] != first["last_tick"]
		})
		if got := count(); got != "1" {
			t.Errorf("%s warnings of one pause", got)
		}
	}
	h.Post("/scheduler/resume", "")
	h.Post("/scheduler/pause", "")
	testenv.Eventually(t, "the warning of the next pause", func() bool { return count() == "2" })
}

func TestHoldsByTheCommandLine(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	id := h.Cortex("holds", "add", "--scope", "project:web", "--reason", "schema change", "--by", "ann", "--ttl", "2h")
	if id != "1" {
		t.Errorf("add says %q", id)
	}
	for _, line := range [][]string{{"holds"}, {"holds", "list"}} {
		if got := h.Cortex(line...); !strings.HasPrefix(got, "ID") || !strings.Contains(got, "project:web") || !strings.Contains(got, "schema change") {
			t.Errorf("%v says %q", line, got)
		}
	}
	if got := h.Cortex("status"); !strings.Contains(got, "ttl on project:web by ann") {
		t.Errorf("status says %q", got)
	}
	if got := h.Cortex("-o", "json", "holds", "add", "--scope", "bead:b"); !strings.HasPrefix(got, `{"id":2,"kind":"operator","scope":"bead:b"`) {
		t.Errorf("add says %q", got)
	}
	if got := h.Cortex("-o", "json", "resume", "--hold", "2"); !strings.Contains(got, `"message":"Hold 2 lifted"`) {
		t.Errorf("resume says %q", got)
	}
	if got := h.Cortex("holds", "lift", id, "--reason", "done", "--by", "bob"); !strings.Contains(got, "Hold 1 on project:web is lifted since") ||
		!strings.HasSuffix(got, "by bob") {
		t.Errorf("lift says %q", got)
	}
	if got := h.Cortex("holds"); strings.Contains(got, "\n") {
		t.Errorf("still there: %q", got)
	}
	out, errout, code := cli(h, "holds", "list", "--all", "--limit", "1")
	if code != 0 || !strings.Contains(out, "bead:b") || strings.Contains(out, "project:web") || !strings.Contains(errout, "--cursor 2") {
		t.Errorf("list: %d %q %q", code, out, errout)
	}
	if _, errout, code := cli(h, "holds", "lift", "99"); code != 1 || !strings.Contains(errout, "No hold 99") {
		t.Errorf("lift: %d %q", code, errout)
	}
	if _, errout, code := cli(h, "holds", "add", "--scope", "web"); code != 2 || !strings.Contains(errout, `got "web"`) {
		t.Errorf("add: %d %q", code, errout)
	}
}
