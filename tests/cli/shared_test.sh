#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Shared groups on the command line: creating them, several consumers, --exec, leases kept and lost,
# what is in hand when a consumer ends in whatever way, and who holds what.
source "$(dirname "$0")/common.bash"

now_ms() { echo $(($(date +%s%N) / 1000000)); }
# start NAME ARGUMENT…: shmqctl in the background; its output is in $work/NAME.out and .err.
start() {
  "$shmqctl" "${@:2}" >"$work/$1.out" 2>"$work/$1.err" &
  last=$!
  children+=("$last")
}
# ends CLAIM EXIT-CODE PID
ends() {
  wait "$3"
  equals "$1: exit" "$2" $?
}
# A lease is real time: this is a lower bound, and each look is a check.
for_longer_than_leases() {  # CLAIM MILLISECONDS COMMAND…
  local until=$(($(now_ms) + $2))
  while (($(now_ms) < until)); do
    "${@:3}" || { fail "$1"; return; }
  done
  pass
}
no_lease_ended() { [[ $(of_group q "$1" redelivered_total lease) -eq 0 ]]; }

# --- creating ------------------------------------------------------------------------------------
gives "create" 0 ctl queue create q --group w --group x:exclusive --group y:shared --lease 10s \
  --delivery-limit 3
equals "a group is shared" "shared 10.0 3" \
  "$(of_group q w mode) $(of_group q w lease_seconds) $(of_group q w delivery_limit)"
equals "unless it says exclusive" "exclusive 10.0" "$(of_group q x mode) $(of_group q x lease_seconds)"
equals "or says shared" shared "$(of_group q y mode)"
gives "group create" 0 ctl group create q z
equals "group create: shared, 30 s, 5" "shared 30.0 5" \
  "$(of_group q z mode) $(of_group q z lease_seconds) $(of_group q z delivery_limit)"
gives "group create with all" 0 ctl group create q limited --mode shared --lease 5s --delivery-limit 7
equals "group create with all" "shared 5.0 7" "$(of_group q limited mode) \
$(of_group q limited lease_seconds) $(of_group q limited delivery_limit)"
gives "group create exclusive" 0 ctl group create q alone --mode exclusive
equals "group create exclusive" exclusive "$(of_group q alone mode)"
gives "create without groups" 0 ctl queue create plain
equals "the group that nobody named" "default exclusive" \
  "$(of_group plain default name) $(of_group plain default mode)"
gives "rm" 0 ctl queue rm plain
gives "rm" 0 ctl queue rm q

# --- several consumers ---------------------------------------------------------------------------
gives "create" 0 ctl queue create q --capacity 131072 --group w
seq 1 100000 | ctl publish q
pids=()
for i in 1 2 3 4; do
  start "drain-$i" consume q --group w
  pids+=("$last")
done
for pid in "${pids[@]}"; do ends "four drain the group" 0 "$pid"; done
seq 1 100000 >"$work/expected"
sort -n "$work"/drain-[1-4].out >"$work/got"
same_bytes "four consumers: each message once" "$work/expected" "$work/got"
equals "four consumers: no complaints" "" "$(cat "$work"/drain-[1-4].err)"

# More consumers than messages on a queue to which nothing was published yet: all of them end.
gives "create" 0 ctl queue create new --group w
pids=()
for i in 1 2 3; do
  start "new-$i" consume new --group w
  pids+=("$last")
done
ctl publish new only
for pid in "${pids[@]}"; do ends "more consumers than messages" 0 "$pid"; done
equals "more consumers than messages: one got it" only "$(cat "$work"/new-[1-3].out)"
gives "rm" 0 ctl queue rm new

seq 1 10 | ctl publish q
equals "-n" "1 2 3" "$(ctl consume q --group w -n 3 | xargs)"
equals "--ack none gives back" "4 5 6 7 8 9 10" "$(ctl consume q --group w --ack none --timeout 0 | xargs)"
equals "--ack none -n" "4 5" "$(ctl consume q --group w --ack none -n 2 | xargs)"
ctl consume q --group w --format json -n 1 --timeout 0 >"$work/json"
equals "what was given back has not failed" "4 0 3" \
  "$(json payload <"$work/json") $(json failures <"$work/json") $(json hand_outs <"$work/json")"
equals "the rest" "5 6 7 8 9 10" "$(ctl consume q --group w --timeout 0 | xargs)"

# --- --exec --------------------------------------------------------------------------------------
seq 1 40 | ctl publish q
pids=()
for i in 1 2 3; do
  # Each third fails at first, another third crashes at first.
  start "exec-$i" consume q --group w --exec 'read -r n
    if [ "$SHMQ_HAND_OUTS" = 1 ]; then case $((n % 3)) in 1) exit 9 ;; 2) kill -KILL $$ ;; esac; fi
    echo "$n"'
  pids+=("$last")
done
for pid in "${pids[@]}"; do ends "--exec" 0 "$pid"; done
equals "--exec: failures and crashes lose nothing" "$(seq -s ' ' 1 40)" \
  "$(sort -n "$work"/exec-[1-3].out | xargs)"
equals "--exec: each failure is a nack" 27 "$(of_group q w redelivered_total nack)"

# A message that always fails stops nobody, and is dead in the end.
gives "create" 0 ctl group create q limited --from latest --delivery-limit 3
printf 'good\npoison\ngood too\n' | ctl publish q
ctl consume q --group limited --exec 'read -r word rest; [ "$word" = good ]' 2>"$work/err"
equals "a poisonous message: exit" 0 $?
one_line "a poisonous message is told of" "failed 3 times.*dead"
equals "a poisonous message is dead" "0 1 1 2" "$(for key in ready dead dead_lettered_total acked_total; do
  of_group q limited $key; done | xargs)"
gives "a dead message is not handed out" 0 ctl consume q --group limited --timeout 0
equals "a dead message is not handed out" "" "$(cat "$work/out")"
gives "group rm" 0 ctl group rm q limited
gives "drain" 0 ctl consume q --group w --timeout 0

# A mistyped command is an error, not a failure of every message.
seq 1 3 | ctl publish q
gives "no such command" 1 ctl consume q --group w --exec no-such-command-here
tail -n 1 "$work/err" >"$work/last"  # after what sh says
one_line "no such command" "no-such-command-here.*cannot" "$work/last"
equals "no such command: all are there" "1 2 3" "$(ctl consume q --group w | sort -n | xargs)"

# --- ends in the middle --------------------------------------------------------------------------
mkfifo "$work/go" "$work/running"
exec 7<>"$work/running" 8<>"$work/go"
# Says that it runs, and waits for a word; then it succeeds.
block='echo "$SHMQ_SEQ" >'"$work/running"'; read -r word <'"$work/go"'; cat'

ctl publish q stopped
start term consume q --group w --exec "$block"
read -r -u 7 seq
equals "a command is running" 1 "$(of_group q w in_flight)"
kill -TERM "$last"
ends "SIGTERM while a command runs" 143 "$last"
equals "SIGTERM while a command runs: quiet" "" "$(cat "$work/term.err")"
ctl consume q --group w --format json -n 1 --timeout 0 >"$work/json"
equals "the message was released, not failed" "stopped 0 2" \
  "$(json payload <"$work/json") $(json failures <"$work/json") $(json hand_outs <"$work/json")"

ctl publish q finished
# It says that it heard the signal, so that none of it is still under way when its work goes on.
start term consume q --group w --exec "trap 'echo heard >$work/running' TERM; echo x >$work/running
  until [ -e $work/go-on ]; do sleep 0.01; done; cat"
read -r -u 7 seq
kill -TERM "$last"
read -r -u 7 heard
equals "the command hears SIGTERM" heard "$heard"
: >"$work/go-on"
ends "a command that finishes in spite of SIGTERM" 143 "$last"
equals "its work is done" finished "$(cat "$work/term.out")"
equals "its message is acked" "0 0" "$(of_group q w ready) $(of_group q w in_flight)"

# Killed while the command runs: another, which waits for just that, gets the message.
ctl publish q orphan
start victim consume q --group w --exec "$block"
victim=$last
read -r -u 7 seq
start heir consume q --group w
kill -KILL "$victim"
ends "the heir" 0 "$last"
equals "the heir gets what the killed one held" orphan "$(cat "$work/heir.out")"
equals "because of its death" 1 "$(of_group q w redelivered_total death)"
echo go >&8  # its command lives on, and ends here

# A reader that goes away: what it did not take is there for others, as it was.
seq -f '%0200.0f' 1 20000 | ctl publish q
before=$(of_group q w acked_total)
ctl consume q --group w --timeout 0 2>"$work/err" | head -n 1 >"$work/got"
equals "stdout closed: exit" 1 "${PIPESTATUS[0]}"
one_line "stdout closed" "not acknowledged"
acked=$(($(of_group q w acked_total) - before))
ctl consume q --group w --timeout 0 --format json >"$work/rest"
equals "stdout closed: the rest is there" $((20000 - acked)) "$(wc -l <"$work/rest")"
equals "stdout closed: none has failed" 0 "$(grep -vc '"failures":0' "$work/rest")"

# Stopped while its reader does not read: what was written is acked, the rest is there, none twice.
# A fifo that is open for reading, too, never breaks.
seq 1 50000 | ctl publish q
before=$(of_group q w acked_total)
mkfifo "$work/pipe"
exec 6<>"$work/pipe"
"$shmqctl" consume q --group w --follow >"$work/pipe" 2>"$work/err" &
children+=("$!")
# The pipe is full when nothing is acked any more although there is a backlog: then it blocks.
until [[ $(of_group q w in_flight) -gt 0 && $(($(of_group q w acked_total) - before)) -gt 8000 ]]; do :; done
kill -TERM "${children[-1]}"
ends "SIGTERM with a reader that does not read" 143 "${children[-1]}"
equals "SIGTERM with a reader that does not read: quiet" "" "$(cat "$work/err")"
equals "nothing is in flight" 0 "$(of_group q w in_flight)"
acked=$(($(of_group q w acked_total) - before))
exec 5<"$work/pipe" 6>&-  # the last writer goes: the end can be read
head -n $acked <&5 >"$work/got"
exec 5<&-
ctl consume q --group w --timeout 0 >>"$work/got"
seq 1 50000 >"$work/expected"
sort -n "$work/got" -o "$work/got"
same_bytes "written and acked, or there for others" "$work/expected" "$work/got"
equals "no failures: death, lease" "1 0" \
  "$(of_group q w redelivered_total death) $(of_group q w redelivered_total lease)"

# The same, but killed: what was seen twice is what it held, at most a batch.
seq 1 50000 | ctl publish q
before=$(of_group q w acked_total)
exec 6<>"$work/pipe"
"$shmqctl" consume q --group w --follow >"$work/pipe" 2>"$work/err" &
children+=("$!")
blocked() { [[ $(($(of_group q w acked_total) - before)) -gt 8000 && $(of_group q w in_flight) -gt 0 ]]; }
until blocked; do :; done
kill -KILL "${children[-1]}"
ends "killed with a reader that does not read" 137 "${children[-1]}" 2>/dev/null
exec 5<"$work/pipe" 6>&-
cat <&5 >"$work/got"
exec 5<&-
[[ -z $(tail -c 1 "$work/got") ]] || sed -i '$d' "$work/got"
written=$(wc -l <"$work/got")
acked=$(($(of_group q w acked_total) - before))
start heir consume q --group w
ends "the heir" 0 "$last"
in_flight=$(($(of_group q w redelivered_total death) - 1))
((in_flight >= 1 && in_flight <= 32 && written - acked >= 0 && written - acked <= in_flight)) && pass ||
  fail "killed while it writes: $in_flight in flight, $written written, $acked acked"
tail -n +$((acked + 1)) "$work/got" >"$work/twice"
head -n $((written - acked)) <(sort -n "$work/heir.out") >"$work/first"
same_bytes "what was written and not acked is seen again" "$work/twice" "$work/first"
cat "$work/heir.out" >>"$work/got"
sort -n -u "$work/got" -o "$work/got"
same_bytes "killed while it writes: nothing is missing" "$work/expected" "$work/got"
gives "rm" 0 ctl queue rm q

# --- leases --------------------------------------------------------------------------------------
lease_ms=1000
gives "create" 0 ctl queue create q --group w --lease ${lease_ms}ms
ctl publish q long
start long consume q --group w -n 1 --exec "$block"
long=$last
read -r -u 7 seq
for_longer_than_leases "the lease is kept while the command runs" $((3 * lease_ms)) no_lease_ended w
gives "nobody else gets it" 5 ctl consume q --group w --timeout 0
one_line "nobody else gets it" "1 message held by others"
echo go >&8
ends "a long command" 0 "$long"
equals "a long command: acked once" "1 0" "$(of_group q w acked_total) $(of_group q w redelivered_total lease)"
equals "a long command: no complaint" "" "$(cat "$work/long.err")"

ctl publish q late
start late consume q --group w -n 1 --timeout 0 --exec "$block"
late=$last
read -r -u 7 seq
kill -STOP "$late"
equals "a stopped consumer loses its lease" late "$(ctl consume q --group w -n 1 --timeout 300s)"
echo go >&8
kill -CONT "$late"
ends "its ack is refused, so it has settled none" 5 "$late"
grep -q 'lease lost.*may be delivered again' "$work/late.err" && pass || fail "lease lost: $(cat "$work/late.err")"
equals "its ack is refused" "2 0" "$(of_group q w acked_total) $(of_group q w in_flight)"

# 32 messages of 8 KiB are one write, and four times what a pipe holds.
large() { seq -f '%08191.0f' 1 32; }
start_writer() {
  exec 6<>"$work/pipe"
  "$shmqctl" consume q --group w -n 32 >"$work/pipe" 2>"$work/writer.err" &
  writer=$!
  children+=("$writer")
  exec 5<"$work/pipe" 6>&-
  until [[ $(of_group q w in_flight) -eq 32 ]]; do :; done
}

# A slow reader: the lease is kept, and each message comes once.
large | ctl publish q
start_writer
: >"$work/got"
until=$(($(now_ms) + 3 * lease_ms))
while (($(now_ms) < until)); do
  dd bs=4096 count=1 status=none <&5 >>"$work/got"
  read -r -t 0.1 -u 8 word  # its pace; nobody writes there
done
equals "a slow reader: the write goes on" 32 "$(of_group q w in_flight)"
gives "a slow reader: nobody else gets them" 5 ctl consume q --group w --timeout 0
cat <&5 >>"$work/got"
exec 5<&-
ends "a slow reader" 0 "$writer"
equals "a slow reader: no complaint" "" "$(cat "$work/writer.err")"
large >"$work/expected"
same_bytes "a slow reader gets all" "$work/expected" "$work/got"

# A reader that hangs: others get them, and that is told when it reads on.
large | ctl publish q
start_writer
before=$(of_group q w acked_total)
equals "a reader that hangs: others get them" 32 \
  "$(ctl consume q --group w -n 32 --timeout 300s | wc -l)"
cat <&5 >"$work/got"
exec 5<&-
ends "a reader that hangs" 0 "$writer"
one_line "a reader that hangs" "lease lost, 32 messages" "$work/writer.err"
equals "a reader that hangs: acked once" 32 $(($(of_group q w acked_total) - before))

# --ack none: held beyond the lease, and given back.
seq 1 5 | ctl publish q
start holder consume q --group w --ack none --follow
holder=$last
until [[ $(wc -l <"$work/holder.out") -eq 5 ]]; do :; done
before=$(of_group q w redelivered_total lease)
still() { [[ $(of_group q w redelivered_total lease) -eq $before && $(of_group q w in_flight) -eq 5 ]]; }
for_longer_than_leases "--ack none keeps its leases" $((3 * lease_ms)) still
gives "nobody else gets them" 5 ctl consume q --group w --timeout 0

# --- who holds what ------------------------------------------------------------------------------
ctl -o json consumer ls q >"$work/json"
equals "consumer ls: who" "$holder shmqctl busy 5" "$(for key in pid command state in_flight; do
  json participants 0 $key <"$work/json"; done | xargs)"
python3 - "$work/json" <<'P' && pass || fail "consumer ls: $(cat "$work/json")"
import json, sys
listed = json.load(open(sys.argv[1]))
assert listed["schema_version"] == 1
holder = listed["participants"][0]
assert holder["cgroup"], holder
held = holder["held"]
assert [one["seq"] for one in held] == [66, 67, 68, 69, 70], held
assert all(one["hand_outs"] == 1 and one["held_seconds"] >= 0 and not one["expired"] for one in held)
assert holder["oldest_held_seconds"] == max(one["held_seconds"] for one in held)
P
gives "consumer ls" 0 ctl consumer ls q
grep -q "busy  *5 " "$work/out" && pass || fail "consumer ls: $(cat "$work/out")"
gives "consumer ls --held" 0 ctl --no-headers consumer ls q --held
equals "consumer ls --held" "66 67 68 69 70" "$(awk '{ print $4 }' "$work/out" | xargs)"
kill -TERM "$holder"
ends "SIGTERM with --ack none" 143 "$holder"
ctl consume q --group w --format json --timeout 0 >"$work/rest"
equals "all are given back, none has failed" "5 0" \
  "$(wc -l <"$work/rest") $(grep -vc '"failures":0' "$work/rest")"

# A message in each state, as stat tells of it.
printf 'fails\nis held\nwaits\n' | ctl publish q
gives "a group for it" 0 ctl group create q states
gives "a group that gives up at once" 0 ctl group create q dead --delivery-limit 1
gives "all die" 0 ctl consume q --group dead --exec false
start holder consume q --group states -n 1 --exec "$block"
read -r -u 7 seq
ctl -o json stat q >"$work/json"
equals "stat: states" "2 1 0 0 0 0 0 3" "$(python3 - "$work/json" <<'P'
import json, sys
groups = {group["name"]: group for group in json.load(open(sys.argv[1]))["groups"]}
print(*(groups[name][state] for name in ("states", "dead")
        for state in ("ready", "in_flight", "delayed", "dead")))
P
)"
gives "stat" 0 ctl stat q
for column in READY "IN FLIGHT" DELAYED DEAD STRAGGLERS "AT LIMIT"; do
  grep -q "$column" "$work/out" && pass || fail "stat: no column $column"
done
echo go >&8
ends "the holder" 0 "$last"
gives "rm" 0 ctl queue rm q
finish
