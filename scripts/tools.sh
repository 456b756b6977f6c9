#!/usr/bin/env bash
# Installs the Debian packages of the programs that are missing: scripts/tools.sh build|demo|compare|test...
set -euo pipefail

declare -A groups=(
	[build]="git:git gcc:gcc"
	[demo]="tmux:tmux sqlite3:sqlite3 curl:curl jq:jq ps:procps setsid:util-linux"
	[compare]="supervisord:supervisor tsp:task-spooler ss:iproute2"
	[test]="ip:iproute2 unshare:util-linux lsof:lsof df:coreutils shellcheck:shellcheck"
)

# Not from Debian: its Go is older than what go.mod asks for.
command -v go >/dev/null || { echo "there is no go: install what go.mod asks for, from go.dev/dl" >&2; exit 1; }

missing=()
for group in "$@"; do
	for entry in ${groups[$group]:?no such group: $group}; do
		program=${entry%%:*} package=${entry##*:}
		# What administrators run may not be in everybody's PATH.
		PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=("$package")
		[ "$program" != gcc ] || [ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
	done
done
[ ${#missing[@]} -gt 0 ] || exit 0

mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
echo "missing: ${missing[*]}"
sudo=
if [ "$(id -u)" != 0 ]; then
	sudo=$(command -v sudo) || sudo=none
fi
if ! command -v apt-get >/dev/null || [ "$sudo" = none ]; then
	echo "install these packages (as they are called on Debian), then run this again" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -q
$sudo apt-get install -y -q --no-install-recommends "${missing[@]}"
# Debian has a service of what it installs. Only the program is wanted.
if [[ " ${missing[*]} " == *" supervisor "* && -d /run/systemd/system ]]; then
	$sudo systemctl disable --now supervisor
fi
