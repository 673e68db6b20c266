#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What goes in comes out: lines, NUL-ended messages, frames, JSON, attributes, --exec, looking.
source "$(dirname "$0")/common.bash"

field() { python3 -c 'import json,sys; d=json.load(sys.stdin)
for key in sys.argv[1].split("."): d = d[int(key)] if key.isdigit() else d[key]
print(d)' "$1"; }

gives "create" 0 ctl queue create q --capacity 1024 --arena 8MiB --group default:exclusive --group other:exclusive
equals "create makes a remark" "queue 'q' created" "$(cat "$work/out")"

# --- lines -------------------------------------------------------------------------------------
printf 'a\n\nlast without newline' | ctl publish q
ctl consume q --timeout 0 >"$work/got"
printf 'a\n\nlast without newline\n' >"$work/expected"
same_bytes "an empty line is a message, a last line needs no newline" "$work/expected" "$work/got"

gives "message argument" 0 ctl publish q 'one message'
gives "a word that is a command is a message, too" 0 ctl publish q queue
gives "empty message" 0 ctl publish q ''
gives "leading dash" 0 ctl publish q -- -x
ctl consume q --timeout 0 >"$work/got"
printf 'one message\nqueue\n\n-x\n' >"$work/expected"
same_bytes "messages of the command line" "$work/expected" "$work/got"

# A line that has arrived is published although the stream goes on.
mkfifo "$work/fifo"
"$shmqctl" publish q <"$work/fifo" &
children+=("$!")
exec 9>"$work/fifo"
printf 'early\nhalf' >&9
equals "a line is published before the stream ends" early "$(ctl consume q -n 1 --timeout 60s)"
printf ' done\n' >&9
equals "the rest of a line" "half done" "$(ctl consume q -n 1 --timeout 60s)"
exec 9>&-
wait "${children[-1]}"

# --- long and binary ---------------------------------------------------------------------------
head -c 3000000 /dev/urandom | tr -d '\n' | head -c 1000000 >"$work/large"
{ cat "$work/large"; echo; cat "$work/large"; echo; } >"$work/expected"
ctl publish q <"$work/expected"
ctl consume q --timeout 0 >"$work/got"
same_bytes "lines of a megabyte" "$work/expected" "$work/got"

printf 'line one\nline two\0\0\xff\xfe\0' >"$work/expected"
ctl publish q --null <"$work/expected"
ctl consume q --null --timeout 0 >"$work/got"
same_bytes "--null keeps newlines" "$work/expected" "$work/got"

python3 - "$work/expected" <<'P'
import os, struct, sys
with open(sys.argv[1], "wb") as out:
    for size in [0, 1, 2, 3, 4, 7, 8, 63, 64, 65, 255, 4096, 65535, 65536, 262144, 300000, 900000]:
        out.write(struct.pack("<I", size) + os.urandom(size))
P
ctl publish q --frame <"$work/expected"
ctl peek q --frame -n 100 >"$work/got"
same_bytes "peek --frame" <(tail -c "$(stat -c %s "$work/got")" "$work/got") "$work/got"
ctl consume q --frame --timeout 0 >"$work/got"
same_bytes "--frame keeps any bytes" "$work/expected" "$work/got"

head -c 500000 /dev/urandom >"$work/expected"
ctl publish q --file "$work/expected"
ctl consume q --exec "cat >$work/got" --timeout 0
same_bytes "--file is one message" "$work/expected" "$work/got"
gives "frame cut short" 1 bash -c "printf '\\5\\0\\0\\0ab' | '$shmqctl' publish q --frame"
one_line "frame cut short" "middle of a frame"

# --- attributes, time, seq, JSON ---------------------------------------------------------------
before=$(ctl -o json stat q | field stats.tail_seq)
gives "attributes" 0 ctl publish q 'héllo' --attribute type=order --attribute 'empty=' --publish-time --print-seq
equals "--print-seq" "$before" "$(cat "$work/out")"
ctl peek q --from "$before" --format json >"$work/json"
equals "peek: payload" "héllo" "$(PYTHONIOENCODING=utf-8 field payload <"$work/json")"
ctl consume q --format json --timeout 0 >"$work/json"
equals "json: one line" 1 "$(wc -l <"$work/json")"
equals "json: schema" 1 "$(field schema_version <"$work/json")"
equals "json: seq" "$before" "$(field seq <"$work/json")"
equals "json: bytes" 6 "$(field payload_bytes <"$work/json")"
equals "json: attribute" order "$(field attributes.type <"$work/json")"
equals "json: empty attribute" "" "$(field attributes.empty <"$work/json")"
equals "json: hand-outs" 1 "$(field hand_outs <"$work/json")"
field publish_time <"$work/json" | grep -Eq '^20[0-9]{2}-[0-9-]+T[0-9:]+\.[0-9]{9}Z$' && pass ||
  fail "publish time: $(cat "$work/json")"
printf '\xff\x00\x01' | ctl publish q --file -
equals "json: binary" "/wAB" "$(ctl consume q --format json --timeout 0 | field payload_base64)"
seq 1 300 | ctl publish q --print-seq >"$work/got"
seq $((before + 2)) $((before + 301)) >"$work/expected"
same_bytes "--print-seq of a stream" "$work/expected" "$work/got"
equals "json of publish" 1 "$(ctl -o json publish q x | field published)"
gives "-n" 0 ctl consume q -n 301
equals "-n: messages" 301 "$(wc -l <"$work/out")"

# --- groups, ack none, exec --------------------------------------------------------------------
gives "purge" 0 ctl queue purge q
equals "purge settles for the other group, too" 0 "$(ctl -o json stat q | field groups.1.ready)"
seq 1 5 | ctl publish q
equals "--ack none gives back" "1 2 3 4 5" "$(ctl consume q --ack none --timeout 0 | xargs)"
equals "a portion" "1 2" "$(ctl consume q -n 2 | xargs)"
equals "the rest" "3 4 5" "$(ctl consume q --timeout 0 | xargs)"
equals "another group has its own progress" "1 2 3 4 5" "$(ctl consume q --group other --timeout 0 | xargs)"

ctl publish q good --attribute content-type=text
equals "--exec: attributes and seq" "text $((before + 308)) good" \
  "$(ctl consume q --timeout 0 --exec 'echo "$SHMQ_ATTR_CONTENT_TYPE $SHMQ_SEQ $(cat)"')"
seq 1 3 | ctl publish q
# The second message fails twice: it is delivered again before the third.
ctl consume q --exec 'read -r line; echo "$line" >>'"$work/tries"'
  if [ "$line" = 2 ] && [ "$(grep -c 2 '"$work/tries"')" -lt 3 ]; then exit 7; fi'
equals "--exec: exit" 0 $?
equals "--exec: nack holds successors back" "1 2 2 2 3" "$(xargs <"$work/tries")"
ctl publish q lazy
gives "--exec: a command that ignores its input" 0 ctl consume q --timeout 0 --exec true
ctl publish q never
gives "--exec: a command that fails" 5 ctl consume q -n 1 --timeout 1ms --exec false
one_line "--exec: a command that fails" "0 of 1"
equals "--exec: not acked" never "$(ctl consume q --timeout 2s -n 1)"

# --- the end -----------------------------------------------------------------------------------
gives "-n in vain" 5 ctl consume q -n 1 --timeout 10ms
one_line "-n in vain" "0 of 1 messages"
for signal in INT:130 TERM:143; do
  # A background job of a script has SIGINT ignored; env sets it back.
  env --default-signal=INT "$shmqctl" consume q --follow >"$work/got" 2>"$work/err" &
  consumer=$!
  children+=("$consumer")
  ctl publish q "${signal%:*}"
  until [[ -s $work/got ]]; do read -r -t 0.01 <> <(:); done
  kill -"${signal%:*}" "$consumer"
  wait "$consumer"
  equals "--follow ends with SIG${signal%:*}" "${signal#*:}" $?
  equals "--follow: nothing on stderr" "" "$(cat "$work/err")"
done

# --- looking -----------------------------------------------------------------------------------
gives "queue ls" 0 ctl queue ls
equals "queue ls: header and row" 2 "$(wc -l <"$work/out")"
gives "--no-headers" 0 ctl queue ls --no-headers
equals "--no-headers" 1 "$(wc -l <"$work/out")"
equals "queue ls json" q "$(ctl -o json queue ls | field queues.0.name)"
equals "queue info json" 1024 "$(ctl -o json queue info q | field queue.slots)"
equals "queue info json: bytes" $((8 << 20)) "$(ctl -o json queue info q | field queue.arena_bytes)"
gives "queue info" 0 ctl queue info q
gives "stat" 0 ctl stat q
gives "group ls" 0 ctl group ls q
gives "group create" 0 ctl group create q late --from latest --lease 5s
equals "group info json" 5.0 "$(ctl -o json group info q late | field group.lease_seconds)"
equals "group from latest" 0 "$(ctl -o json group info q late | field group.ready)"
gives "group rm --dry-run" 0 ctl group rm q late --dry-run
gives "group is still there" 0 ctl group info q late
gives "group rm" 0 ctl group rm q late --yes
gives "group is gone" 3 ctl group info q late
"$shmqctl" consume q --follow >/dev/null &
children+=("$!")
until ctl -o json consumer ls q | grep -q '"role": "consumer"'; do :; done
equals "consumer ls: pid" "${children[-1]}" "$(ctl -o json consumer ls q | field participants.0.pid)"
gives "consumer ls" 0 ctl consumer ls q
kill "${children[-1]}"
wait "${children[-1]}"
gives "rm --dry-run" 0 ctl queue rm q --dry-run
gives "still there" 0 ctl queue info q
gives "--version" 0 ctl --version
grep -Eq '^shmqctl [0-9]+\.[0-9]+\.[0-9]+$' "$work/out" && pass || fail "--version: $(cat "$work/out")"
gives "--help" 0 ctl consume --help
gives "rm" 0 ctl queue rm q
gives "-q is quiet" 0 ctl -q queue create q
equals "-q is quiet" "" "$(cat "$work/out")"
gives "rm" 0 ctl queue rm q -y
gives "gone" 3 ctl queue info q
finish
