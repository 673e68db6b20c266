#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# shmqctl verify and dump on journals that are whole, torn and damaged. They never write.
source "$(dirname "$0")/common.bash"
maker=$(realpath "${2:?the path of journal_maker}")

file=journal.0000000000000001
make_journal() {  # name, clean|killed
  mkdir "$work/$1" && "$maker" "$work/$1" 50 "$2" || fail "making a journal"
}
# poke FILE OFFSET: another byte there
poke() {
  local byte
  byte=$(od -An -tu1 -j "$2" -N 1 "$1")
  printf "\\x$(printf %x $((byte ^ 255)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
contains() {  # claim, text, file
  if grep -qF -- "$2" "$3"; then pass; else fail "$1: no '$2' in: $(head -c 800 "$3")"; fi
}

make_journal whole clean
before=$(cksum "$work"/whole/*)
gives "a whole journal verifies" 0 ctl verify "$work/whole"
contains "it says what is done next" "copy the last batch of $file" "$work/out"
contains "and where numbering goes on" "write a gap record for seqs 50 to" "$work/out"
gives "JSON" 0 ctl -o json verify "$work/whole"
equals "in JSON" "False 50 5" "$(for key in refused end_seq "groups 0 floor_seq"; do
  # shellcheck disable=SC2086 # the words of the key
  json journal $key <"$work/out"; done | xargs)"
gives "a dump" 0 ctl dump "$work/whole/$file"
contains "the header" "purpose=incarnation" "$work/out"
contains "a batch" "messages=10" "$work/out"
contains "a message" "message seq=49 payload_bytes=10" "$work/out"
contains "a group" "floor=5" "$work/out"
gives "the messages alone" 0 ctl dump --messages "$work/whole/$file"
for ((i = 0; i < 50; ++i)); do echo "message $i"; done >"$work/expected"
same_bytes "the messages are those that were published" "$work/expected" "$work/out"
equals "nothing was written" "$before" "$(cksum "$work"/whole/*)"

make_journal torn killed
offset=$(ctl dump "$work/torn/$file" | sed -n 's/^batch offset=\([0-9]*\) .*/\1/p' | tail -n 1)
poke "$work/torn/$file" $((offset + 300))
gives "an unconfirmed tail is cut, not refused" 0 ctl verify "$work/torn"
contains "with its range" "seqs 40 to 49" "$work/out"
contains "and said so" "begun and not confirmed" "$work/out"

make_journal damaged clean
offset=$(ctl dump "$work/damaged/$file" | sed -n 's/^batch offset=\([0-9]*\) .* first_seq=20 end_seq=30 .*/\1/p')
poke "$work/damaged/$file" $((offset + 300))
before=$(cksum "$work"/damaged/*)
gives "damage below what was confirmed is refused" 1 ctl verify "$work/damaged"
contains "with its exact range" "seqs 20 to 29" "$work/out"
contains "and how to proceed" "restore the file from a backup" "$work/out"
gives "a dump shows it" 1 ctl dump "$work/damaged/$file"
contains "as damage" "damaged offset=$offset" "$work/out"
gives "and still gives the rest" 1 ctl dump --messages "$work/damaged/$file"
grep -v '^message 2.$' "$work/expected" >"$work/rest"
same_bytes "the rest" "$work/rest" "$work/out"
equals "nothing was written" "$before" "$(cksum "$work"/damaged/*)"

gives "no such directory" 3 ctl verify "$work/none"
gives "no such file" 3 ctl dump "$work/none"
gives "a directory is no file" 1 ctl dump "$work/whole"
head -c 98304 /dev/urandom >"$work/noise"
gives "random bytes are shown, not trusted" 0 ctl dump "$work/noise"
contains "as what they are" "header=damaged" "$work/out"
gives "frames only with messages" 2 ctl dump --frame "$work/noise"
: >"$work/empty"
gives "an empty file" 0 ctl dump "$work/empty"
finish
