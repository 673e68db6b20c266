// SPDX-License-Identifier: Apache-2.0
//
// From a queue's directory, and what is left of it in /dev/shm, to a queue that can be served; and
// the making of a new one. Waits for the disk; on any thread.
//
// Invariants:
//  1. What memory holds is taken for newer than the disk only if the segment is valid, of this boot
//     and of the journal's queue, says that it holds all that it should, and nobody else serves it.
//  2. Nothing is written to the directory of a queue whose plan of recovery is refused, or whose
//     journal and memory contradict each other.
//  3. Cut anywhere, it can be run again.
#pragma once

#include "daemon/engine/managed_queue.hpp"
#include "daemon/io/backend.hpp"
#include "journal/analysis.hpp"

namespace shmq::engine {

struct RecoveryOptions {
  std::string name_space;
  std::string name;
  std::string directory;
  std::uint64_t check_bytes = 0;
  std::uint64_t first_file_bytes = journal::first_file_bytes;
  std::vector<uid_t> trusted_owners;
};

/// The disk that it gives is the backend's, for the loop's thread.
/// Errc::busy: somebody, perhaps the kernel for a killed daemon, still writes; try again.
/// Errc::no_such_queue: what is there was never a queue, and has been taken out of /dev/shm: the
/// directory can go.
Result<QueueParts> recover_queue(const io::Backend& backend, const RecoveryOptions& options,
                                 const Log& log);

/// `options.directory` exists and is empty.
Result<QueueParts> make_queue(const io::Backend& backend, const RecoveryOptions& options,
                              QueueOptions queue_options);

/// Makes the directory of a queue with the group and, as far as reading goes, the mode of the
/// queue. already_exists if there is one.
Result<void> make_directory(const std::string& path, const QueueOptions& options);

}  // namespace shmq::engine
