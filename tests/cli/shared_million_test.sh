#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A million numbers through one shared group of four consumers, one of which is killed with SIGKILL
# at a random moment: the union is whole, and what was seen twice was in flight at the kill.
source "$(dirname "$0")/common.bash"

count=1000000
batch=32  # what `consume` takes at once from a shared group
seed=${SHMQ_SEED:-$RANDOM}
RANDOM=$seed
kill_at=$((RANDOM % 20000 + 1))  # lines of the victim
echo "SHMQ_SEED=$seed: killed after line $kill_at of its output"

gives "create" 0 ctl queue create q --group w
mkfifo "$work/out-1" "$work/events"
exec 8<>"$work/events"
"$shmqctl" consume q --group w --follow >"$work/out-1" &
victim=$!
children+=("$victim")
# Whatever the victim has written is seen, what it writes after the kill is nothing. The awk comes to
# the kill on its own, in the middle of everything.
awk -v pid=$victim -v at=$kill_at -v events="$work/events" '
  { print }
  NR == 1 { print "first" >events; fflush(events) }
  NR == at { system("kill -KILL " pid) }' <"$work/out-1" >"$work/got-1" &
reader=$!
children+=("$reader")
seq 1 $count | "$shmqctl" publish q &
publisher=$!
children+=("$publisher")
read -r -u 8 event
equals "the victim is at work" first "$event"
others=()
for i in 2 3 4; do
  "$shmqctl" consume q --group w --follow >"$work/got-$i" 2>"$work/err-$i" &
  others+=("$!")
  children+=("$!")
done

wait "$victim"
equals "the victim was killed" 137 $?
wait "$publisher"
equals "publish" 0 $?
wait "$reader"
until [[ $(of_group q w acked_total) -eq $count ]]; do :; done
kill -TERM "${others[@]}"
for i in 2 3 4; do
  wait "${others[$((i - 2))]}"
  equals "consumer $i ends with SIGTERM" 143 $?
  equals "consumer $i has nothing to complain of" "" "$(cat "$work/err-$i")"
  [[ -s $work/got-$i ]] && pass || fail "consumer $i got nothing"
done

# The victim's last line may have been cut.
[[ -z $(tail -c 1 "$work/got-1") ]] || sed -i '$d' "$work/got-1"
seq 1 $count >"$work/expected"
sort -n -u "$work"/got-[1-4] >"$work/union"
same_bytes "the union is whole" "$work/expected" "$work/union"
checks=$((checks + count - 1))
sort -n "$work"/got-[1-4] | uniq -d >"$work/twice"
tail -n $batch "$work/got-1" | sort -n >"$work/in-flight"
equals "what was seen twice was in flight at the kill" "" \
  "$(comm -23 <(sort "$work/twice") <(sort "$work/in-flight") | head -n 3)"
equals "nothing was seen three times" "" "$(sort -n "$work"/got-[1-4] | uniq -c | awk '$1 > 2' | head -n 3)"
redelivered=$(of_group q w redelivered_total death)
twice=$(wc -l <"$work/twice")
echo "$redelivered in flight at the kill, $twice of them had been written already"
((redelivered <= batch && twice <= redelivered)) && pass ||
  fail "$redelivered redelivered, $twice seen twice, $batch in a batch"
for cause in lease nack release; do
  equals "nothing redelivered by $cause" 0 "$(of_group q w redelivered_total $cause)"
done
equals "nothing is left" "0 0 0 0" "$(for state in ready in_flight delayed dead; do
  of_group q w $state; done | xargs)"
gives "rm" 0 ctl queue rm q
finish
