// SPDX-License-Identifier: Apache-2.0
#include "daemon/journal/file_set.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/clock.hpp"
#include "base/mutant.hpp"

namespace shmq::journal {

FileSet::FileSet(io::Disk& disk, const Identity& identity, const FileLimits& limits,
                 const Start& start, std::function<void()> on_news,
                 std::function<bool(std::uint64_t)> may_remove)
    : disk_(disk),
      limits_(limits),
      on_news_(std::move(on_news)),
      epoch_(start.epoch),
      next_number_(start.next_file_number),
      older_(start.older),
      preparer_(disk, identity, on_news_),
      may_remove_(std::move(may_remove)),
      disk_bytes_(std::make_shared<std::uint64_t>(start.current.bytes)),
      unlinks_(std::make_shared<int>(0)) {
  for (const FileRecord& file : older_) *disk_bytes_ += file.bytes;
  // So that what may be on disk goes piece by piece.
  const std::uint64_t piece = limits_.max_disk_bytes / 8 / block_bytes * block_bytes;
  limits_.usual_file_bytes_max =
      std::clamp(piece, std::min(limits_.first_file_bytes, limits_.usual_file_bytes_max),
                 limits_.usual_file_bytes_max);
}

FileSet::~FileSet() {
  for (const FileRecord& file : older_) {
    if (file.handle != io::no_handle) disk_.close(file.handle);
  }
  if (recyclable_ && recyclable_->handle != io::no_handle) disk_.close(recyclable_->handle);
}

void FileSet::want_next(std::uint64_t current_bytes, std::uint64_t least_bytes) {
  const std::uint64_t doubled = std::min(2 * current_bytes, limits_.usual_file_bytes_max);
  const std::uint64_t usual = std::max(doubled, limits_.first_file_bytes);
  wanted_bytes_ = std::max(usual, round_up(least_bytes, block_bytes));
  is_wanted_ = true;
}

bool FileSet::has_next(std::uint64_t least_bytes) {
  if (preparer_.state() != FilePreparer::State::ready) return false;
  if (preparer_.spec().bytes >= least_bytes) return true;
  const PreparedFile file = preparer_.take();
  is_wanted_ = false;
  discard({.number = file.number, .bytes = file.bytes, .handle = file.handle});
  return false;
}

std::optional<PreparedFile> FileSet::take_next(std::uint64_t least_bytes) {
  if (!has_next(least_bytes)) return std::nullopt;
  is_wanted_ = false;
  return preparer_.take();
}

void FileSet::discard(const FileRecord& file) {
  if (file.handle != io::no_handle) disk_.close(file.handle);
  ++*unlinks_;
  disk_.unlink(file_name(file.number), [bytes = file.bytes, sum = disk_bytes_, unlinks = unlinks_,
                                        on_news = on_news_](std::int64_t) {
    *sum -= bytes;
    --*unlinks;
    on_news();
  });
}

// --- What goes ---------------------------------------------------------------------------------

// Oldest first, and none behind one that is still needed: what is left has no hole.
bool FileSet::is_passed(const Passed& passed) const noexcept {
  if (older_.empty() || !passed.floor) return false;
  return older_.front().end_seq <= *passed.floor || base::mutant(110);
}

bool FileSet::oldest_is_over_age() const noexcept {
  if (limits_.keep.age_ns == 0 || older_.empty()) return false;
  // A clock that was set back keeps it longer.
  const std::uint64_t now_ns = base::clock->realtime_ns();
  const std::uint64_t written_ns = older_.front().last_realtime_ns;
  return now_ns > written_ns && now_ns - written_ns > limits_.keep.age_ns;
}

bool FileSet::must_be_kept(const Passed& passed) const noexcept {
  const KeepLimits& keep = limits_.keep;
  if (keep.keeps_nothing() || base::mutant(111)) return false;
  if (oldest_is_over_age()) return false;
  const std::uint64_t newer_messages = passed.end_seq - older_.front().end_seq;
  if (keep.messages != 0 && newer_messages >= keep.messages) return false;
  if (keep.bytes == 0) return true;
  std::uint64_t newer_bytes = passed.current_bytes;
  for (std::size_t i = 1; i < older_.size(); ++i) newer_bytes += older_[i].bytes;
  return newer_bytes < keep.bytes;
}

// False: somebody has come who needs it.
bool FileSet::release_oldest() {
  const FileRecord file = older_.front();
  if (!may_remove_(file.end_seq)) return false;
  older_.erase(older_.begin());
  if (limits_.recycles && !recyclable_ && file.bytes == limits_.usual_file_bytes_max) {
    recyclable_ = file;
  } else {
    discard(file);
  }
  return true;
}

void FileSet::remove_passed(const Passed& passed) {
  const int before = *unlinks_;
  while (is_passed(passed) && !must_be_kept(passed)) {
    if (!release_oldest()) break;
  }
  if (*unlinks_ == before) return;
  // A name that comes back after a cut is removed by recovery; nobody waits for this.
  disk_.sync_directory([](std::int64_t) {});
  retry_at_ns_ = 0;
}

// Lets a file go that only retention keeps. True: there is room, or will be.
bool FileSet::make_room(const Passed& passed) {
  if (*unlinks_ > 0 || recyclable_) return true;
  if (!is_passed(passed) || !release_oldest()) return false;
  if (!recyclable_) disk_.sync_directory([](std::int64_t) {});
  return true;
}

void FileSet::begin_preparing(std::uint64_t bytes, io::Handle reader_lock) {
  FileSpec spec{.number = next_number_++,
                .bytes = bytes,
                .epoch = epoch_,
                .purpose = Purpose::ordinary,
                .recycle_name = {},
                .reader_lock = reader_lock};
  if (recyclable_) {  // tick() has thrown away one that cannot be used
    spec.recycle_name = file_name(recyclable_->number);
    if (recyclable_->handle != io::no_handle) disk_.close(recyclable_->handle);
    recyclable_.reset();
    ++recycled_;
  } else {
    *disk_bytes_ += bytes;
  }
  preparer_.start(spec);
}

void FileSet::look_at_preparer(std::uint64_t now_ns) {
  const auto state = preparer_.state();
  if (!outcome_is_open_ || state == FilePreparer::State::working) return;
  outcome_is_open_ = false;
  if (state == FilePreparer::State::ready) {
    error_ = 0;
    return;
  }
  const bool is_still_there =
      !preparer_.spec().recycle_name.empty() && !preparer_.consumed_recycled();
  if (!is_still_there) *disk_bytes_ -= preparer_.spec().bytes;
  error_ = new_failure_ = preparer_.error();
  retry_at_ns_ = error_ == ENOSPC ? now_ns + limits_.no_space_retry_ns : now_ns;
}

void FileSet::tick(const Passed& passed, std::uint64_t now_ns, bool may_prepare) {
  remove_passed(passed);
  look_at_preparer(now_ns);
  const auto state = preparer_.state();
  const bool is_free = state == FilePreparer::State::idle || state == FilePreparer::State::failed;
  if (!may_prepare || !is_wanted_ || !is_free) return;
  if (now_ns < retry_at_ns_) {
    // The file system is full: at least what nobody needs can go.
    if (error_ == ENOSPC && make_room(passed)) retry_at_ns_ = 0;
    return;
  }
  bool reuses = false;
  std::int64_t reader_lock = io::no_handle;
  for (;;) {
    reuses = recyclable_ && recyclable_->bytes == wanted_bytes_;
    if (reuses) {
      // One that somebody reads keeps its blocks: its name goes, and another is made.
      reader_lock = disk_.lock_against_readers(file_name(recyclable_->number));
      reuses = reader_lock >= 0 || base::mutant(102);
    }
    if (!reuses && recyclable_) {
      discard(*recyclable_);
      recyclable_.reset();
    }
    if (reuses || *disk_bytes_ + wanted_bytes_ <= limits_.max_disk_bytes) break;
    if (!make_room(passed)) {
      error_ = ENOSPC;  // until older files are passed; each tick looks again
      return;
    }
    if (!recyclable_) return;  // the room comes with the removal's completion
  }
  begin_preparing(wanted_bytes_,
                  reader_lock >= 0 ? static_cast<io::Handle>(reader_lock) : io::no_handle);
  outcome_is_open_ = true;
}

std::uint64_t FileSet::next_timer_ns() const noexcept {
  return is_wanted_ && preparer_.state() == FilePreparer::State::failed ? retry_at_ns_ : ~0ULL;
}

}  // namespace shmq::journal
