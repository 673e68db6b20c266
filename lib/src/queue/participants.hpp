// SPDX-License-Identifier: Apache-2.0
//
// Attaching, detaching, proof of death, reclaim. Liveness has one verdict, and it stands here.
//
// Invariants:
//  1. Who changes an entry's word from or to alive holds the lock of its byte.
//  2. An entry is dead only when its byte's lock could be taken through a fresh description.
//  3. Reclaim is idempotent; the lock is held throughout, so reclaimers are serialised and a killed
//     one lets go. It frees leases and chunks, never pins: those end with the generation.
#pragma once

#include <shmq/error.hpp>
#include <shmq/info.hpp>
#include <string>

#include "shm/segment.hpp"

namespace shmq::queue {

/// One registered life in the segment. Movable; detaches when destroyed (not in a forked child).
class Participation {
 public:
  Participation() noexcept = default;
  Participation(Participation&& other) noexcept;
  Participation& operator=(Participation&& other) noexcept;
  ~Participation() { detach(); }

  /// Takes a free entry, reclaiming dead ones if there is none. `group_word`: see layout.
  static Result<Participation> attach(std::shared_ptr<shm::Segment> segment, Role role,
                                      const std::string& name, std::uint64_t group_word);
  /// Chunks and ownership must have been given back before.
  void detach() noexcept;

  [[nodiscard]] bool attached() const noexcept { return segment_ != nullptr; }
  [[nodiscard]] std::uint32_t entry_number() const noexcept { return number_; }
  [[nodiscard]] std::uint64_t generation() const noexcept { return generation_; }
  [[nodiscard]] shm::Participant& entry() const noexcept { return segment_->participant(number_); }
  /// Does somebody serve the queue, by the lock that a daemon holds as long as it lives? One system
  /// call. Not in a forked child.
  [[nodiscard]] bool daemon_lives() const noexcept {
    return lock_.is_held_elsewhere(shm::lock_byte_daemon);
  }
  [[nodiscard]] bool in_forked_child() const noexcept { return born_ != sync::fork_generation(); }

 private:
  std::shared_ptr<shm::Segment> segment_;
  sync::LockFile lock_;
  std::uint32_t number_ = 0;
  std::uint64_t generation_ = 0;
  std::uint64_t role_ = 0;
  std::uint64_t born_ = 0;
};

/// Reclaims participant `number` if its death is proven. True if something was reclaimed.
bool reclaim_participant(const shm::Segment& segment, std::uint32_t number) noexcept;

/// The same for all, and for administration that was cut short; gives the number reclaimed.
std::size_t reclaim_all(const shm::Segment& segment) noexcept;

/// reclaim_all, but at most once in 50 ms for all participants together.
void reclaim_in_passing(const shm::Segment& segment) noexcept;

/// Seals the open chunks of a participant at the tail. Used by reclaim, after its death.
void seal_chunks_of(const shm::Segment& segment, std::uint32_t owner,
                    std::uint64_t generation) noexcept;

}  // namespace shmq::queue
