// SPDX-License-Identifier: Apache-2.0
//
// Adaptive back-off: lets the other side run ahead, so that cache lines move in bursts.
//
// Measured as the largest single gain of the data path (8 to 4 times the rate): a reader that polls
// each message pulls the line away from the writer for every one of them. On each empty look the
// wait adapts to the burst since the last one: short bursts want latency, long ones throughput.
// What is long is a sixteenth of the queue, in messages or in bytes, whichever comes first, and at
// most 4,096 messages: a burst that the queue cannot hold would be waited for in vain. Private to
// one thread.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "sync/atomic16.hpp"

namespace shmq::sync {

class Backoff {
 public:
  // A pause takes about 25 ns here; 2,048 of them about 51 us.
  static constexpr std::uint32_t wait_max_pauses = 2048;

  Backoff(std::uint64_t slots, std::uint64_t arena_bytes) noexcept
      : long_burst_(std::clamp<std::uint64_t>(slots / 16, 4, 4096)),
        slot_bytes_shift_(static_cast<unsigned>(
            std::bit_width(std::max<std::uint64_t>(arena_bytes / slots, 1)) - 1)) {}

  /// What came since the last empty look.
  void made_progress(std::uint64_t messages, std::uint64_t bytes) noexcept {
    messages_ += messages;
    bytes_ += bytes;
  }

  /// Is this a conversation, in which every message is waited for?
  [[nodiscard]] bool wants_latency() const noexcept { return wait_ == 0; }

  /// Adapts, then spins. Gives the number of pauses spent, at least `at_least`.
  std::uint32_t wait(std::uint32_t at_least = 1) noexcept {
    const std::uint64_t burst = messages_ + (bytes_ >> slot_bytes_shift_);
    if (messages_ <= 2) {
      wait_ /= 2;
    } else if (burst < long_burst_) {
      wait_ = std::min(wait_ * 2 + 4, wait_max_pauses);
    } else if (burst > 2 * long_burst_) {
      wait_ -= wait_ / 4;
    }
    messages_ = bytes_ = 0;
    const std::uint32_t pauses = std::max(wait_, at_least);
    for (std::uint32_t i = 0; i < pauses; ++i) cpu_pause();
    return pauses;
  }

 private:
  std::uint64_t long_burst_;
  unsigned slot_bytes_shift_;  // of the bytes that the arena has for each slot
  std::uint64_t messages_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint32_t wait_ = 0;
};

}  // namespace shmq::sync
