// SPDX-License-Identifier: Apache-2.0
//
// Looks at a shared group in the segment itself, past the library: who is named in its window and
// its straggler table.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "queue/shared_group.hpp"
#include "shm/segment.hpp"
#include "support/small_queue.hpp"

namespace shmq::testing {

inline std::shared_ptr<shm::Segment> segment_of(const SmallQueue& small) {
  return std::move(shm::Segment::open("q", {.name_space = small.scratch.name_space}).value());
}

/// What stands in the window and the table of group entry `group`.
struct SharedLook {
  std::size_t leased = 0;
  std::size_t of_the_dead = 0;  // leased by nobody that is attached
  std::size_t reserved = 0;     // table entries of evictions under way
  std::size_t in_table = 0;     // table entries in use
  std::size_t twice = 0;        // seqs that live in more than one place
  std::size_t checks = 0;       // entries looked at
};

inline SharedLook look_at_group(const shm::Segment& segment, std::uint32_t group = 0) {
  SharedLook look;
  const shm::Limits& limits = segment.limits();
  std::vector<std::uint64_t> live;
  const auto meet = [&](std::uint64_t seq, std::uint64_t word) {
    const shm::Lease lease = shm::unpack_lease(word);
    if (queue::is_reserved(lease.state)) {
      ++look.reserved;
      return;
    }
    if (lease.state == shm::LeaseState::settled || lease.state == shm::LeaseState::moved) return;
    live.push_back(seq);
    if (lease.state != shm::LeaseState::leased) return;
    ++look.leased;
    const bool known = lease.owner != 0 && lease.owner <= limits.max_participants;
    if (!known || shm::participant_state(sync::load_acquire(
                      segment.participant(lease.owner - 1).word)) != shm::ParticipantState::alive) {
      ++look.of_the_dead;
    }
  };
  const std::uint64_t floor = sync::load_acquire(segment.group(group).progress.low);
  for (std::uint64_t seq = floor; seq != floor + limits.window_entries; ++seq) {
    const sync::Word16 seen =
        sync::read_halves(segment.window(group)[seq & (limits.window_entries - 1)]);
    ++look.checks;
    if (seen.low == seq) meet(seq, seen.high);
  }
  const queue::StragglerTable table{segment, group};
  for (std::uint32_t index = 0; index < table.size(); ++index) {
    const sync::Word16 seen = table.read(index);
    ++look.checks;
    if (seen.low == shm::straggler_free_seq) continue;
    ++look.in_table;
    meet(seen.low, seen.high);
  }
  std::sort(live.begin(), live.end());
  for (std::size_t i = 1; i < live.size(); ++i) look.twice += live[i] == live[i - 1] ? 1 : 0;
  return look;
}

/// After a reclaim, while nobody else works: neither leases nor reservations of the dead.
inline void expect_no_trace_of_the_dead(const SmallQueue& small) {
  const SharedLook look = look_at_group(*segment_of(small));
  EXPECT_EQ(look.of_the_dead, 0U) << "a lease of the dead";
  EXPECT_EQ(look.reserved, 0U) << "a reservation of the dead";
  EXPECT_EQ(look.twice, 0U) << "a message in two places";
  EXPECT_GT(look.checks, 0U);
}

/// What the window and the table say of one seq; settled if nothing.
inline shm::Lease lease_of(const shm::Segment& segment, std::uint64_t seq,
                           std::uint32_t group = 0) {
  const shm::Limits& limits = segment.limits();
  const sync::Word16 seen =
      sync::read_halves(segment.window(group)[seq & (limits.window_entries - 1)]);
  if (seen.low == seq && static_cast<shm::LeaseState>(seen.high >> 61) != shm::LeaseState::moved) {
    return shm::unpack_lease(seen.high);
  }
  const queue::StragglerTable table{segment, group};
  for (std::uint32_t index = 0; index < table.size(); ++index) {
    const sync::Word16 entry = table.read(index);
    if (entry.low == seq) return shm::unpack_lease(entry.high);
  }
  return {};
}

}  // namespace shmq::testing
