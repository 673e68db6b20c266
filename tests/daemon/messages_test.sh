#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# messages_test.sh SHMQD SHMQ-EXPORTER SHMQ-SCALER: what the services say when they cannot start. Each is
# one line: what was attempted on which name, why it failed, and in parentheses what to do.
set -u -o pipefail
shmqd=$(realpath "$1") exporter=$(realpath "$2") scaler=$(realpath "$3")
export LC_ALL=C SHMQ_NAMESPACE="tmsg$$"
unset XDG_RUNTIME_DIR JOURNAL_STREAM NOTIFY_SOCKET SHMQ_RUNTIME_DIR
work=$(mktemp -d "${TMPDIR:-/tmp}/shmqd-messages.XXXXXX")
started=()
trap 'for each in "${started[@]}"; do kill -KILL "$each" 2>/dev/null; done; rm -rf "$work"' EXIT
checks=0 failures=0

# says EXIT PATTERN COMMAND…
says() {
  local code=$1 pattern=$2 got=0
  shift 2
  timeout 60 "$@" >"$work/out" 2>"$work/err" </dev/null || got=$?
  checks=$((checks + 1))
  if [ "$got" -ne "$code" ] || [ "$(wc -l <"$work/err")" -ne 1 ] ||
    ! grep -Eq '^shmq[a-z-]*: .+ \(.+\)$' "$work/err" || ! grep -Eq -- "$pattern" "$work/err"; then
    failures=$((failures + 1))
    echo "FAILED: ${*#"$work"}: exit $got instead of $code, or not one line like /$pattern/: $(cat "$work/err")" >&2
  fi
}
config() { printf '%s\n' "$@" >"$work/c.toml"; }
daemon() { "$shmqd" --config "$work/c.toml" --data-dir "$work/data" --runtime-dir "$work/run" "$@"; }
export -f daemon
export shmqd work

# --- the command line ----------------------------------------------------------------------------
says 2 "frobnicate" "$shmqd" --frobnicate
says 2 "--log-level" "$shmqd" --log-level loud
says 2 "--backend" "$shmqd" --backend tape
says 2 "--config" "$shmqd" --config

# --- the configuration ---------------------------------------------------------------------------
rm -f "$work/c.toml"
says 1 "c.toml': No such file.*name is right" bash -c daemon
while IFS='|' read -r line pattern; do
  config 'log_level = "info"' "$line"
  says 1 "c.toml', line 2: .*$pattern.*shmqd.toml" bash -c daemon
done <<'CASES'
colour = "red"|there is no key 'colour'
data_dir = "here"|data_dir must be an absolute path
runtime_dir = 5|runtime_dir must be an absolute path
backend = "tape"|backend must be auto, io_uring or plain
sweep = "2s"|sweep must be a time from 1ms to 1s
sweep = "100"|sweep must be a time from 1ms to 1s
spin = "1s"|spin must be a time from 0s to 10ms
drain_limit = "2h"|drain_limit must be a time from 0s to 1h
control.create_group = "no-such-group-here"|create_group must be a group that exists
control.trusted_owners = "root"|trusted_owners must be a list of users
control.trusted_owners = ["no-such-user-here"]|trusted_owners must be a list of users that exist
journal.max_disk = "1MiB"|max_disk must be a size of at least 4MiB
journal.file_max = "2GiB"|file_max must be a size from 1MiB to 1GiB
journal.recycle = "yes"|recycle must be true or false
journal.idle_close = "2s"|idle_close must be a time from 1ms to 1s
journal.degraded_retry = "1ms"|degraded_retry must be a time from 10ms to 1h
journal.check_at_start = "much"|check_at_start must be a size
CASES
config '' 'not toml'
says 1 "c.toml', line 2: .*shmqd.toml" bash -c daemon
config 'log_level = "loud"'
says 1 "log_level must be debug, info, warning or error" bash -c daemon
config ''

# --- places --------------------------------------------------------------------------------------
: >"$work/file"
says 1 "runtime directory '$work/file/x" "$shmqd" --config "$work/c.toml" --data-dir "$work/data" --runtime-dir "$work/file/x"
says 1 "data directory '$work/file/x'.*--data-dir" "$shmqd" --config "$work/c.toml" --data-dir "$work/file/x" --runtime-dir "$work/run"
long=$work/$(printf 'x%.0s' {1..120})
says 1 "the path has more than 107 bytes.*shorter --runtime-dir" "$shmqd" --config "$work/c.toml" --data-dir "$work/data" --runtime-dir "$long"
mkdir -p "$work/open/$SHMQ_NAMESPACE" && chmod 777 "$work/open/$SHMQ_NAMESPACE"
says 4 "runtime directory .*others .* may write it.*0755" "$shmqd" --config "$work/c.toml" --data-dir "$work/data" --runtime-dir "$work/open"
says 4 "data directory .*others .* may write.*0755" "$shmqd" --config "$work/c.toml" --data-dir "$work/open" --runtime-dir "$work/run"
"$shmqd" --config "$work/c.toml" --data-dir "$work/data" --runtime-dir "$work/run" >/dev/null 2>"$work/log" &
started+=($!)
until grep -q ' serves namespace ' "$work/log"; do
  kill -0 "${started[0]}" 2>/dev/null || { echo "shmqd has ended: $(cat "$work/log")" >&2; exit 1; }
  sleep 0.02
done
says 1 "another daemon has its sockets there.*stop it" bash -c daemon
says 1 "another daemon serves namespace '$SHMQ_NAMESPACE'.*\(.+\)" "$shmqd" --config "$work/c.toml" --data-dir "$work/data" --runtime-dir "$work/run2"
if [ "$(id -u)" -eq 0 ] && setpriv --reuid=65534 --regid=65534 --clear-groups true 2>/dev/null; then
  chmod 755 "$work"
  install -m 755 "$shmqd" "$work/shmqd"
  as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups -- env HOME="$work" "$@"; }
  export -f as_nobody
  library=$(dirname "$(ldd "$shmqd" | awk '/libshmq/ { print $3 }')")
  if LD_LIBRARY_PATH=$library as_nobody "$work/shmqd" --version >/dev/null 2>&1; then
    says 1 "XDG_RUNTIME_DIR is not set.*--runtime-dir" bash -c "as_nobody '$work/shmqd' --data-dir '$work/d'"
    says 4 "Permission denied.*--runtime-dir" bash -c "as_nobody '$work/shmqd' --data-dir /tmp --runtime-dir '$work/run3'"
  fi
fi

# --- the others ----------------------------------------------------------------------------------
says 2 "frobnicate" "$exporter" --frobnicate
says 2 "not a loopback address.*proxy" "$exporter" --listen 192.0.2.1:9
says 1 "listen on $work/none/socket" "$exporter" --socket "$work/none/socket"
says 2 "frobnicate" "$scaler" --frobnicate name queue group
says 2 "" "$scaler" only-a-name

echo "messages_test: $checks checks, $failures failed"
[ "$checks" -gt 30 ] && [ "$failures" -eq 0 ]
