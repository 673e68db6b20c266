#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# shmq-exporter from the outside: what it serves, whether that is OpenMetrics and agrees with
# shmqctl stat, how it refuses and ends. No daemon runs here.
here=$(dirname "$(realpath "$0")")
source "$here/../cli/common.bash"
exporter=$(realpath "${2:?the path of shmq-exporter}")
root=$here/../..

# Debian's python3 has Debian's packages; another one in PATH has not.
openmetrics() { /usr/bin/python3 "$here/openmetrics.py" "$@"; }

# begin ARGUMENT…: starts an exporter; sets $place and $pid. Its first line says that it listens.
begin() {
  rm -f "$work/ready"
  mkfifo "$work/ready"
  "$exporter" "$@" >"$work/ready" 2>"$work/exporter.err" &
  pid=$!
  children+=("$pid")
  read -r _ _ place <"$work/ready"
}
# fetch PATH: the body is in $work/body, status and type in $got.
fetch() {
  got=$(/usr/bin/python3 "$here/fetch.py" "$place" "$1" 2>&1 >"$work/body")
}
# answers CLAIM STATUS PATTERN PATH
answers() {
  fetch "$4"
  equals "$1: status" "$2" "${got%% *}"
  grep -Eq -- "$3" "$work/body" && pass || fail "$1: not /$3/: $(cat "$work/body")"
}
ends() {  # CLAIM EXIT-CODE
  wait "$pid"
  equals "$1" "$2" $?
}

gives "create" 0 ctl queue create orders --group billing --group archive:exclusive --delivery-limit 1
gives "create" 0 ctl queue create empty
seq 1 100 | ctl publish orders --publish-time
ctl consume orders --group billing -n 30 >/dev/null
ctl consume orders --group archive -n 5 >/dev/null
ctl consume orders --group billing -n 5 --exec '[ "$(cat)" -gt 32 ]' >/dev/null 2>&1  # two fail
"$shmqctl" consume orders --group billing --follow --exec 'exec sleep 1000' >/dev/null 2>&1 &
children+=($!)
holder=$!
while [[ $(of_group orders billing in_flight) -eq 0 ]]; do :; done

begin --listen 127.0.0.1:0 --interval 50ms
fetch /metrics
equals "/metrics" "200 application/openmetrics-text; version=1.0.0; charset=utf-8" "$got"
cp "$work/body" "$work/metrics"
gives "is OpenMetrics" 0 openmetrics check "$work/metrics"
for queue in orders empty; do ctl -o json stat "$queue" >"$work/$queue.json"; done
gives "agrees with stat" 0 openmetrics agree "$work/metrics" "$work/orders.json" "$work/empty.json"
echo "$(cat "$work/out") with stat"
# The comparison can fail.
sed -i 's/"ready": [0-9]*/"ready": 12345/' "$work/orders.json"
gives "a difference is found" 1 openmetrics agree "$work/metrics" "$work/orders.json"
equals "ages are told" 1 "$(openmetrics value "$work/metrics" shmq_oldest_ready_age_seconds \
  queue=orders group=billing | awk '{ print ($1 > 0) }')"
equals "as shmqctl metrics, with its names" "" "$(diff <(ctl metrics | grep '^# TYPE') \
  <(grep '^# TYPE' "$work/metrics"))"
equals "no pids" 0 "$(grep -c -E "\bpid|$holder" "$work/metrics")"

# What the dashboard and the alerts ask for is exported; what the man page names is, and nothing else.
names() { grep -oE '\bshmq_[a-z_]+' "$@" | grep -vE 'shmq_(segment|journal|exporter)' | sort -u; }
names "$work/metrics" -h >"$work/exported"
for file in "$root"/tools/shmq-exporter/{dashboard.json,alerts.yml}; do
  equals "$(basename "$file") asks for what there is" "" \
    "$(names -h "$file" | comm -23 - "$work/exported")"
  [[ -n $(names -h "$file") ]] && pass || fail "$file asks for nothing"
done
gives "the dashboard is JSON" 0 /usr/bin/python3 -m json.tool "$root/tools/shmq-exporter/dashboard.json"
equals "the page names what is exported" "$(grep -v '^# \|^shmq_build$' "$work/metrics" |
  grep -oE '^shmq_[a-z_]+' | sort -u)" \
  "$(grep -E '^\.It Li shmq_' "$root/man/shmq-exporter.8" | grep -oE 'shmq_[a-z_]+' | sort -u)"
equals "the page names the options" "$("$exporter" --help | grep -oE '^ +(-[a-z],)?--[a-z-]+' |
  grep -oE '\-\-[a-z-]+' | sort -u)" \
  "$(grep -E '^\.It Fl ' "$root/man/shmq-exporter.8" | grep -oE '\\-[a-z][a-z-]+' |
    sed 's/^\\-/--/' | sort -u)"

answers "/healthz" 200 '^ok$' /healthz
answers "/scale" 200 '^[0-9]+$' /scale/orders/billing
answers "/scale with a rate" 200 '^7$' '/scale/orders/billing?per_consumer=1&target_drain=10s&max=9'
answers "/scale of nothing" 200 '^0$' /scale/empty/default
answers "/scale with a minimum" 200 '^3$' '/scale/empty/default?min=3'
answers "no such queue" 404 'no such queue' /scale/nowhere/billing
answers "no such group" 404 'no such group' /scale/orders/nobody
answers "no such parameter" 400 "'colour' is no parameter" '/scale/orders/billing?colour=1'
answers "a bad value" 400 "'min' is no parameter, or its value none" '/scale/orders/billing?min=x'
answers "min above max" 400 "more than 'max'" '/scale/orders/billing?min=3&max=2'
answers "elsewhere" 404 'there are /metrics' /
answers "not a name" 404 'there are /metrics' '/scale/../etc'

# Queues come, go, and come again.
gives "create" 0 ctl queue create late
answers "a new queue is seen" 200 'shmq_queue_up\{queue="late"\} 1' /metrics
seq 1 5 | ctl publish late
answers "its messages, too" 200 'shmq_messages_published_total\{queue="late"\} 5' /metrics
gives "rm" 0 ctl queue rm late --yes
gives "create again" 0 ctl queue create late
answers "one made again is another" 200 'shmq_messages_published_total\{queue="late"\} 0' /metrics
gives "rm" 0 ctl queue rm late --yes
fetch /metrics
equals "a removed queue is gone" 0 "$(grep -c late "$work/body")"
printf 'not a queue' >/dev/shm/shmq."$ns".broken
answers "what cannot be read is told" 200 'shmq_queue_up\{queue="broken"\} 0' /metrics
rm -f /dev/shm/shmq."$ns".broken
# Ages that no record tells: what it has seen wait gets older.
printf 'no time\n' | ctl publish empty
answers "seen" 200 'shmq_oldest_ready_age_seconds\{queue="empty",group="default"\}' /metrics

gives "a second one on the same port" 1 "$exporter" --listen "${place#http://}"
equals "says so" 1 "$(grep -c '^shmq-exporter: listen on .*: it is in use' "$work/err")"
kill -TERM "$pid"
ends "SIGTERM ends it" 0

begin --socket "$work/socket"
equals "on a unix socket" "unix:$work/socket" "$place"
answers "the same there" 200 'shmq_queue_up\{queue="orders"\} 1' /metrics
equals "for its owner and group" 660 "$(stat -c %a "$work/socket")"
gives "a second one on the same socket" 1 "$exporter" --socket "$work/socket"
kill -KILL "$pid"
wait "$pid" 2>/dev/null
begin --socket "$work/socket"
answers "after a kill it can be started again" 200 '^ok$' /healthz
kill -INT "$pid"
ends "SIGINT ends it" 0
[[ ! -e $work/socket ]] && pass || fail "the socket is left behind"

for bad in 0.0.0.0:9718 192.168.0.1:80 127.0.0.1 127.0.0.1:70000 127.0.0.1:x; do
  gives "--listen $bad" 2 "$exporter" --listen "$bad"
  equals "--listen $bad says why" 1 "$(grep -c '^shmq-exporter: .*loopback' "$work/err")"
done
gives "an interval of 0" 2 "$exporter" --interval 0
gives "a bad namespace" 1 "$exporter" --namespace 'A B' --listen 127.0.0.1:0
gives "a file in the way" 1 "$exporter" --socket "$work/metrics"
[[ -f $work/metrics ]] && pass || fail "the file in the way was removed"
kill -TERM "$holder"
wait
finish
