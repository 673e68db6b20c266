// SPDX-License-Identifier: Apache-2.0
//
// What checkpoint records add up to: per group the floor, the settled seqs above it, and what is
// known of unsettled ones; and the settings. Recovery replays records into it; the writer keeps one
// and writes it as the snapshot at the start of each file.
//
// Invariants:
//  1. Ranges are disjoint, not adjacent, and above the floor; entries are neither below the floor
//     nor in a range.
//  2. Within an incarnation nothing comes back: a floor does not fall, a settled seq stays settled.
#pragma once

#include <map>
#include <vector>

#include "journal/codec.hpp"

namespace shmq::journal {

struct GroupState {
  std::uint64_t incarnation = 0;
  std::uint64_t floor = 0;
  std::map<std::uint64_t, std::uint64_t> settled;  ///< first seq to end seq
  std::map<std::uint64_t, EntryState> entries;

  [[nodiscard]] bool is_settled(std::uint64_t seq) const noexcept;
  /// [first, end) is settled from now on.
  void settle(std::uint64_t first, std::uint64_t end);
  /// Everything below is settled.
  void raise_floor(std::uint64_t seq);
  void set_entry(const EntryState& entry);
  friend bool operator==(const GroupState& left, const GroupState& right);
};

/// What changed in one group since the last time, as the writer is told it.
struct GroupChange {
  Uuid group{};
  std::uint64_t incarnation = 0;
  std::uint64_t floor = 0;
  std::vector<SettledRange> settled;
  std::vector<EntryState> entries;
};

struct CheckpointState {
  std::map<Uuid, GroupState> groups;
  std::map<Uuid, std::vector<std::byte>> settings;  ///< Uuid{}: the queue's own

  /// A checkpoint or gap record of a checked batch; others change nothing.
  void apply(const Record& record);
  void apply(const GroupChange& change);
  /// All records of a batch. With batch_snapshot set, what was known before is forgotten.
  void apply(const BatchHeader& header, const std::vector<Record>& records);
  /// A group that is removed takes its settings along.
  void remove(const Uuid& group, std::uint64_t incarnation);
  /// Seqs without a message hold no group up.
  void settle_gap(std::uint64_t first_seq, std::uint64_t end_seq);
  /// The least floor: no group needs a seq below. Without groups, `otherwise`.
  [[nodiscard]] std::uint64_t least_floor(std::uint64_t otherwise) const noexcept;
  friend bool operator==(const CheckpointState& left, const CheckpointState& right);
};

}  // namespace shmq::journal
