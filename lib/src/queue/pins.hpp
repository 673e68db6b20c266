// SPDX-License-Identifier: Apache-2.0
//
// The pins of one consumer: which chunks its deliveries lie in.
//
// Invariants:
//  1. A chunk is pinned as long as a delivery in it lives, lease or no lease.
//  2. A pin counts for its setter only if, after the pin and a full fence, the message was still
//  not
//     settled and head had not passed it (see ExclusiveConsumer::pin_and_look_again).
//  3. Only the owner writes its pins. The pin that was set last is kept while the consumer is busy,
//     so that most messages need none; an idle consumer clears it.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "base/assert.hpp"
#include "shm/layout.hpp"

namespace shmq::queue {

class Pins {
 public:
  static constexpr std::uint32_t none = ~0U;

  Pins(shm::Participant& entry, std::uint64_t generation) noexcept
      : entry_(entry), generation_(generation) {}

  /// Is [first, last] covered by the current pin?
  [[nodiscard]] bool covers(std::uint64_t first, std::uint64_t last) const noexcept {
    return current_ != none && first >= held_[current_].first && last <= held_[current_].last;
  }
  [[nodiscard]] std::uint32_t current() const noexcept { return current_; }

  /// Pins these chunks and makes that the current pin; false: all pins are in use. Publishes the
  /// word, but the caller must fence and look again before it relies on it.
  bool set(std::uint64_t first, std::uint64_t last) noexcept {
    for (std::uint64_t rest = used_; rest != 0; rest &= rest - 1) {
      const auto i = static_cast<std::uint32_t>(std::countr_zero(rest));
      if (held_[i].first <= first && held_[i].last >= last) {
        retire_current();
        current_ = i;
        return true;
      }
    }
    std::uint32_t free = current_;  // in place of one that nothing hangs on any more
    if (current_ == none || held_[current_].deliveries != 0) {
      if (~used_ == 0) return false;
      free = static_cast<std::uint32_t>(std::countr_zero(~used_));
    }
    held_[free] = {first, last, 0};
    used_ |= 1ULL << free;
    current_ = free;
    // [C1] release; the caller's full fence orders it before its look at floor and head [C2].
    sync::store_release(entry_.pins[free], shm::pin_word(generation_, first, last - first + 1));
    return true;
  }
  [[nodiscard]] std::uint64_t current_first() const noexcept { return held_[current_].first; }
  [[nodiscard]] std::uint64_t current_last() const noexcept { return held_[current_].last; }
  void add_deliveries(std::uint32_t count) noexcept { held_[current_].deliveries += count; }
  void drop_delivery(std::uint32_t pin) noexcept { drop_deliveries(pin, 1); }
  void drop_deliveries(std::uint32_t pin, std::uint32_t count) noexcept {
    held_[pin].deliveries -= count;
    if (held_[pin].deliveries == 0 && pin != current_) clear(pin);
  }
  /// An idle consumer holds nothing back.
  void clear_idle() noexcept {
    if (current_ == none) return;
    retire_current();
    current_ = none;
  }
  [[nodiscard]] std::uint32_t deliveries(std::uint32_t pin) const noexcept {
    return held_[pin].deliveries;
  }

 private:
  struct Held {
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    std::uint32_t deliveries = 0;
  };
  void retire_current() noexcept {
    if (current_ != none && held_[current_].deliveries == 0) clear(current_);
  }
  void clear(std::uint32_t pin) noexcept {
    used_ &= ~(1ULL << pin);
    // [C3] release: our last read of the chunk comes before.
    sync::store_release(entry_.pins[pin], 0);
  }

  shm::Participant& entry_;
  std::uint64_t generation_;
  std::uint32_t current_ = none;
  std::uint64_t used_ = 0;  // one bit a pin
  static_assert(shm::pins_per_participant == 64);
  std::array<Held, shm::pins_per_participant> held_{};
};

}  // namespace shmq::queue
