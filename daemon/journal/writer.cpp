// SPDX-License-Identifier: Apache-2.0
#include "daemon/journal/writer.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "daemon/io/patience.hpp"

namespace shmq::journal {
namespace {

constexpr int failures_until_degraded = 2;
constexpr std::uint64_t reserve_bytes_max = 65536;

std::uint64_t monotonic_ns() { return base::clock->monotonic_ns(); }

// The highest seq that a change is about, plus one; 0 for none.
std::uint64_t end_of(const Change& change) {
  if (change.kind != Change::Kind::group) return 0;
  std::uint64_t end = change.group.floor;
  for (const SettledRange& range : change.group.settled) end = std::max(end, range.end_seq);
  for (const EntryState& entry : change.group.entries) end = std::max(end, entry.seq + 1);
  return end;
}

std::uint64_t bytes_of(const CheckpointState& state) {
  std::uint64_t bytes = 0;
  for (const auto& [uuid, value] : state.settings)
    bytes += sizeof(SettingsRecord) + value.size() + 8;
  for (const auto& [uuid, group] : state.groups) {
    bytes += sizeof(GroupRecord) + group.settled.size() * sizeof(SettledRange) +
             group.entries.size() * sizeof(EntryState);
  }
  return bytes;
}

}  // namespace

void SyncDurations::add(std::uint64_t duration_ns) noexcept {
  const auto bound = std::lower_bound(bounds_ns.begin(), bounds_ns.end(), duration_ns);
  ++counts.at(static_cast<std::size_t>(bound - bounds_ns.begin()));
  sum_ns += duration_ns;
}

Writer::Writer(io::Disk& disk, MessageSource& source, const WriterOptions& options, Start start)
    : disk_(disk),
      source_(source),
      options_(options),
      identity_(start.identity),
      epoch_(start.epoch),
      liveness_(std::make_shared<Liveness>(Liveness{this})),
      files_(
          disk, start.identity, options.files, start,
          [liveness = liveness_] {
            if (liveness->writer != nullptr) liveness->writer->pump();
          },
          [this](std::uint64_t first_retained) { return source_.on_removal(first_retained); }),
      current_(start.current),
      offset_(start.offset),
      last_file_bytes_(start.current.bytes),
      batch_number_(start.next_batch_number),
      last_(start.last),
      state_(std::move(start.state)),
      progress_{.watermark = start.watermark, .seq_ceiling = start.seq_ceiling, .changes = 0},
      last_commit_ns_(monotonic_ns()) {
  source_.on_removal(files_.older().empty() ? current_->first_seq
                                            : files_.older().front().first_seq);
}

Writer::~Writer() {
  liveness_->writer = nullptr;
  if (current_) disk_.close(current_->handle);
}

template <typename Member>
io::Done Writer::callback(Member member) {
  return [liveness = liveness_, member](std::int64_t result) {
    if (liveness->writer != nullptr) (liveness->writer->*member)(result);
  };
}

// --- What is to be done ------------------------------------------------------------------------

bool Writer::is_quiet() const noexcept {
  return found_nothing_ && !in_flight_ && !needs_closing_ && !needs_ceiling_ && changes_.empty();
}

bool Writer::closing_is_due(std::uint64_t now_ns) const noexcept {
  if (base::mutant(52) || waits_for_file_) return false;
  return needs_closing_ && (is_stopping_ || now_ns >= last_commit_ns_ + options_.idle_close_ns);
}

Health Writer::health() const noexcept {
  if (failures_ >= failures_until_degraded) return Health::degraded;
  return waits_for_file_ && files_.error() == ENOSPC ? Health::no_space : Health::ok;
}

std::uint64_t Writer::next_timer_ns() const noexcept {
  std::uint64_t at = files_.next_timer_ns();
  if (failures_ >= failures_until_degraded) return std::max(at == ~0ULL ? 0 : at, retry_at_ns_);
  if (needs_closing_ && !in_flight_ && !waits_for_file_)
    at = std::min(at, last_commit_ns_ + options_.idle_close_ns);
  return at;
}

void Writer::stop() {
  is_stopping_ = true;
  pump();
}

void Writer::reload() {
  retry_at_ns_ = 0;
  files_.retry_now();
  pump();
}

// The state stands in the newest file that has a batch. As long as that is not the current one, it
// must stay, even if every group is past its messages.
std::optional<std::uint64_t> Writer::removable_below() const noexcept {
  const bool state_is_in_current = current_ && offset_ > block_bytes;
  if (!state_is_in_current && !base::mutant(50)) return std::nullopt;
  if (base::mutant(51)) return progress_.watermark;  // whatever the groups still need
  return state_.least_floor(progress_.watermark);
}

FileSet::Passed Writer::passed() const noexcept {
  return {.floor = removable_below(),
          .end_seq = progress_.watermark,
          .current_bytes = current_ ? offset_ : 0};
}

void Writer::pump() {
  const std::uint64_t now_ns = monotonic_ns();
  const bool may_try = failures_ < failures_until_degraded || now_ns >= retry_at_ns_;
  // The next file is ready before this one is full; an idle queue keeps one file.
  if (!current_ || offset_ > current_->bytes / 4) {
    files_.want_next(last_file_bytes_, std::max(least_bytes_, 4 * bytes_of(state_)));
  }
  files_.tick(passed(), now_ns, may_try);
  if (const int failure = files_.take_failure(); failure != 0 && failure != ENOSPC) {
    count_failure(failure, now_ns);
    if (failures_ >= failures_until_degraded) return source_.on_progress(progress_);
  }
  if (!in_flight_ && may_try) stage(now_ns);
}

// --- Staging -----------------------------------------------------------------------------------

BatchFrame Writer::next_frame() const {
  return {.queue_uuid = identity_.queue_uuid,
          .epoch = epoch_,
          .file_number = current_->number,
          .file_offset = offset_,
          .batch_number = batch_number_,
          .first_seq = progress_.watermark,
          .previous = last_};
}

bool Writer::adopt_next_file() {
  const auto next = files_.take_next(least_bytes_);
  if (!next) return false;
  current_ = FileRecord{.number = next->number,
                        .bytes = next->bytes,
                        .first_seq = progress_.watermark,
                        .end_seq = progress_.watermark,
                        .handle = next->handle};
  offset_ = block_bytes;
  last_file_bytes_ = next->bytes;
  ++figures_.files;
  return true;
}

// Its batches count as long as a group needs them. Without one it is of no use.
void Writer::leave_current() {
  if (offset_ == block_bytes) {
    files_.discard(*current_);
  } else {
    files_.retire(*current_);
  }
  current_.reset();
  offset_ = 0;
}

// A file too small for it has none.
std::uint64_t Writer::reserve_bytes() const noexcept {
  if (base::mutant(112)) return 0;
  return std::min(reserve_bytes_max, current_->bytes / 8 / block_bytes * block_bytes);
}

void Writer::stage(std::uint64_t now_ns) {
  found_nothing_ = false;
  waits_for_file_ = false;
  // Each round without a batch leaves a file; the next is there or is awaited.
  for (int round = 0; round < 3; ++round) {
    if (!current_ && !adopt_next_file()) return await_file(now_ns);
    const std::uint64_t reserve = files_.has_next(least_bytes_) ? 0 : reserve_bytes();
    const std::uint64_t left =
        current_->bytes - offset_ - std::min(reserve, current_->bytes - offset_);
    const std::uint64_t usual = std::min(left, round_up(options_.batch_bytes_max, block_bytes));
    Staged staged = left == 0 ? Staged::needs_room : fill(usual, now_ns);
    if (staged == Staged::needs_room && left > usual) staged = fill(left, now_ns);
    if (staged == Staged::batch) {
      least_bytes_ = 0;
      return submit(builder_.is_empty() ? std::uint32_t{batch_closing} : 0U);
    }
    if (staged == Staged::nothing) {
      found_nothing_ = true;
      return;
    }
    if (offset_ == block_bytes) {
      least_bytes_ = std::max(least_bytes_, 2 * current_->bytes);
    } else if (reserve != 0 && !files_.has_next(least_bytes_)) {
      if (stage_into_reserve()) return submit(0);
      return await_file(now_ns);
    }
    leave_current();
  }
}

void Writer::await_file(std::uint64_t now_ns) {
  waits_for_file_ = true;
  files_.want_next(last_file_bytes_, std::max(least_bytes_, 4 * bytes_of(state_)));
  files_.tick(passed(), now_ns, true);
}

// The changes alone, and only if an old file can go because of them: so few are enough.
bool Writer::stage_into_reserve() {
  if (offset_ >= current_->bytes || files_.older().empty()) return false;
  builder_.begin(next_frame(), current_->bytes - offset_);
  changes_staged_ = 0;
  add_changes();
  return changes_staged_ > 0 && lets_a_file_go();
}

// Would the state with the staged changes?
bool Writer::lets_a_file_go() const {
  std::map<Uuid, std::uint64_t> floors;
  for (const auto& [uuid, group] : state_.groups) floors[uuid] = group.floor;
  for (std::size_t i = 0; i < changes_staged_; ++i) {
    const Change& change = changes_[i];
    if (change.kind == Change::Kind::removed) floors.erase(change.group.group);
    if (change.kind != Change::Kind::group) continue;
    const auto known = state_.groups.find(change.group.group);
    std::uint64_t& floor = floors[change.group.group];
    const bool is_same =
        known != state_.groups.end() && known->second.incarnation == change.group.incarnation;
    floor = is_same ? std::max(floor, change.group.floor) : change.group.floor;
  }
  std::uint64_t least = progress_.watermark;
  for (const auto& [uuid, floor] : floors) least = std::min(least, floor);
  return files_.older().front().end_seq <= least;
}

// Stages what there is into builder_, as far as it fits into `room`.
Writer::Staged Writer::fill(std::uint64_t room, std::uint64_t now_ns) {
  builder_.begin(next_frame(), room);
  changes_staged_ = 0;
  const bool is_first = offset_ == block_bytes;
  if (is_first && !builder_.add_snapshot(state_)) return Staged::needs_room;
  bool is_full = false;
  MessageView view{};
  while (source_.message(builder_.end_seq(), view)) {
    if (!builder_.add_message(view)) {
      is_full = true;
      // A message that no room in this file will do for: the next one is made for it.
      if (builder_.messages() == 0) {
        least_bytes_ = std::max(least_bytes_, 2 * bytes_of(state_) + view.payload.size() +
                                                  view.attributes.size() +
                                                  view.payload.size() / 512 + 8 * block_bytes);
      }
      break;
    }
  }
  const bool has_messages = builder_.messages() > 0;
  is_full |= !add_changes();
  if (has_messages || changes_staged_ > 0) return Staged::batch;
  if (is_full) return Staged::needs_room;
  if (closing_is_due(now_ns) || needs_ceiling_) return Staged::batch;
  return Staged::nothing;
}

// Changes that the batch's messages allow, in order. False if one did not fit.
bool Writer::add_changes() {
  for (;;) {
    if (changes_staged_ == changes_.size()) {
      Change change;
      if (!source_.next_change(builder_.end_seq(), change)) return true;
      changes_.push_back(std::move(change));
    }
    const Change& change = changes_[changes_staged_];
    // One that was staged with more messages than fit this time.
    if (end_of(change) > builder_.end_seq()) return true;
    bool fits = false;
    switch (change.kind) {
      case Change::Kind::group: fits = builder_.add_change(change.group); break;
      case Change::Kind::removed:
        fits = builder_.add_group_removed(change.group.group, change.group.incarnation);
        break;
      case Change::Kind::settings:
        fits = builder_.add_settings(change.group.group, change.settings);
        break;
    }
    if (!fits) return false;
    ++changes_staged_;
  }
}

// --- One barrier -------------------------------------------------------------------------------

void Writer::submit(std::uint32_t flags) {
  const auto batch = std::make_shared<io::AlignedBuffer>(builder_.finish(
      {.flags = flags,
       .durable_upto = progress_.watermark,
       .seq_ceiling = std::max(progress_.seq_ceiling, builder_.end_seq() + options_.ring_slots),
       .realtime_ns = base::clock->realtime_ns()}));
  in_flight_ = true;
  piece_error_ = 0;
  const std::span<const std::byte> bytes = std::as_const(*batch).bytes();
  pieces_ = static_cast<int>((bytes.size() + options_.write_piece_bytes - 1) /
                             options_.write_piece_bytes);
  SHMQ_CRASH_POINT("journal.before_write");
  for (std::uint64_t at = 0; at < bytes.size(); at += options_.write_piece_bytes) {
    const std::uint64_t length = std::min(options_.write_piece_bytes, bytes.size() - at);
    io::write_all(disk_, current_->handle, offset_ + at, batch, bytes.subspan(at, length),
                  callback(&Writer::on_written));
  }
}

void Writer::on_written(std::int64_t result) {
  if (result < 0) piece_error_ = static_cast<int>(-result);
  if (--pieces_ > 0) return;
  if (piece_error_ != 0) return fail(piece_error_);
  SHMQ_CRASH_POINT("journal.before_sync");
  if (base::mutant(40)) {  // ack before the completion
    disk_.sync(current_->handle, [](std::int64_t) {});
    return commit();
  }
  sync_began_ns_ = monotonic_ns();
  sync();
}

void Writer::sync() {
  io::with_patience([disk = &disk_, handle = current_->handle](
                        io::Done done) { disk->sync(handle, std::move(done)); },
                    callback(&Writer::on_synced));
}

void Writer::on_synced(std::int64_t result) {
  if (result == -EIO && base::mutant(41)) return sync();  // the pages count as clean by now
  figures_.syncs.add(monotonic_ns() - sync_began_ns_);
  if (result < 0) return fail(static_cast<int>(-result));
  commit();
}

void Writer::commit() {
  SHMQ_CRASH_POINT("journal.before_watermark");
  const BatchHeader& header = builder_.header();
  const bool is_empty = header.record_count == 0;
  in_flight_ = false;
  offset_ += header.total_bytes;
  if (base::mutant(43) && !is_empty) offset_ -= block_bytes;  // the tail block is written again
  last_ = ref_of(header);
  ++batch_number_;
  current_->end_seq = header.end_seq;
  current_->last_realtime_ns = header.realtime_ns;
  for (; changes_staged_ > 0; --changes_staged_) {
    const Change& change = changes_.front();
    switch (change.kind) {
      case Change::Kind::group: state_.apply(change.group); break;
      case Change::Kind::removed:
        state_.remove(change.group.group, change.group.incarnation);
        break;
      case Change::Kind::settings: state_.settings[change.group.group] = change.settings; break;
    }
    changes_.pop_front();
    ++progress_.changes;
  }
  progress_.watermark = header.end_seq;
  progress_.seq_ceiling = header.seq_ceiling;
  needs_ceiling_ = false;
  needs_closing_ = !is_empty;
  last_commit_ns_ = monotonic_ns();
  failures_ = 0;
  last_error_ = 0;
  ++figures_.batches;
  figures_.closing_batches += is_empty ? 1 : 0;
  figures_.messages += header.message_count;
  figures_.bytes += header.total_bytes;
  source_.on_progress(progress_);
  pump();
}

// --- Errors ------------------------------------------------------------------------------------

void Writer::fail(int error_number) {
  in_flight_ = false;
  changes_staged_ = 0;
  // The descriptor is closed and the file never written or synced again. Its durable batches count.
  leave_current();
  count_failure(error_number, monotonic_ns());
  source_.on_progress(progress_);
  pump();
}

void Writer::count_failure(int error_number, std::uint64_t now_ns) {
  ++figures_.errors;
  ++failures_;
  last_error_ = error_number;
  if (failures_ >= failures_until_degraded) retry_at_ns_ = now_ns + options_.degraded_retry_ns;
}

}  // namespace shmq::journal
