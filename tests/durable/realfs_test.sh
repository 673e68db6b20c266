#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Power cuts on a real file system: realfs_test.sh SHMQCTL SHMQD
#
# Four producers publish with --durability synced to a queue whose journal lies on ext4 on a loop
# device. FS_IOC_SHUTDOWN without a flush of the log cuts the file system off, as a loss of power
# does; daemon and producers are killed, /dev/shm is emptied, another boot id is in force, and the
# file system is mounted again. Every seq that was printed before the cut must be delivered, with its
# payload; in every second round a consumer runs as well, and what it wrote counts as delivered.
# SHMQ_SEED repeats the moments; SHMQ_LONG=1 makes 50 cuts of 10.
set -u -o pipefail
shmqctl=$(realpath "${1:?the path of shmqctl}")
shmqd=$(realpath "${2:?the path of shmqd}")
here=$(dirname "$(readlink -f "$0")")
skip() { echo "realfs_test: skipped: $*"; exit 77; }

[ "$(id -u)" -eq 0 ] || skip "needs root"
command -v mkfs.ext4 >/dev/null || skip "needs mkfs.ext4 (e2fsprogs)"
if [ -z "${SHMQ_REALFS_INSIDE-}" ]; then
  # Mounts and another boot id are nobody else's business.
  unshare -m --propagation private true 2>/dev/null || skip "needs mount namespaces"
  SHMQ_REALFS_INSIDE=1 exec unshare -m --propagation private "$0" "$@"
fi

cuts=10
[ -z "${SHMQ_LONG-}" ] || cuts=50
seed=${SHMQ_SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
echo "realfs_test: seed $seed, $cuts cuts"
RANDOM=$((seed % 32768))

work=$(mktemp -d "${TMPDIR:-/tmp}/shmq-realfs.XXXXXX")
export SHMQ_NAMESPACE=trealfs$$ SHMQ_RUNTIME_DIR=$work/run
unset XDG_RUNTIME_DIR
started=()
clean_up() {
  for pid in "${started[@]}"; do kill -KILL "$pid" 2>/dev/null; done
  wait 2>/dev/null
  umount -l "$work/disk" 2>/dev/null
  umount /proc/sys/kernel/random/boot_id 2>/dev/null
  rm -f /dev/shm/"shmq.$SHMQ_NAMESPACE".*
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
die() { echo "FAILED: $*" >&2; tail -n 5 "$work"/shmqd.log >&2; exit 1; }

mkdir "$work/disk" "$work/run" "$work/history"
truncate -s 1G "$work/image" && mkfs.ext4 -q "$work/image" || skip "cannot make an ext4 file system"
mount -o loop "$work/image" "$work/disk" 2>/dev/null || skip "needs loop devices"

another_boot() {
  cat /proc/sys/kernel/random/uuid >"$work/boot_id"
  mount --bind "$work/boot_id" /proc/sys/kernel/random/boot_id
}
start_daemon() {
  "$shmqd" --foreground --data-dir "$work/disk/data" --runtime-dir "$work/run" >>"$work/shmqd.log" 2>&1 &
  daemon=$!
  started+=("$daemon")
}
# await CLAIM COMMAND…: up to 30 s.
await() {
  local claim=$1 i; shift
  for ((i = 0; i < 600; i++)); do
    "$@" >/dev/null 2>&1 && return
    kill -0 "$daemon" 2>/dev/null || die "$claim: shmqd has ended"
    sleep 0.05
  done
  die "$claim: not within 30 s"
}

# By one of the producers: three may fill the ring before the fourth has begun.
any_confirmed() {
  local file
  for file in "$work/history/printed-$cut"-*; do [ ! -s "$file" ] || return 0; done
  return 1
}

another_boot
start_daemon
await "the daemon answers" "$shmqctl" daemon status
"$shmqctl" queue create q --durable --capacity 65536 --group g || die "create"

for ((cut = 1; cut <= cuts; cut++)); do
  victims=()
  for producer in 1 2 3 4; do
    seq -f "cut$cut-producer$producer-%.0f" 1 10000000 |
      "$shmqctl" publish q --durability synced --print-seq >"$work/history/printed-$cut-$producer" 2>/dev/null &
    victims+=("$!")
  done
  if ((cut % 2 == 0)); then
    "$shmqctl" consume q --group g --follow --format json >"$work/history/delivered-$cut-before" 2>/dev/null &
    victims+=("$!")
  fi
  started+=("${victims[@]}")
  await "something is confirmed" any_confirmed
  sleep "0.$((RANDOM % 5))$((RANDOM % 10))$((RANDOM % 10))"
  python3 "$here/cut_off.py" "$work/disk" || skip "the file system knows no shutdown"
  kill -KILL "$daemon" "${victims[@]}" 2>/dev/null
  wait 2>/dev/null
  # A producer may have been writing its line; only whole lines count.
  rm -f /dev/shm/"shmq.$SHMQ_NAMESPACE".*
  umount "$work/disk" || die "umount"
  umount /proc/sys/kernel/random/boot_id
  another_boot
  mount -o loop "$work/image" "$work/disk" || die "mount"
  start_daemon
  await "cut $cut: the daemon serves the queue again" "$shmqctl" stat q
  "$shmqctl" consume q --group g --format json --timeout 0 >"$work/history/delivered-$cut-after" ||
    die "consume after cut $cut"
done
"$shmqctl" daemon drain || die "drain"
wait "$daemon" || die "shmqd did not end well"
python3 "$here/check_cuts.py" "$work/history" "$cuts" || die "see above"
