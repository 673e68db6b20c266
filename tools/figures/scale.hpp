// SPDX-License-Identifier: Apache-2.0
//
// How many consumers a group wants, from what was measured: for `shmqctl scale` and shmq-exporter.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>
#include <shmq/backlog.hpp>
#include <string>

namespace shmq::figures {

struct ScaleWish {
  std::uint64_t target_backlog = 0;  ///< as much may wait
  /// What waits beyond that is to be gone in this time, while more arrives as now.
  std::chrono::nanoseconds target_drain = std::chrono::minutes{1};
  std::uint64_t min = 0;
  std::uint64_t max = std::numeric_limits<std::uint64_t>::max();
  std::optional<double> per_consumer{};  ///< messages/s of one consumer; default: as measured
};

struct ScaleAdvice {
  std::uint64_t wanted = 0;
  std::uint64_t backlog = 0;  ///< ready + delayed
  double arrivals_per_second = 0, drained_per_second = 0;
  std::optional<double> per_consumer;  ///< none: nothing was drained while it was measured
  /// Until the backlog is at its target with `wanted` consumers; none: never, or not known.
  std::optional<double> drain_seconds;
  std::string why;  ///< one line
};

/// `figures` with rates, so of a second sample or a later one.
ScaleAdvice advise(const GroupFigures& figures, const ScaleWish& wish);

}  // namespace shmq::figures
