// SPDX-License-Identifier: Apache-2.0
#include "daemon/journal/file_set.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace shmq::journal {

FileSet::FileSet(io::Disk& disk, const Identity& identity, const FileLimits& limits,
                 const Start& start, std::function<void()> on_news)
    : disk_(disk),
      limits_(limits),
      on_news_(std::move(on_news)),
      epoch_(start.epoch),
      next_number_(start.next_file_number),
      older_(start.older),
      preparer_(disk, identity, on_news_),
      disk_bytes_(std::make_shared<std::uint64_t>(start.current.bytes)) {
  for (const FileRecord& file : older_) *disk_bytes_ += file.bytes;
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

std::optional<PreparedFile> FileSet::take_next(std::uint64_t least_bytes) {
  if (preparer_.state() != FilePreparer::State::ready) return std::nullopt;
  const PreparedFile file = preparer_.take();
  is_wanted_ = false;
  if (file.bytes >= least_bytes) return file;
  discard({.number = file.number, .bytes = file.bytes, .handle = file.handle});
  return std::nullopt;
}

void FileSet::discard(const FileRecord& file) {
  if (file.handle != io::no_handle) disk_.close(file.handle);
  disk_.unlink(file_name(file.number),
               [bytes = file.bytes, sum = disk_bytes_, on_news = on_news_](std::int64_t) {
                 *sum -= bytes;
                 on_news();
               });
}

void FileSet::remove_passed(std::uint64_t durable_floor) {
  // Oldest first, and none behind one that is still needed: what is left has no hole.
  bool removed = false;
  while (!older_.empty() && older_.front().end_seq <= durable_floor) {
    const FileRecord file = older_.front();
    older_.erase(older_.begin());
    if (limits_.recycles && !recyclable_ && file.bytes == limits_.usual_file_bytes_max) {
      recyclable_ = file;
      continue;
    }
    discard(file);
    removed = true;
  }
  if (!removed) return;
  // A name that comes back after a cut is removed by recovery; nobody waits for this.
  disk_.sync_directory([](std::int64_t) {});
  retry_at_ns_ = 0;
}

void FileSet::begin_preparing(std::uint64_t bytes) {
  FileSpec spec{.number = next_number_++,
                .bytes = bytes,
                .epoch = epoch_,
                .purpose = Purpose::ordinary,
                .recycle_name = {}};
  if (recyclable_ && recyclable_->bytes == bytes) {
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

void FileSet::tick(std::optional<std::uint64_t> durable_floor, std::uint64_t now_ns,
                   bool may_prepare) {
  if (durable_floor) remove_passed(*durable_floor);
  look_at_preparer(now_ns);
  const auto state = preparer_.state();
  const bool is_free = state == FilePreparer::State::idle || state == FilePreparer::State::failed;
  if (!may_prepare || !is_wanted_ || !is_free || now_ns < retry_at_ns_) return;
  const bool reuses = recyclable_ && recyclable_->bytes == wanted_bytes_;
  if (!reuses && recyclable_) {
    discard(*recyclable_);
    recyclable_.reset();
  }
  if (!reuses && *disk_bytes_ + wanted_bytes_ > limits_.max_disk_bytes) {
    error_ = ENOSPC;  // until older files are passed; each tick looks again
    return;
  }
  begin_preparing(wanted_bytes_);
  outcome_is_open_ = true;
}

std::uint64_t FileSet::next_timer_ns() const noexcept {
  return is_wanted_ && preparer_.state() == FilePreparer::State::failed ? retry_at_ns_ : ~0ULL;
}

}  // namespace shmq::journal
