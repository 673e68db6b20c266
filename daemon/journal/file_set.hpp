// SPDX-License-Identifier: Apache-2.0
//
// The files of one queue besides the one being written: the next one, prepared ahead, and the older
// ones, until no group needs them and retention lets them go. Reuses one of those for the next
// where the size fits.
//
// Invariants:
//  1. A file is removed or recycled only when every group's floor, as it is on stable storage, has
//     passed its last seq.
//  2. A file that somebody reads is removed, but not used again.
//  3. The sum of all files never exceeds `max_disk_bytes`.
//  4. Where room is short, by that limit or by the file system, what only retention keeps goes.
//  5. Who must know where the journal begins is told before a file goes, and may say no.
#pragma once

#include "daemon/journal/file_preparer.hpp"
#include "daemon/journal/recover.hpp"

namespace shmq::journal {

/// What stays though every group is past it; see Retention in options.hpp.
struct KeepLimits {
  std::uint64_t age_ns = 0;
  std::uint64_t bytes = 0;
  std::uint64_t messages = 0;
  [[nodiscard]] bool keeps_nothing() const noexcept {
    return age_ns == 0 && bytes == 0 && messages == 0;
  }
};

struct FileLimits {
  std::uint64_t first_file_bytes = journal::first_file_bytes;
  std::uint64_t usual_file_bytes_max = journal::usual_file_bytes_max;
  std::uint64_t max_disk_bytes = ~0ULL;
  bool recycles = true;  ///< else every passed file is unlinked
  KeepLimits keep{};
  std::uint64_t no_space_retry_ns = 1'000'000'000;  ///< after ENOSPC, if nothing was freed before
};

class FileSet {
 public:
  /// `on_news` is called when a preparation has come to an end, or a removal has made room;
  /// `may_remove` with the seq that the files will begin with, before one goes.
  FileSet(io::Disk& disk, const Identity& identity, const FileLimits& limits, const Start& start,
          std::function<void()> on_news, std::function<bool(std::uint64_t)> may_remove);
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
  /// Where the file in use and the groups stand.
  struct Passed {
    std::optional<std::uint64_t> floor;  ///< durable: all below may go; nothing: none may
    std::uint64_t end_seq = 0;           ///< of the file in use
    std::uint64_t current_bytes = 0;     ///< of its batches
  };
  /// Removes what is passed and need not be kept; looks at what the preparer came to, and prepares
  /// if it may.
  void tick(const Passed& passed, std::uint64_t now_ns, bool may_prepare);
  /// A ready file of at least `least_bytes`. One that is too small is thrown away.
  [[nodiscard]] bool has_next(std::uint64_t least_bytes);
  /// Does the oldest file go by its age now, if no group needs it?
  [[nodiscard]] bool oldest_is_over_age() const noexcept;

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
  [[nodiscard]] bool is_passed(const Passed& passed) const noexcept;
  [[nodiscard]] bool must_be_kept(const Passed& passed) const noexcept;
  bool release_oldest();
  void remove_passed(const Passed& passed);
  bool make_room(const Passed& passed);
  void look_at_preparer(std::uint64_t now_ns);
  void begin_preparing(std::uint64_t bytes, io::Handle reader_lock);

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
  std::function<bool(std::uint64_t)> may_remove_;
  std::shared_ptr<std::uint64_t> disk_bytes_;  // completions may come after this object
  std::shared_ptr<int> unlinks_;               // on their way: they make room
};

}  // namespace shmq::journal
