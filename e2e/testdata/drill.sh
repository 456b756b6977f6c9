# What the drill's shell has that an operator's has not. It is sourced by the script that drill_shell_test.go writes of one
# scenario. $DRILL is a folder of the test's own; the current folder has ./cortex, ./cortex-runner and cortex.toml.
# shellcheck shell=bash

DRILL_RC=0        # the exit status of the last command, for the next one's $?
DRILL_DAEMON=     # the daemon's pid, while it was started and not stopped
DRILL_UNTIL=      # what the next sleep waits for
DRILL_PATIENCE=60 # seconds; used up only by what fails

: "${DRILL:?}" "${DRILL_PS:?}"

exec 3>&1 4>&2

# drill_begin N CONDITION: from here on all that is said goes into the files of command N, and its sleeps wait for CONDITION.
drill_begin() {
	DRILL_STEP=$1 DRILL_UNTIL=$2
	exec >"$DRILL/$1.out" 2>"$DRILL/$1.err"
	return "$DRILL_RC"
}

drill_end() {
	DRILL_RC=$?
	exec >&3 2>&4
	echo "$DRILL_RC" >"$DRILL/$DRILL_STEP.rc"
}

# drill_wait CONDITION: waits until a piece of shell is true, or for long.
drill_wait() {
	local deadline=$((SECONDS + DRILL_PATIENCE))
	until eval "$1" >&4 2>&4; do
		if ((SECONDS > deadline)); then
			echo "waited $DRILL_PATIENCE s in vain for: $1" >&4
			return 1
		fi
		command sleep 0.05
	done
}

# drill_failed LINE breaks the drill off: where a preparation fails, the answers after it would mean nothing.
drill_failed() {
	echo "the preparation failed: $1" >&4
	echo "$1" >"$DRILL/failed"
	systemctl --user stop cortex.service
	exit 1
}

# drill_ask PATH FILTER: one number or word of an answer.
drill_ask() { curl -s "http://127.0.0.1:8900$1" | jq -r "$2"; }

drill_running() { [ "$(drill_ask '/dispatches?status=running' '[.dispatches[] | select(.stage == "running")] | length')" = "$1" ]; }
drill_pending() { [ "$(drill_ask /status .pending_count)" = "$1" ]; }
drill_answers() { curl -sf http://127.0.0.1:8900/status >/dev/null; }

# drill_submit BEAD COMMAND...: a dispatch for the drill to find.
drill_submit() {
	local bead=$1
	shift
	./cortex submit --bead "$bead" --project drill -- "$@"
}

# drill_cancel_all ends what runs, and returns when nothing is left of it.
drill_cancel_all() {
	curl -sf -X POST -d '{"status":"running","grace":"0s"}' 'http://127.0.0.1:8900/dispatches/cancel?wait=30s' && drill_running 0
}

# systemctl as far as the drill needs it: `systemctl [--user] start|stop|status cortex.service`. Like the real one, start
# does not wait until the service answers, and status of what does not run exits with 3.
systemctl() {
	local verb=
	for word; do
		case $word in
		start | stop | status) verb=$word ;;
		--user | cortex.service) ;;
		*) echo "systemctl: $word is not known here" >&2 && return 1 ;;
		esac
	done
	case $verb in
	start)
		# Descriptors 3 and 4 are this shell's own: the daemon must not hold them open.
		setsid ./cortex --config cortex.toml >>"$DRILL/daemon.log" 2>&1 </dev/null 3>&- 4>&- &
		DRILL_DAEMON=$!
		;;
	stop)
		[ -n "$DRILL_DAEMON" ] || return 0
		kill -TERM "$DRILL_DAEMON"
		wait "$DRILL_DAEMON"
		local rc=$?
		DRILL_DAEMON=
		[ $rc -eq 0 ] || echo "systemctl: the daemon exited with $rc" >&2
		return $rc
		;;
	status)
		if [ -n "$DRILL_DAEMON" ] && kill -0 "$DRILL_DAEMON" 2>/dev/null; then
			printf '● cortex.service - Cortex Orchestrator (v2026.2.18)\n     Active: active (running)\n     Main PID: %s (cortex)\n' "$DRILL_DAEMON"
			return 0
		fi
		printf '○ cortex.service - Cortex Orchestrator (v2026.2.18)\n     Active: inactive (dead)\n'
		return 3
		;;
	esac
}

# sleep waits for what the operator gives it time for, and not for the time.
sleep() { drill_wait "$DRILL_UNTIL" || :; }

sudo() { "$@"; }

# ps shows this drill's processes alone: the same drill may run beside it.
ps() { command ps "$@" | grep -F -- "$DRILL_PS"; }

# drill_lock holds the database's lock, as a forgotten sqlite3 in another terminal does, until drill_unlock.
drill_lock() {
	coproc DRILL_SQLITE { exec sqlite3 -bail -cmd '.timeout 5000' "$HOME/.cortex/cortex.db" 3>&- 4>&-; }
	DRILL_LOCKER=$DRILL_SQLITE_PID
	printf 'BEGIN EXCLUSIVE;\n.system echo held\n' >&"${DRILL_SQLITE[1]}"
	local answer
	read -r -t "$DRILL_PATIENCE" answer <&"${DRILL_SQLITE[0]}" && [ "$answer" = held ]
}

drill_unlock() {
	local in=${DRILL_SQLITE[1]}
	echo 'ROLLBACK;' >&"$in"
	exec {in}>&-
	wait "$DRILL_LOCKER"
}

PATH=$PATH:/usr/sbin:/sbin ip link set lo up || drill_failed "no loopback device in this network namespace"
