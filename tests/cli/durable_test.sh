#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# shmqctl and durable queues, with a daemon that the test plays: what it says when there is none, what
# a transient queue refuses, what it makes of a daemon's answers, when it prints a seq.
source "$(dirname "$0")/common.bash"
maker=$(realpath "${2:?the path of journal_maker}")
mover=$(realpath "${3:?the path of mark_mover}")
export SHMQ_RUNTIME_DIR=$work/run

contains() {  # claim, text, file
  if grep -qF -- "$2" "$3"; then pass; else fail "$1: no '$2' in: $(head -c 800 "$3")"; fi
}

# --- no daemon -----------------------------------------------------------------------------------
gives "a durable queue needs the daemon" 1 ctl queue create d --durable
contains "the place where it was looked for" "$work/run/$ns/control" "$work/err"
equals "in one line" 1 "$(wc -l <"$work/err")"
for verb in status reload "drain --yes"; do
  # shellcheck disable=SC2086 # the words of the verb
  gives "daemon $verb without one" 1 ctl daemon $verb
  contains "daemon $verb" "no daemon serves namespace '$ns'" "$work/err"
done
gives "another runtime directory" 1 ctl --runtime-dir "$work/other" daemon status
contains "it looks there" "$work/other/$ns/control" "$work/err"
gives "verify of a name without a daemon" 1 ctl verify d
contains "it says how to go on" "--data-dir" "$work/err"

# --- a transient queue ---------------------------------------------------------------------------
gives "a transient queue" 0 ctl queue create t
for durability in flushed synced; do
  gives "publish $durability" 1 ctl publish t hello --durability $durability --print-seq
  contains "it says what to do" "durable" "$work/err"
  equals "no seq" "" "$(cat "$work/out")"
  gives "consume $durability" 1 ctl consume t --durability $durability --timeout 0s
done
gives "sync" 1 ctl sync t
contains "sync says why" "not durable" "$work/err"
gives "nothing was published" 0 ctl -o json queue ls
gives "memory is fine" 0 ctl publish t hello --durability memory --print-seq
equals "the first seq" 0 "$(cat "$work/out")"
gives "an unknown durability" 2 ctl publish t x --durability soon
gives "an unknown visibility" 2 ctl queue create v --visible maybe
gives "visible synced needs a durable queue" 2 ctl queue create v --visible synced
gives "rm of what is not there" 3 ctl queue rm nothing --yes

# --- what a daemon answers -----------------------------------------------------------------------
mkdir -p "$work/run/$ns" "$work/data/$ns/d"
"$maker" "$work/data/$ns/d" 50 clean || fail "making a journal"
python3 - "$work/run/$ns/control" "$work/data" "$ns" <<'PY' &
import json, socket, struct, sys
path, data, name_space = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(8)
while True:
    peer, _ = listener.accept()
    size = struct.unpack("<I", peer.recv(4, socket.MSG_WAITALL))[0]
    verb = json.loads(peer.recv(size, socket.MSG_WAITALL))["verb"]
    if verb == "status":
        answer = {"ok": True, "pid": 7, "namespace": name_space, "data_dir": data,
                  "queues": [{"name": "d", "state": "ok", "watermark": 50}]}
    elif verb == "reload":
        answer = {"ok": True}
    else:
        answer = {"ok": False, "code": 16, "category": "shmq", "what": "drain the daemon",
                  "why": "not you", "remedy": "ask root"}
    body = json.dumps(answer).encode()
    peer.sendall(struct.pack("<I", len(body)) + body)
    peer.close()
PY
server=$!
children+=("$server")
until [[ -S $work/run/$ns/control ]]; do :; done
gives "status" 0 ctl -o json daemon status
equals "status in JSON" "7 ok" "$(python3 -c '
import json, sys
status = json.load(sys.stdin)
print(status["pid"], status["queues"][0]["state"])' <"$work/out")"
gives "status for people" 0 ctl daemon status
contains "a queue in it" "WATERMARK" "$work/out"
gives "reload" 0 ctl daemon reload
gives "drain" 4 ctl daemon drain --yes
contains "the daemon's own words" "drain the daemon: not you (ask root)" "$work/err"
gives "drain --dry-run asks nobody" 0 ctl daemon drain --dry-run
gives "verify of a name" 0 ctl verify d
contains "its journal" "plan" "$work/out"
gives "verify with --data-dir" 0 ctl verify d --data-dir "$work/data"
gives "verify of an unknown name" 3 ctl verify unknown

kill "$server" && wait "$server" 2>/dev/null

# --- a daemon that is played ----------------------------------------------------------------------
coproc played { exec "$mover" "$ns" s; }
played_pid=$played_PID
read -r line <&"${played[0]}"
equals "a durable queue" ready "$line"
to_mover=${played[1]}

mkfifo "$work/in" "$work/seqs"
ctl publish s --durability synced --print-seq <"$work/in" >"$work/seqs" 2>"$work/pub.err" &
publisher=$!
children+=("$publisher")
exec 7>"$work/in" 8<"$work/seqs"
printf 'a\nb\nc\n' >&7
until [[ $(ctl -o json queue ls | json queues 0 messages_held) == 3 ]]; do :; done
if read -r -t 0.3 line <&8; then fail "a seq before its time: $line"; else pass; fi
echo 2 >&"$to_mover"
read -r -t 30 line <&8 && equals "the first seq" 0 "$line"
read -r -t 30 line <&8 && equals "the second seq" 1 "$line"
if read -r -t 0.3 line <&8; then fail "a seq before its time: $line"; else pass; fi
printf 'd\n' >&7  # while another is waited for
echo 3 >&"$to_mover"
read -r -t 30 line <&8 && equals "the third seq" 2 "$line"
exec 7>&-
echo 4 >&"$to_mover"
read -r -t 30 line <&8 && equals "the last seq" 3 "$line"
exec 8<&-
wait "$publisher"
equals "publish ends well" 0 $?

gives "a time limit" 5 ctl publish s e --durability synced --print-seq --timeout 20ms
equals "no seq without a confirm" "" "$(cat "$work/out")"
contains "the seq is told" "seq 4 published, but not confirmed" "$work/err"
gives "sync with a time limit" 5 ctl sync s --timeout 20ms
gives "flushed does not wait" 0 ctl publish s f --durability flushed --print-seq
equals "its seq" 5 "$(cat "$work/out")"
ctl consume s -n 1 --durability synced >"$work/taken" 2>"$work/taken.err" &
consumer=$!
children+=("$consumer")
until [[ -s $work/taken ]]; do :; done
while kill -0 "$consumer" 2>/dev/null; do echo 6 >&"$to_mover"; done
wait "$consumer"
equals "consume with synced acks" 0 $?

# It goes away while one message waits for it and the next is published.
mkfifo "$work/slow"
ctl publish s --durability synced --print-seq --rate 2 <"$work/slow" >"$work/slow.seqs" 2>"$work/err" &
publisher=$!
children+=("$publisher")
exec 7>"$work/slow"
seq 1 1000 >&7
until [[ $(ctl -o json stat s | json stats tail_seq) -ge 7 ]]; do :; done
exec {to_mover}>&-
wait "$played_pid"
equals "the daemon is gone" 0 $?
exec 7>&-
wait "$publisher"
equals "publish ends with an error" 1 $?
equals "which tells what was not confirmed, too" 1 \
  "$(grep -cE 'publish message [0-9]+ .*: not published.*; seqs? 6.* published, but not confirmed.*\(.*shmqctl sync s\)' "$work/err")"
equals "and prints no seq of it" "" "$(cat "$work/slow.seqs")"
published=$(($(ctl -o json stat s | json stats tail_seq) - 6))
gives "nothing is published without it" 1 ctl publish s g --durability synced --print-seq
contains "it says so" "not published" "$work/err"
gives "memory goes on" 0 ctl publish s g --print-seq
equals "the next seq" $((6 + published)) "$(cat "$work/out")"
gives "sync without it" 1 ctl sync s
contains "sync says why" "not running" "$work/err"

finish
