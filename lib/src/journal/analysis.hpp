// SPDX-License-Identifier: Apache-2.0
//
// Looks at a queue's directory, read only, and makes the plan of its recovery: evidence per file
// and per link, the cases of recovery.hpp that it comes to, and what has to be done then.
//
// Invariants:
//  1. The plan depends on the bytes in the directory and the two facts in AnalysisOptions alone, so
//     a recovery that was cut off and begun again comes to the same end.
//  2. A plan with `is_refused` names each range of seqs that it refuses for.
#pragma once

#include <limits>

#include "journal/reader.hpp"
#include "journal/recovery.hpp"
#include "journal/state.hpp"

namespace shmq::journal {

/// Of a range whose end nothing on disk tells.
inline constexpr std::uint64_t unknown_end = std::numeric_limits<std::uint64_t>::max();

struct AnalysisOptions {
  std::optional<Uuid> queue_uuid;  ///< nothing: that of the newest whole file
  bool memory_is_newer = false;    ///< same boot and a valid segment
  /// Without, the bodies of all files but the newest are believed unread, as at a quick start.
  bool check_all_bodies = true;
};

struct Finding {
  char letter = 0;
  Action action = Action::go_on;
  std::string file;  ///< empty: the queue as a whole
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;  ///< 0: no particular place
  std::uint64_t first_seq = 0;
  std::uint64_t end_seq = 0;  ///< == first_seq: no message, but checkpoints; or unknown_end
  std::string detail = {};    ///< may be empty

  /// "journal.0000000000000001: damage below ...: seqs 10 to 19 (offset 4096, 8192 bytes): ..."
  [[nodiscard]] std::string text() const;
};

/// A file of the chain, and the last batch in it that counts.
struct ChainFile {
  std::string name;
  std::uint64_t first_seq = 0;
  std::uint64_t end_seq = 0;
  std::uint64_t end_offset = 0;  ///< behind that batch
  std::uint64_t file_bytes = 0;
  std::uint64_t file_number = 0;
  std::uint64_t last_realtime_ns = 0;  ///< when that batch was written
};

/// Names a batch, as its successor does. file_number 0: none.
struct BatchRef {
  std::uint64_t file_number = 0;
  std::uint64_t offset = 0;
  std::uint64_t checksum = 0;
  std::uint64_t first_seq = 0;
};

inline BatchRef ref_of(const BatchHeader& header) noexcept {
  return {header.file_number, header.file_offset, header.header_checksum, header.first_seq};
}

struct Plan {
  bool is_refused = false;
  bool is_new = true;  ///< no whole batch that counts: a queue without a past
  std::vector<Finding> findings;

  Uuid queue_uuid{};
  std::vector<ChainFile> chain;  ///< oldest first
  CheckpointState state;         ///< after the last batch
  std::uint64_t end_seq = 0;     ///< behind the last seq on disk: where the watermark may go
  std::uint64_t next_seq = 0;    ///< after the gap, if there is one; for memory that is gone
  std::uint64_t seq_ceiling = 0;
  bool writes_gap = false;  ///< [end_seq, next_seq)

  std::optional<BatchHeader> tail;  ///< the unsealed batch, to be copied forward
  BatchRef before_tail;             ///< what the copy continues
  std::uint64_t next_batch_number = 1;
  std::uint64_t next_file_number = 1;
  std::uint64_t next_epoch = 1;
  std::vector<std::string> removable;  ///< once the new incarnation stands
};

Result<Plan> analyse(DirectorySource& directory, const AnalysisOptions& options);

/// Calls `take` for each batch of the plan's chain that ends above `from`, in order, until that
/// says no more. Stops with an error at the first batch that is not whole any more.
Result<void> read_batches(DirectorySource& directory, const Plan& plan, std::uint64_t from,
                          const BatchTaker& take);

/// The gap records of the plan's chain that end above `from`, in order. They stand only in the copy
/// and the marker that begin an epoch, so little is read.
Result<std::vector<SettledRange>> read_gaps(DirectorySource& directory, const Plan& plan,
                                            std::uint64_t from);

/// Calls `take` for each message and gap record of the plan's chain with a seq at or above `from`,
/// in order. Stops with an error at the first batch that is not whole any more.
Result<void> read_messages(DirectorySource& directory, const Plan& plan, std::uint64_t from,
                           const std::function<void(const Record&)>& take);

}  // namespace shmq::journal
