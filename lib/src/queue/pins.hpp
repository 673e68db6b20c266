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
//  4. The last pin word is for a moment only: while a record is copied for which no other is to be
//     had.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "base/assert.hpp"
#include "shm/segment.hpp"

namespace shmq::queue {

class Pins {
 public:
  static constexpr std::uint32_t none = ~0U;
  // No pin: the bytes are the process's own.
  static constexpr std::uint32_t first_private = 0xfc;
  static constexpr std::uint32_t no_bytes = 0xfc;      // of a seq without a message
  static constexpr std::uint32_t of_batch = 0xfd;      // in a batch of the journal (past.hpp)
  static constexpr std::uint32_t private_copy = 0xfe;  // in a copy of the message alone
  static constexpr bool is_private(std::uint32_t pin) noexcept { return pin >= first_private; }

  Pins(const shm::Segment& segment, std::uint32_t entry_number, std::uint64_t generation) noexcept
      : segment_(segment), entry_(segment.participant(entry_number)), generation_(generation) {}

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
      if ((~used_ & keepable) == 0) return false;
      free = static_cast<std::uint32_t>(std::countr_zero(~used_));
    }
    held_[free] = {first, last, 0};
    used_ |= 1ULL << free;
    current_ = free;
    // relaxed: any value will do. Consumers that hold nothing must not hold the arena: a pin is
    // kept beyond its last delivery only while all that ever attached hold a quarter of it at most.
    keeps_ = 4 * std::uint64_t{sync::load_relaxed(segment_.control().participants_used)} <=
             segment_.limits().chunks;
    // [C1] release; the caller's full fence orders it before its look at floor and head [C2].
    sync::store_release(entry_.pins[free], shm::pin_word(generation_, first, last - first + 1));
    return true;
  }
  /// For the length of a copy; with the same fence and second look as `set`.
  void set_momentary(std::uint64_t first, std::uint64_t last) noexcept {
    // [C1] release, as in set.
    sync::store_release(entry_.pins[momentary],
                        shm::pin_word(generation_, first, last - first + 1));
  }
  void clear_momentary() noexcept {
    // [C3] release: the copy comes before.
    sync::store_release(entry_.pins[momentary], 0);
  }
  [[nodiscard]] std::uint64_t current_first() const noexcept { return held_[current_].first; }
  [[nodiscard]] std::uint64_t current_last() const noexcept { return held_[current_].last; }
  void add_deliveries(std::uint32_t count) noexcept { held_[current_].deliveries += count; }
  void drop_delivery(std::uint32_t pin) noexcept { drop_deliveries(pin, 1); }
  void drop_deliveries(std::uint32_t pin, std::uint32_t count) noexcept {
    held_[pin].deliveries -= count;
    if (held_[pin].deliveries != 0 || (pin == current_ && keeps_)) return;
    if (pin == current_) current_ = none;
    clear(pin);
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

  const shm::Segment& segment_;
  shm::Participant& entry_;
  std::uint64_t generation_;
  bool keeps_ = true;
  std::uint32_t current_ = none;
  std::uint64_t used_ = 0;  // one bit a pin
  static_assert(shm::pins_per_participant == 64);
  static constexpr std::uint32_t momentary = 63;
  static constexpr std::uint64_t keepable = ~(1ULL << momentary);
  std::array<Held, shm::pins_per_participant> held_{};
};

}  // namespace shmq::queue
