package e2e

// scenario is a part of the drill that one shell runs, and what it finds there. What happens beside the operator's typing
// (dispatches that come and end, a forgotten sqlite3) is shell, too, with the words of testdata/drill.sh; each line must
// succeed.
type scenario struct {
	name    string
	section string   // its heading in drill.md, by its beginning
	setup   []string // before the first command; the daemon answers already
	before  map[place][]string
	until   map[place]string // what each sleep of the drill is for: it waits until this is true, instead of for a time
	after   []string         // after the last command; then all that runs is cancelled, and the daemon stopped
}

// place is a command of the drill: the clock it stands under, and how it begins.
type place struct{ moment, command string }

// seven are the running dispatches that the drill starts with.
var seven = []string{
	`for i in 1 2 3 4 5 6 7; do drill_submit "cortex-run.$i" sleep 3600 || break; done`,
	`drill_wait 'drill_running 7'`,
}

var scenarios = []scenario{
	{
		name:    "assessment",
		section: "Current Cortex State",
		setup:   seven,
	},
	{
		name:    "1 configuration",
		section: "Scenario 1:",
		setup:   seven,
		before: map[place][]string{
			// Work comes in all the time; it must wait while paused, across the restart as well.
			{"T+1:00", "BEFORE_COUNT="}: {
				`for i in 1 2 3; do drill_submit "cortex-new.$i" sleep 3600 || break; done`,
				`drill_wait 'drill_pending 3'`,
				`DRILL_SINCE=$(date +%s)`,
			},
			{"T+3:00", `curl -s -X POST http://127.0.0.1:8900/scheduler/resume`}: {
				`drill_wait 'drill_running 7'`, // all adopted
				`drill_pending 3`,
			},
		},
		until: map[place]string{
			{"T+1:00", "sleep 2"}: `[ "$(drill_ask /scheduler/status .state)" = paused ]`,
			// A whole turn of the scheduler that had the three before it.
			{"T+1:00", "sleep 10"}: `[ "$(drill_ask /scheduler/status '.last_tick | fromdateiso8601')" -gt $DRILL_SINCE ]`,
			{"T+2:00", "sleep 10"}: `drill_answers`,
			{"T+4:00", "sleep 30"}: `drill_running 10`,
		},
		after: []string{`drill_pending 0`},
	},
	{
		name:    "2 database",
		section: "Scenario 2:",
		setup: []string{
			`mkfifo "$DRILL/end"`,
			`for i in 1 2 3 4 5; do drill_submit "cortex-run.$i" cat "$DRILL/end" || break; done`,
			`drill_wait 'drill_running 5'`,
		},
		before: map[place][]string{
			// The drill counts what was created in the last minute, and its five were created long before.
			{"T+1:00", `echo "All dispatches completed`}: {
				`sqlite3 -cmd '.timeout 5000' ~/.cortex/cortex.db "UPDATE dispatches SET created_at = datetime('now', '-10 minutes');"`,
			},
			{"T+6:00", "sleep 30"}: {
				`for i in 1 2; do drill_submit "cortex-new.$i" sleep 3600 || break; done`,
			},
		},
		until: map[place]string{
			// Whoever reads from the pipe by now is told its end.
			{"T+1:00", "while"}:    `: <>"$DRILL/end"; [ "$(drill_ask /status .running_count)" = 0 ] && drill_running 0`,
			{"T+6:00", "sleep 30"}: `drill_running 2`,
		},
		after: []string{
			`[ "$(sqlite3 ~/.cortex/cortex.db "SELECT count(*) FROM dispatches WHERE status = 'completed' AND exit_code = 0;")" = 5 ]`,
			`[ "$(sqlite3 ~/.cortex/cortex.db.backup.* 'PRAGMA integrity_check;')" = ok ]`,
			`[ "$(sqlite3 ~/.cortex/cortex.db.backup.* 'SELECT count(*) FROM dispatches;')" = 5 ]`,
		},
	},
	{
		name:    "3 drain",
		section: "Scenario 3:",
		setup: []string{
			`printf '#!/bin/sh\ntrap "" TERM INT HUP\nwhile :; do sleep 1000; done\n' >~/openclaw`,
			`chmod +x ~/openclaw`,
			`drill_submit cortex-abc.123 ~/openclaw agent && drill_wait 'drill_running 1'`,
			`drill_submit cortex-def.456 ~/openclaw agent && drill_wait 'drill_running 2'`,
			`drill_submit cortex-ghi.789 ~/openclaw agent && drill_wait 'drill_running 3'`,
			// So that the zeros after the cancel say something.
			`[ "$(ps aux | grep openclaw | grep agent | wc -l)" = 3 ]`,
			`[ "$(tmux list-sessions | grep "^ctx-" | wc -l)" = 3 ]`,
		},
		until: map[place]string{
			{"T+1:00", "for"}:      `:`,
			{"T+1:00", "sleep 30"}: `[ "$(drill_ask /status .running_count)" = 0 ]`,
		},
		after: []string{
			`[ "$(sqlite3 ~/.cortex/cortex.db "SELECT count(*) FROM dispatches WHERE status = 'cancelled' AND stopped_by = 'operator';")" = 3 ]`,
		},
	},
	{
		name:    "4 failed resume",
		section: "Scenario 4:",
		setup: []string{
			`./cortex wait "$(drill_submit cortex-done.1 true)"`,
			`./cortex pause`,
			`touch ~/.cortex/cortex.db.backup.20260218-0602`,
		},
		before: map[place][]string{
			{"T+0:00", "curl -v"}:                 {`drill_lock`},
			{"T+0:30", "curl -s"}:                 {`[ "$(drill_ask /scheduler/status .state)" = paused ]`},
			{"T+1:00", "rm -f"}:                   {`drill_unlock`},
			{"T+1:30", "curl -v"}:                 {`[ ! -e ~/.cortex/cortex.db.backup.20260218-0602 ]`},
			{"T+2:00", "systemctl --user stop"}:   {`DRILL_FIRST=$DRILL_DAEMON`},
			{"T+2:00", `echo "✅ Service restart`}: {`[ "$DRILL_DAEMON" != "$DRILL_FIRST" ]`},
		},
		until: map[place]string{{"T+2:00", "sleep 10"}: `drill_answers`},
	},
}
