// SPDX-License-Identifier: Apache-2.0
//
// Looking at the journal of a durable queue on disk, without a daemon and without changing
// anything. The format is described in shmq_journal(5).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <shmq/error.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace shmq {

/// End of a range that nothing on disk tells.
inline constexpr std::uint64_t journal_end_unknown = std::numeric_limits<std::uint64_t>::max();

/// One thing that was found, and what recovery makes of it.
struct JournalFinding {
  char letter = 0;       ///< the case, as in shmq_journal(5)
  bool refuses = false;  ///< recovery would refuse the queue because of it
  std::string file;      ///< name in the directory; empty: the queue as a whole
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;  ///< 0: no particular place
  std::uint64_t first_seq = 0;
  std::uint64_t end_seq = 0;  ///< one past the last; == first_seq: no message
  std::string text;           ///< one line: what, which seqs, where, what to do
};

struct JournalGroup {
  std::string uuid;
  std::uint64_t incarnation = 0;
  std::uint64_t floor = 0;          ///< all seqs below are settled
  std::uint64_t settled_above = 0;  ///< seqs settled at or above the floor
  std::uint64_t handed_out = 0;     ///< unsettled messages with counts or delays
};

struct JournalReport {
  bool is_refused = false;
  bool is_empty = false;  ///< no batch that counts
  std::string queue_uuid;
  std::uint64_t first_seq = 0;  ///< of the oldest message in the files
  std::uint64_t end_seq = 0;
  std::uint64_t next_seq = 0;  ///< where numbering would go on after a loss of power
  std::vector<JournalGroup> groups;
  std::vector<JournalFinding> findings;
  std::vector<std::string> plan;  ///< what recovery would do, one step a line
};

/// Reads all files of a queue's directory from end to end. Read only; a daemon may be writing
/// meanwhile, then the newest batch can look torn. An error is one of the directory itself (it is
/// missing, or cannot be read); what is wrong inside is in the report.
SHMQ_API Result<JournalReport> verify_journal(const std::string& directory);

enum class JournalItemKind { file, batch, damaged, hole, record };

/// One piece of a file. The views live during the call only.
struct JournalItem {
  JournalItemKind kind{};
  std::uint64_t offset = 0;  ///< in the file; of a record, that of its batch
  std::uint64_t bytes = 0;
  std::string description = {};  ///< fields for people, as "name=value name=value"
  bool is_message = false;
  std::uint64_t seq = 0;                    ///< of a message
  std::span<const std::byte> payload = {};  ///< of a message
};

/// Reads one file from end to end and calls `take` for its header, each batch, each record, and
/// what is neither, in order. Stops early if `take` gives false. Damage is an item, not an error.
SHMQ_API Result<void> dump_journal(const std::string& file,
                                   const std::function<bool(const JournalItem&)>& take);

}  // namespace shmq
