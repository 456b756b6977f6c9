package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"cortex/internal/testenv"
	"cortex/proc"
	"cortex/runner/record"
)

// restless is a tree with two busy loops, one of them in a session of its own, a chain that hops to a new process and session
// every 2 ms, and a process that it has stopped itself. The chain counts its hops in the file $1.
const restless = `while :; do :; done &
	setsid sh -c 'while :; do :; done' &
	sleep 100000 & kill -STOP $!; echo $! > "$1.stopped"
	printf '#!/bin/sh\necho hop >> "$1"\nsleep 0.002\nsetsid "$0" "$1" &\n' > "$1.hop"; chmod +x "$1.hop"
	"$1.hop" "$1" & wait`

// layers are the two ways to freeze.
var layers = map[string][]string{"by its group": nil, "by signals": {"CORTEX_RUNNER__CGROUP=false"}}

// onEachLayer runs a test with a daemon on a host of its own for each layer.
func onEachLayer(t *testing.T, test func(t *testing.T, h *testenv.Host, d *testenv.Daemon)) {
	t.Parallel()
	groups := groupsHere(t)
	for name, extra := range layers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := testenv.New(t)
			h.Extra = extra
			d := h.Start()
			id := h.Submit("probe", "sleep", "100000")
			h.WaitRunning(id)
			if got, want := claimOf(t, h, id).Cgroup != "", groups && extra == nil; got != want {
				t.Fatalf("in a group: %v, want %v", got, want)
			}
			h.Post("/dispatches/"+id+"/cancel?wait=30s", `{"grace":"0s"}`)
			test(t, h, d)
		})
	}
}

// tree are the live processes below a dispatch's runner, with the processor time that each has used, in ticks.
func tree(t *testing.T, h *testenv.Host, id string) map[proc.Ident]int {
	t.Helper()
	all, err := proc.All()
	if err != nil {
		t.Fatal(err)
	}
	found := map[proc.Ident]int{}
	for _, p := range proc.Descendants(all, claimOf(t, h, id).Runner.PID) {
		if !p.Dead() {
			found[p.Ident] = ticks(p.PID)
		}
	}
	return found
}

// ticks is the processor time of a process, 0 where it is gone.
func ticks(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	user, _ := strconv.Atoi(string(fields[11])) // fields 14 and 15 of proc(5)
	system, _ := strconv.Atoi(string(fields[12]))
	return user + system
}

func frozenSince(h *testenv.Host, id string) string { return h.Field(id, "frozen_since") }

// must posts, and fails the test where the answer is not 200.
func must(t *testing.T, h *testenv.Host, path, body string) testenv.Answer {
	t.Helper()
	code, a := h.Post(path, body)
	if code != http.StatusOK {
		t.Fatalf("%s: %d %v", path, code, a)
	}
	return a
}

func restlessOne(t *testing.T, h *testenv.Host) (id, hops string, self proc.Ident) {
	t.Helper()
	hops = filepath.Join(h.Home, "hops")
	id = h.Submit("restless", "sh", "-c", restless, "x", hops)
	testenv.Eventually(t, "it to hop", func() bool { return size(hops) > 10 })
	return id, hops, identities(t, readPids(hops+".stopped"))[0]
}

func size(file string) int64 {
	st, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return st.Size()
}

// Nothing of a frozen tree uses processor time or forks while others use 50 ticks of it; thawed all goes on, but for what the
// tree has stopped itself.
func TestFreeze(t *testing.T) {
	onEachLayer(t, func(t *testing.T, h *testenv.Host, _ *testenv.Daemon) {
		id, hops, self := restlessOne(t, h)
		for range 3 {
			a := must(t, h, "/dispatches/"+id+"/freeze", `{"reason":"a test","by":"somebody"}`)
			before, hopped := tree(t, h, id), size(hops)
			if d := a["dispatch"].(map[string]any); d["frozen_since"] == nil || d["stage"] != "running" || d["status"] != "running" {
				t.Errorf("%v", a)
			}
			burn(t, 50)
			if now := tree(t, h, id); len(before) < 5 || !maps.Equal(before, now) || size(hops) != hopped {
				t.Errorf("while frozen: %v, then %v; %d hops, then %d", before, now, hopped, size(hops))
			}
			a = must(t, h, "/dispatches/"+id+"/thaw", "")
			if d := a["dispatch"].(map[string]any); d["frozen_since"] != nil {
				t.Errorf("%v", a)
			}
			testenv.Eventually(t, "it to go on", func() bool {
				busy := 0
				for p, was := range before {
					if ticks(p.PID) > was {
						busy++
					}
				}
				return size(hops) > hopped+10 && busy >= 2
			})
			if state := stateOf(t, self); state != 'T' {
				t.Errorf("what was stopped before is in state %c", state)
			}
		}
		got := h.SQL("SELECT event_type, json_extract(details, '$.by'), json_extract(details, '$.reason') FROM health_events " +
			"WHERE event_type IN ('dispatch_frozen', 'dispatch_thawed') AND dispatch_id = " + id + " ORDER BY id LIMIT 1")
		if got != "dispatch_frozen|somebody|a test" {
			t.Errorf("event %q", got)
		}
	})
}

// burn uses processor time of the test's own, in ticks.
func burn(t *testing.T, n int) {
	t.Helper()
	began := ticks(os.Getpid())
	testenv.Eventually(t, "processor time to pass", func() bool {
		for range 1 << 22 {
		}
		return ticks(os.Getpid()) >= began+n
	})
}

// A timeout stands still while its dispatch is frozen, also under the next daemon after a kill -9 and when the runner can't be
// reached, and then runs on.
func TestFrozenTimeDoesNotCount(t *testing.T) {
	onEachLayer(t, func(t *testing.T, h *testenv.Host, d *testenv.Daemon) {
		submit := func(bead string) string {
			return h.Cortex("submit", "--bead", bead, "--project", "p", "--timeout", "3s", "--", "sh", "-c", "setsid sleep 100000 & exec sleep 100000")
		}
		passes := func(bead string) { // another one with the same timeout, from its start to its end
			id := submit(bead)
			h.WaitStatus(id, "failed")
		}
		id := submit("frozen")
		agent := h.WaitRunning(id)
		must(t, h, "/dispatches/"+id+"/freeze", "")
		since := frozenSince(h, id)
		passes("first")
		d.Kill()
		runner := processOf(claimOf(t, h, id).Runner)
		server, err := proc.Of(serverPID(t, h))
		if err != nil {
			t.Fatal(err)
		}
		stop(t, server) // which would continue what is stopped in its panes
		stop(t, runner)
		h.Start()
		if got := frozenSince(h, id); got != since || h.Status(id) != "running" {
			t.Errorf("by the record: %s since %s, want %s", h.Status(id), got, since)
		}
		if code, a := h.Post("/dispatches/"+id+"/thaw", ""); code != 500 || a["reason"] != "freeze_failed" {
			t.Errorf("a runner that does not answer: %d %v", code, a)
		}
		for _, p := range []proc.Ident{runner, server} {
			if err := p.Signal(syscall.SIGCONT); err != nil {
				t.Error(err)
			}
		}
		passes("second")
		if got := frozenSince(h, id); got != since || h.Status(id) != "running" || !agent.Alive() {
			t.Errorf("by its runner: %s since %s, want %s", h.Status(id), got, since)
		}
		if _, text := h.AskText("GET", "/metrics", ""); !strings.Contains(text, "\ncortex_dispatches_frozen 1\n") {
			t.Error("the metric does not say so")
		}
		must(t, h, "/dispatches/"+id+"/thaw", "")
		h.WaitStatus(id, "failed")
		if c := h.Field(id, "failure_category"); c != "timeout" || agent.Alive() || frozenSince(h, id) != "" {
			t.Errorf("%s, alive %v", c, agent.Alive())
		}
		var seconds float64
		var f record.Freeze
		if err := attempt(t, h, id).Read(record.FreezeFile, &f); err != nil {
			t.Fatal(err)
		}
		fmt.Sscan(h.Field(id, "duration_s"), &seconds)
		if frozen := float64(f.TotalMS) / 1000; frozen < 6 || seconds-frozen < 2.9 {
			t.Errorf("it ended %v s after its start, and was frozen for %v s of these", seconds, frozen)
		}
	})
}

// What ends a frozen dispatch leaves nothing of it: a cancel, which gives it its grace, one without, the death of its runner, of
// its agent, of its session.
func TestEndsOfFrozen(t *testing.T) {
	onEachLayer(t, func(t *testing.T, h *testenv.Host, d *testenv.Daemon) {
		told := filepath.Join(h.Home, "told")
		polite := fmt.Sprintf(`trap 'echo told > %s; exit 3' TERM; setsid sh -c 'while :; do :; done' & setsid sleep 100000 & while :; do sleep 0.02; done`, told)
		for _, end := range []struct {
			name, status, category string
			end                    func(id string, agent proc.Ident)
		}{
			{"cancel", "cancelled", "", func(id string, _ proc.Ident) {
				must(t, h, "/dispatches/"+id+"/cancel?wait=60s", `{"grace":"30s"}`)
				if _, err := os.Stat(told); err != nil || h.Field(id, "exit_code") != "3" {
					t.Errorf("it had no grace: %v, exit code %s", err, h.Field(id, "exit_code"))
				}
			}},
			{"cancel at once", "cancelled", "", func(id string, _ proc.Ident) {
				must(t, h, "/dispatches/"+id+"/cancel?wait=60s", `{"grace":"0s"}`)
			}},
			{"cancel without a daemon", "cancelled", "", func(id string, _ proc.Ident) {
				must(t, h, "/dispatches/"+id+"/cancel", `{"grace":"10s"}`)
				d.Kill()
				d = h.Start()
			}},
			{"runner", "failed", "lost", func(_ string, agent proc.Ident) { killRunner(t, agent) }},
			{"agent", "failed", "signal", func(_ string, agent proc.Ident) { agent.Signal(syscall.SIGKILL) }},
			{"session", "failed", "signal", func(id string, _ proc.Ident) {
				h.Tmuxes("kill-session", "-t", "="+h.Field(id, "session_name"))
			}},
		} {
			os.Remove(told)
			id := h.Submit(end.name, "sh", "-c", polite)
			agent := h.WaitRunning(id)
			testenv.Eventually(t, "its children", func() bool { return len(tree(t, h, id)) >= 3 })
			must(t, h, "/dispatches/"+id+"/freeze", "")
			members := tree(t, h, id)
			end.end(id, agent)
			h.WaitStatus(id, end.status)
			if c := h.Field(id, "failure_category"); c != end.category {
				t.Errorf("%s: category %q", end.name, c)
			}
			for p := range members {
				if p.Alive() {
					t.Errorf("%s: %d lives", end.name, p.PID)
				}
			}
			if s := h.Sessions(); len(s) != 0 || frozenSince(h, id) != "" {
				t.Errorf("%s: sessions %v, frozen since %q", end.name, s, frozenSince(h, id))
			}
		}
	})
}

// Many at once, by ids, status and project, over HTTP and by the command line; what is so already stays so, without an event.
func TestFreezeMany(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	var ids []string
	for i := range 3 {
		id := h.Cortex("submit", "--bead", fmt.Sprint("b", i), "--project", fmt.Sprint("p", i%2), "--", "sleep", "100000")
		h.WaitRunning(id)
		ids = append(ids, id)
	}
	frozen := func() (all string) {
		for _, id := range ids {
			all += map[bool]string{true: "f", false: "r"}[frozenSince(h, id) != ""]
		}
		return all
	}
	a := must(t, h, "/dispatches/freeze", fmt.Sprintf(`{"ids":[%s,99]}`, ids[1]))
	results := a["results"].([]any)
	if ok, bad := results[0].(map[string]any), results[1].(map[string]any); frozen() != "rfr" || ok["status"] != "success" || bad["reason"] != "not_found" {
		t.Errorf("%s %v", frozen(), a)
	}
	since := frozenSince(h, ids[1])
	must(t, h, "/dispatches/freeze", `{"status":"running"}`)
	if frozen() != "fff" || frozenSince(h, ids[1]) != since {
		t.Errorf("%s, since %s", frozen(), frozenSince(h, ids[1]))
	}
	must(t, h, "/dispatches/thaw", `{"project":"p0"}`)
	if frozen() != "rfr" {
		t.Error(frozen())
	}
	if out := h.Cortex("list"); strings.Count(out, "frozen") != 1 {
		t.Error(out)
	}
	if out := h.Cortex("thaw", ids[1], ids[0]); out != "Dispatch "+ids[1]+" is not frozen\nDispatch "+ids[0]+" is not frozen" || frozen() != "rrr" {
		t.Errorf("%s\n%s", frozen(), out)
	}
	h.Cortex("freeze", "--project", "p0", "--reason", "the disk is needed")
	h.Cortex("freeze", "--all-running", "--by", "night shift")
	if frozen() != "fff" {
		t.Error(frozen())
	}
	if out, errout, code := h.Try(filepath.Join(h.Bin, "cortex"), "freeze", ids[0], "99"); code != 1 || !strings.Contains(errout, "99") {
		t.Errorf("%d %s%s", code, out, errout)
	}
	h.Cortex("thaw", "--all-running")
	got := h.SQL("SELECT group_concat(n) FROM (SELECT count(*) n FROM health_events WHERE event_type IN ('dispatch_frozen', 'dispatch_thawed') " +
		"GROUP BY dispatch_id ORDER BY dispatch_id)")
	if got != "4,4,4" || frozen() != "rrr" {
		t.Errorf("events of each: %s; %s", got, frozen())
	}
	if got := h.SQL("SELECT count(*) FROM health_events WHERE message LIKE '%night shift%' OR message LIKE '%the disk is needed%'"); got != "3" {
		t.Errorf("%s events say who and why", got)
	}
	h.Cortex("cancel", "--all-running", "--grace", "0s", "--wait")
}

// What can't be frozen is told why, and stays as it is.
func TestFreezeRefused(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	ended := h.Submit("ended", "true")
	h.WaitStatus(ended, "completed")
	cancelling := h.Submit("cancelling", "sh", "-c", `trap "" TERM; echo > ~/deaf; while :; do sleep 1; done`)
	waitFile(t, h.Home+"/deaf")
	runs := h.Submit("runs", "sleep", "100000")
	h.WaitRunning(runs)
	must(t, h, "/dispatches/"+cancelling+"/cancel", `{"grace":"10m"}`)
	must(t, h, "/scheduler/pause", "")
	pending := h.Submit("pending", "true")
	h.SQL("INSERT INTO dispatches (bead_id, status) VALUES ('by-hand', 'running')")
	byHand := h.SQL("SELECT id FROM dispatches WHERE bead_id = 'by-hand'")
	for _, verb := range []string{"freeze", "thaw"} {
		for _, c := range []struct {
			path, body, reason string
			code               int
		}{
			{"/" + ended + "/", "", "not_running", 409},
			{"/" + pending + "/", "", "not_running", 409},
			{"/" + byHand + "/", "", "not_running", 409},
			{"/" + cancelling + "/", "", "being_stopped", 409},
			{"/9999/", "", "not_found", 404},
			{"/runs/", "", "not_found", 404},
			{"/" + runs + "/", `{"grace":"1s"}`, "unknown_field", 400},
			{"/" + runs + "/", `{"reason":1}`, "bad_value", 400},
			{"/", `{}`, "bad_value", 400},
			{"/", `{"status":"pending"}`, "bad_value", 400},
			{"/", `{"ids":["1"]}`, "bad_value", 400},
		} {
			code, a := h.Post("/dispatches"+c.path+verb, c.body)
			if code != c.code || a["reason"] != c.reason {
				t.Errorf("%s%s %s: %d %v, want %d %s", c.path, verb, c.body, code, a, c.code, c.reason)
			}
		}
	}
	if frozenSince(h, runs) != "" || h.SQL("SELECT count(*) FROM health_events WHERE event_type IN ('dispatch_frozen', 'dispatch_thawed')") != "0" {
		t.Error("something was frozen")
	}
	for _, usage := range [][]string{{"freeze"}, {"thaw", "x"}, {"freeze", runs, "--all-running"}} {
		if _, errout, code := h.Try(filepath.Join(h.Bin, "cortex"), usage...); code != 2 {
			t.Errorf("%v: %d %s", usage, code, errout)
		}
	}
	for _, id := range []string{cancelling, runs} {
		must(t, h, "/dispatches/"+id+"/cancel?wait=60s", `{"grace":"0s"}`)
	}
}

// A freeze that meets a tree with what has left the group stops that, too; a cancel in the middle of freezes wins.
func TestFreezeMeetsOthers(t *testing.T) {
	t.Parallel()
	h := testenv.New(t)
	h.Start()
	leaves := h.Submit("leaves", "sh", "-c", `(g=$(sed -n 's/^0:://p' /proc/self/cgroup); m=$(awk '$(NF-2) == "cgroup2" {print $5; exit}' /proc/self/mountinfo)
		sh -c 'echo $$ > "$1/$(dirname "$2")/cgroup.procs"; echo $$ > ~/left; while :; do :; done' x "$m" "$g") & wait`)
	h.WaitRunning(leaves)
	waitFile(t, h.Home+"/left")
	must(t, h, "/dispatches/"+leaves+"/freeze", "")
	before := tree(t, h, leaves)
	burn(t, 30)
	if now := tree(t, h, leaves); !maps.Equal(before, now) {
		t.Errorf("while frozen: %v, then %v", before, now)
	}
	must(t, h, "/dispatches/"+leaves+"/thaw", "")
	left := identities(t, readPids(h.Home+"/left"))[0]
	testenv.Eventually(t, "it to go on", func() bool { return ticks(left.PID) > before[left] })
	must(t, h, "/dispatches/"+leaves+"/cancel?wait=60s", `{"grace":"0s"}`)

	id, _, _ := restlessOne(t, h)
	members := tree(t, h, id)
	var f record.Freeze
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			default:
				h.Post("/dispatches/"+id+"/"+[]string{"freeze", "thaw"}[i%2], "")
			}
		}
	}()
	testenv.Eventually(t, "a freeze", func() bool { return frozenSince(h, id) != "" })
	must(t, h, "/dispatches/"+id+"/cancel?wait=60s", `{"grace":"1s"}`)
	close(over)
	<-done
	h.WaitStatus(id, "cancelled")
	for p := range members {
		if p.Alive() {
			t.Errorf("%d lives", p.PID)
		}
	}
	if err := attempt(t, h, id).Read(record.FreezeFile, &f); err != nil || f.Changes == 0 {
		t.Errorf("%+v, %v", f, err)
	}
}

// A cancel that comes in the middle of a freeze goes before it: the agent runs in its grace, and ends as it wants.
func TestCancelWithinAFreeze(t *testing.T) {
	onEachLayer(t, func(t *testing.T, h *testenv.Host, _ *testenv.Daemon) {
		for i := range 8 {
			up := filepath.Join(h.Home, fmt.Sprint("up", i))
			id := h.Submit("polite", "sh", "-c", fmt.Sprintf(`trap 'exit 3' TERM; i=0; while [ $i -lt 60 ]; do setsid sleep 100000 & i=$((i+1)); done
				echo > %s; while :; do sleep 0.02; done`, up))
			waitFile(t, up)
			frozen := make(chan int)
			go func() {
				code, _ := h.Post("/dispatches/"+id+"/freeze", "")
				frozen <- code
			}()
			must(t, h, "/dispatches/"+id+"/cancel?wait=30s", `{"grace":"10m"}`)
			if code := <-frozen; code != 200 && code != 409 {
				t.Errorf("freeze: %d", code)
			}
			if s, x := h.Status(id), h.Field(id, "exit_code"); s != "cancelled" || x != "3" {
				t.Errorf("%s, exit code %s", s, x)
			}
		}
	})
}

// leader is a session with a process group beside its leader's own, as a shell with job control has. Both write their pids.
const leader = `sub told { open my $f, ">", "$ENV{HOME}/$_[0]"; print $f "$$\n" }
if (!fork) { $SIG{HUP} = "IGNORE"; setpgrp(0, 0); told("busy"); 1 while 1 }
told("leader"); wait`

// What is continued in a tree that signals have frozen, by the kernel since a kill has orphaned its process group, is stopped
// again, and goes on with all the rest.
func TestFreezeIsKept(t *testing.T) {
	onEachLayer(t, func(t *testing.T, h *testenv.Host, _ *testenv.Daemon) {
		id := h.Submit("jobs", "sh", "-c", `setsid perl -e "$1" & wait; sleep 100000`, "x", leader)
		h.WaitRunning(id)
		pid := func(file string) proc.Ident {
			testenv.Eventually(t, file, func() bool { return len(readPids(filepath.Join(h.Home, file))) == 1 })
			return identities(t, readPids(filepath.Join(h.Home, file)))[0]
		}
		shell, busy := pid("leader"), pid("busy")
		must(t, h, "/dispatches/"+id+"/freeze", "")
		if err := shell.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "the shell to be gone", func() bool { return !shell.Alive() })
		if claimOf(t, h, id).Cgroup == "" {
			testenv.Eventually(t, "it to be stopped again", func() bool { return stateOf(t, busy) == 'T' })
		}
		was := ticks(busy.PID)
		burn(t, 30)
		if now := ticks(busy.PID); now > was+1 {
			t.Errorf("it used %d ticks while frozen", now-was)
		}
		must(t, h, "/dispatches/"+id+"/thaw", "")
		testenv.Eventually(t, "it to go on", func() bool { return ticks(busy.PID) > was+5 })
		must(t, h, "/dispatches/"+id+"/cancel?wait=60s", `{"grace":"0s"}`)
		if busy.Alive() {
			t.Error("it lives")
		}
	})
}

func (m *model) freeze() { m.changeFreeze("freeze") }

func (m *model) thaw() { m.changeFreeze("thaw") }

// changeFreeze freezes or thaws a job that has begun; one that has ended by then, or is being stopped, stays as it is.
func (m *model) changeFreeze(verb string) {
	j := m.pick(func(j *job) bool { return m.h.Status(j.id) == "running" })
	if j == nil {
		return
	}
	if code, a := m.h.Post("/dispatches/"+j.id+"/"+verb, ""); code != http.StatusOK && code != http.StatusConflict {
		m.t.Fatalf("%s of %s: %d %v", verb, j.id, code, a)
	}
}

// thawAll lets all go on that is frozen: nothing of that ends by itself.
func (m *model) thawAll() {
	testenv.Eventually(m.t, "nothing to be frozen", func() bool {
		m.h.Post("/dispatches/thaw", `{"status":"running"}`)
		for _, j := range m.jobs {
			if frozenSince(m.h, j.id) != "" {
				return false
			}
		}
		return true
	})
}
