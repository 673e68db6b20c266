// SPDX-License-Identifier: Apache-2.0
//
// What the daemon alone does with durable queues, asked for by Queue.
#pragma once

#include <chrono>
#include <optional>
#include <shmq/daemon.hpp>
#include <shmq/error.hpp>
#include <shmq/options.hpp>
#include <string>

#include "shm/segment.hpp"

namespace shmq::detail {

/// Returns once the queue can be opened.
Result<void> create_durable(const std::string& name, const QueueOptions& options);
/// With its journal, also one that the daemon refuses to serve.
Result<void> remove_durable(const std::string& name, const OpenOptions& options);

/// Of the backup that `descriptor` is open for.
Result<void> restore_durable(const std::string& name, int descriptor, const DaemonOptions& options);

/// Where the daemon says that the queue's journal is.
Result<std::string> journal_directory(const std::string& queue, const DaemonOptions& options,
                                      const std::string& what);
/// By the journal, where the daemon says that it is. Nothing: no message is so young.
Result<std::optional<std::uint64_t>> first_seq_since(const shm::Segment& segment,
                                                     std::chrono::nanoseconds realtime,
                                                     const std::string& what);

}  // namespace shmq::detail
