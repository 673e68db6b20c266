#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# systemd finds nothing to complain of in the units, their exposure is at most 1.2, and the units of one
# namespace and of any other say the same.
set -euo pipefail
units=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail() { echo "units_test: $*" >&2; exit 1; }

# But for what names the namespace.
difference=$(diff "$units/shmqd.service" "$units/shmqd@.service" | grep '^[<>]' || true)
[ "$(grep -c . <<<"$difference")" -eq 4 ] && ! grep -vqE '^[<>] (Description|ExecStart)=' <<<"$difference" ||
  fail "shmqd.service and shmqd@.service differ in more than the namespace: $difference"
# systemd would delete the queues at each stop.
for unit in "$units"/shmqd*.service; do
  grep -qx 'RemoveIPC=no' "$unit" || fail "$unit: RemoveIPC=no is missing"
done

command -v systemd-analyze >/dev/null || { echo "skipped: no systemd-analyze here"; exit 77; }
# A root of their own, in which every program that a unit names is there.
mkdir -p "$scratch/etc/systemd/system" "$scratch/usr/lib/systemd/system"
cp /usr/lib/systemd/system/*.target /usr/lib/systemd/system/*.slice "$scratch/usr/lib/systemd/system/" ||
  fail "no units of systemd's own to be verified beside"
cp "$units"/*.service "$scratch/etc/systemd/system/"
sed -n 's/^Exec[A-Za-z]*=[-@:+!]*\([^ ]*\).*/\1/p' "$units"/*.service | sort -u | while read -r program; do
  mkdir -p "$scratch$(dirname "$program")"
  install -m 755 /dev/null "$scratch$program"
done
verify() {  # unit file
  local said
  said=$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --root="$scratch" --man=no "$1" 2>&1) ||
    said="$said (exit $?)"
  printf '%s' "$said"
}
count=0
for unit in "$scratch"/etc/systemd/system/*.service; do
  name=$(basename "$unit")
  said=$(verify "$name")
  [ -z "$said" ] || fail "$name: $said"
  case $name in
    shmq*)
      # What serves HTTP has a network, and sees the boot id that the clients see.
      most=12
      [ "$name" != shmq-exporter.service ] || most=17
      said=$(systemd-analyze security --offline=true --threshold=$most --no-pager "$units/$name" 2>&1) ||
        fail "$name: exposed by more than $most tenths: $(grep 'exposure level' <<<"$said")"
      sed -n 's/^.*level for \(.*\): \([0-9.]*\).*/\1: exposure \2/p' <<<"$said" ;;
  esac
  count=$((count + 1))
done
[ "$count" -ge 3 ] || fail "only $count units were looked at"
# The check itself: a unit with a defect is complained of.
sed 's/^Type=.*/Type=nonsense/' "$units/shmqd.service" >"$scratch/etc/systemd/system/defect.service"
[ -n "$(verify defect.service)" ] || fail "a unit with a defect was found clean"
echo "$count units verified"
