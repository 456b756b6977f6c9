#!/usr/bin/env bash
# Has another program do the work of the demo, as far as it can: the same forty jobs, kill -9 of its daemon at the same
# moments, and its own stop for what will not go. It prints the same five numbers, each with the command that finds it, and
# ends what the other has left. With KEEP=1 it waits for Enter before that. Usage: scripts/compare.sh supervisor|task-spooler
set -euo pipefail
# shellcheck source=scripts/workload.sh
source "$(dirname "$0")/workload.sh"

# A peer's file has: peer_start, and peer_pid, its daemon; peer_submit FIRST LAST; peer_stop JOB...; peer_accepted, the command
# that counts the jobs it knows; killed, its words for a job that was ended by a signal; and it writes ./recorded, which
# prints the number of a job for each end on record that is as expected.
peer=${1:-}
[[ $peer && -e $here/peer-$peer.sh ]] || { echo "usage: make compare PEER=supervisor|task-spooler" >&2; exit 2; }
make_work compare
# shellcheck source=scripts/peer-supervisor.sh
source "$here/peer-$peer.sh"

finish() {
	local status=$?
	trap - EXIT
	peer_pid | xargs -r kill -KILL || :
	end_work
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

kill_daemon() {
	local pid
	pid=$(peer_pid)
	typed "kill -9 $pid"
	kill -KILL "$pid"
	until_true "! kill -0 $pid"
}

# calm: waits until no job runs that ends by itself.
calm() { until_true "! pgrep -f '$work/job ([1-9]|1.|20|2[6-9]|30|40)\$'"; }

# true_ends: how each job must be on record.
true_ends() {
	for n in {1..20} {26..30} 40; do echo "$n $(status_of "$n")"; done
	for n in {21..25} {31..39}; do printf '%s\n' "${killed[@]/#/$n }"; done
}
true_ends >truth
chmod +x recorded

title "$peer, with a folder of its own"
typed "cd $work"
peer_start

title "Jobs"
peer_submit 1 10
until_true "have ends 1 10"

title "kill -9 of the daemon while ten end"
peer_submit 11 20
until_true "have starts 11 20"
: >first
until_true "have ends 11 14"
kill_daemon
: >second
until_true "have ends 11 20"
peer_start
calm

title "A pause, and kill -9"
peer_submit 21 25
until_true "have starts 21 25"
say "It has no pause. In the demo nothing starts from here on."
date +%s.%N >paused
peer_submit 26 30
until_true "have ends 26 30"
kill_daemon
peer_start
calm
date +%s.%N >resumed
say "It has no terminals that could be taken away by tmux kill-server. The agents are stopped below."

title "Stop of what will not go"
peer_submit 31 40
until_true "have ready 31 40"
kinds 31 40
peer_stop {21..25}
peer_stop {31..39}
sleep 2 # as long as the demo gives them
calm

title "What $peer has on record, and what it has left"
typed "cd $work"
check "accepted" "" "$peer_accepted"
check "true ends" "" \
	"(cut -d' ' -f1 starts/* | sort | uniq -c; ./recorded | sort | uniq -c) | sort | uniq -d | wc -l"
check_jobs ""
last_words
