// SPDX-License-Identifier: Apache-2.0
//
// The files of one queue besides the one being written: the next one, prepared ahead, and the older
// ones, until no group needs them. Reuses one of those for the next where the size fits.
//
// Invariants:
//  1. A file is removed or recycled only when every group's floor, as it is on stable storage, has
//     passed its last seq.
//  2. The sum of all files never exceeds `max_disk_bytes`.
#pragma once

#include "daemon/journal/file_preparer.hpp"
#include "daemon/journal/recover.hpp"

namespace shmq::journal {

struct FileLimits {
  std::uint64_t first_file_bytes = journal::first_file_bytes;
  std::uint64_t usual_file_bytes_max = journal::usual_file_bytes_max;
  std::uint64_t max_disk_bytes = ~0ULL;
  bool recycles = true;                             ///< else every passed file is unlinked
  std::uint64_t no_space_retry_ns = 1'000'000'000;  ///< after ENOSPC, if nothing was freed before
};

class FileSet {
 public:
  /// `on_news` is called when a preparation has come to an end, or a removal has made room.
  FileSet(io::Disk& disk, const Identity& identity, const FileLimits& limits, const Start& start,
          std::function<void()> on_news);
  FileSet(const FileSet&) = delete;
  FileSet& operator=(const FileSet&) = delete;
  ~FileSet();

  /// Begins to prepare the next file, of at least `least_bytes`, if none is ready or on the way.
  /// `current_bytes`: of the file in use, which the next one doubles.
  void want_next(std::uint64_t current_bytes, std::uint64_t least_bytes);
  /// The ready one, if it has `least_bytes`; one that is too small is thrown away.
  std::optional<PreparedFile> take_next(std::uint64_t least_bytes);
  /// A file that is full, or given up behind its last whole batch.
  void retire(const FileRecord& file) { older_.push_back(file); }
  /// A file that holds nothing that counts.
  void discard(const FileRecord& file);
  /// Removes what is passed, if that is allowed now; looks at what the preparer came to, and
  /// prepares if it may.
  void tick(std::optional<std::uint64_t> durable_floor, std::uint64_t now_ns, bool may_prepare);

  /// errno of the last preparation if it failed and no other has succeeded since; else 0. ENOSPC
  /// also where max_disk_bytes is what is in the way.
  [[nodiscard]] int error() const noexcept { return error_; }
  /// Gives the last failure, once.
  [[nodiscard]] int take_failure() noexcept { return std::exchange(new_failure_, 0); }
  /// Prepare again at the next tick, whatever went wrong.
  void retry_now() noexcept { retry_at_ns_ = 0; }
  /// When tick() has something to do that no completion announces; ~0: never.
  [[nodiscard]] std::uint64_t next_timer_ns() const noexcept;
  [[nodiscard]] std::uint64_t disk_bytes() const noexcept { return *disk_bytes_; }
  [[nodiscard]] const std::vector<FileRecord>& older() const noexcept { return older_; }
  [[nodiscard]] std::uint64_t recycled() const noexcept { return recycled_; }

 private:
  void remove_passed(std::uint64_t durable_floor);
  void look_at_preparer(std::uint64_t now_ns);
  void begin_preparing(std::uint64_t bytes);

  io::Disk& disk_;
  FileLimits limits_;
  std::function<void()> on_news_;
  std::uint64_t epoch_;
  std::uint64_t next_number_;
  std::vector<FileRecord> older_;
  std::optional<FileRecord> recyclable_;
  FilePreparer preparer_;
  bool is_wanted_ = false;
  bool outcome_is_open_ = false;  // an attempt was begun, and its end not yet looked at
  std::uint64_t wanted_bytes_ = 0;
  int error_ = 0;
  int new_failure_ = 0;
  std::uint64_t retry_at_ns_ = 0;
  std::uint64_t recycled_ = 0;
  std::shared_ptr<std::uint64_t> disk_bytes_;  // completions may come after this object
};

}  // namespace shmq::journal
