// SPDX-License-Identifier: Apache-2.0
//
// What the 22 bits of a deadline in a lease word mean.
#pragma once

#include <cstdint>

#include "base/clock.hpp"
#include "shm/layout.hpp"

namespace shmq::queue {

// A deadline of 0 says "at once" for a ready entry and "never" for a leased one; ticks avoid it.
constexpr std::uint32_t deadline_at(std::uint64_t tick) noexcept {
  const std::uint32_t deadline = static_cast<std::uint32_t>(tick) & base::tick_mask;
  return deadline == 0 ? 1 : deadline;
}
/// A lease is at most an hour long, by extension, too.
inline constexpr std::uint64_t longest_lease_ns = 3'600'000'000'000ULL;
/// 22 bits of ticks hold 19.5 hours, half of them ahead.
inline constexpr std::uint64_t longest_delay_ns = 8 * longest_lease_ns;

/// Now, and a moment that the group's deadlines are near to. The 22 bits of a deadline name one
/// moment in 19.5 hours; the reference says which: one from a quarter of that before it on.
struct TickTime {
  std::uint64_t now = 0;
  std::uint64_t reference = 0;

  [[nodiscard]] constexpr std::uint64_t moment_of(std::uint32_t deadline) const noexcept {
    constexpr std::uint64_t before = (std::uint64_t{base::tick_mask} + 1) / 4;
    const std::uint64_t earliest = reference > before ? reference - before : 0;
    return earliest + ((deadline - earliest) & base::tick_mask);
  }
};
inline constexpr std::uint64_t look_interval_ticks = base::ticks_of(1'000'000'000);

/// The group's reference: a look that was completed then left no deadline that was past. So neither
/// a night without consumers nor a look with an old time takes a past deadline for one to come.
inline TickTime time_of_group(const shm::Group& group, std::uint64_t now) noexcept {
  const std::uint64_t reference = sync::load_acquire(group.deadline_reference);
  return {now, reference > now + look_interval_ticks ? now : reference};  // ahead: damaged
}

/// Is it time to look for what is due? A hint farther ahead than is ever set is a damaged one.
constexpr bool wants_look(std::uint64_t hint, std::uint64_t now) noexcept {
  return hint - now - 1 >= 2 * look_interval_ticks;
}

/// Ticks until the entry may be handed out again: 0 now, ~0 not by time.
constexpr std::uint64_t due_in_ticks(const shm::Lease& lease, const TickTime& time) noexcept {
  const bool ready = lease.state == shm::LeaseState::ready;
  if (!ready && lease.state != shm::LeaseState::leased) return ~std::uint64_t{0};
  if (lease.deadline == 0) return ready ? 0 : ~std::uint64_t{0};
  const std::uint64_t moment = time.moment_of(lease.deadline);
  return moment <= time.now ? 0 : moment - time.now;
}

}  // namespace shmq::queue
