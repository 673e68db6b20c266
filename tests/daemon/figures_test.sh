#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What only the daemon knows, as metrics and as a check: there while it runs, in both places; absent, not
# zero, while it is down, and then a check says so. Ends with shmqd: figures_test.sh SHMQCTL SHMQD EXPORTER
here=$(dirname "$(realpath "$0")")
source "$here/../cli/common.bash"
shmqd=$(realpath "${2:?the path of shmqd}")
exporter=$(realpath "${3:?the path of shmq-exporter}")
mkdir "$work/run"
export SHMQ_RUNTIME_DIR=$work/run
openmetrics() { /usr/bin/python3 "$here/../exporter/openmetrics.py" "$@"; }
metric() { openmetrics value "$work/metrics" "$@"; }
daemons=(shmqd_flush_lag_messages shmqd_flush_lag_seconds shmqd_sync_duration_seconds shmqd_sync_errors
  shmqd_reclaimed_messages)

start_daemon() {
  "$shmqd" --foreground --data-dir "$work/data" --runtime-dir "$work/run" "$@" >>"$work/shmqd.log" 2>&1 &
  daemon=$!
  children+=("$daemon")
  local i
  for ((i = 0; i < 600; i++)); do ctl daemon status >/dev/null 2>&1 && return; sleep 0.05; done
  fail "no daemon: $(cat "$work/shmqd.log")"
}
start_daemon
gives "create" 0 ctl queue create orders --durable --group work:shared
gives "create" 0 ctl queue create plain
for i in 1 2 3 4 5; do gives "publish" 0 ctl publish orders "$i" --durability synced; done
# A consumer that dies holding three of them: the daemon hears of it and takes them back.
mkfifo "$work/taken"
"$shmqctl" consume orders --group work --follow --exec 'echo taken >"'"$work"'/taken"; exec sleep 1000' >/dev/null 2>&1 &
holder=$!
children+=("$holder")
read -r _ <"$work/taken"
kill -KILL "$holder"
for ((i = 0; i < 600; i++)); do
  [[ $(of_group orders work in_flight) == 0 ]] && break
  sleep 0.05
done
ctl metrics >"$work/metrics"
gives "metrics are OpenMetrics" 0 openmetrics check "$work/metrics"
for name in "${daemons[@]}"; do
  equals "$name is there" 1 "$(grep -c "^# TYPE $name " "$work/metrics")"
  equals "$name has a help" 1 "$(grep -c "^# HELP $name " "$work/metrics")"
done
equals "nothing of a transient queue" 0 "$(grep -c '^shmqd_.*queue="plain"' "$work/metrics")"
equals "all is on disk" "0 0 0" "$(metric shmqd_flush_lag_messages queue=orders) \
$(metric shmqd_flush_lag_seconds queue=orders) $(metric shmqd_sync_errors_total queue=orders)"
count=$(metric shmqd_sync_duration_seconds_count queue=orders)
equals "five synced publishes are five barriers or more" 1 "$((count >= 5))"
equals "the last bucket has all" "$count" "$(metric shmqd_sync_duration_seconds_bucket queue=orders le=+Inf)"
equals "they took a while" 1 "$(awk "BEGIN { print ($(metric shmqd_sync_duration_seconds_sum queue=orders) > 0) }")"
equals "what the dead one held was taken back, by the daemon or by whoever came first" 1 \
  "$(awk "BEGIN { print ($(metric shmqd_reclaimed_messages_total queue=orders) <= \
      $(metric shmq_messages_redelivered_total queue=orders group=work cause=death)) }")"
gives "a check of the lag" 0 ctl check orders --flush-lag-crit 10s
equals "gives its data" 1 "$(grep -c "'flush_lag'=0.000s;;10.000;0" "$work/out")"
gives "a transient queue has none" 3 ctl check plain --flush-lag-crit 10s
equals "says so" 1 "$(grep -c 'UNKNOWN.*flush lag: the queue is not durable' "$work/out")"

mkfifo "$work/ready"
"$exporter" --socket "$work/socket" >"$work/ready" 2>"$work/exporter.err" &
children+=($!)
read -r _ _ place <"$work/ready"
/usr/bin/python3 "$here/../exporter/fetch.py" "$place" /metrics >"$work/scraped" 2>/dev/null
equals "the exporter has the same" "$(grep '^# TYPE' "$work/metrics")" "$(grep '^# TYPE' "$work/scraped")"
equals "the page names what only the daemon knows" \
  "$(grep -oE '^shmqd_[a-z_]+' "$work/metrics" | sed -E 's/_(bucket|count|sum)$//' | sort -u)" \
  "$(grep -E '^\.It Li shmqd_' "$here/../../man/shmq-exporter.8" | grep -oE 'shmqd_[a-z_]+' | sort -u)"

# A daemon that is stopped writes nothing: what is published meanwhile lags, and shows once it is back.
kill -STOP "$daemon"
gives "publish" 0 ctl publish orders late
gives "metrics do not wait for ever" 0 ctl metrics
grep -v '^#' "$work/out" | grep -q '^shmqd_' && fail "a daemon that says nothing has figures" || pass
kill -CONT "$daemon"

kill -KILL "$daemon"
wait "$daemon" 2>/dev/null
gives "metrics without a daemon" 0 ctl metrics
equals "of what it knows there is none" 0 "$(grep -c shmqd_ "$work/out")"
equals "the rest is there" 1 "$(grep -c '^shmq_messages_published_total{queue="orders"} 6' "$work/out")"
/usr/bin/python3 "$here/../exporter/fetch.py" "$place" /metrics >"$work/scraped" 2>/dev/null
equals "nor in the exporter" "0 1" "$(grep -c shmqd_ "$work/scraped") $(grep -c '^# EOF' "$work/scraped")"
gives "a check without a daemon" 2 ctl check orders --flush-lag-crit 10s
equals "says that it is away" 1 "$(grep -c 'CRITICAL - orders: flush lag: .*daemon' "$work/out")"
gives "and without the threshold nothing" 0 ctl check orders --backlog-crit 1000
finish
