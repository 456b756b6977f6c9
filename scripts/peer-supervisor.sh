# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by compare.sh: supervisor, as its manual has it for commands that run once. A job is a program in its
# configuration, which is all that it keeps over a restart. By default it starts them all when it starts;
# AUTOSTART=false has it start only what it is told to, and then it knows nothing of what ran before.

autostart=${AUTOSTART:-true}
mkdir programs
cat >supervisord.conf <<CONF
[supervisord]
logfile=$work/supervisord.log
pidfile=$work/supervisord.pid
childlogdir=$work
[unix_http_server]
file=$work/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://$work/supervisor.sock
[include]
files=$work/programs/*.conf
CONF

killed=(SIGTERM SIGKILL)
peer_accepted="supervisorctl status | wc -l"
cat >recorded <<'SH'
#!/bin/sh
sed -nE 's/.* (exited|stopped): job-([0-9]+) \((exit status |terminated by )([0-9A-Z]+).*/\2 \4/p' supervisord.log |
	grep -xFf truth | cut -d' ' -f1
SH

peer_pid() { cat supervisord.pid 2>/dev/null || :; }

# settled: it runs, and has started what it starts by itself.
settled() {
	local programs=(programs/*)
	[ -s supervisord.pid ] || return
	[ "$autostart" = false ] || [ ! -e "${programs[0]}" ] ||
		[ "$(tac supervisord.log | sed '/supervisord started/q' | grep -c ' spawned: ')" = ${#programs[@]} ]
}

peer_start() {
	rm -f supervisord.pid
	show "supervisord -c supervisord.conf 2>/dev/null"
	until_true settled
}

peer_submit() {
	local n
	for n in $(seq "$1" "$2"); do
		cat >"programs/job-$n.conf" <<CONF
[program:job-$n]
command=$work/job $n
autostart=$autostart
autorestart=false
startsecs=0
startretries=0
stopwaitsecs=2
stopasgroup=true
killasgroup=true
CONF
	done
	show "supervisorctl update >/dev/null"
	[ "$autostart" = true ] || supervisorctl start $(seq -f job-%g "$1" "$2") >/dev/null
}

peer_stop() { show "supervisorctl stop ${*/#/job-}"; }
