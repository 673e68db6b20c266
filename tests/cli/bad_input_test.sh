#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Bad input: each case gives the documented exit code and one clear line, and changes nothing.
source "$(dirname "$0")/common.bash"

segment() { echo "/dev/shm/shmq.$ns.$1"; }

# Names the user `nobody` may act as; only root can become it.
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"; }

gives "create" 0 ctl queue create q --capacity 64 --arena 2MiB --chunk 64KiB --max-message 1KiB \
  --max-producers 8 --group default:exclusive --group other
seq 1 3 | ctl publish q
state_of q >"$work/before"
unchanged() {
  state_of q >"$work/after"
  same_bytes "$1: the queue is unchanged" "$work/before" "$work/after"
}

# --- usage ---------------------------------------------------------------------------------------
refused "no command" 2 "" ctl
refused "unknown command" 2 "" ctl frobnicate
refused "unknown option" 2 "frobnicate" ctl publish q x --frobnicate
refused "option without value" 2 "" ctl publish q --file
refused "no queue named" 2 "" ctl publish
refused "size" 2 "64XiB" ctl queue create x --arena 64XiB
refused "time" 2 "soon" ctl consume q --timeout soon
refused "count" 2 "many" ctl consume q -n many
refused "mode" 2 "rw" ctl queue create x --mode rw
refused "policy" 2 "explode" ctl queue create x --overflow explode
refused "format" 2 "xml" ctl consume q --format xml
refused "output" 2 "xml" ctl -o xml queue ls
refused "no such user" 2 "no user" ctl --trust-owner no-such-user-here queue ls
refused "no such unix group" 2 "no group" ctl queue create x --owner-group no-such-group-here
refused "exclusive options" 2 "" ctl publish q message --file x
refused "attribute" 2 "key=value" ctl publish q message --attribute novalue
for limit in 0 64 -1 many; do
  refused "delivery limit $limit" 2 "delivery-limit" ctl group create q g --delivery-limit $limit
done
refused "exclusive groups have no delivery limit" 2 "exclusive" \
  ctl group create q g --mode exclusive --delivery-limit 3
refused "no delivery limit without a shared group" 2 "shared" ctl queue create x --delivery-limit 3
refused "group mode" 2 "competing" ctl group create q g --mode competing
refused "group mode at creation" 2 "competing" ctl queue create x --group g:competing
refused "lease" 2 "soon" ctl group create q g --lease soon
refused "lease out of range" 2 "hour" ctl group create q g --lease 2h
refused "out of range" 2 "" ctl queue create x --capacity 3
refused "no power of two" 2 "" ctl queue create x --chunk 5000
unchanged "usage"

# --- names -----------------------------------------------------------------------------------
for name in '' A 'a/b' ../x .hidden 'a b' -- $'a\nb' "$(printf 'a%.0s' {1..65})"; do
  [[ $name == -- ]] && continue
  refused "name '$name'" 2 "" ctl queue create "$name"
  refused "name '$name'" 2 "" ctl publish "$name" x
done
refused "group name" 2 "" ctl group create q 'No'
refused "group name at creation" 2 "" ctl queue create x --group 'No'
refused "namespace name" 2 "" ctl --namespace 'No/No' queue create x
equals "nothing was created" "$(printf '%s\n' "$(segment q)" "$(segment q).lock")" \
  "$(find /dev/shm -name "shmq.$ns.*" | sort)"
unchanged "names"

# --- not there -------------------------------------------------------------------------------
for command in "queue info" "queue rm" "queue purge" "group ls" "publish" "consume" "peek" "stat" \
  "consumer ls"; do
  # shellcheck disable=SC2086 # the words of the command
  refused "$command: no such queue" 3 "'nowhere'.*\(.+\)" ctl $command nowhere
done
refused "publish stdin: no such queue" 3 "nowhere" ctl publish nowhere
refused "another namespace" 3 "no such queue" ctl --namespace "$ns-other" queue info q
refused "consume: no such group" 3 "'nobody'" ctl consume q --group nobody
refused "group info: no such group" 3 "'nobody'" ctl group info q nobody
refused "group rm: no such group" 3 "'nobody'" ctl group rm q nobody
refused "publish: no such file" 3 "no-such-file" ctl publish q --file "$work/no-such-file"
unchanged "not there"

# --- exists --------------------------------------------------------------------------------------
refused "create over a queue" 1 "'q'" ctl queue create q
refused "create over a queue, the same limits" 1 "'q'" ctl queue create q --capacity 64 --arena 2MiB \
  --chunk 64KiB --max-message 1KiB --max-producers 8
for limit in "--capacity 128" "--arena 4MiB" "--chunk 128KiB" "--max-message 2KiB" "--window 64" \
  "--overflow fail" "--max-groups 3"; do
  words="--capacity 64 --arena 2MiB --chunk 64KiB --max-message 1KiB --max-producers 8 $limit"
  [[ $words == *"--capacity 64"*"--capacity"* ]] && words=${words/--capacity 64 /}
  [[ $words == *"--arena 2MiB"*"--arena"* ]] && words=${words/--arena 2MiB /}
  [[ $words == *"--chunk 64KiB"*"--chunk"* ]] && words=${words/--chunk 64KiB /}
  [[ $words == *"--max-message 1KiB"*"--max-message"* ]] && words=${words/--max-message 1KiB /}
  # shellcheck disable=SC2086 # the words of the options
  refused "exists with other limits: $limit" 1 "'q'" ctl queue create q --if-not-exists $words
done
gives "--if-not-exists with the same limits" 0 ctl queue create q --if-not-exists --capacity 64 \
  --arena 2MiB --chunk 64KiB --max-message 1KiB --max-producers 8 --group default:exclusive --group other
limits="--capacity 64 --arena 2MiB --chunk 64KiB --max-message 1KiB --max-producers 8"
for group in "--group default" "--group other:exclusive" "--group other --lease 5s" \
  "--group other --delivery-limit 3"; do
  # shellcheck disable=SC2086 # the words of the options
  refused "its group is another: $group" 1 "'(default|other)'.*(shared|exclusive|lease|limit)" \
    ctl queue create q --if-not-exists $limits $group
done
refused "group exists" 1 "'other'" ctl group create q other
unchanged "exists"

# --- messages and groups -------------------------------------------------------------------------
head -c 2000 /dev/zero | tr '\0' x >"$work/large"
refused "message too large" 1 "too large.*1024" ctl publish q "$(cat "$work/large")"
refused "file too large" 1 "too large" ctl publish q --file "$work/large"
refused "line too large" 1 "message 1 .*too large" bash -c "'$shmqctl' publish q <'$work/large'"
refused "frame too large" 1 "too large" \
  bash -c "printf '\\377\\377\\377\\377' | '$shmqctl' publish q --frame"
refused "wrong group mode" 1 "mode" ctl consume q --mode shared --timeout 0
refused "wrong group mode, the other way" 1 "mode" ctl consume q --group other --mode exclusive --timeout 0
refused "durable without the daemon" 1 "daemon" ctl queue create x --durable
refused "start beyond the tail" "$(ctl group create q s --from 99 >/dev/null 2>&1; echo $?)" "" \
  ctl group create q s --from 99
unchanged "messages and groups"

# A batch of lines of which one is too large: those before it are published, the count is told.
gives "create" 0 ctl queue create lines --arena 2MiB --chunk 64KiB --max-message 1KiB --max-producers 8
refused "large line after two" 1 "message 3 .*too large" \
  bash -c "{ echo 1; echo 2; cat '$work/large'; echo; echo 4; } | '$shmqctl' publish lines"
equals "the lines before it are there" "1 2" "$(ctl consume lines --timeout 0 | xargs)"
gives "rm" 0 ctl queue rm lines

# --- full ----------------------------------------------------------------------------------------
gives "create" 0 ctl queue create full --capacity 16 --overflow fail
refused "full" 1 "message 17 .*full" bash -c "seq 1 100 | '$shmqctl' publish full"
equals "what fitted is there" 16 "$(ctl consume full --timeout 0 | wc -l)"
gives "create" 0 ctl queue create narrow --capacity 16
refused "no room in time" 5 "timed? ?out|time" bash -c "seq 1 100 | '$shmqctl' publish narrow --timeout 10ms"
equals "what fitted is there" 16 "$(ctl consume narrow --timeout 0 | wc -l)"
gives "rm" 0 ctl queue rm full
gives "rm" 0 ctl queue rm narrow

# --- stdout closed -------------------------------------------------------------------------------
# `head` reads one line and goes; consume cannot write the rest. The messages are larger than a
# pipe in sum, so the first block cannot be swallowed whole.
gives "create" 0 ctl queue create pipe
seq -f '%0200.0f' 1 20000 | ctl publish pipe
ctl consume pipe --timeout 0 2>"$work/err" | head -n 1 >"$work/got"
equals "stdout closed: exit" 1 "${PIPESTATUS[0]}"
one_line "stdout closed" "not acknowledged"
left=$(ctl -o json stat pipe | python3 -c 'import json,sys; g=json.load(sys.stdin)["groups"][0]; print(g["ready"]+g["delayed"], 20000-g["acked_total"])')
equals "stdout closed: what was not acked is ready" "${left#* }" "${left% *}"
first=$(ctl peek pipe --from $((20000 - ${left% *})) -n 1)
equals "stdout closed: a later consume begins there" "$first" "$(ctl consume pipe -n 1 --timeout 0)"
: >"$work/err"
(ctl consume pipe --timeout 0 2>"$work/err" >&-)
equals "no stdout at all: exit" 1 $?
one_line "no stdout at all" "write to stdout"
gives "later" 0 ctl consume pipe --timeout 0
equals "no stdout at all: all are delivered later" "$((${left% *} - 1))" "$(wc -l <"$work/out")"
if [[ -w /dev/full ]]; then
  ctl publish pipe again
  ctl consume pipe --timeout 0 >/dev/full 2>"$work/err"
  equals "disk full: exit" 1 $?
  one_line "disk full" "No space left"
  equals "disk full: not acked" again "$(ctl consume pipe --timeout 0)"
fi
gives "rm" 0 ctl queue rm pipe

# --- what is no queue, or another's --------------------------------------------------------------
# refuses_file NAME CLAIM EXIT: every command refuses it; it is not changed by that.
refuses_file() {
  cp "$(segment "$1")" "$work/copy"
  for command in "queue info" "publish" "consume" "stat" "peek"; do
    # shellcheck disable=SC2086 # the words of the command
    refused "$2: $command" "$3" "'$1'" ctl $command "$1"
  done
  refused "$2: create --if-not-exists" "$3" "'$1'" ctl queue create "$1" --if-not-exists
  same_bytes "$2: unchanged" "$work/copy" "$(segment "$1")"
  gives "$2: queue ls shows it" 0 ctl queue ls
  grep -q "^$1 " "$work/out" && pass || fail "$2: queue ls: $(cat "$work/out")"
}

head -c 100000 /dev/urandom >"$(segment random)"
refuses_file random "random bytes" 1
: >"$(segment empty)"
refuses_file empty "an empty file" 1
for bytes in 100 4096 70000; do
  head -c $bytes "$(segment q)" >"$(segment truncated)"
  refuses_file truncated "truncated to $bytes" 1
done
rm -f "$(segment random)" "$(segment empty)" "$(segment truncated)"

# Another ABI version: the number follows the magic; whatever stands there, it is refused.
for offset in 8 12; do
  cp "$(segment q)" "$(segment other)"
  printf '\xee\x7e' | dd of="$(segment other)" bs=1 seek=$offset conv=notrunc status=none
  refuses_file other "version bytes at $offset" 1
done
for offset in 0 3; do
  cp "$(segment q)" "$(segment other)"
  printf '\xee\x7e' | dd of="$(segment other)" bs=1 seek=$offset conv=notrunc status=none
  refuses_file other "magic at $offset" 1
done
# A state that is neither active nor removed: damaged, and not taken for removed. It stands 4 bytes
# behind message_event, in the page behind the header.
rm -f "$(segment other)"
cp "$(segment q)" "$work/good"
printf '\xee\x7e' | dd of="$(segment q)" bs=1 seek=$((4096 + 384 + 4)) conv=notrunc status=none
refused "a damaged state" 1 "'q'.*state" ctl queue info q
cp "$work/good" "$(segment q)"
unchanged "files that are no queue"

# --- other users, a small /dev/shm ---------------------------------------------------------------
if [[ $(id -u) -eq 0 ]] && as_nobody true 2>/dev/null; then
  chmod 755 "$work"
  install -m 755 "$shmqctl" "$work/shmqctl"
  library=$(dirname "$(ldd "$shmqctl" | awk '/libshmq/ { print $3 }')")
  if as_nobody env LD_LIBRARY_PATH="$library" "$work/shmqctl" --version >"$work/out" 2>&1; then
    nobody_ctl=(as_nobody env "LD_LIBRARY_PATH=$library" "$work/shmqctl")
  else
    # The build directory is closed to others: take the library along.
    cp -L "$library"/libshmq.so* "$work/"
    chmod 755 "$work"/libshmq.so*
    nobody_ctl=(as_nobody env "LD_LIBRARY_PATH=$work" "$work/shmqctl")
  fi
  for command in "queue info" "publish" "consume" "queue rm"; do
    # shellcheck disable=SC2086 # the words of the command
    refused "no permission: $command" 4 "'q'" "${nobody_ctl[@]}" $command q
  done
  unchanged "no permission"
  gives "nobody creates" 0 "${nobody_ctl[@]}" queue create foreign --arena 2MiB --chunk 64KiB --max-producers 8
  for command in "queue info" "publish" "consume" "stat" "queue create --if-not-exists"; do
    # shellcheck disable=SC2086 # the words of the command
    refused "foreign owner: $command" 4 "'foreign'" ctl $command foreign
  done
  gives "a trusted owner" 0 ctl --trust-owner nobody publish foreign hello
  equals "a trusted owner" hello "$(ctl --trust-owner 65534 consume foreign --timeout 0)"
  gives "nobody removes" 0 "${nobody_ctl[@]}" queue rm foreign

  if unshare -m true 2>/dev/null; then
    unshare -m bash -c "mount -t tmpfs -o size=1m tmpfs /dev/shm &&
      '$shmqctl' queue create big; code=\$?; ls /dev/shm | wc -l; exit \$code" \
      >"$work/out" 2>"$work/err" </dev/null
    equals "/dev/shm too small: exit" 1 $?
    one_line "/dev/shm too small" "/dev/shm has no room for .*1 MiB in all"
    equals "/dev/shm too small: nothing is left there" 0 "$(cat "$work/out")"
  else
    skip "a small /dev/shm (no mount namespace)"
  fi
else
  skip "other users and a small /dev/shm (not root)"
fi

unchanged "all of it"
gives "rm" 0 ctl queue rm q
finish
