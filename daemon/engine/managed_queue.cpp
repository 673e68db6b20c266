// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/managed_queue.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "control/settings.hpp"
#include "queue/groups.hpp"
#include "queue/head.hpp"
#include "queue/participants.hpp"

namespace shmq::engine {
namespace {

// Of one queue in a row where each call waits: then it is the others' turn.
constexpr int completions_per_turn = 64;

std::string text_of(int error_number) { return std::strerror(error_number); }

}  // namespace

ManagedQueue::ManagedQueue(QueueParts parts, Log log, std::function<void(ManagedQueue&)> on_hot)
    : parts_(std::move(parts)), log_(std::move(log)), on_hot_(std::move(on_hot)) {}

ManagedQueue::~ManagedQueue() {
  // The writer refers to the source and to the disk.
  writer_.reset();
  source_.reset();
}

namespace {

// As the queue was made. The ring of a rebuilt one may be larger, and with it each loss of power
// would take a larger gap along.
std::uint64_t chosen_slots(const journal::CheckpointState& state, std::uint64_t of_segment) {
  const auto own = state.settings.find(journal::Uuid{});
  if (own == state.settings.end()) return of_segment;
  const auto options = control::queue_options_from(
      {reinterpret_cast<const char*>(own->second.data()), own->second.size()}, "");
  return options ? std::min(options->slots, of_segment) : of_segment;
}

void limit_files(const shm::Limits& limits, journal::FileLimits& files) {
  files.keep = {.age_ns = limits.retain_age_ns,
                .bytes = limits.retain_bytes,
                .messages = limits.retain_messages};
  if (limits.max_disk_bytes != 0) {
    files.max_disk_bytes = std::min(files.max_disk_bytes, limits.max_disk_bytes);
  }
}

}  // namespace

Result<std::unique_ptr<ManagedQueue>> ManagedQueue::create(
    QueueParts parts, const journal::WriterOptions& options, const std::string& doorbell_path,
    Log log, std::function<void(ManagedQueue&)> on_hot) {
  std::unique_ptr<ManagedQueue> queue{
      new ManagedQueue(std::move(parts), std::move(log), std::move(on_hot))};
  shm::Segment& segment = *queue->parts_.segment;
  auto mark = shm::MarkWriter::open(segment);
  if (!mark) return tl::unexpected{mark.error()};
  queue->mark_ = std::move(*mark);
  if (auto mapped = segment.map_mark({}); !mapped) return tl::unexpected{mapped.error()};
  queue->mark_->set_doorbell(doorbell_path);
  journal::Start& start = queue->parts_.start;
  queue->mark_->set_journal(queue->parts_.directory);
  queue->mark_->begin_epoch(start.epoch);
  SHMQ_CRASH_POINT("daemon.epoch_begun");
  queue->source_ =
      std::make_unique<feed::SegmentSource>(segment, *queue->mark_, start.state, start.watermark);
  // A segment that was just made counts from here on; one that counted does so already.
  sync::store_release(segment.control().daemon_generation, 1);
  SHMQ_CRASH_POINT("daemon.generation_set");
  journal::WriterOptions own = options;
  own.ring_slots = chosen_slots(start.state, segment.limits().slots);
  limit_files(segment.limits(), own.files);
  queue->writer_ = std::make_unique<journal::Writer>(
      *queue->parts_.disk, static_cast<journal::MessageSource&>(*queue), own, std::move(start));
  queue->wake();
  return queue;
}

// --- What the writer asks ----------------------------------------------------------------------

bool ManagedQueue::message(std::uint64_t seq, journal::MessageView& view) {
  return source_->message(seq, view);
}

bool ManagedQueue::next_change(std::uint64_t end_seq, journal::Change& change) {
  return source_->next_change(end_seq, change);
}

bool ManagedQueue::on_removal(std::uint64_t first_retained) {
  return source_->on_removal(first_retained);
}

void ManagedQueue::on_progress(const journal::Progress& progress) {
  source_->on_progress(progress);
  note_lag();
  tell_state();
  on_hot_(*this);
}

void ManagedQueue::tell_state() {
  const journal::Health health = writer_->health();
  if (is_told_ && health == health_) return;
  const journal::Health before = std::exchange(health_, health);
  const bool is_first = !std::exchange(is_told_, true);
  // [D1] Also after an error that only a look at the disk's answer showed: synced publishes fail at
  // once from here on, and work again with the first batch that is on stable storage.
  if (!base::mutant(92)) {
    mark_->set_state(health == journal::Health::degraded ? shm::DaemonState::degraded
                                                         : shm::DaemonState::serving);
  }
  if (health == before || (is_first && health == journal::Health::ok)) return;
  const std::string queue = "queue '" + name() + "': ";
  switch (health) {
    case journal::Health::ok: log_(Level::info, queue + "its journal is written again"); break;
    case journal::Health::no_space:
      log_(Level::warning,
           queue + "no room for its next journal file in '" + parts_.directory +
               "'; nothing is lost, publishers wait once the ring is full; goes on by itself when "
               "there is room (make some, or let consumers ack)");
      break;
    case journal::Health::degraded:
      log_(Level::error, queue + "DEGRADED: its journal in '" + parts_.directory +
                             "' cannot be written (" + text_of(writer_->last_error()) +
                             "); synced publishes fail at once; tried again every minute and at "
                             "shmqctl daemon reload");
      break;
  }
}

// --- The loop's side ---------------------------------------------------------------------------

bool ManagedQueue::is_served() const noexcept {
  return sync::load_acquire(mark_->mark().seq_ceiling) != 0;
}

void ManagedQueue::note_lag() noexcept {
  if (writer_->progress().watermark < lag_end_) return;
  lag_end_ = queue::find_tail(*parts_.segment);
  lag_since_ns_ = base::clock->monotonic_ns();
}

QueueFigures ManagedQueue::figures() {
  note_lag();
  const std::uint64_t watermark = writer_->progress().watermark;
  return {.watermark = watermark,
          .tail = queue::find_tail(*parts_.segment),
          .lag_ns = watermark < lag_end_ ? base::clock->monotonic_ns() - lag_since_ns_ : 0,
          .disk_bytes = writer_->files().disk_bytes(),
          .files = writer_->files().older().size() + 1,
          .writer = writer_->figures(),
          .health = writer_->health(),
          .last_error = writer_->last_error(),
          .first_retained = sync::load_relaxed(mark_->mark().first_retained),
          .expired_groups = expired_groups_,
          .dropped_for_disk = dropped_for_disk_};
}

void ManagedQueue::set_asleep(bool asleep) noexcept {
  is_asleep_ = asleep;
  sync::store_release(parts_.segment->control().daemon_asleep, asleep ? 1U : 0U);
}

void ManagedQueue::wake() {
  if (is_asleep_) set_asleep(false);
  note_lag();
  writer_->pump();
  tell_state();
  on_hot_(*this);
}

bool ManagedQueue::has_news() { return source_->has_news(); }

void ManagedQueue::work(std::uint64_t now_ns) {
  for (int i = 0; i < completions_per_turn && parts_.disk->has_completions(); ++i) {
    parts_.disk->poll(false);
  }
  if (writer_->next_timer_ns() <= now_ns) {
    writer_->pump();
    tell_state();
  }
  if (writer_->files().error() == ENOSPC) drop_for_room();
}

// --- What goes by policy -------------------------------------------------------------------------

// drop_oldest, and the next file has no room: the oldest file's messages are settled for everybody,
// and with the floors on disk (the writer keeps room for that) it goes. What somebody holds stays,
// and with it the file.
void ManagedQueue::drop_for_room() {
  const auto& older = writer_->files().older();
  if (parts_.segment->limits().overflow != static_cast<std::uint32_t>(Overflow::drop_oldest) ||
      older.empty() || older.front().end_seq <= dropped_below_) {
    return;
  }
  const std::uint64_t below = older.front().end_seq;
  auto participation =
      queue::Participation::attach(parts_.segment, Role::administrator, "retention", 0);
  if (!participation) return;
  dropped_below_ = below;
  const std::uint64_t dropped =
      queue::drop_below(*parts_.segment, participation->entry_number(), below, queue::Drop::all);
  dropped_for_disk_ += dropped;
  if (dropped != 0) {
    log_(Level::warning, "queue '" + name() + "': its journal has no more room; " +
                             std::to_string(dropped) + " messages below seq " +
                             std::to_string(below) + " were dropped, as drop_oldest says");
  }
  wake();
}

void ManagedQueue::tend(std::uint64_t now_ns) {
  if (writer_->has_file_over_age()) wake();
  const shm::Segment& segment = *parts_.segment;
  std::vector<std::string> expired;
  for (std::uint32_t index = 0; index < segment.limits().max_groups; ++index) {
    const shm::Group& group = segment.group(index);
    const std::uint64_t word = sync::load_acquire(group.word);
    const std::uint64_t limit_ns = sync::load_relaxed(group.expire_idle_ns);
    if (shm::group_state(word) != shm::GroupState::active || limit_ns == 0) continue;
    const std::uint64_t key = word * segment.limits().max_groups + index;
    if (queue::has_consumers(segment, index, word) && !base::mutant(115)) {
      idle_since_ns_.erase(key);
      continue;
    }
    const std::uint64_t since_ns = idle_since_ns_.try_emplace(key, now_ns).first->second;
    if (now_ns - since_ns < limit_ns) continue;
    idle_since_ns_.erase(key);
    expired.push_back(queue::group_name(group));
  }
  for (const std::string& group : expired) remove_expired(group);
}

void ManagedQueue::remove_expired(const std::string& group) {
  const std::uint64_t tail = queue::find_tail(*parts_.segment);
  const auto found = queue::find_group(*parts_.segment, group);
  if (!found) return;
  const std::uint64_t floor = sync::read_halves(parts_.segment->group(found->index).progress).low;
  const auto removed = queue::remove_group(*parts_.segment, group, queue::Patience::none);
  if (!removed) return;  // somebody administers just now; next time
  ++expired_groups_;
  log_(Level::warning, "queue '" + name() + "': group '" + group +
                           "' was removed: it had no consumer for longer than its limit; it was at "
                           "seq " +
                           std::to_string(floor) + " of " + std::to_string(tail));
  wake();
}

bool ManagedQueue::prepare_sleep() {
  if (parts_.disk->has_completions()) return false;
  if (writer_->is_in_flight()) {
    if (is_asleep_) set_asleep(false);
    return true;
  }
  if (is_asleep_) return true;
  set_asleep(true);
  // [D2] Pairs with the full barrier of a publish or ack: either its maker sees the flag and rings,
  // or what it made is seen now. A whole look, not has_news(): who waits for an ack that was told
  // already waits for a look that begins after it read their number.
  sync::full_fence();
  SHMQ_CRASH_POINT("daemon.asleep");
  if (base::mutant(93)) return true;
  if (health_ != journal::Health::ok) return true;
  writer_->pump();
  tell_state();
  if (!writer_->is_in_flight()) return true;  // a file is awaited, or it is not this journal's turn
  set_asleep(false);
  return !parts_.disk->has_completions();
}

bool ManagedQueue::is_idle() const noexcept {
  return is_asleep_ && !writer_->is_in_flight() && next_timer_ns() == ~0ULL;
}

void ManagedQueue::begin_drain() {
  drain_target_ = queue::find_tail(*parts_.segment);
  writer_->stop();
  on_hot_(*this);
}

bool ManagedQueue::is_drained() const noexcept {
  if (!drain_target_) return false;
  if (source_->damage() || writer_->health() != journal::Health::ok) return true;
  if (writer_->is_stopped()) return true;
  // Publishers that go on never let the journal come to rest; what was there at the beginning is
  // what counts, and the next incarnation finds the rest in memory.
  return writer_->progress().watermark >= *drain_target_ &&
         queue::find_tail(*parts_.segment) != *drain_target_;
}

bool ManagedQueue::has_written_all() const noexcept {
  return drain_target_ && writer_->progress().watermark >= *drain_target_ &&
         (writer_->is_stopped() || queue::find_tail(*parts_.segment) != *drain_target_);
}

void ManagedQueue::close() noexcept {
  set_asleep(false);
  mark_->set_state(shm::DaemonState::stopped);
}

}  // namespace shmq::engine
