// SPDX-License-Identifier: Apache-2.0
//
// Talking to the daemon (shmqd) of a namespace. Creating and removing durable queues needs none of
// this: Queue does it.
//
// All of it blocks, may be called from any thread, and keeps nothing open. Errors: daemon_away
// (with the places looked at), foreign_owner (it runs as a user whom the caller does not trust),
// no_permission, timed_out.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <shmq/error.hpp>
#include <string>
#include <vector>

namespace shmq {

struct DaemonOptions {
  std::string name_space{};  ///< default: SHMQ_NAMESPACE, else "default"
  /// Where the daemon has its sockets, a directory a namespace below it. Default: SHMQ_RUNTIME_DIR,
  /// else $XDG_RUNTIME_DIR/shmq, then /run/shmq.
  std::string runtime_dir{};
  std::vector<uid_t> trusted_owners{};  ///< see OpenOptions
  std::chrono::nanoseconds timeout = std::chrono::seconds{30};
};

/// What the daemon says of itself and its queues: one JSON object.
SHMQ_API Result<std::string> daemon_status(const DaemonOptions& options = {});
/// Reads its configuration again, and tries degraded queues on a new file.
SHMQ_API Result<void> daemon_reload(const DaemonOptions& options = {});
/// Everything on stable storage, journals closed, then its end. Queues stay usable in memory.
SHMQ_API Result<void> daemon_drain(const DaemonOptions& options = {});

}  // namespace shmq
