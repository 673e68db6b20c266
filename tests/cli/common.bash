# SPDX-License-Identifier: Apache-2.0
#
# What the tests of shmqctl share: a namespace of their own, checks that count, cleaning up.
# Sourced with the path of shmqctl as first argument; a test ends by calling `finish`.
set -u -o pipefail
umask 077

command -v python3 >/dev/null || {
  echo "$(basename "$0"): 'python3' is missing; install it (tools/install-packages)" >&2
  exit 1
}
shmqctl=$(realpath "${1:?the path of shmqctl}")
ns="tcli$$"
export SHMQ_NAMESPACE=$ns
unset NO_COLOR
export LC_ALL=C
work=$(mktemp -d "${TMPDIR:-/tmp}/shmqctl-test.XXXXXX")
checks=0
failures=0
test_name=$(basename "$0" .sh)
children=()

clean_up() {
  local child
  for child in "${children[@]}"; do kill -KILL "$child" 2>/dev/null; done
  rm -f /dev/shm/"shmq.$ns".*
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

ctl() { "$shmqctl" "$@"; }

pass() { checks=$((checks + 1)); }
fail() {
  checks=$((checks + 1))
  failures=$((failures + 1))
  echo "FAILED: $*" >&2
}
skip() { echo "skipped: $*"; }

# equals CLAIM EXPECTED ACTUAL
equals() {
  if [[ $2 == "$3" ]]; then
    pass
  else
    fail "$1: expected '$2', got '$3'"
  fi
}

# same_bytes CLAIM FILE FILE
same_bytes() {
  if cmp "$2" "$3" >"$work/cmp" 2>&1; then
    pass
  else
    fail "$1: $(cat "$work/cmp")"
  fi
}

# gives CLAIM EXIT-CODE COMMAND…: the exit code; stdout and stderr are in $work/out and $work/err.
gives() {
  local claim=$1 code=$2
  shift 2
  "$@" >"$work/out" 2>"$work/err" </dev/null
  local got=$?
  if [[ $got -eq $code ]]; then
    pass
  else
    fail "$claim: exit $got instead of $code; stderr: $(cat "$work/err")"
  fi
}

# one_line CLAIM PATTERN [FILE]: stderr of the last command is one line, of the documented form.
one_line() {
  local file=${3:-$work/err}
  local lines
  lines=$(wc -l <"$file")
  if [[ $lines -eq 1 ]] && grep -Eq '^shmqctl: [^:]+.*: .+ \(.+\)$' "$file" && grep -Eq -- "$2" "$file"; then
    pass
  else
    fail "$1: stderr has $lines lines, or not /$2/: $(cat "$file")"
  fi
}

# refused CLAIM EXIT-CODE PATTERN COMMAND…: exit code, and exactly one line on stderr.
refused() {
  local claim=$1 code=$2 pattern=$3
  shift 3
  gives "$claim" "$code" "$@"
  one_line "$claim" "$pattern"
}

# What a refused command must not change. Chunks are left out: looking attaches nobody, but a dead
# participant may be reclaimed in passing.
state_of() {
  ctl -o json stat "$1" | python3 -c '
import json, sys
state = json.load(sys.stdin)
state["stats"].pop("chunks", None)
for group in state["groups"]: group.pop("ownership_generation"); group.pop("active_entry")
print(json.dumps(state, sort_keys=True))'
  ctl --format json peek "$1" -n 100 2>/dev/null || ctl peek "$1" --format json -n 100
}

# json KEY… : the value at that path of the JSON on stdin; numbers are indices.
json() { python3 -c 'import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1:]: value = value[int(key)] if isinstance(value, list) else value[key]
print(value)' "$@"; }
# of_group QUEUE GROUP KEY…
of_group() { ctl -o json group info "$1" "$2" | json group "${@:3}"; }

finish() {
  local left
  rm -rf "$work"
  mkdir -p "$work"
  left=$(find /dev/shm -maxdepth 1 -name "shmq.$ns.*" | wc -l)
  echo "$test_name: $checks checks, $failures failed, $left objects of the test removed"
  [[ $checks -gt 0 && $failures -eq 0 ]]
  exit
}
