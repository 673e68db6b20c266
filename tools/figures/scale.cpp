// SPDX-License-Identifier: Apache-2.0
#include "figures/scale.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace shmq::figures {
namespace {

// Rates are measured to a few percent at best. A hundredth of a consumer is no reason for one more.
constexpr double measuring_error = 0.01;

std::string rate(double per_second) {
  char text[32];
  std::snprintf(text, sizeof(text), per_second < 10 ? "%.2f/s" : "%.0f/s", per_second);
  return text;
}

std::string seconds(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), value < 10 ? "%.1f s" : "%.0f s", value);
  return text;
}

// What one consumer drains while it has something to do.
std::optional<double> measured_per_consumer(const GroupFigures& figures) {
  const double drained = figures.drained_per_second.value_or(0);
  if (drained <= 0) return std::nullopt;
  double working = figures.mean_consumers_busy;
  if (figures.never_without_ready && figures.group.mode == GroupMode::shared) {
    // Something always waited, so all had work; between two messages a consumer holds none.
    working = std::max(working, figures.mean_consumers);
  }
  if (figures.group.mode == GroupMode::exclusive && figures.never_without_ready) working = 1;
  // So quick that no sample met one at work: they drain at least this much each.
  if (working <= 0) working = figures.mean_consumers;
  if (working <= 0) return std::nullopt;
  return drained / working;
}

std::uint64_t consumers_for(double share) {
  const double wanted = std::ceil(share - measuring_error);
  return wanted <= 0 ? 0 : wanted >= 1e9 ? 1'000'000'000U : static_cast<std::uint64_t>(wanted);
}

}  // namespace

ScaleAdvice advise(const GroupFigures& figures, const ScaleWish& wish) {
  ScaleAdvice advice;
  advice.backlog = figures.group.ready + figures.group.delayed;
  advice.arrivals_per_second = figures.arrivals_per_second.value_or(0);
  advice.drained_per_second = figures.drained_per_second.value_or(0);
  advice.per_consumer = wish.per_consumer ? wish.per_consumer : measured_per_consumer(figures);
  const double excess = advice.backlog > wish.target_backlog
                            ? static_cast<double>(advice.backlog - wish.target_backlog)
                            : 0.0;
  const double drain_seconds =
      std::max(std::chrono::duration<double>(wish.target_drain).count(), 1e-3);
  const double needed = advice.arrivals_per_second + excess / drain_seconds;

  advice.why =
      std::to_string(advice.backlog) + " wait, " + rate(advice.arrivals_per_second) + " arrive";
  const bool has_work =
      advice.backlog > 0 || figures.group.in_flight > 0 || advice.arrivals_per_second > 0;
  if (!has_work) {
    advice.why += ": nothing to do";
  } else if (advice.per_consumer) {
    advice.wanted = std::max<std::uint64_t>(consumers_for(needed / *advice.per_consumer), 1);
    advice.why += ", " + rate(*advice.per_consumer) + " per consumer" +
                  (wish.per_consumer ? " (given)" : "") + ": " + rate(needed) + " wanted";
  } else {
    advice.wanted = std::max<std::uint64_t>(figures.group.consumers, 1);
    advice.why += figures.group.consumers == 0
                      ? ": no consumer, so a first one, to see what it drains"
                      : ": nothing was drained meanwhile, so as many as there are";
  }
  if (figures.group.mode == GroupMode::exclusive && advice.wanted > 1) {
    advice.wanted = 1;
    advice.why += "; the group is exclusive, more than one would stand by";
  }
  const std::uint64_t unbounded = advice.wanted;
  advice.wanted = std::min(std::max(advice.wanted, wish.min), wish.max);
  if (advice.wanted != unbounded) {
    advice.why += "; " + std::to_string(unbounded) + " is " +
                  (unbounded < wish.min ? "below the minimum" : "above the maximum");
  }
  if (advice.per_consumer) {
    std::uint64_t working = advice.wanted;
    if (figures.group.mode == GroupMode::exclusive) working = std::min<std::uint64_t>(working, 1);
    const double surplus =
        static_cast<double>(working) * *advice.per_consumer - advice.arrivals_per_second;
    if (excess <= 0) {
      advice.drain_seconds = 0;
    } else if (surplus > 0) {
      advice.drain_seconds = excess / surplus;
      advice.why += "; drained in " + seconds(*advice.drain_seconds);
    } else {
      advice.why += "; that never drains it";
    }
  }
  return advice;
}

}  // namespace shmq::figures
