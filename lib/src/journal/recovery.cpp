// SPDX-License-Identifier: Apache-2.0
#include "journal/recovery.hpp"

#include <iterator>

#include "base/assert.hpp"

namespace shmq::journal {
namespace {

constexpr std::string_view restore_hint =
    "nothing was changed: restore the file from a backup or a mirror; or accept the loss of "
    "exactly "
    "these seqs by moving the queue's directory away and publishing what 'shmqctl dump' still "
    "reads";

constexpr Case cases[] = {
    // Files.
    {'A', Action::ignore, "a file that was being prepared", "it never counted; it is removed"},
    {'B', Action::leave, "not a file of a journal", "it is left alone"},
    {'C', Action::refuse, "a file of another format version, or with unknown flags",
     "nothing was changed: use a version of shmqd that knows it"},
    {'D', Action::refuse, "a file of another queue, or under another file's name",
     "nothing was changed: move it back to where it belongs"},
    {'E', Action::refuse, "a file shorter than it was made", restore_hint},
    {'F', Action::refuse, "a damaged file header before batches", restore_hint},
    {'G', Action::ignore, "a damaged file header and no batch behind it",
     "the file was not in use; it is removed"},
    {'H', Action::refuse, "damage below what was on stable storage", restore_hint},
    {'I', Action::refuse, "the file ends before the batch that the next file continues",
     restore_hint},
    {'J', Action::ignore, "a recovery that did not reach its closing marker",
     "what it copied is still where it was; the file is removed"},
    {'K', Action::ignore, "a prepared file that was not used", "it is removed"},
    {'L', Action::drop_torn, "the first batch of a file was begun and not confirmed",
     "it is cut; the file is removed"},
    {'M', Action::ignore, "a file that the chain passes by: replaced after an error or a recovery",
     "all that counted in it stands elsewhere; it is removed"},
    {'N', Action::use, "whole, up to the batch that the next file continues", "it is used"},
    {'O', Action::use, "whole, and behind it a batch that another file replaced",
     "it is used up to there"},
    {'P', Action::copy_forward, "the newest file, whole",
     "its last batch is copied into a new file"},
    {'Q', Action::copy_forward, "the newest file, whole; behind it blocks of a former life",
     "its last batch is copied into a new file; the old blocks do not count"},
    {'R', Action::cut, "the newest file, whole but for a batch that was begun and not confirmed",
     "the torn batch is cut; the last whole one is copied into a new file"},
    // Links.
    {'S', Action::go_on, "the first batch of the queue", "the chain is complete"},
    {'T', Action::go_on, "the batch before is where it should be", "the chain goes on"},
    {'U', Action::go_on, "the file before is gone, and every group is past it",
     "the chain begins here"},
    {'V', Action::refuse, "a file is missing that a group still needs", restore_hint},
    {'W', Action::refuse, "the batch before is not the one that was continued", restore_hint},
    // Numbering.
    {'X', Action::go_on, "memory is newer than the disk", "publishing goes on where memory is"},
    {'Y', Action::go_on, "no seq was given out above the last one on disk",
     "publishing goes on there"},
    {'Z', Action::write_gap, "seqs above the last one on disk may have been given out",
     "they are never used again; publishing goes on behind them"},
};
static_assert(std::size(cases) == 26);

const Case& at(char letter) noexcept { return cases[letter - 'A']; }

char letter_of_body(const FileEvidence& evidence) noexcept {
  const bool has_batch =
      evidence.body == BodyEvidence::whole || evidence.body == BodyEvidence::holed;
  switch (evidence.place) {
    case PlaceEvidence::apart:
      if (evidence.start == StartEvidence::unfinished) return 'J';
      if (has_batch) return 'M';
      return evidence.body == BodyEvidence::first_torn ? 'L' : 'K';
    case PlaceEvidence::chained:
      if (evidence.body == BodyEvidence::holed) return 'H';
      if (!has_batch) return 'I';
      return evidence.tail == TailEvidence::torn || evidence.tail == TailEvidence::extra ? 'O'
                                                                                         : 'N';
    case PlaceEvidence::newest:
      if (evidence.body == BodyEvidence::holed) return 'H';
      if (!has_batch) return evidence.body == BodyEvidence::first_torn ? 'L' : 'K';
      if (evidence.tail == TailEvidence::clean) return 'P';
      return evidence.tail == TailEvidence::stale ? 'Q' : 'R';
  }
  SHMQ_ASSERT(false && "a place that is none");
}

char letter_of(const FileEvidence& evidence) noexcept {
  // From the outside in: what cannot be read is judged before what it says.
  if (evidence.name == NameKind::temporary) return 'A';
  if (evidence.name == NameKind::other) return 'B';
  switch (evidence.header) {
    case HeaderEvidence::unsupported: return 'C';
    case HeaderEvidence::foreign: return 'D';
    case HeaderEvidence::truncated: return 'E';
    case HeaderEvidence::damaged:
      return evidence.body == BodyEvidence::whole || evidence.body == BodyEvidence::holed ? 'F'
                                                                                          : 'G';
    case HeaderEvidence::valid: return letter_of_body(evidence);
  }
  SHMQ_ASSERT(false && "a header that is none");
}

}  // namespace

const Case& decide(const FileEvidence& evidence) noexcept { return at(letter_of(evidence)); }

const Case& decide(const LinkEvidence& evidence) noexcept {
  switch (evidence.predecessor) {
    case PredecessorEvidence::first: return at('S');
    case PredecessorEvidence::present: return at('T');
    case PredecessorEvidence::absent: return at(evidence.is_needed ? 'V' : 'U');
    case PredecessorEvidence::mismatch: return at('W');
  }
  SHMQ_ASSERT(false && "a predecessor that is none");
}

const Case& decide(const NumberingEvidence& evidence) noexcept {
  if (evidence.memory_is_newer) return at('X');
  return at(evidence.seqs_given_out ? 'Z' : 'Y');
}

std::span<const Case> all_cases() noexcept { return cases; }

}  // namespace shmq::journal
