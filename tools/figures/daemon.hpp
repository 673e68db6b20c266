// SPDX-License-Identifier: Apache-2.0
//
// What the daemon of a namespace says of its queues, for metrics and checks.
#pragma once

#include <cstdint>
#include <optional>
#include <shmq/daemon.hpp>
#include <string>
#include <vector>

namespace shmq::figures {

struct DaemonQueue {
  std::string name;
  std::string state;  ///< "ok", "no_space", "degraded", "refused", "recovering"
  std::string why;    ///< of all but ok
  /// None: it is not served, so there are none.
  struct Contents {
    std::uint64_t lag_messages = 0;
    double lag_seconds = 0;  ///< the oldest message that is not durable is at least so old
    std::uint64_t sync_errors = 0;
    std::uint64_t reclaimed = 0;
    std::vector<std::uint64_t> syncs;  ///< one more than there are bounds: the last is of the rest
    double syncs_sum_seconds = 0;
  };
  std::optional<Contents> contents;
};

struct DaemonReading {
  std::vector<double> sync_bounds_seconds;
  std::vector<DaemonQueue> queues;

  /// Null: it does not know the queue.
  [[nodiscard]] const DaemonQueue* find(const std::string& name) const noexcept;
};

/// Blocks no longer than the timeout of the options. daemon_away, and what daemon_status() says;
/// version_mismatch: the answer cannot be read.
Result<DaemonReading> read_daemon(const DaemonOptions& options);

/// The same of an answer that is there.
Result<DaemonReading> parse_daemon_status(const std::string& text);

}  // namespace shmq::figures
