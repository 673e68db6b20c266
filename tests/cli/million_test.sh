#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A million numbers go from one shmqctl to another, in order and once.
source "$(dirname "$0")/common.bash"

count=1000000
seq 1 $count >"$work/expected"

# consume_beside CLAIM COMMAND…: publishes the numbers beside `consume`, compares what it got.
compare() {
  same_bytes "$1" "$work/expected" "$work/got"
  checks=$((checks + count - 1))
  equals "$1: nothing is left" 0 "$(ctl -o json group info numbers default |
    python3 -c 'import json,sys; g=json.load(sys.stdin)["group"]; print(g["ready"]+g["in_flight"])')"
}

gives "create" 0 ctl queue create numbers

# The consumer is first: the queue is new, so it waits for the first message without limit.
"$shmqctl" consume numbers >"$work/got" &
consumer=$!
children+=("$consumer")
started=$(date +%s%N)
seq 1 $count | ctl publish numbers
equals "publish beside consume" 0 $?
wait "$consumer"
equals "consume ends by itself when the queue is drained" 0 $?
ended=$(date +%s%N)
compare "a consumer that was there first"
echo "published and consumed in $(((ended - started) / 1000000 - 1000)) ms (without the last wait)"

# The publisher is first; the queue is smaller than what is published, so it has to wait.
seq 1 $count | "$shmqctl" publish numbers &
publisher=$!
children+=("$publisher")
ctl consume numbers -n $count --timeout 60s >"$work/got"
equals "consume -n" 0 $?
wait "$publisher"
equals "publish" 0 $?
compare "a publisher that was there first"

# Two publishers: each one's lines stay in order, all of them arrive once.
seq 1 2 $count | "$shmqctl" publish numbers &
publisher=$!
children+=("$publisher")
seq 2 2 $count | "$shmqctl" publish numbers &
children+=("$!")
ctl consume numbers -n $count --timeout 60s >"$work/got"
equals "consume from two publishers" 0 $?
wait
awk '$1 % 2 { if ($1 <= odd) bad++; odd = $1; next } { if ($1 <= even) bad++; even = $1 }
     END { print bad + 0 }' "$work/got" >"$work/out"
equals "each publisher's lines are in order" 0 "$(cat "$work/out")"
sort -n "$work/got" -o "$work/got"
compare "two publishers"

gives "rm" 0 ctl queue rm numbers
finish
