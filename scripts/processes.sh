# shellcheck shell=bash
# Functions for scripts that start and stop servers. They source this file in the root of the
# repository.
#
# $scratch is a directory for their files. It is removed when the script ends, and every process
# that the script has started is stopped.

declare -A pids=()
started=() # names, the latest first
scratch=$(mktemp -d)

# start NAME COMMAND…   runs it with its output in NAME.log.
start() { start_in_sight "$@" >"$scratch/$1.log" 2>&1; }

# start_in_sight NAME COMMAND…   runs it with its output where the script's own goes. It has a
# process group of its own, so that Ctrl-C reaches only this script, which stops the parts in order.
# If this script is killed and cannot clean up, the kernel ends the process.
start_in_sight() {
  set -m
  setpriv --pdeathsig TERM "${@:2}" </dev/null &
  set +m
  pids[$1]=$!
  started=("$1" "${started[@]}")
}

alive() { kill -0 "${pids[$1]}" 2>/dev/null; }

# finish NAME   waits until the process has ended by itself, and returns its exit code. It runs in
# the background and is waited for, because a script gets no signals while a command runs in the
# foreground.
finish() {
  local code=0
  wait "${pids[$1]}" || code=$?
  pids[$1]=
  return "$code"
}

# stop NAME   sends SIGTERM and returns the exit code. The second call does nothing.
# Sends SIGKILL after 40 seconds: Hookgate may take server.drain_timeout, which is 30 seconds.
stop() {
  local tries=0 code=0
  if [ -z "${pids[$1]}" ]; then return; fi
  kill -TERM "${pids[$1]}" 2>/dev/null || true
  while alive "$1"; do
    if ((++tries == 400)); then kill -KILL "${pids[$1]}"; fi
    sleep 0.1
  done
  wait "${pids[$1]}" 2>/dev/null || code=$?
  pids[$1]=
  return "$code"
}

clean_up() {
  trap '' INT TERM
  for name in "${started[@]}"; do stop "$name" || true; done
  rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# fail WHY   prints the reason last, where a terminal shows it.
fail() {
  for log in "$scratch"/*.log; do
    [ -e "$log" ] || continue
    echo "--- the end of what $(basename "$log" .log) said"
    tail -n 15 "$log" | cut -c 1-300
  done >&2
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# wait_for WHAT COMMAND…   waits until the command succeeds, for at most 30 seconds; fails at once
# if a part ends that was not stopped.
wait_for() {
  local deadline=$((SECONDS + 30))
  until "${@:2}" >/dev/null 2>&1; do
    for name in "${started[@]}"; do
      [ -z "${pids[$name]}" ] || alive "$name" || fail "$name has ended while waiting for $1"
    done
    ((SECONDS < deadline)) || fail "waited 30 seconds in vain for $1"
    sleep 0.1
  done
}

# hold_ports COUNT   sets $ports to this many ports without a listener and reserves them until the
# script ends. A socket that is bound but does not listen reserves each port: a server that sets
# SO_REUSEADDR, as all do here, can listen on it, and the kernel assigns it to no other socket
# (testkit/src/ports.rs).
hold_ports() {
  start ports python3 -c '
import signal, socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for each in sockets:
    each.bind(("0.0.0.0", 0))
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
print(*(each.getsockname()[1] for each in sockets), flush=True)
signal.pause()' "$1"
  wait_for "free ports" grep -q . "$scratch/ports.log"
  # For scripts that source this file.
  # shellcheck disable=SC2034
  ports=$(<"$scratch/ports.log")
}

# build_hookgate PROFILE   sets $hookgate to the program, built with the profile dev or release.
build_hookgate() {
  local directory=$1
  if [ "$1" = dev ]; then directory=debug; fi
  echo "$(basename "$0"): building Hookgate with the profile $1; the first build compiles some 300 crates and takes minutes"
  cargo build --profile "$1"
  # For scripts that source this file.
  # shellcheck disable=SC2034
  hookgate=$(cargo metadata --format-version 1 --no-deps | jq -r .target_directory)/$directory/hookgate
}
