// SPDX-License-Identifier: Apache-2.0
//
// Queues as OpenMetrics text: the one place that names the metrics, for `shmqctl metrics` and
// shmq-exporter. What they mean stands in shmq-exporter(8).
#pragma once

#include <optional>
#include <shmq/shmq.hpp>
#include <string>
#include <vector>

#include "figures/daemon.hpp"

namespace shmq::figures {

/// What was read of one queue.
struct Reading {
  std::string queue;
  /// None: the queue is there but could not be read.
  struct Contents {
    QueueInfo info;
    QueueStats stats;
    std::vector<GroupInfo> groups;
  };
  std::optional<Contents> contents;
};

/// As things are now; the contents of `queue` if it could be opened.
Reading read(const std::string& name, const Result<Queue>& queue);

/// An exposition, "# EOF" included. Without a daemon there is nothing of what only it knows: those
/// metrics are absent, not zero. Of the queues that the daemon names, those that were read.
std::string metrics_text(const std::vector<Reading>& readings, const DaemonReading* daemon);

inline constexpr const char* metrics_content_type =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

}  // namespace shmq::figures
