# shellcheck shell=bash
# Sourced by demo.sh and compare.sh: a folder for the forty jobs (job.sh), what they tell of themselves, whoever runs them, and
# how the screen looks.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

bold='' dim='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
fi

title() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }
say() { printf '%s# %s%s\n' "$dim" "$1" "$plain"; }
typed() { printf '%s$ %s%s\n' "$bold" "$1" "$plain"; }

# show LINE: types a command, and carries it out.
show() {
	typed "$1"
	eval "$1"
}

# until_true LINE: waits for a condition.
until_true() {
	local deadline=$((SECONDS + 120))
	until eval "$1" >/dev/null 2>&1; do
		if ((SECONDS > deadline)); then
			echo "waited for two minutes in vain: $1" >&2
			return 1
		fi
		sleep 0.05
	done
}

# make_work NAME: the folder of the work, and the home of whoever runs it. We are in there from now on. What the jobs leave
# running is found by the mark in its command line.
make_work() {
	work=$(mktemp -d -t "cortex-$1.XXXX")
	mark=86400.$$$RANDOM
	cd "$work" || exit
	mkdir starts ends ready
	cp "$here/job.sh" job
	echo "$mark" >mark
	export HOME=$work TMUX_TMPDIR=$work
	unset TMUX TMUX_PANE
}

# end_work: ends what the jobs have left, each by its pid, and removes the folder.
end_work() {
	: >"$work/still"
	until_true "pgrep -f '$mark|$work/job' | xargs -r kill -KILL; ! pgrep -f '$mark|$work/job'" || :
	cd /
	rm -rf "$work"
}

# have starts|ends|ready FIRST LAST: whether each of these jobs has started, ended by itself, or let something out.
have() {
	local n
	for n in $(seq "$2" "$3"); do [ -e "$1/$n" ] || return 1; done
}

# status_of JOB: the exit status with which it ends by itself.
status_of() { case $1 in 40) echo 0 ;; *) echo $(($1 % 3 ? $1 : 0)) ;; esac }

# kinds FIRST LAST: what these jobs do, as job.sh says it.
kinds() { for n in $(seq "$1" "$2"); do sed -nE "s/^$n\) # /  $n /p" job; done; }

numbers=() wrong=0

# check WHAT WANT COMMAND: a number, and the command that finds it. Where WANT is empty any number will do.
check() {
	local got
	got=$(eval "$3") || :
	printf '%-22s %s%3s%s\n    %s%s%s\n' "$1" "$bold" "$got" "$plain" "$dim" "$3" "$plain"
	numbers+=("$1 $got")
	[ "$got" = "${2:-$got}" ] || wrong=1
}

# check_jobs WANT: those numbers that need nobody's word but the jobs' own.
check_jobs() {
	check "run twice" "$1" "cut -d' ' -f1 starts/* | sort | uniq -d | wc -l"
	check "started while paused" "$1" \
		"awk -v from=\$(cat paused) -v to=\$(cat resumed) '\$2 > from && \$2 < to' starts/* | wc -l"
	: >still # the chain of job 35, that it be counted as one
	sleep 0.5
	check "processes left" "$1" "pgrep -fc $mark"
}

# last_words: all numbers in a line, and with KEEP=1 the time to check them. It fails where one is wrong.
last_words() {
	local line
	printf -v line ' · %s' "${numbers[@]}"
	printf '\n%s%s%s\n' "$bold" "${line# · }" "$plain"
	[ -z "${KEEP:-}" ] || read -r -p "All of it is there until you press Enter. " || :
	((wrong == 0)) || { echo "this is not what it should be" >&2; return 1; }
}
