#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# shmqctl scale, check and metrics: figures for those who watch queues.
source "$(dirname "$0")/common.bash"
# Debian's python3 has Debian's packages; another one in PATH has not.
openmetrics() { /usr/bin/python3 "$(dirname "$(realpath "$0")")/../exporter/openmetrics.py" "$@"; }
# metric NAME LABEL=VALUE…: the sample of that name and labels in $work/metrics.
metric() { openmetrics value "$work/metrics" "$@"; }

gives "create" 0 ctl queue create q --group work --group archive:exclusive --capacity 4096
# --- check ---------------------------------------------------------------------------------------
gives "check of an empty queue" 0 ctl check q --backlog-warn 1 --oldest-warn 1s --oldest-crit 2s
equals "is one line" "SHMQ OK - q: 2 groups, backlog 0 | 'archive_backlog'=0;1;;0 \
'archive_oldest'=0.000s;1.000;2.000;0 'work_backlog'=0;1;;0 'work_oldest'=0.000s;1.000;2.000;0" \
  "$(sed 's/| \(.*work_oldest[^ ]*\) \(.*\)$/| \2 \1/; t; ' "$work/out" | python3 -c '
import sys
line = sys.stdin.read().strip()
text, data = line.split(" | ")
print(text + " | " + " ".join(sorted(data.split())))')"
seq 1 10 | ctl publish q
gives "nothing beyond a threshold" 0 ctl check q --backlog-warn 11
gives "the threshold is the first that warns" 1 ctl check q --backlog-warn 10 --backlog-crit 11
equals "says which" 1 "$(grep -c '^SHMQ WARNING - q: .*work: backlog 10' "$work/out")"
gives "critical" 2 ctl check q --backlog-warn 5 --backlog-crit 10
equals "says so" 1 "$(grep -c '^SHMQ CRITICAL - q: ' "$work/out")"
gives "age not known" 3 ctl check q --oldest-crit 1h
equals "says what to do" 1 "$(grep -c 'UNKNOWN.*age of message 0 not known.*--publish-time' "$work/out")"
gives "critical beats unknown" 2 ctl check q --oldest-crit 1h --backlog-crit 1
gives "unknown beats a warning" 3 ctl check q --oldest-crit 1h --backlog-warn 1
gives "one group" 0 ctl check q --group work --backlog-warn 11
equals "only that one" 0 "$(grep -c archive "$work/out")"
gives "a group that is not there" 3 ctl check q --group nobody --backlog-warn 11
gives "a queue that is not there" 3 ctl check nowhere --backlog-warn 11
equals "is unknown, on stdout" "1 0" "$(grep -c '^SHMQ UNKNOWN - nowhere: ' "$work/out") $(wc -l <"$work/err")"
refused "a bad threshold" 2 "is not a whole number" ctl check q --backlog-warn many
gives "purge" 0 ctl queue purge q --yes
printf 'old\n' | ctl publish q --publish-time
gives "an age beyond its threshold" 2 ctl check q --group work --oldest-crit 0s
equals "says how old" 1 "$(grep -c "CRITICAL.*work: oldest ready for" "$work/out")"
gives "an age below" 0 ctl check q --group work --oldest-crit 1h
equals "JSON" "OK" "$(ctl -o json check q --backlog-warn 100 | json state)"

# --- metrics -------------------------------------------------------------------------------------
gives "other" 0 ctl queue create other
ctl metrics >"$work/metrics"
gives "metrics are OpenMetrics" 0 openmetrics check "$work/metrics"
equals "messages" "1 1 0" "$(metric shmq_queue_messages queue=q group=work state=ready) \
$(metric shmq_queue_messages queue=q group=archive state=ready) \
$(metric shmq_queue_messages queue=other group=default state=ready)"
equals "published" 11 "$(metric shmq_messages_published_total queue=q)"
equals "acknowledged and dropped" "0 10" "$(metric shmq_messages_acked_total queue=q group=work) \
$(metric shmq_messages_dropped_total queue=q group=work)"
equals "capacity" 4096 "$(metric shmq_queue_capacity_messages queue=q)"
equals "version" "1" "$(metric shmq_build_info version="$(ctl --version | cut -d' ' -f2)")"
ctl metrics q >"$work/metrics"
equals "one queue alone" none "$(metric shmq_queue_up queue=other)"
refused "a queue that is not there" 3 "no such queue" ctl metrics nowhere
printf 'not a queue' >/dev/shm/shmq."$ns".broken
ctl metrics >"$work/metrics"
equals "what cannot be read is told" "0 1" \
  "$(metric shmq_queue_up queue=broken) $(metric shmq_queue_up queue=q)"
rm -f /dev/shm/shmq."$ns".broken
gives "purge" 0 ctl queue purge q --yes
printf 'no time\n' | ctl publish q
ctl metrics >"$work/metrics"
equals "an unknown age is not a number" none "$(metric shmq_oldest_ready_age_seconds queue=q group=work)"
equals "none in flight is 0" 0 "$(metric shmq_oldest_in_flight_age_seconds queue=q group=work)"

# --- scale ---------------------------------------------------------------------------------------
gives "purge" 0 ctl queue purge q --yes
equals "nothing to do" 0 "$(ctl -q scale q work --measure 50ms)"
equals "at least the minimum" 2 "$(ctl -q scale q work --measure 50ms --min 2)"
seq 1 3000 | ctl publish q
equals "no consumer yet: a first one" 1 "$(ctl -q scale q work --measure 50ms)"
equals "3000 in 60 s at 10/s" 5 "$(ctl -q scale q work --measure 50ms --per-consumer 10)"
equals "3000 in 10 s at 10/s" 30 "$(ctl -q scale q work --measure 50ms --per-consumer 10 --target-drain 10s)"
equals "all but 1500 in 10 s" 15 \
  "$(ctl -q scale q work --measure 50ms --per-consumer 10 --target-drain 10s --target-backlog 1500)"
equals "at most the maximum" 7 \
  "$(ctl -q scale q work --measure 50ms --per-consumer 10 --target-drain 10s --max 7)"
equals "says why" 1 "$(ctl scale q work --measure 50ms --per-consumer 10 --target-drain 10s --max 7 |
  grep -c '^7  (3000 wait, 0.00/s arrive, 10/s per consumer (given): 300/s wanted; 30 is above the maximum; drained in 43 s)$')"
equals "one is enough for an exclusive group" 1 \
  "$(ctl -q scale q archive --measure 50ms --per-consumer 10 --target-drain 10s)"
refused "no such group" 3 "no such group" ctl scale q nobody --measure 50ms
refused "min above max" 2 "more than --max" ctl scale q work --min 3 --max 2
refused "a rate of 0" 2 "above 0" ctl scale q work --per-consumer 0

# Workers that take 20 ms each: what is measured is their own speed, whatever the machine's.
"$shmqctl" consume q --group work --follow --exec 'sleep 0.02' >"$work/worker" 2>&1 &
children+=($!)
while [[ $(of_group q work acked_total) -eq 0 ]]; do :; done
ctl -o json scale q work --target-drain 10s --measure 1s >"$work/scale.json"
gives "a measured rate gives the number" 0 python3 - "$work/scale.json" <<'PYTHON'
import json, math, sys
s = json.load(open(sys.argv[1]))
assert 1 <= s["per_consumer_per_second"] <= 50, s
assert abs(s["per_consumer_per_second"] - s["drained_per_second"]) < 1e-6, s
needed = (s["arrivals_per_second"] + s["backlog"] / 10) / s["per_consumer_per_second"]
assert s["wanted"] == math.ceil(needed - 0.01), s
surplus = s["wanted"] * s["per_consumer_per_second"] - s["arrivals_per_second"]
assert abs(s["drain_seconds"] - s["backlog"] / surplus) < 1e-6 and s["drain_seconds"] <= 10.1, s
PYTHON
cat "$work/err" >&2
for child in "${children[@]}"; do kill -TERM "$child"; done
wait
finish
