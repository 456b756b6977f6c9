# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by compare.sh: task-spooler (tsp), with ten slots. Its list of jobs is in its memory.

export TS_SOCKET=$work/socket TS_SLOTS=10 TMPDIR=$work
ids=()

killed=(-1)
peer_accepted="TS_SOCKET=socket tsp | tail -n +2 | wc -l"
cat >recorded <<'SH'
#!/bin/sh
TS_SOCKET=socket tsp | sed -nE 's/^[0-9]+ +finished +[^ ]+ +(-?[0-9]+) .*\[job-([0-9]+)\].*/\2 \1/p' |
	grep -xFf truth | cut -d' ' -f1
SH

peer_pid() { ss -xlpH src "$TS_SOCKET" | sed -nE 's/.*pid=([0-9]+).*/\1/p'; }

peer_start() {
	ids=()
	show "tsp -S $TS_SLOTS"
	say "It knows $(eval "$peer_accepted") jobs."
}

peer_submit() {
	local n
	typed "for n in {$1..$2}; do tsp -L job-\$n $work/job \$n; done"
	for n in $(seq "$1" "$2"); do ids[n]=$(tsp -L "job-$n" "$work/job" "$n"); done
}

peer_stop() {
	local n
	for n in "$@"; do
		if [ -n "${ids[n]:-}" ]; then
			show "tsp -k ${ids[n]}"
		else
			say "It knows no job $n any more."
		fi
	done
}
