// SPDX-License-Identifier: Apache-2.0
//
// Open-file-description locks on single bytes: proof of life and of death.
//
// A lock belongs to the open file description: it ends when the last descriptor of it is closed,
// by whatever means, and no other process and no pid reuse can fool it. Descriptors are
// close-on-exec, and closed in a forked child (fork_guard), else the child would keep its parent
// alive.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace shmq::sync {

/// Owns one descriptor, registered with the fork guard.
class LockFile {
 public:
  LockFile() noexcept = default;
  /// Takes the descriptor over; -1 for none.
  explicit LockFile(int descriptor) noexcept;
  LockFile(LockFile&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)), born_(other.born_) {}
  LockFile& operator=(LockFile&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    std::swap(born_, other.born_);
    return *this;
  }
  ~LockFile() { close(); }

  [[nodiscard]] bool is_open() const noexcept { return descriptor_ >= 0; }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  /// Exclusive; never waits. False when another description holds the byte (or on any error).
  bool try_lock(std::uint64_t byte) noexcept;
  void unlock(std::uint64_t byte) noexcept;
  /// Does another description hold the byte? Unknown counts as held.
  [[nodiscard]] bool is_held_elsewhere(std::uint64_t byte) const noexcept;
  /// Gives up every lock of it.
  void close() noexcept;

 private:
  int descriptor_ = -1;
  std::uint64_t born_ = 0;  // fork generation: in a child the number may be somebody else's by now
};

/// Says that this thread has a table of descriptors of its own, which no other thread's fork copies:
/// a child must not close its numbers, which may be those of other files there. Before the thread
/// opens its first LockFile, and for good.
void descriptors_are_private() noexcept;

/// Moves with each fork, in the child. A handle remembers the value of its birth.
inline constinit std::atomic<std::uint64_t> current_fork_generation{1};
[[nodiscard]] inline std::uint64_t fork_generation() noexcept {
  return current_fork_generation.load(
      std::memory_order_relaxed);  // moves only while single-threaded
}

}  // namespace shmq::sync
