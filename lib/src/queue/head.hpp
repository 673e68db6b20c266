// SPDX-License-Identifier: Apache-2.0
//
// Head and tail of the queue.
//
// Invariants:
//  1. head never passes the floor of a group that is joining or active, but on a queue with
//     Overflow::spill, where it may, and where a group's floor was set below it (durable queues):
//     that group reads what lies below head from the journal (past.hpp).
//  2. On a durable queue head never passes the watermark.
//  3. head only grows; so does epoch, with each birth and removal of a group.
#pragma once

#include <cstdint>

#include "shm/segment.hpp"

namespace shmq::queue {

/// Moves head to the smallest floor, if it can, and gives the head. Without any group it stays: the
/// messages wait for the first one. Lock-free: a failed CAS means that another moved head or that a
/// group came or went.
std::uint64_t refresh_head(const shm::Segment& segment) noexcept;

inline std::uint64_t read_head(const shm::Segment& segment) noexcept {
  // [H0] acquire, pairs with H2: who sees head past a seq sees what settled it.
  return sync::load_acquire(segment.control().head.low);
}

/// On a queue with Overflow::spill: moves head on, past floors if need be, so that room is made.
/// False: nothing more can be freed, until more is on stable storage or let go by who pins it.
/// `for_arena`: chunks are what is missing, else slots.
bool spill(const shm::Segment& segment, bool for_arena) noexcept;

/// Head may not pass this, whatever the groups settle: the watermark of a durable queue.
std::uint64_t bound_of_head(const shm::Segment& segment) noexcept;

/// The first seq that is not published, walking on from the hint. At most one lap of loads, then
/// gives what it reached (a corrupt ring).
std::uint64_t find_tail(const shm::Segment& segment) noexcept;

/// Does the group's floor hold head back?
inline bool counts_for_head(std::uint64_t group_word) noexcept {
  const auto state = shm::group_state(group_word);
  return state == shm::GroupState::active || state == shm::GroupState::joining;
}

}  // namespace shmq::queue
