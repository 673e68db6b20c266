// SPDX-License-Identifier: Apache-2.0
//
// Reads one journal file from end to end and says what is where: whole batches, damaged ones, and
// holes. It judges nothing: what a hole means is decided in recovery.hpp.
//
// Invariants:
//  1. Bytes are copied to private memory first; what is checked is what is used.
//  2. Memory is bounded by the largest batch that lies within the file; time by the file's length.
//  3. The stretches cover the file from block 1 to its end without overlap.
#pragma once

#include <functional>
#include <vector>

#include "journal/codec.hpp"
#include "journal/source.hpp"

namespace shmq::journal {

enum class StretchKind {
  batch,    ///< whole
  damaged,  ///< a whole header with a body that does not belong to it
  hole,     ///< no genuine header at any block of it
};

/// What the blocks of a hole hold.
struct HoleContent {
  bool stale = false;          ///< blocks of a former life of the file
  bool noise = false;          ///< bytes that are neither zeros nor known to be stale
  bool broken_header = false;  ///< a block that starts with batch_magic and is no whole header
  bool unsupported = false;    ///< a header of this place of another version
};

struct Stretch {
  StretchKind kind = StretchKind::hole;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  BatchHeader header{};  ///< of a batch, and of a damaged one
  HoleContent hole;
  std::string why;  ///< of a damaged batch
};

struct FileScan {
  std::string name;
  std::uint64_t number = 0;
  std::uint64_t size = 0;
  HeaderCondition condition = HeaderCondition::damaged;
  FileHeader header{};
  bool header_is_sound = false;  ///< valid, or truncated behind a whole header
  std::vector<Stretch> stretches;
};

/// Called for each whole batch, in order of the file. The records live during the call only.
using BatchVisitor = std::function<void(const BatchHeader&, const std::vector<Record>&)>;

/// A whole batch that whoever gets it may keep: by swapping it for another, whose memory is then
/// used for what comes next.
struct CheckedBatch {
  BatchHeader header{};
  std::vector<std::byte> body;
  std::vector<Record> records;  ///< they point into `body`, and go with it
};
/// False: no more.
using BatchTaker = std::function<bool(CheckedBatch&)>;

struct ScanOptions {
  std::optional<Uuid> queue_uuid;  ///< a file of another queue is foreign; nothing: any
  bool check_bodies = true;        ///< without, a genuine header counts as a whole batch
};

/// Fails only where the source cannot be read.
Result<FileScan> scan_file(ByteSource& source, const std::string& name, std::uint64_t number,
                           const ScanOptions& options, const BatchVisitor& visit = {});
/// The same, with batches that can be kept; for check_bodies only. Where `take` says
/// no more, it fails with operation_canceled.
Result<FileScan> scan_file(ByteSource& source, const std::string& name, std::uint64_t number,
                           const ScanOptions& options, const BatchTaker& take);

/// The header, the first batch and the one that `next`, in another file, continues: what a quick
/// start looks at in a file that is full. Bodies are not read, and what is between is believed to
/// be there; the stretches are these one or two. Nothing if any of it is not whole or not in place.
std::optional<FileScan> read_ends(ByteSource& source, const std::string& name, std::uint64_t number,
                                  const std::optional<Uuid>& queue_uuid, const BatchHeader& next);

/// Header alone, for a first look.
Result<FileHeader> read_file_header(ByteSource& source);

}  // namespace shmq::journal
