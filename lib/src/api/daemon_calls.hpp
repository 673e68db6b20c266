// SPDX-License-Identifier: Apache-2.0
//
// What the daemon alone does with durable queues, asked for by Queue.
#pragma once

#include <shmq/daemon.hpp>
#include <shmq/error.hpp>
#include <shmq/options.hpp>
#include <string>

namespace shmq::detail {

/// Returns once the queue can be opened.
Result<void> create_durable(const std::string& name, const QueueOptions& options);
/// With its journal, also one that the daemon refuses to serve.
Result<void> remove_durable(const std::string& name, const OpenOptions& options);

/// Of the backup that `descriptor` is open for.
Result<void> restore_durable(const std::string& name, int descriptor, const DaemonOptions& options);

}  // namespace shmq::detail
