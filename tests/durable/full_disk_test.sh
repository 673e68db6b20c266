#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A disk that is full under the real daemon: full_disk_test.sh SHMQCTL SHMQD
#
# The journal lies on a small ext4 on a loop device, most of it taken by a file of somebody else. Where
# the next journal file finds no room, nothing is confirmed any more, publishers wait or are told so, and
# a daemon that is killed and started on the full disk is the same. When there is room it goes on by
# itself, and all that was ever confirmed is delivered from disk alone.
set -u -o pipefail
shmqctl=$(realpath "${1:?the path of shmqctl}")
shmqd=$(realpath "${2:?the path of shmqd}")
skip() { echo "full_disk_test: skipped: $*"; exit 77; }

[ "$(id -u)" -eq 0 ] || skip "needs root"
command -v mkfs.ext4 >/dev/null || skip "needs mkfs.ext4 (e2fsprogs)"
if [ -z "${SHMQ_FULL_DISK_INSIDE-}" ]; then
  unshare -m --propagation private true 2>/dev/null || skip "needs mount namespaces"
  SHMQ_FULL_DISK_INSIDE=1 exec unshare -m --propagation private "$0" "$@"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/shmq-full-disk.XXXXXX")
export SHMQ_NAMESPACE=tfull$$ SHMQ_RUNTIME_DIR=$work/run
unset XDG_RUNTIME_DIR
started=()
checks=0
clean_up() {
  for pid in "${started[@]}"; do kill -KILL "$pid" 2>/dev/null; done
  wait 2>/dev/null
  umount -l "$work/disk" 2>/dev/null
  rm -f /dev/shm/"shmq.$SHMQ_NAMESPACE".*
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
die() { echo "FAILED: $*" >&2; tail -n 5 "$work"/shmqd.log >&2; exit 1; }
check() { local claim=$1; shift; checks=$((checks + 1)); "$@" || die "$claim"; }

mkdir "$work/disk" "$work/run"
truncate -s 48M "$work/image" && mkfs.ext4 -q -m 0 "$work/image" || skip "cannot make an ext4 file system"
mount -o loop "$work/image" "$work/disk" 2>/dev/null || skip "needs loop devices"

start_daemon() {
  "$shmqd" --foreground --data-dir "$work/disk/data" --runtime-dir "$work/run" >>"$work/shmqd.log" 2>&1 &
  daemon=$!
  started+=("$daemon")
}
# await CLAIM COMMAND…: up to 30 s, while the daemon lives.
await() {
  local claim=$1 i; shift
  for ((i = 0; i < 600; i++)); do
    "$@" >/dev/null 2>&1 && return
    kill -0 "$daemon" 2>/dev/null || die "$claim: shmqd has ended"
    sleep 0.05
  done
  die "$claim: not within 30 s"
}
state_is() { "$shmqctl" -o json daemon status | grep -Eq "\"state\": ?\"$1\"[,}]?\$|\"state\": ?\"$1\""; }
# All of the disk but so many KiB.
take_room() {
  rm -f "$work/disk/ballast"
  local free
  free=$(df -k --output=avail "$work/disk" | tail -n 1)
  fallocate -l "$((free - $1))K" "$work/disk/ballast" || die "fallocate"
}
printed() { wc -l <"$work/printed"; }
more_than() { [ "$(printed)" -gt "$1" ]; }

start_daemon
await "the daemon answers" "$shmqctl" daemon status
"$shmqctl" queue create q --durable --capacity 16384 --arena 32MiB --group g || die "create"
# Room for the second file, and not for the third.
take_room 5120
: >"$work/printed"
seq -f 'message %.0f' 1 6000 | sed "s/\$/$(printf '%01000d' 0)/" |
  "$shmqctl" publish q --durability synced --print-seq --timeout 60s >"$work/printed" 2>"$work/publisher.err" &
publisher=$!
started+=("$publisher")
await "the daemon says that there is no room" state_is no_space
stood_at=$(printed)
check "some were confirmed before" [ "$stood_at" -gt 0 ]
check "not all were" [ "$stood_at" -lt 6000 ]
check "the publisher waits" kill -0 "$publisher"
echo late | "$shmqctl" publish q --durability synced --print-seq --timeout 300ms >"$work/late" 2>"$work/late.err"
code=$?
check "one that does not wait so long is told (exit $code)" [ "$code" -ne 0 ]
check "nothing is confirmed to it" [ ! -s "$work/late" ]
check "in one line" [ "$(wc -l <"$work/late.err")" -eq 1 ]
check "the log says what to do" grep -q 'no room for its next journal file.*make some' "$work/shmqd.log"
check "it was not taken for a failing disk" [ -z "$(grep DEGRADED "$work/shmqd.log")" ]
check "what the disk has not is not confirmed" [ "$(printed)" -lt 6000 ]

rm "$work/disk/ballast"
await "it goes on by itself" more_than "$stood_at"
check "and confirms them all" wait "$publisher"
check "each once" [ "$(sort -un "$work/printed" | wc -l)" -eq 6000 ]
await "the daemon is well again" state_is ok

# Killed on a full disk, started on it, and given room.
take_room 256
kill -KILL "$daemon"
wait "$daemon" 2>/dev/null
start_daemon
await "it starts on a full disk" "$shmqctl" daemon status
rm "$work/disk/ballast"
await "and serves once there is room" state_is ok
check "a publish is confirmed" "$shmqctl" publish q "message 6002" --durability synced --timeout 30s

kill -KILL "$daemon"
wait "$daemon" 2>/dev/null
rm -f /dev/shm/"shmq.$SHMQ_NAMESPACE".*
start_daemon
await "recovered from disk" "$shmqctl" stat q
"$shmqctl" consume q --group g --format json --timeout 0 >"$work/delivered" || die "consume"
/usr/bin/python3 - "$work/delivered" "$work/printed" <<'PY' || die "see above"
import json, sys
delivered = set()
for line in open(sys.argv[1]):
    delivered.add(json.loads(line)["seq"])
confirmed = {int(line) for line in open(sys.argv[2])}
lost = sorted(confirmed - delivered)
print(f"{len(confirmed)} confirmed, {len(delivered)} delivered, {len(lost)} lost {lost[:5]}")
sys.exit(1 if lost or not confirmed else 0)
PY
echo "full_disk_test: $checks checks, stood at $stood_at of 6000"
