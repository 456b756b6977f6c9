#!/usr/bin/env bash
# Shows cortex at work, with a daemon, a home and a tmux server of its own. Every number is shown with the command that
# checks it. It takes about half a minute and leaves nothing behind. Usage: scripts/demo.sh [folder of the binaries]
set -euo pipefail

bin=$(cd "${1:-$(dirname "$0")/..}" && pwd)
for program in cortex cortex-runner; do
	[ -x "$bin/$program" ] || { echo "no $bin/$program: run make build first" >&2; exit 1; }
done

scratch=$(mktemp -d /tmp/cortex-demo.XXXX)
export HOME=$scratch/home TMUX_TMPDIR=$scratch/tmux PATH=$bin:$PATH
mkdir "$HOME" "$TMUX_TMPDIR"
unset TMUX TMUX_PANE CORTEX_CONFIG XDG_CONFIG_HOME
cd "$HOME"
db=$HOME/.cortex/cortex.db
daemon=''

bold='' dim='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
fi

title() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }
say() { printf '%s# %s%s\n' "$dim" "$1" "$plain"; }

# show LINE: types a command, and carries it out.
show() {
	printf '%s$ %s%s\n' "$bold" "$1" "$plain"
	eval "$1"
}

# until_true LINE: waits for a condition.
until_true() {
	local deadline=$((SECONDS + 60))
	until eval "$1" >/dev/null 2>&1; do
		if ((SECONDS > deadline)); then
			echo "waited for a minute in vain: $1" >&2
			return 1
		fi
		sleep 0.05
	done
}

# free_port: 8900 where nobody listens there, else one that is free at the moment.
free_port() {
	local port=8900
	while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
		port=$((20000 + RANDOM % 20000))
	done
	echo "$port"
}

start() {
	cortex >>"$scratch/daemon.log" 2>&1 </dev/null &
	daemon=$!
	until_true "curl -sf $url/status"
}

finish() {
	local status=$?
	trap - EXIT
	if [ -n "$daemon" ]; then
		cortex cancel --all-running --grace 0s --wait=20s >/dev/null 2>&1 || :
		kill "$daemon" 2>/dev/null || :
		wait "$daemon" 2>/dev/null || :
	fi
	tmux kill-server 2>/dev/null || :
	if [ "$status" != 0 ]; then
		echo "the demo failed (exit status $status); the daemon's log:" >&2
		tail -20 "$scratch/daemon.log" >&2 || :
	fi
	rm -rf "$scratch"
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

port=$(free_port)
url=http://127.0.0.1:$port
export CORTEX_API__LISTEN=127.0.0.1:$port

# A command that will not go: it ignores TERM and INT, and has a process that has forked away into a session of its own.
cat >"$HOME/stubborn" <<'SCRIPT'
#!/bin/sh
trap "" TERM INT HUP
(setsid sh -c 'trap "" TERM HUP; exec sleep 86401' </dev/null >/dev/null 2>&1 &)
echo "I ignore signals, and something of mine runs elsewhere"
while :; do sleep 86402; done
SCRIPT
# A command that works for a while, and fails with a status of its own.
cat >"$HOME/worker" <<'SCRIPT'
#!/bin/sh
for step in 1 2 3 4 5 6 7 8; do echo "step $step of 8"; sleep 1; done
exit "$1"
SCRIPT
chmod +x "$HOME/stubborn" "$HOME/worker"

title "A daemon, in a scratch home: $HOME"
printf '%s$ cortex &%s\n' "$bold" "$plain"
start
show "curl -s $url/status | jq -c '{running_count, pending_count, scheduler_state}'"

title "Real commands, each in a tmux session of its own"
show "cortex submit --bead build.1 --project demo -- sh -c 'echo compiling; sleep 1; echo done'"
show "cortex submit --bead agent.2 --project demo -- ./worker 0"
show "cortex submit --bead agent.3 --project demo -- ./worker 7"
show "cortex submit --bead stubborn.4 --project demo -- ./stubborn"
until_true "[ \$(tmux list-sessions -F '#{session_name}' | grep -c ^ctx-) -ge 3 ] && cortex logs 4 | grep -q elsewhere"
show "tmux list-sessions | grep ^ctx-"
show "cortex list"
until_true "cortex logs 2 | grep -q 'step 2'"
show "cortex logs 2 --plain"
show "cortex wait 1"

title "Pause: what runs, runs on; nothing starts"
show "curl -s -X POST $url/scheduler/pause"
show "cortex submit --bead later.5 --project demo -- echo 'I had to wait'"
show "curl -s $url/status | jq -c '{running_count, pending_count, scheduler_state}'"

title "kill -9 of the daemon, and a new one"
agent=$(sqlite3 "$db" 'SELECT pid FROM dispatches WHERE id = 3')
say "dispatch 3 is process $agent"
printf '%s$ kill -9 %s%s\n' "$bold" "$daemon" "$plain"
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || :
show "tmux list-sessions | grep -c ^ctx-"
say "they run on without it"
printf '%s$ cortex &%s\n' "$bold" "$plain"
start
show "curl -s $url/status | jq -c '{running_count, pending_count, scheduler_state}'"
say "all adopted, and still paused; dispatch 3 is the same process:"
show "ps -o pid,stat,args -p \$(sqlite3 $db 'SELECT pid FROM dispatches WHERE id = 3')"
show "cortex wait 2 3 || echo \"exit status \$?: not all are completed, and 7 is the true one\""

title "Cancel of one that ignores TERM and has forked away"
show "pgrep -fa 'sleep 8640[12]' -P \$(sqlite3 $db 'SELECT pid FROM dispatches WHERE id = 4'); pgrep -fa 'sleep 86401'"
show "curl -s -X POST '$url/dispatches/4/cancel?wait=30s' -d '{\"grace\": \"1s\"}' | jq -c '{status, message}'"
show "pgrep -fa 'sleep 8640[12]' || echo 'none is left'"

title "Resume"
show "curl -s -X POST $url/scheduler/resume"
show "cortex wait 5 && cortex logs 5 --plain"

title "What is left"
failed=0
# check WHAT WANT COMMAND: a number, and the command that finds it.
check() {
	local got
	got=$(eval "$3") || :
	printf '%-28s %s%s%s   %s$ %s%s\n' "$1" "$bold" "$got" "$plain" "$dim" "$3" "$plain"
	[ "$got" = "$2" ] || failed=1
}
check "accepted" 5 "sqlite3 $db 'SELECT count(*) FROM dispatches'"
check "ended as they should" 5 "sqlite3 $db \"SELECT count(*) FROM dispatches WHERE (id IN (1, 2, 5) AND status = 'completed' AND exit_code = 0) OR (id = 3 AND status = 'failed' AND exit_code = 7) OR (id = 4 AND status = 'cancelled')\""
check "started twice" 0 "sqlite3 $db 'SELECT count(*) FROM dispatches WHERE attempts <> 1'"
check "running" 0 "curl -s $url/status | jq .running_count"
check "tmux sessions" 0 "tmux list-sessions 2>/dev/null | grep -c ^ctx-"
check "processes" 0 "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c '^CORTEX_RUN_DIR=$HOME/'"
if [ "$failed" != 0 ]; then
	echo "this is not what it should be" >&2
	exit 1
fi
