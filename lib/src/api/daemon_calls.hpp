// SPDX-License-Identifier: Apache-2.0
//
// What the daemon alone does with durable queues, asked for by Queue.
#pragma once

#include <shmq/error.hpp>
#include <shmq/options.hpp>
#include <string>

namespace shmq::detail {

/// Returns once the queue can be opened.
Result<void> create_durable(const std::string& name, const QueueOptions& options);
/// With its journal, also one that the daemon refuses to serve.
Result<void> remove_durable(const std::string& name, const OpenOptions& options);

}  // namespace shmq::detail
