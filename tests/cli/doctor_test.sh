#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# shmqctl doctor, gc and completion.
source "$(dirname "$0")/common.bash"

# says CLAIM PATTERN: stdout of the last command has such a line.
says() { grep -Eq -- "$2" "$work/out" && pass || fail "$1: no line /$2/ in: $(cat "$work/out")"; }
says_not() { grep -Eq -- "$2" "$work/out" && fail "$1: a line /$2/" || pass; }

# --- doctor --------------------------------------------------------------------------------------
gives "doctor" 0 ctl doctor
equals "each line is a level, a subject and a text" "" \
  "$(grep -vE '^(ok  |warn|fail) [a-zA-Z_]+: .+' "$work/out")"
for subject in version shm io_uring RemoveIPC limits namespaces queues stale; do
  says "it looks at $subject" "^(ok  |warn) $subject: "
done
says "no queue" '^ok   queues: 0 of 0 can be read$'
equals "each warning says what to do" "" "$(grep '^warn' "$work/out" | grep -v ')$')"

fake=$work/root
mkdir -p "$fake/usr/lib/systemd/logind.conf.d" "$fake/etc/systemd/logind.conf.d"
gives "without logind" 0 ctl doctor --root "$fake"
says "nothing removes" '^ok   RemoveIPC: no systemd-logind here$'
touch "$fake/usr/lib/systemd/systemd-logind"
gives "systemd's default" 0 ctl doctor --root "$fake"
says "is on" '^(ok  |warn) RemoveIPC: on: '
printf '[Login]\n#RemoveIPC=yes\nRemoveIPC=no\n' >"$fake/etc/systemd/logind.conf"
gives "off" 0 ctl doctor --root "$fake"
says "off" '^ok   RemoveIPC: off$'
printf '[Login]\nRemoveIPC = yes\n' >"$fake/usr/lib/systemd/logind.conf.d/50-ipc.conf"
gives "a drop-in" 0 ctl doctor --root "$fake"
says "stands above the file" '^(ok  |warn) RemoveIPC: on: '
printf '[Login]\n' >"$fake/etc/systemd/logind.conf.d/50-ipc.conf"
gives "a drop-in of the same name" 0 ctl doctor --root "$fake"
says "hides it" '^ok   RemoveIPC: off$'
printf '[Login]\nRemoveIPC=True\n' >"$fake/etc/systemd/logind.conf.d/60-ipc.conf"
gives "a later one" 0 ctl doctor --root "$fake"
says "wins" '^(ok  |warn) RemoveIPC: on: '

(ulimit -n 64; ulimit -f 1048576; ctl doctor >"$work/out")
says "few files" '^warn limits: 64 open files: .* \(ulimit -n 1024'
says "small files" '^warn limits: file size at most 1 GiB: .* \(ulimit -f'

gives "create" 0 ctl queue create q --group work
seq 1 3 | ctl publish q
gives "doctor" 0 ctl doctor
says "a group that nobody consumes" \
  '^warn queues: group work of q: 3 wait and nobody consumes \(start consumers, or shmqctl group rm q work\)$'
gives "JSON" 0 ctl -o json doctor
equals "JSON" warn "$(json level <"$work/out")"
printf 'not a queue' >/dev/shm/shmq."$ns".broken
gives "something is wrong" 1 ctl doctor
says "says what" '^fail queues: broken: '
rm -f /dev/shm/shmq."$ns".broken

# --- gc ------------------------------------------------------------------------------------------
gives "gc" 0 ctl gc
says "nothing to do" '^nothing is left behind$'
"$shmqctl" consume q --group work --follow >"$work/consumer" &
child=$!
while [[ $(of_group q work acked_total) -lt 3 ]]; do :; done
kill -KILL $child
wait $child 2>/dev/null
touch /dev/shm/shmq."$ns".gone.{lock,mark}
gives "doctor" 0 ctl doctor
says "a dead consumer" "^warn stale: q: dead participant: #0 consumer, pid $child \(shmqctl gc\)$"
says "companions" "^warn stale: gone: companion: shmq.$ns.gone.mark \(shmqctl gc\)$"
gives "gc --dry-run" 0 ctl gc --dry-run
equals "tells three" 3 "$(grep -c ' stale$' "$work/out")"
equals "and leaves them" 2 "$(find /dev/shm -name "shmq.$ns.gone.*" | wc -l)"
gives "gc" 0 ctl -o json gc
equals "clears them" "cleared cleared cleared" \
  "$(for i in 0 1 2; do json stale $i state <"$work/out"; done | xargs)"
equals "they are gone" 0 "$(find /dev/shm -name "shmq.$ns.gone*" | wc -l)"
equals "the queue is not" 3 "$(ctl -o json stat q | json stats published_total)"
gives "again" 0 ctl gc
says "nothing to do" '^nothing is left behind$'
refused "a bad namespace" 2 "not a valid namespace" ctl --namespace 'A B' gc

# --- completion ----------------------------------------------------------------------------------
refused "a shell that is none" 2 "tcsh" ctl completion tcsh
gives "bash" 0 ctl completion bash
# complete WORD…: what bash offers for the last one.
offers() {
  PATH=$(dirname "$shmqctl"):$PATH bash -c '
    source "$0"
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _shmqctl
    printf "%s\n" "${COMPREPLY[@]}"' "$work/out" "$@" | sort -u | xargs
}
equals "a command" "completion consume consumer" "$(offers shmqctl co)"
equals "after it" "create info ls purge rm" "$(offers shmqctl queue '' | tr ' ' '\n' | grep -v '^-' | xargs)"
equals "an option" "--target-backlog --target-drain" "$(offers shmqctl scale --target)"
equals "a global one" "--namespace" "$(offers shmqctl queue ls --names)"
equals "after a global one" "--backlog-crit --backlog-warn" "$(offers shmqctl -q check --backlog)"
equals "a queue" q "$(offers shmqctl stat '' | tr ' ' '\n' | grep -v '^-')"
for shell in bash zsh fish; do
  gives "$shell" 0 ctl completion "$shell"
  for command in "queue create" "consumer ls" check doctor; do
    says "$shell knows $command" "'$command'"
  done
  cp "$work/out" "$work/script"
  if command -v "$shell" >/dev/null; then
    gives "$shell reads its script" 0 "$shell" -n "$work/script"
  else
    skip "$shell is not installed: its script was not read by it"
  fi
done
finish
