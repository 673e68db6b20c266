// SPDX-License-Identifier: Apache-2.0
//
// Recovery as tables of lettered cases: what was found decides what is done, and nothing else does.
//
// Three questions are asked: of each file (A to R), of each link of the chain of batches that leads
// back from the newest file (S to W), and once, where numbering goes on (X to Z). analysis.hpp
// finds the evidence; daemon/journal/recover.hpp carries out the plan; `shmqctl verify` prints it.
//
// Invariants:
//  1. Each combination of evidence has exactly one case.
//  2. A case that refuses changes nothing on disk.
//  3. No case appends to a file, or writes a block of one, that a former incarnation made.
#pragma once

#include <span>
#include <string_view>

namespace shmq::journal {

// --- Evidence of one file ----------------------------------------------------------------------

enum class NameKind { journal, temporary, other };

enum class HeaderEvidence { valid, damaged, truncated, unsupported, foreign };

/// The batches up to the one that the next file names, or all if none does.
enum class BodyEvidence {
  none,        ///< no genuine batch, and no sign that one was begun
  first_torn,  ///< no whole batch, but signs of one; nothing genuine behind them
  whole,       ///< whole batches from the first block on, each chained to the one before
  holed,       ///< something that is not whole, and a genuine batch behind it
};

/// What lies behind those batches.
enum class TailEvidence {
  clean,  ///< zeros, or the end of the file
  stale,  ///< blocks of a former life of a recycled file
  torn,   ///< a batch that was begun
  extra,  ///< whole batches that the next file does not continue
};

enum class StartEvidence {
  ordinary,    ///< the file goes on with an epoch
  complete,    ///< it starts one, and its closing marker is there
  unfinished,  ///< it starts one, without the marker
};

enum class PlaceEvidence {
  newest,   ///< the highest number with a genuine batch, unfinished incarnations apart
  chained,  ///< the chain from the newest leads here
  apart,    ///< it does not
};

struct FileEvidence {
  NameKind name = NameKind::journal;
  HeaderEvidence header = HeaderEvidence::valid;
  BodyEvidence body = BodyEvidence::none;
  TailEvidence tail = TailEvidence::clean;
  StartEvidence start = StartEvidence::ordinary;
  PlaceEvidence place = PlaceEvidence::apart;
};

// --- Evidence of one link ----------------------------------------------------------------------

enum class PredecessorEvidence {
  first,     ///< the batch is number 1: there is none
  present,   ///< whole, where the batch says, with the checksum that it says
  absent,    ///< the file is not in the directory
  mismatch,  ///< the file is there, but the batch in that place is another
};

struct LinkEvidence {
  PredecessorEvidence predecessor = PredecessorEvidence::first;
  bool is_needed = false;  ///< some group's floor lies before the batch
};

// --- Evidence for numbering --------------------------------------------------------------------

struct NumberingEvidence {
  bool memory_is_newer = false;  ///< same boot and a valid segment
  bool seqs_given_out = false;   ///< the seq ceiling lies above the last seq on disk
};

// --- Cases -------------------------------------------------------------------------------------

enum class Action {
  use,           ///< its messages count
  copy_forward,  ///< so do they; its last batch is copied into the new file
  cut,           ///< as copy_forward, and what is torn behind is reported as lost before confirmed
  drop_torn,     ///< only a torn batch: reported, and the file removed
  ignore,        ///< it does not count; removed once the new incarnation stands
  leave,         ///< not ours: it stays as it is
  go_on,         ///< nothing to do
  write_gap,     ///< a gap record for the seqs that may have been given out
  refuse,        ///< nothing is done to the queue until a person has decided
};

struct Case {
  char letter;
  Action action;
  std::string_view finding;  ///< what it is, for people
  std::string_view proceed;  ///< what happens, or what to do
};

const Case& decide(const FileEvidence& evidence) noexcept;
const Case& decide(const LinkEvidence& evidence) noexcept;
const Case& decide(const NumberingEvidence& evidence) noexcept;

/// All cases in order of their letters, A to Z.
std::span<const Case> all_cases() noexcept;

}  // namespace shmq::journal
