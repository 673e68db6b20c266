// SPDX-License-Identifier: Apache-2.0
//
// Writes a backup from a queue's directory, and reads one. Who may call: whoever may read the
// files; the daemon is not asked, and goes on meanwhile.
//
// Invariants:
//  1. Nothing of a backup is believed before it was checked, and no length before it is bounded by
//     bytes that are there.
//  2. What is read is given batch by batch, so memory is bounded by the largest one.
#pragma once

#include <functional>

#include "journal/backup_format.hpp"
#include "journal/source.hpp"
#include "journal/state.hpp"

namespace shmq::journal {

struct BackupSummary {
  BackupHeader header{};
  std::uint64_t files = 0;
  std::uint64_t batches = 0;
  std::uint64_t messages = 0;
  std::uint64_t first_seq = 0;
  std::uint64_t end_seq = 0;
  std::uint64_t bytes = 0;  ///< of the whole backup
  std::uint64_t sum = 0;    ///< of all of them but the end
  CheckpointState state;    ///< after the last batch
};

/// Where the bytes go, in order.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual std::error_code write(Bytes bytes) = 0;
};

/// Bytes done, and in all as far as is known. False: stop (Errc::interrupted).
using BackupProgress = std::function<bool(std::uint64_t done, std::uint64_t total)>;

struct BackupNames {
  std::string name_space;
  std::string queue;
};

/// All that counts in the directory, up to the last whole batch. busy: files went while it was
/// read; begin again. corrupt: damage in the journal, with the range.
Result<BackupSummary> write_backup(DirectorySource& directory, const BackupNames& names,
                                   ByteSink& sink, const BackupProgress& progress);

/// What reads a backup on is told, in order.
class BackupVisitor {
 public:
  virtual ~BackupVisitor() = default;
  virtual Result<void> on_file(const FileHeader& header) = 0;
  /// `raw` are the bytes as they are on disk.
  virtual Result<void> on_batch(const BatchHeader& header, std::span<std::byte> raw) = 0;
};

/// Checks all of it. `name` is for messages. corrupt: it is no backup, or damaged, or cut off;
/// version_mismatch. A visitor has been told of what was whole before.
Result<BackupSummary> read_backup(ByteSource& source, const std::string& name,
                                  const BackupProgress& progress, BackupVisitor* visitor);
/// The header alone.
Result<BackupHeader> read_backup_header(ByteSource& source, const std::string& name);

}  // namespace shmq::journal
