#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# shmqctl events and top: what comes and goes, and the figures, live.
source "$(dirname "$0")/common.bash"
mover=$(realpath "${2:?the path of mark_mover}")
export SHMQ_RUNTIME_DIR=$work/run

# --- events --------------------------------------------------------------------------------------
gives "create" 0 ctl queue create q --group work --group archive:exclusive
gives "events without --follow ends" 0 ctl events
equals "it says what is there" "queue_present group_present group_present watching" \
  "$(python3 -c 'import json, sys; print(*[json.loads(line)["event"] for line in sys.stdin])' <"$work/out")"

"$shmqctl" events --follow --interval 10ms >"$work/events" 2>"$work/events.err" &
watcher=$!
children+=("$watcher")
# told EVENT [KEY=VALUE…]: how many such lines there are by now.
told() {
  python3 - "$work/events" "$@" <<'PY'
import json, sys
path, event, wanted = sys.argv[1], sys.argv[2], dict(pair.split("=", 1) for pair in sys.argv[3:])
lines = [json.loads(line) for line in open(path) if line.endswith("\n")]
print(sum(1 for line in lines if line["event"] == event and line["schema_version"] == 1 and
          all(str(line.get(key)) == value for key, value in wanted.items())))
PY
}
# comes CLAIM EVENT [KEY=VALUE…]: once, sooner or later.
comes() {
  local claim=$1
  shift
  until [[ $(told "$@") -ge 1 ]]; do
    kill -0 "$watcher" 2>/dev/null || { fail "$claim: events has ended: $(cat "$work/events.err")"; return; }
    sleep 0.02
  done
  equals "$claim" 1 "$(told "$@")"
}
comes "it begins" watching queues=1
gives "a queue" 0 ctl queue create r --group work
comes "a queue is created" queue_created queue=r durable=False
comes "with its group" group_created queue=r group=work mode=shared
gives "a group" 0 ctl group create q late --mode exclusive
comes "a group is created" group_created queue=q group=late mode=exclusive
gives "it goes" 0 ctl group rm q late
comes "a group is removed" group_removed queue=q group=late mode=exclusive

mkfifo "$work/in"
"$shmqctl" publish q <"$work/in" &
publisher=$!
children+=("$publisher")
exec 7>"$work/in"
echo one >&7
comes "a producer comes" producer_attached queue=q pid=$publisher "name=shmqctl publish"
exec 7>&-
wait "$publisher"
comes "and leaves" producer_left queue=q pid=$publisher
"$shmqctl" consume q --group work --follow --ack none >/dev/null &
consumer=$!
children+=("$consumer")
comes "a consumer comes" consumer_attached queue=q group=work pid=$consumer
until [[ $(of_group q work in_flight) == 1 ]]; do :; done
kill -KILL "$consumer"
wait "$consumer" 2>/dev/null
comes "its death is told" consumer_died queue=q pid=$consumer
gives "somebody passes by" 0 ctl gc
comes "and what becomes of what it held" consumer_reclaimed queue=q pid=$consumer
equals "it did not leave" 0 "$(told consumer_left pid=$consumer)"
equals "and the producer did not die" 0 "$(told producer_died pid=$publisher)"
equals "who watches is no participant" 0 "$(ctl --no-headers consumer ls q | wc -l)"

gives "a queue goes" 0 ctl queue rm r --yes
comes "a queue is removed" queue_removed queue=r
uuid_before=$(told queue_created queue=r)
gives "and comes again" 0 ctl queue create r --group work
until [[ $(told queue_created queue=r) -gt $uuid_before ]]; do sleep 0.02; done
pass
# Whole at once: half of it would be told, too.
head -c 5000 /dev/urandom >"/dev/shm/random.$ns" && mv "/dev/shm/random.$ns" "/dev/shm/shmq.$ns.random"
comes "what is no queue" queue_unreadable queue=random
rm -f "/dev/shm/shmq.$ns.random"

# A durable queue, and a daemon that the test plays: $work/state is what it says of it.
coproc played { exec "$mover" "$ns" d; }
played_pid=$played_PID
read -r line <&"${played[0]}"
to_mover=${played[1]}
comes "a durable queue" queue_created queue=d durable=True
comes "nobody serves it" daemon_away
mkdir -p "$work/run/$ns"
echo ok >"$work/state"
play_daemon() {
  rm -f "$work/run/$ns/control"
  python3 - "$work/run/$ns/control" "$work/state" <<'PY' &
import json, socket, struct, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(8)
while True:
    peer, _ = listener.accept()
    size = struct.unpack("<I", peer.recv(4, socket.MSG_WAITALL))[0]
    peer.recv(size, socket.MSG_WAITALL)
    queue = {"name": "d", "state": open(sys.argv[2]).read().strip(), "watermark": 5, "lag": 7}
    if queue["state"] != "ok": queue["why"] = "no disk"
    body = json.dumps({"ok": True, "pid": 42, "queues": [queue]}).encode()
    peer.sendall(struct.pack("<I", len(body)) + body)
    peer.close()
PY
  server=$!
  children+=("$server")
}
play_daemon
comes "the daemon comes" daemon_back pid=42
echo degraded >"$work/state.new" && mv "$work/state.new" "$work/state"
comes "its disk fails" degraded queue=d "why=no disk"
echo ok >"$work/state.new" && mv "$work/state.new" "$work/state"
comes "and works again" recovered queue=d
gives "top shows the flush lag" 0 ctl -o json top -n 1 --interval 10ms --filter d
equals "as the daemon says it" 7 "$(json groups 0 flush_lag_messages <"$work/out")"
kill "$server" && wait "$server" 2>/dev/null
until [[ $(told daemon_away) -ge 2 ]]; do sleep 0.02; done
pass
exec {to_mover}>&-
wait "$played_pid"

kill -TERM "$watcher"
wait "$watcher"
equals "SIGTERM ends it" 143 $?
equals "nothing on stderr" "" "$(cat "$work/events.err")"
refused "an interval" 2 "10ms" ctl events --interval 1ms

# --- top -----------------------------------------------------------------------------------------
gives "create" 0 ctl queue create orders --group billing --group audit:exclusive
seq 1 10 | ctl publish orders --publish-time
gives "a table" 0 ctl top --batch -n 1 --interval 10ms --filter orders
equals "its first line" "QUEUE GROUP READY IN FLIGHT DELAYED DEAD PUB/S ACK/S REDEL/S OLDEST FLUSH LAG CONSUMERS" \
  "$(head -n 1 "$work/out" | tr -s ' ')"
equals "a row a group" 2 "$(grep -c '^orders .* 10 ' "$work/out")"
gives "two tables without headers" 0 ctl --no-headers top -b -n 2 --interval 10ms --filter orders
equals "two rows each" 4 "$(wc -l <"$work/out")"
gives "filtered by group" 0 ctl --no-headers top -b -n 1 --interval 10ms --filter audit
equals "that one" 1 "$(grep -c '^orders  *audit ' "$work/out")"
equals "and no other" 1 "$(wc -l <"$work/out")"
ctl consume orders --group billing -n 4 >/dev/null
gives "sorted" 0 ctl --no-headers top -b -n 1 --interval 10ms --filter orders --sort in-flight
gives "sorted by ready" 0 ctl --no-headers top -b -n 1 --interval 10ms --filter orders
equals "the most first" "audit billing" "$(awk '{ print $2 }' "$work/out" | xargs)"
gives "JSON agrees with stat" 0 ctl -o json top -n 1 --interval 10ms --filter billing
equals "ready" "$(of_group orders billing ready)" "$(json groups 0 ready <"$work/out")"
equals "the oldest has an age" True \
  "$(python3 -c 'import json, sys; print(json.load(sys.stdin)["groups"][0]["oldest_ready_seconds"] > 0)' <"$work/out")"
"$shmqctl" -o json top --interval 50ms --filter billing >"$work/live" &
watcher=$!
children+=("$watcher")
until [[ -s $work/live ]]; do sleep 0.02; done
seq 1 500 | ctl publish orders
ctl consume orders --group billing --timeout 0s >/dev/null
seen() {  # the sum over all looks of a rate times the interval between two is what happened
  python3 - "$work/live" "$1" <<'PY'
import json, sys
print(any((json.loads(line)["groups"][0][sys.argv[2]] or 0) > 0 for line in open(sys.argv[1]) if line.endswith("\n")))
PY
}
for rate in published_per_second acked_per_second; do
  until [[ $(seen $rate) == True ]]; do sleep 0.02; done
  pass
done
kill -INT "$watcher" 2>/dev/null; kill -TERM "$watcher"
wait "$watcher"
equals "a signal ends it" 1 "$(($? == 143 || $? == 130 ? 1 : 0))"
refused "no terminal" 2 "terminal.*--batch" ctl top
refused "no such column" 2 "no column 'age'" ctl top -b --sort age
refused "an interval" 2 "10ms" ctl top -b --interval 0s

# On a terminal.
python3 "$(dirname "$(realpath "$0")")/top_screen.py" "$shmqctl" >"$work/screen" 2>&1
equals "the screen: $(tail -n 3 "$work/screen")" 0 $?
finish
