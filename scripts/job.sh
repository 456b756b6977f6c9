#!/bin/sh
# shellcheck disable=SC2016 # what is single-quoted is for another shell
# One of the forty jobs of demo.sh and compare.sh, in the folder of the work: job NUMBER. It writes down when it starts
# (starts/) and, where it ends by itself, its exit status (ends/). What is to outlive it has the mark in its command line,
# and says that it is out (ready/).
cd "$(dirname "$0")" || exit
n=$1 mark=$(cat mark)
echo "$n $(date +%s.%N)" >>"starts/$n"
export n

end() {
	echo "$1" >"ends/$n"
	exit "$1"
}
status=$((n % 3 ? n : 0)) # every third succeeds

case $n in
[1-9] | 10) # works for two seconds
	for step in 1 2 3 4; do
		echo "step $step of 4"
		sleep 0.5
	done
	end "$status" ;;
1? | 20) # four of these end at one word, six at another
	word=first
	[ "$n" -lt 15 ] || word=second
	echo "waiting"
	until [ -e "$word" ]; do sleep 0.05; done
	sleep "0.$((n % 5))"
	end "$status" ;;
2[1-3]) # agents: they go on for ever
	echo "thinking"
	exec sleep "$mark" ;;
2[45]) # agents that say goodbye when their terminal goes away
	echo "thinking"
	trap 'end $n' HUP
	sleep "$mark" &
	: >"ready/$n"
	wait ;;
2? | 30)
	echo "done"
	end "$status" ;;

31) # ignores TERM, INT and HUP
	exec sh -c 'trap "" TERM INT HUP; : >ready/$n; while :; do sleep "$0"; done' "$mark" ;;
32) # a session of its own
	setsid sh -c 'trap "" TERM; : >ready/$n; exec sleep "$0"' "$mark" & ;;
33) # a daemon that has forked twice and closed its descriptors
	(setsid sh -c '(trap "" TERM HUP; : >ready/$n; exec sleep "$0" <&- >&- 2>&-) &' "$mark" &) ;;
34) # an empty environment
	env -i setsid sh -c ': >ready/34; exec sleep "$0"' "$mark" & ;;
35) # a chain: every 2 ms a new session, and the parent exits
	hop='[ ! -e still ] || exec sleep "$1"; : >ready/$n; sleep 0.002; setsid sh -c "$0" "$0" "$1" & exit'
	setsid sh -c "$hop" "$hop" "$mark" & ;;
36) # nohup and disown
	bash -c 'nohup sleep "$0" >/dev/null 2>&1 & disown; : >ready/$n' "$mark" ;;
37) # a tmux server of its own
	env -u TMUX tmux -S "$PWD/nested" -f /dev/null new-session -d ": >ready/$n; exec sleep $mark" ;;
38) # stopped, itself and its child
	sh -c 'kill -STOP $$' "$mark" &
	until [ "$(ps -o state= -p $!)" = T ]; do sleep 0.01; done
	: >"ready/$n"
	kill -STOP $$ ;;
39) # starts its child again when that is killed
	setsid sh -c 'trap "" TERM HUP; : >ready/$n; while :; do sleep "$0"; done' "$mark" & ;;
40) # leaves something behind, and succeeds
	sleep "$mark" &
	: >"ready/$n"
	end 0 ;;
esac
exec sleep "$mark"
