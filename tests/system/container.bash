# SPDX-License-Identifier: Apache-2.0
#
# A Debian 12 with systemd as its init, in systemd-nspawn without a systemd outside. Sourced.
#   prepare_tree DIR      the tree that is kept between runs, made by debootstrap when it is missing
#   copy_tree DIR         this run's own copy of it, in $container
#   boot; halt; crash     crash ends every process at once; what the kernel has of files stays
#   inside COMMAND…       as root in it; as USER COMMAND…
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
container=
nspawn_pid=
leader=

skip() { echo "tests/run: system test skipped: $*"; exit 77; }

check_that_it_can_run() {
  [ "$(id -u)" -eq 0 ] || skip "not root"
  command -v systemd-nspawn >/dev/null || skip "no systemd-nspawn"
  [ -d /sys/fs/cgroup ] && [ -n "$(ls -A /sys/fs/cgroup)" ] || skip "no cgroups in /sys/fs/cgroup"
  unshare --mount --pid --ipc --uts --fork true 2>/dev/null || skip "no namespaces may be made here"
}

# The tree is as good as the list that it was made from, which it holds.
prepare_tree() {
  local tree=$1 list packages
  list=$(grep -v '^#' "$here/tree-packages.txt")
  mkdir -p "$(dirname "$tree")"
  exec 9>"$tree.lock"
  flock 9
  if [ "$(cat "$tree/shmq-tree-packages" 2>/dev/null)" != "$list" ]; then
    command -v debootstrap >/dev/null || skip "no debootstrap, and no tree in $tree"
    packages=$(paste -sd, <<<"$list")
    rm -rf "$tree" "$tree.new"
    debootstrap --variant=minbase --include="$packages" bookworm "$tree.new" >"$tree.log" 2>&1 || {
      tail -n 3 "$tree.log"
      rm -rf "$tree.new"
      skip "debootstrap could not make a Debian 12 (no network?); the log is $tree.log"
    }
    rm -rf "$tree.new"/var/cache/apt/archives/*.deb
    printf '%s\n' "$list" >"$tree.new/shmq-tree-packages"
    mv "$tree.new" "$tree"
  fi
  flock -u 9
}

copy_tree() {
  container=$(mktemp -d "${SHMQ_SYSTEM_SCRATCH:-/var/tmp}/shmq-system.XXXXXX")
  cp -a --reflink=auto "$1/." "$container/"
}

boot() {
  local tries
  systemd-nspawn --boot --register=no --keep-unit --quiet --directory="$container" --console=pipe \
    --machine="shmq-$$" </dev/null >>"$container.console" 2>&1 &
  nspawn_pid=$!
  for ((tries = 0; tries < 600; ++tries)); do
    kill -0 "$nspawn_pid" 2>/dev/null || { tail -n 5 "$container.console"; skip "systemd-nspawn does not start"; }
    leader=$(cat "/proc/$nspawn_pid/task/$nspawn_pid/children" 2>/dev/null | tr -d ' ')
    if [ -n "$leader" ] && inside test -S /run/systemd/private 2>/dev/null; then
      # "degraded" is an answer, too: some unit of Debian's own does not like the place.
      inside systemctl is-system-running --wait >/dev/null 2>&1 || true
      return 0
    fi
    sleep 0.1
  done
  tail -n 5 "$container.console"
  skip "the container does not come up within a minute"
}

inside() {
  nsenter --target "$leader" --mount --uts --ipc --pid --net --root -- \
    env --chdir=/ -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"
}
as() {
  local user=$1
  shift
  inside runuser -u "$user" -- "$@"
}

halt() {
  inside systemctl poweroff >/dev/null 2>&1 || true
  wait "$nspawn_pid" || true
  leader=
}
crash() {
  kill -KILL "$leader"
  wait "$nspawn_pid" 2>/dev/null || true
  leader=
}

remove_container() {
  if [ -n "$leader" ] && kill -0 "$nspawn_pid" 2>/dev/null; then crash; fi
  [ -z "$container" ] || rm -rf "$container" "$container.console"
}
