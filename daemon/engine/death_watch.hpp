// SPDX-License-Identifier: Apache-2.0
//
// Hears at once of the death of a queue's participants, by pidfd, and has them reclaimed: their
// leases are given back without anybody having to look. Participants of other pid namespaces cannot
// be watched; they are reclaimed by whoever meets them, as without a daemon.
//
// Invariants:
//  1. A pidfd is a hint: what a participant says of its pid is not believed. Reclaim has its own
//     proof of death, the lock.
//  2. At most participants_used descriptors a queue, and one for each entry.
#pragma once

#include <cstdint>
#include <map>

#include "daemon/loop/loop.hpp"
#include "shm/segment.hpp"

namespace shmq::engine {

class DeathWatch {
 public:
  DeathWatch(loop::Loop& loop, const shm::Segment& segment);
  DeathWatch(const DeathWatch&) = delete;
  DeathWatch& operator=(const DeathWatch&) = delete;
  ~DeathWatch();

  /// Watches who has come since.
  void look();
  /// Messages that came back because a participant was found dead here. Best effort: those that a
  /// consumer takes back from another dead one at the same moment may be among them.
  [[nodiscard]] std::uint64_t reclaimed() const noexcept { return reclaimed_; }
  [[nodiscard]] std::size_t watched() const noexcept { return watched_.size(); }

 private:
  struct Life {
    std::uint64_t word;  // of the participant, as it was
    std::uint32_t pid;   // may be its predecessor's, if it was about to describe itself
    int descriptor;      // -1: it cannot be watched
  };
  void watch(std::uint32_t number, std::uint64_t word);
  void on_death(std::uint32_t number);
  void forget(std::uint32_t number);
  void reclaim(std::uint32_t number);
  [[nodiscard]] std::uint64_t redelivered_by_death() const noexcept;

  loop::Loop& loop_;
  const shm::Segment& segment_;
  std::uint64_t own_pid_namespace_;
  std::map<std::uint32_t, Life> watched_;
  std::uint64_t reclaimed_ = 0;
};

}  // namespace shmq::engine
