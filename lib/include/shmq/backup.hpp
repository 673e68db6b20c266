// SPDX-License-Identifier: Apache-2.0
//
// A durable queue as it stood at one point, in one file; and back. The format is described in
// shmq_journal(5).
//
// All of it blocks, may be called from any thread, and keeps nothing open.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <shmq/daemon.hpp>
#include <shmq/error.hpp>
#include <string>

namespace shmq {

/// Bytes done, and in all as far as is known. False: stop, with Errc::interrupted.
using BackupProgress = std::function<bool(std::uint64_t done_bytes, std::uint64_t total_bytes)>;

struct BackupInfo {
  std::string name_space, queue;  ///< that it was made of
  std::string queue_uuid;
  std::chrono::system_clock::time_point created{};
  std::uint64_t first_seq = 0;  ///< of the oldest message in it
  std::uint64_t end_seq = 0;    ///< one past the newest
  std::uint64_t messages = 0, groups = 0, files = 0, batches = 0;
  std::uint64_t bytes = 0;  ///< of the backup
};

struct BackupOptions {
  DaemonOptions daemon{};
  /// The directory of the queue's journal files. Default: the daemon is asked for it; with it no
  /// daemon is needed.
  std::string directory{};
  BackupProgress progress{};
};

/// Writes `file`, which must not exist, and which has its name only once all of it is on stable
/// storage: a whole backup or none. Reads the journal alone, so it stops nobody; who may read the
/// queue may back it up. The point is the last batch when it begins: messages published and acks
/// made before a Queue::sync() that came before are in it. Errors: already_exists, daemon_away,
/// no_such_queue, no_permission, corrupt (the journal is damaged), busy (files went faster than
/// they were read), interrupted.
SHMQ_API Result<BackupInfo> backup_queue(const std::string& queue, const std::string& file,
                                         const BackupOptions& options = {});

/// Reads `file` from end to end. corrupt: it is none, or damaged, or cut off; version_mismatch.
SHMQ_API Result<BackupInfo> verify_backup(const std::string& file,
                                          const BackupProgress& progress = {});

struct RestoreOptions {
  std::string queue{};  ///< default: the name in the backup
  DaemonOptions daemon{.timeout = std::chrono::hours{24}};
};

/// The daemon makes a queue of it, with a uuid of its own, and this returns once it can be opened.
/// Messages, groups, floors, counts and delays are as they were; leases are over. The caller's
/// process opens the file; they need the same right as for a durable queue's creation, and the
/// queue will belong to them unless they are root or the daemon's user. A backup that is damaged
/// makes nothing. already_exists: a queue of that name is there; busy: another one is restored.
SHMQ_API Result<void> restore_queue(const std::string& file, const RestoreOptions& options = {});

}  // namespace shmq
