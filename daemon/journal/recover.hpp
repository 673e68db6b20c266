// SPDX-License-Identifier: Apache-2.0
//
// Carries out the plan of a recovery: locks the files, analyses them, and begins a new incarnation
// with the unsealed tail copied forward. Waits for the disk; runs once, before the writer.
//
// Invariants:
//  1. Nothing of a former incarnation is written to. What does not count any more is removed only
//     once the new incarnation's closing marker is on stable storage; what never counted, before.
//  2. Cut anywhere, it can be run again, and comes to the same state.
//  3. A refused plan changes nothing.
#pragma once

#include "daemon/io/disk.hpp"
#include "daemon/journal/identity.hpp"
#include "journal/analysis.hpp"

namespace shmq::journal {

struct RecoverOptions {
  Identity identity;
  bool queue_uuid_is_known = true;  ///< else that of the files, if there are any
  bool memory_is_newer = false;     ///< same boot and a valid segment
  bool check_all_bodies = true;
  std::uint64_t first_file_bytes = journal::first_file_bytes;
  CheckpointState initial;  ///< of a new queue: its groups and settings
};

/// A file of the journal as the writer keeps it.
struct FileRecord {
  std::uint64_t number = 0;
  std::uint64_t bytes = 0;
  std::uint64_t first_seq = 0;
  std::uint64_t end_seq = 0;
  std::uint64_t last_realtime_ns = 0;  ///< when its last batch was written
  io::Handle handle = io::no_handle;   ///< held for its lock
};

/// Where the writer goes on. The handles belong to whoever has it.
struct Start {
  Identity identity;
  std::uint64_t epoch = 0;
  std::uint64_t next_file_number = 0;
  std::uint64_t next_batch_number = 0;
  BatchRef last;       ///< the closing marker
  FileRecord current;  ///< handle for writing
  std::uint64_t offset = 0;
  std::vector<FileRecord> older;  ///< oldest first
  std::uint64_t watermark = 0;    ///< the next seq, behind a gap if there is one
  std::uint64_t seq_ceiling = 0;
  CheckpointState state;
};

struct Recovery {
  Plan plan;
  std::optional<Start> start;  ///< nothing if the plan is refused
};

Result<Recovery> recover(io::Disk& disk, const RecoverOptions& options);

/// The disk's directory as the reader sees it. Waits.
class DiskDirectory final : public DirectorySource {
 public:
  explicit DiskDirectory(io::Disk& disk) : disk_(disk) {}
  [[nodiscard]] std::string path() const override { return disk_.path(); }
  Result<std::vector<std::string>> list() override { return disk_.list(); }
  Result<std::unique_ptr<ByteSource>> open(const std::string& name) override;

 private:
  io::Disk& disk_;
};

}  // namespace shmq::journal
