// SPDX-License-Identifier: Apache-2.0
//
// Looks at all queues of a namespace, as an observer: no daemon is needed and nothing is changed. A
// daemon that is there is asked for what only it knows.
//
// Invariants:
//  1. Each look opens the queues anew, so one that was removed or created again is never mistaken.
//  2. A look is made under the lock, by the thread that samples or by one that answers.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <shmq/shmq.hpp>
#include <string>
#include <variant>
#include <vector>

#include "figures/metrics.hpp"

namespace shmq_exporter {

/// Any thread.
class Collector {
 public:
  Collector(shmq::OpenOptions options, std::chrono::nanoseconds span)
      : options_(std::move(options)), span_(span) {}

  /// Looks at every queue; the error says why the namespace cannot be listed.
  shmq::Result<void> look();
  /// Looks, and gives OpenMetrics text of what it saw.
  shmq::Result<std::string> metrics();

  enum class Missing { queue, group };
  /// As of the last look.
  std::variant<shmq::GroupFigures, Missing> figures(const std::string& queue,
                                                    const std::string& group) const;
  /// How long ago the last look that worked was made; none: there was none.
  std::optional<std::chrono::nanoseconds> since_look() const;

 private:
  struct Watched {
    explicit Watched(std::chrono::nanoseconds span) : sampler(span) {}
    shmq::BacklogSampler sampler;
    std::vector<shmq::GroupFigures> figures;
    shmq::figures::Reading reading;
  };
  shmq::Result<void> look_locked();

  const shmq::OpenOptions options_;
  const std::chrono::nanoseconds span_;
  mutable std::mutex mutex_;
  std::map<std::string, Watched> watched_;
  std::optional<std::chrono::steady_clock::time_point> looked_at_;
};

}  // namespace shmq_exporter
