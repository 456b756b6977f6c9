#!/usr/bin/env bash
# Shows cortex at work, with a home and a tmux server of its own: forty dispatches, while its daemon and that server are
# killed. Each number of the last screen has the command that checks it. Nothing stays behind; with KEEP=1 it waits for
# Enter before it cleans up. Usage: scripts/demo.sh [folder of the binaries]
set -euo pipefail
# shellcheck source=scripts/workload.sh
source "$(dirname "$0")/workload.sh"

bin=$(cd "${1:-$here/..}" && pwd)
for program in cortex cortex-runner; do
	[ -x "$bin/$program" ] || { echo "no $bin/$program: run make build first" >&2; exit 1; }
done
export PATH=$bin:$PATH
unset CORTEX_CONFIG XDG_CONFIG_HOME
make_work demo
db=.cortex/cortex.db
daemon=''

# free_port: 8900 where nobody listens there, else one that is free at the moment.
free_port() {
	local port=8900
	while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
		port=$((20000 + RANDOM % 20000))
	done
	echo "$port"
}
export CORTEX_API__LISTEN=${CORTEX_API__LISTEN:-127.0.0.1:$(free_port)}
url=http://$CORTEX_API__LISTEN

start() {
	typed "cortex &"
	cortex >>daemon.log 2>&1 </dev/null &
	daemon=$!
	until_true "[ \$(curl -sf $url/status | jq .pid) = $daemon ]"
}

kill_daemon() {
	typed "kill -9 $daemon"
	kill -KILL "$daemon"
	wait "$daemon" 2>/dev/null || :
}

finish() {
	local status=$?
	trap - EXIT
	if [ "$status" != 0 ]; then
		echo "the demo failed (exit status $status); the daemon's log:" >&2
		tail -20 daemon.log >&2 || :
	fi
	cortex cancel --all-running --grace 0s --wait=20s >/dev/null 2>&1 || :
	[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || :
	wait
	tmux kill-server 2>/dev/null || :
	end_work
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# submit FIRST LAST: dispatches these jobs. The ids of dispatches rise, with a gap where a daemon was killed.
submit() {
	typed "for n in {$1..$2}; do cortex submit --bead job-\$n --project demo -- ./job \$n; done | xargs"
	for n in $(seq "$1" "$2"); do cortex submit --bead "job-$n" --project demo -- ./job "$n"; done >submitted
	mapfile -t ids <submitted
	echo "${ids[*]}"
}

# show_ends ID...: waits until these have ended, and shows how.
show_ends() {
	cortex wait "$@" >/dev/null || :
	show "sqlite3 \$db 'SELECT bead_id, status, exit_code FROM dispatches WHERE id >= $1 LIMIT $#' | pr -3at"
}

# true_ends: how each dispatch must be on record, written down before the first one starts.
true_ends() {
	local n status
	for n in {1..20} {26..30}; do
		status=$(status_of "$n")
		if [ "$status" = 0 ]; then echo "job-$n|completed|0"; else echo "job-$n|failed|$status"; fi
	done
	for n in 21 22 23; do echo "job-$n|failed|129"; done # SIGHUP: its terminal went away
	for n in 24 25; do echo "job-$n|failed|$n"; done     # they catch that
	echo "job-31|cancelled|137"                          # it ignores SIGTERM
	for n in {32..39}; do echo "job-$n|cancelled|143"; done
	echo "job-40|completed|0"
}

dispatch() {
	title "Real commands, each in a tmux session of its own; how each will end is known before"
	submit 1 10
	until_true "have starts 1 10"
	show "tmux list-sessions | grep ^ctx- | head -3" || :
	until_true "cortex logs ${ids[9]} | grep -q 'step 2'"
	show "cortex logs ${ids[9]} --plain"
	show_ends "${ids[@]}"
}

kill_while_ten_end() {
	title "kill -9 of the daemon while ten end"
	submit 11 20
	until_true "have starts 11 20"
	show "tmux list-sessions | grep -c ^ctx-"
	: >first
	until_true "have ends 11 14"
	kill_daemon
	say "Four of the ten had ended by then. Six end now, with no daemon to see it."
	: >second
	until_true "have ends 11 20"
	start
	show_ends "${ids[@]}"
}

kill_while_paused() {
	title "A pause, and kill -9 once it is answered: what runs, runs on, and nothing starts"
	submit 21 25
	agents=("${ids[@]}")
	local pids="SELECT group_concat(pid) FROM dispatches WHERE id BETWEEN ${ids[0]} AND ${ids[4]}"
	until_true "[ \$(sqlite3 $db '${pids/group_concat/count}') = 5 ] && have ready 24 25"
	pids=$(sqlite3 "$db" "$pids")
	show "curl -s -X POST \$url/scheduler/pause"
	date +%s.%N >paused
	submit 26 30
	kill_daemon
	start
	show "curl -s \$url/status | jq -c '{running_count, pending_count, scheduler_state}'"
	say "Still paused, and all adopted: those that run are the processes that they were."
	show "ps -o pid,stat,etime,args -p $pids"
	date +%s.%N >resumed
	show "curl -s -X POST \$url/scheduler/resume"
	show_ends "${ids[@]}"
}

kill_tmux() {
	title "tmux kill-server, with five agents on it"
	show "tmux kill-server"
	show_ends "${agents[@]}"
	say "129 is SIGHUP. 24 and 25 catch it, and end with an exit status of their own."
}

cancel_escapees() {
	title "Cancel of what will not go, on a new tmux server"
	submit 31 40
	until_true "have ready 31 40"
	kinds 31 40
	cortex wait "${ids[9]}" >/dev/null # it has ended, and nothing of it is left
	show "pgrep -fc $mark"
	show "cortex cancel --all-running --grace 2s --wait=60s"
	show "pgrep -fc $mark" || :
	show "tmux list-sessions | grep -c ^ctx-" || :
	show_ends "${ids[@]}"
}

last_screen() {
	title "What is on record, and what is left"
	typed "cd $work"
	check "accepted" 40 "sqlite3 $db 'SELECT count(*) FROM dispatches'"
	check "true ends" 40 "sqlite3 $db 'SELECT bead_id, status, exit_code FROM dispatches' | grep -cxFf truth"
	check_jobs 0
	last_words
}

true_ends >truth
title "A daemon, with a home of its own"
typed "cd $work; db=$db url=$url"
start
dispatch
kill_while_ten_end
kill_while_paused
kill_tmux
cancel_escapees
last_screen
