// SPDX-License-Identifier: Apache-2.0
//
// What a handle of a durable queue wants of the daemon: that it looks soon, and word that a message
// or an ack is on stable storage.
//
// Invariants:
//  1. Nothing is confirmed but by the watermark object, which the daemon alone can write.
//  2. A daemon that is gone is told by its lock, looked at before each sleep, and sleeps are at
//     most 100 ms: so within 200 ms. What it had confirmed before it went counts: progress is
//     looked at once more after the lock was seen free.
//  3. Nothing here is on the way of a publish or an ack that asks for no durability.
#pragma once

#include <cstdint>
#include <shmq/error.hpp>
#include <shmq/options.hpp>

#include "api/blocking.hpp"
#include "queue/participants.hpp"
#include "shm/segment.hpp"

namespace shmq::detail {

class Confirms {
 public:
  Confirms(const shm::Segment& segment, const queue::Participation& participation,
           std::chrono::nanoseconds spin) noexcept
      : segment_(segment), participation_(participation), mark_(segment.mark()), spin_(spin) {}

  [[nodiscard]] bool durable() const noexcept { return mark_ != nullptr; }
  /// ok: such a durability can be had as far as can be seen now. not_durable, invalid_argument, or
  /// daemon_away, degraded, removed.
  [[nodiscard]] Errc look_for(Durability durability) const noexcept;
  /// Is the daemon there and well? daemon_away, degraded, removed, or ok.
  [[nodiscard]] Errc look() const noexcept;
  /// All seqs below are on stable storage.
  [[nodiscard]] std::uint64_t watermark() const noexcept {
    return mark_ != nullptr ? sync::load_acquire(mark_->watermark) : 0;
  }

  /// Wakes the daemon if it sleeps. After what it shall see was done.
  void ring() const noexcept;
  /// The same if so much is not yet on stable storage that the ring may become full of it.
  void ring_if_behind(std::uint64_t tail) const noexcept {
    if (mark_ == nullptr) return;
    // relaxed: it is about being early, not about being right.
    const std::uint64_t behind = tail - sync::load_relaxed(mark_->watermark);
    if (SHMQ_UNLIKELY(behind >= segment_.limits().slots / 8)) ring();
  }

  /// Until the message is on stable storage: ok; or what step or look() said.
  Errc wait_synced(std::uint64_t seq, Blocking& blocking) const noexcept;
  /// Until all that was settled in any group before this call is.
  Errc wait_acks_synced(Blocking& blocking) const noexcept;

  /// Ends the sleep of those of this process that wait here, and of who is about to sleep. After
  /// what they shall see was done.
  void wake() const noexcept;

 private:
  template <typename Reached>
  Errc wait(Reached reached, Blocking& blocking) const noexcept;

  const shm::Segment& segment_;
  const queue::Participation& participation_;
  const shm::Mark* const mark_;
  const std::chrono::nanoseconds spin_;
  mutable std::uint32_t interrupts_ = 0;  // a count: slept on beside the mark's word
};

/// What is left of a call's time.
class CallTime {
 public:
  explicit CallTime(std::chrono::nanoseconds timeout) noexcept
      : timeout_(timeout),
        began_ns_(timeout == std::chrono::nanoseconds::max() ? 0 : base::clock->monotonic_ns()) {}
  [[nodiscard]] std::chrono::nanoseconds left() const noexcept {
    if (timeout_ == std::chrono::nanoseconds::max() || timeout_.count() <= 0) return timeout_;
    const std::chrono::nanoseconds gone{base::clock->monotonic_ns() - began_ns_};
    return gone < timeout_ ? timeout_ - gone : std::chrono::nanoseconds::zero();
  }

 private:
  std::chrono::nanoseconds timeout_;
  std::uint64_t began_ns_;
};

}  // namespace shmq::detail
