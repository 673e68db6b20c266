// SPDX-License-Identifier: Apache-2.0
//
// What a group's shared words say at one moment: which seqs are settled, and what is known of the
// others that were handed out.
//
// Invariants:
//  1. A seq is called settled only if it was when, or before, the scan ended. The floor is read
//     first, then the window, then the straggler table: a message moves in that direction only, so
//     one that is not settled is met in at least one of them.
//  2. The scan of an entry that became another group's meanwhile is thrown away.
// Progress: wait-free; nothing is written.
#pragma once

#include <vector>

#include "journal/state.hpp"
#include "queue/deadlines.hpp"
#include "shm/segment.hpp"

namespace shmq::feed {

struct GroupPicture {
  std::uint64_t floor = 0;                     ///< all below are settled
  std::vector<journal::SettledRange> settled;  ///< above it, in order, not adjacent
  std::vector<journal::EntryState> entries;    ///< in order; those with nothing to say left out
  std::uint64_t handed_out_end = 0;            ///< no seq from here on was handed out
};

/// Which first hand-outs are worth telling. A message that is acked soon is told once, as settled,
/// and not before as handed out: that would double what a busy queue writes.
struct LeaseAge {
  std::uint64_t tick = 0;
  std::uint64_t seen_end = 0;  // handed_out_end at that tick
  std::uint64_t old_end = 0;   // the same, at least age_ticks before

  static constexpr std::uint64_t age_ticks = 6;  // 100 ms
  void note(std::uint64_t handed_out_end, std::uint64_t now_tick) noexcept {
    if (now_tick - tick < age_ticks) return;
    old_end = seen_end;
    seen_end = handed_out_end;
    tick = now_tick;
  }
};

class GroupScan {
 public:
  explicit GroupScan(const shm::Segment& segment) : segment_(segment) {}

  /// False: the entry is not the group's that `word` names.
  bool scan(std::uint32_t index, std::uint64_t word, const LeaseAge& age, GroupPicture& picture);

 private:
  struct Unsettled {
    std::uint64_t seq;
    shm::Lease lease;
  };
  struct Moved {
    std::uint64_t seq;
    std::uint64_t word;
  };
  std::uint64_t scan_exclusive(std::uint32_t index);
  std::uint64_t scan_shared(std::uint32_t index);
  void scan_table(std::uint32_t index, std::uint64_t end);
  void draw(std::uint64_t end, const queue::TickTime& time, const LeaseAge& age,
            GroupPicture& picture);

  const shm::Segment& segment_;
  std::vector<Unsettled> unsettled_;  // kept for their memory
  std::vector<Moved> moved_;
};

}  // namespace shmq::feed
