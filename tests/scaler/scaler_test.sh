#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# shmq-scaler over a real queue, with a command instead of systemctl that starts real consumers: from no
# worker to several and back to none, nothing lost; and each of its complaints.
source "$(dirname "$0")/../cli/common.bash"
scaler=$(realpath "${2:?the path of shmq-scaler}")
workers=$work/workers
scaler_env=()
mkdir "$workers"

# A worker is a consumer whose handling of a message takes a while; its number's file holds its pid.
cat >"$work/control" <<'CONTROL'
#!/usr/bin/env bash
verb=$1 file=$WORKERS/${3-}
echo "$*" >>"$WORKERS.calls"
case $verb in
  list) for each in "$WORKERS"/*; do [ ! -e "$each" ] || basename "$each"; done ;;
  start)
    setsid "$SHMQCTL" -q consume jobs --group work --follow --exec \
      'sleep 0.02; printf "%s\n" "$(cat)" >>"$WORKERS.done"' </dev/null >/dev/null 2>&1 &
    echo $! >"$file" ;;
  stop) kill -TERM "$(cat "$file")"; rm "$file" ;;
esac
CONTROL
chmod +x "$work/control"
export WORKERS=$workers SHMQCTL=$shmqctl

stop_workers() {
  local file
  for file in "$workers"/*; do [ ! -e "$file" ] || kill -KILL "$(cat "$file")" 2>/dev/null; done
}
trap 'stop_workers; clean_up' EXIT

# await CLAIM COMMAND…: until it succeeds, or fails the test after a minute.
await() {
  local claim=$1 tries
  shift
  for ((tries = 0; tries < 600; ++tries)); do
    if "$@"; then pass; return; fi
    read -rt 0.1 <> <(:) || true
  done
  fail "$claim: not within a minute; $(tail -n 3 "$work/log" 2>/dev/null)"
}
running() { find "$workers" -type f | wc -l; }
no_worker() { [ "$(running)" -eq 0 ]; }
several_workers() { [ "$(running)" -ge 3 ]; }
said() { grep -Eq -- "$1" "$work/log"; }
start_scaler() {
  env "${scaler_env[@]}" "$scaler" jobs jobs work --command "$work/control" --interval 100ms --drain 2s --down-after 1s "$@" \
    >"$work/log" 2>&1 &
  scaler_pid=$!
  children+=("$scaler_pid")
}
stop_scaler() {
  kill -TERM "$scaler_pid"
  wait "$scaler_pid"
  equals "SIGTERM ends the scaler well" 0 $?
}

# A queue that is not there yet: told once, and no worker.
start_scaler --max 6
await "a missing queue is told" said "^shmq-scaler: open queue 'jobs': .+\(.+\)$"
gives "create" 0 ctl queue create jobs --group work
equals "no worker without a message" 0 "$(running)"

seq 1 400 | ctl -q publish jobs
await "several workers level the surge" several_workers
await "the backlog is gone and so are the workers" no_worker
equals "told once, though looked for often" 1 "$(grep -c 'open queue' "$work/log")"
said 'jobs: 0 -> 1 workers: [0-9]+ ready' && pass || fail "the first worker is not told: $(cat "$work/log")"
[ "$(sed -n 's/.* -> \([0-9]*\) workers.*/\1/p' "$work/log" | sort -n | tail -n 1)" -le 6 ] && pass ||
  fail "more than --max workers: $(cat "$work/log")"
equals "every message was worked on" "$(seq 1 400 | sha256sum)" "$(sort -n "$workers.done" | sha256sum)"
equals "acknowledged" 400 "$(of_group jobs work acked_total)"

# 0 to 1 for a single message; a scaler that ends leaves the workers alone, one that comes finds them.
stop_scaler
start_scaler --max 6 --down-after 1h
ctl -q publish jobs one-more
await "one worker for one message" test -e "$workers/1"
stop_scaler
equals "the worker runs on without the scaler" 1 "$(running)"
kill -0 "$(cat "$workers/1")" && pass || fail "the worker has ended with the scaler"
: >"$workers.calls"
start_scaler --min 2 --max 6
await "up to --min beside the worker that was there" test -e "$workers/2"
equals "only what was missing was started" 'start jobs 2' "$(grep start "$workers.calls")"
stop_scaler
stop_workers
rm -f "$workers"/*

# Complaints: one line each, of the form WHAT: WHY (WHAT TO DO).
complains() {  # CLAIM PATTERN ARGUMENTS…
  local claim=$1 pattern=$2
  shift 2
  start_scaler "$@"
  await "$claim" said "^shmq-scaler: [^:]+: .*$pattern \(.+\)$"
  stop_scaler
}
gives "usage" 2 "$scaler"
complains "a command that fails" "exit 3" --command 'exit 3 #'
complains "a command that lists nonsense" "'x y' is not the number of a worker" --command 'echo x y #'
scaler_env=(PATH="$work")
complains "no systemctl" "systemctl: No such file.*" --command ''
scaler_env=()
gives "group" 0 ctl group rm --yes jobs work
complains "a missing group" "no such group"
gives "group" 0 ctl group create jobs work --mode exclusive
complains "an exclusive group" "it is exclusive, .*" --max 2
for arguments in '--min 3 --max 2' '--drain 1parsec' '--trust-owner nobody-of-this-name' '--interval 0s' '--max 0'; do
  # shellcheck disable=SC2086  # several words
  gives "refused: $arguments" 2 "$scaler" jobs jobs work $arguments
  grep -Eq '^shmq-scaler: .*\(see shmq-scaler --help\)$' "$work/err" && pass || fail "$arguments: $(cat "$work/err")"
done
gives "refused: a name with a slash" 2 "$scaler" a/b jobs work
gives "version" 0 "$scaler" --version
stop_workers  # an exclusive group has had one
finish
