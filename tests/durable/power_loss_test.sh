#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A backlog that outlives memory, with a gap behind it as large as the ring: power_loss_test.sh SHMQCTL
# SHMQD. It is counted, peeked at and consumed as before, in groups of both modes, again and again.
set -euo pipefail
shmqctl=$(realpath "$1")
shmqd=$(realpath "$2")
work=$(mktemp -d "${TMPDIR:-/tmp}/shmq-power.XXXXXX")
export SHMQ_NAMESPACE=tpower$$ SHMQ_RUNTIME_DIR=$work/run
mkdir "$work/run"
daemon=
clean_up() {
  [ -z "$daemon" ] || kill -KILL "$daemon" 2>/dev/null || true
  rm -f /dev/shm/"shmq.$SHMQ_NAMESPACE".*
  rm -rf "$work"
}
trap clean_up EXIT
checks=0
equals() {  # CLAIM EXPECTED ACTUAL
  checks=$((checks + 1))
  [ "$2" = "$3" ] || { echo "FAILED: $1: expected '$2', got '$3'" >&2; tail -n 5 "$work/log" >&2; exit 1; }
}
start() {
  "$shmqd" --foreground --data-dir "$work/data" --runtime-dir "$work/run" >>"$work/log" 2>&1 &
  daemon=$!
}
await() { for ((i = 0; i < 600; i++)); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done; "$@"; }
lose_power() {
  kill -KILL "$daemon"
  wait "$daemon" 2>/dev/null || true
  rm -f /dev/shm/"shmq.$SHMQ_NAMESPACE".*
  start
  await "$shmqctl" stat q
}
figure() {  # GROUP NAME
  "$shmqctl" stat q -o json | python3 -c 'import json, sys
print([g for g in json.load(sys.stdin)["groups"] if g["name"] == sys.argv[1]][0][sys.argv[2]])' "$@"
}

start
await "$shmqctl" daemon status
"$shmqctl" queue create q --durable --capacity 1024 --group s --group x:exclusive --group late:exclusive >/dev/null
seq 1 100 | "$shmqctl" publish q --durability synced
: >"$work/expected"
seq 1 100 >>"$work/expected"
for round in 1 2 3; do
  lose_power
  equals "round $round: the backlog of the shared group" $((round == 1 ? 100 : 0)) "$(figure s ready)"
  equals "round $round: the backlog of the group that takes nothing" "$(wc -l <"$work/expected")" "$(figure late ready)"
  equals "round $round: peek" "$(wc -l <"$work/expected")" "$("$shmqctl" peek q -n 5000 | wc -l)"
  echo "new $round" | "$shmqctl" publish q --durability synced
  echo "new $round" >>"$work/expected"
  for group in s x; do
    "$shmqctl" consume q --group $group --timeout 0 --durability synced >>"$work/$group"
    equals "round $round: group $group is drained" "0 0" "$(figure $group ready) $(figure $group in_flight)"
  done
done
for group in s x; do
  equals "group $group: all, once" "$(sha256sum <"$work/expected")" "$(sha256sum <"$work/$group")"
done
"$shmqctl" consume q --group late --timeout 0 >"$work/late"
equals "group late: all, in order" "$(sha256sum <"$work/expected")" "$(sha256sum <"$work/late")"
kill -TERM "$daemon"
wait "$daemon"
daemon=
echo "power_loss_test: $checks checks"
