// SPDX-License-Identifier: Apache-2.0
//
// Backlog figures over time: how fast messages come to a group and go, and how old they are where
// no record says so.
//
// Publishing, receiving and acknowledging count nothing and read no clock for this. Who wants to
// know samples what follows from the tail, the floors and what is settled above them. An observer
// (Access::observer) will do.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <shmq/info.hpp>
#include <shmq/queue.hpp>
#include <vector>

namespace shmq {

struct GroupFigures {
  /// As Queue::groups() gives it, but: no total is lower than in an earlier sample, and an age is
  /// at least the time since the sampler first saw the message (AgeBasis::observed).
  GroupInfo group;
  /// Between the two samples that the rates come from; zero when there is none to compare with.
  std::chrono::nanoseconds span{};
  std::optional<double> arrivals_per_second;  ///< published into the queue
  std::optional<double> drained_per_second;   ///< settled by consumers: acked or dead-lettered
  /// Means over the samples of the span, this one included.
  double mean_consumers = 0, mean_consumers_busy = 0;
  bool never_without_ready = false;  ///< in each sample of the span a message was ready
};

/// Samples one queue. One thread at a time. Keeps a bounded history: the samples of the span, and
/// 1,024 moments for the ages.
class SHMQ_API BacklogSampler {
 public:
  /// Rates are means over `span`, or over the time since the first sample while that is shorter.
  explicit BacklogSampler(std::chrono::nanoseconds span = std::chrono::seconds{10});
  BacklogSampler(BacklogSampler&&) noexcept;
  BacklogSampler& operator=(BacklogSampler&&) noexcept;
  ~BacklogSampler();

  /// Looks at the queue now. Reads the windows and straggler tables of its groups, never the
  /// messages, so the cost does not grow with the backlog. A queue that was removed and created
  /// again, or a group, begins anew.
  std::vector<GroupFigures> sample(const Queue& queue);

 private:
  class History;
  std::unique_ptr<History> history_;
};

}  // namespace shmq
