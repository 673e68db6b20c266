// SPDX-License-Identifier: Apache-2.0
//
// Reads a journal batch by batch, from any seq on, while the daemon goes on writing and removing
// files.
//
// Who may call: whoever may read the files; one thread. The daemon is not asked.
//
// Every call names a bound: the caller knows that all seqs below it are on stable storage (the
// watermark). Below the bound a batch that is not there, or is not whole, is damage; at and above
// it nothing is looked at.
//
// Invariants:
//  1. Both checksums of a batch have been verified when it is given, and it belongs to this queue,
//     this file and this place.
//  2. Nothing is skipped: batches that are given in a row leave no seq out. A batch that was copied
//     forward, or written again after an error, repeats seqs; the payloads are the same.
//  3. A damaged range that holds the wanted seq is an error that names it, exactly. One before the
//     wanted seq is none.
//  4. A file that was removed or recycled meanwhile is gone, never damage. Who wants it kept holds
//     it by a group's floor, or by the read lock that an open file carries (source.hpp).
#pragma once

#include <memory>

#include "journal/codec.hpp"
#include "journal/reader.hpp"
#include "journal/source.hpp"

namespace shmq::journal {

/// Memory for one batch, to be used again and again.
class BatchBuffer {
 public:
  BatchHeader header{};
  std::vector<Record> records;  ///< they point into the buffer

  [[nodiscard]] bool holds(std::uint64_t seq) const noexcept {
    return seq >= header.first_seq && seq < header.end_seq;
  }
  /// Room for so many bytes; what was there is lost. The bytes are not initialised.
  std::span<std::byte> reserve(std::uint64_t bytes);
  /// What was reserved last.
  [[nodiscard]] std::span<std::byte> bytes() noexcept { return {bytes_.get(), reserved_}; }
  [[nodiscard]] std::uint64_t capacity() const noexcept { return capacity_; }
  void clear() noexcept;

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::uint64_t capacity_ = 0;
  std::uint64_t reserved_ = 0;
};

/// Seqs that cannot be read.
struct DamagedRange {
  std::uint64_t first_seq = 0;
  std::uint64_t end_seq = 0;
};

class Cursor {
 public:
  Cursor(std::unique_ptr<DirectorySource> directory, const Uuid& queue_uuid);
  Cursor(const Cursor&) = delete;
  Cursor& operator=(const Cursor&) = delete;
  ~Cursor();

  /// The next batch to be given is the one that holds `seq`. Looks at nothing yet.
  void seek(std::uint64_t seq) noexcept;
  /// The same for one ahead that is near: the file stays open, and headers are walked over.
  void skip_to(std::uint64_t seq) noexcept {
    if (seq <= position_) return;
    position_ = seq;
    is_skipping_ = true;
  }
  /// Reads the batch that holds position() and moves on behind it. False: position() is not below
  /// `bound`. Errors: not_retained, corrupt (see damage()), what the files' reading says. After an
  /// error the next call looks anew for the same seq.
  Result<bool> next(BatchBuffer& into, std::uint64_t bound);
  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }
  /// The seq that the oldest file begins with; not_retained: there is none.
  Result<std::uint64_t> first_seq();

  /// What the last call found damaged, if it failed so.
  [[nodiscard]] const std::optional<DamagedRange>& damage() const noexcept { return damage_; }
  /// How far ahead the kernel is asked to read. 0: not at all.
  void set_read_ahead(std::uint64_t bytes) noexcept { read_ahead_bytes_ = bytes; }
  /// No file is open from here on.
  void close() noexcept;

 private:
  struct File {
    std::unique_ptr<ByteSource> source;
    std::uint64_t number = 0;
    BatchPlace place;  // but for the offset
  };
  Result<std::vector<std::uint64_t>> list_numbers();
  Result<std::optional<File>> open(std::uint64_t number);
  Result<bool> header_at(File& file, std::uint64_t offset, BatchHeader& header);
  Result<std::optional<BatchHeader>> genuine_behind(File& file, std::uint64_t offset);
  Result<std::optional<BatchHeader>> first_header_of(std::uint64_t number);
  Result<bool> locate();
  struct Successor {
    File file;
    BatchHeader first;
  };
  Result<std::optional<Successor>> find_successor(std::uint64_t number);
  Result<bool> step(BatchBuffer& into, std::uint64_t bound, bool& given);
  Result<bool> step_over_end(std::uint64_t bound, std::optional<BatchHeader> broken,
                             const std::string& why);
  Result<bool> resume_behind(std::uint64_t& end);
  std::error_code read_body(const BatchHeader& header, BatchBuffer& into);
  void ask_ahead(const BatchHeader& header);
  tl::unexpected<Error> damaged(std::uint64_t first, std::uint64_t end, const std::string& where);
  [[nodiscard]] tl::unexpected<Error> failure(std::error_code code, std::string why,
                                              std::string remedy) const;

  std::unique_ptr<DirectorySource> directory_;
  const Uuid queue_uuid_;
  std::uint64_t position_ = 0;
  std::optional<File> file_;   // nothing: to be located
  std::uint64_t offset_ = 0;   // of the next header in it
  bool is_skipping_ = false;   // headers are walked over in the open file, and those behind it
  std::uint64_t reached_ = 0;  // behind the last batch of it that was walked over; 0: none yet
  std::optional<DamagedRange> damage_;
  std::uint64_t read_ahead_bytes_ = 16ULL << 20;
  std::uint64_t asked_end_ = 0;  // in file_, how far was asked for
  bool asked_next_file_ = false;
  // A piece of the open file, for small batches.
  std::vector<std::byte> window_;
  std::uint64_t window_file_ = 0;
  std::uint64_t window_start_ = 0;
  std::uint64_t window_bytes_ = 0;
};

}  // namespace shmq::journal
