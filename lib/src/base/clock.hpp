// SPDX-License-Identifier: Apache-2.0
//
// The clocks, replaceable by a fake in tests.
//
// Lease deadlines are ticks of 16 ms of CLOCK_MONOTONIC_COARSE in the terms of the initial time
// namespace, so that processes in other time namespaces agree on them.
#pragma once

#include <cstdint>

namespace shmq::base {

struct Clock {
  std::uint64_t (*coarse_ns)() noexcept;     ///< CLOCK_MONOTONIC_COARSE, initial time namespace
  std::uint64_t (*monotonic_ns)() noexcept;  ///< CLOCK_MONOTONIC, this namespace; for waiting
  std::uint64_t (*realtime_ns)() noexcept;   ///< CLOCK_REALTIME
};

extern const Clock system_clock;
/// The clock in use; a test may point it elsewhere before any handle exists.
extern const Clock* clock;

inline constexpr unsigned tick_shift = 24;  // 2^24 ns = 16.8 ms
inline constexpr unsigned tick_bits = 22;
inline constexpr std::uint32_t tick_mask = (1U << tick_bits) - 1;

inline std::uint64_t coarse_tick_64() noexcept { return clock->coarse_ns() >> tick_shift; }
inline std::uint32_t coarse_tick() noexcept {
  return static_cast<std::uint32_t>(coarse_tick_64()) & tick_mask;
}

/// Rounded up, so that nothing expires early.
constexpr std::uint32_t ticks_of(std::uint64_t ns) noexcept {
  return static_cast<std::uint32_t>((ns + (1ULL << tick_shift) - 1) >> tick_shift);
}

/// Is `deadline` past, given that it was set at most `span_ticks` ahead? A deadline that seems
/// farther ahead than any that could have been set is one from before the last wrap (19.5 hours).
constexpr bool tick_is_past(std::uint32_t deadline, std::uint32_t now,
                            std::uint32_t span_ticks) noexcept {
  const std::uint32_t ahead = (deadline - now) & tick_mask;
  return ahead == 0 || ahead > span_ticks + 2;
}

}  // namespace shmq::base
