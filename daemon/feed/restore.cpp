// SPDX-License-Identifier: Apache-2.0
//
// How the places of a restored segment follow from the journal:
//
// - An exclusive group keeps its floor. A shared group's floor is as high as it may be: everything
//   that was touched (settled, or handed out) has to lie in its window, and what is unsettled below
//   lies in its straggler table.
// - The ring holds every seq from the lowest floor on. One that nobody needs any more, and one that
//   no message ever had (a gap after a loss of power), has a void record. These take no room from
//   publishers: the ring is made larger by as many, or a shared group's floor lies beyond them.
// - Records lie in seq order in sealed chunks.
// - With Overflow::spill the ring and the arena stay as they were chosen, and hold the newest part
//   of that: groups stay behind head, and stragglers below it are read from the journal.
#include "daemon/feed/restore.hpp"

#include <algorithm>
#include <bit>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "control/settings.hpp"
#include "daemon/feed/group_settings.hpp"
#include "journal/cursor.hpp"
#include "queue/deadlines.hpp"
#include "queue/shared_group.hpp"

namespace shmq::feed {

journal::CheckpointState initial_state(const shm::Segment& segment) {
  journal::CheckpointState state;
  const shm::Limits& limits = segment.limits();
  QueueOptions options{
      .slots = limits.slots,
      .arena_bytes = limits.arena_bytes,
      .chunk_bytes = limits.chunk_bytes,
      .max_groups = limits.max_groups,
      .max_participants = limits.max_participants,
      .max_producers = limits.max_producers,
      .window_entries = limits.window_entries,
      .straggler_entries = limits.straggler_entries,
      .max_message_bytes = limits.max_message_bytes,
      .overflow = static_cast<Overflow>(limits.overflow),
      .durable = true,
      .visible = static_cast<Visible>(limits.visible),
      .retention = {.age =
                        std::chrono::nanoseconds{static_cast<std::int64_t>(limits.retain_age_ns)},
                    .bytes = limits.retain_bytes,
                    .messages = limits.retain_messages},
      .max_disk_bytes = limits.max_disk_bytes,
      .groups = {},
      .mode = segment.mode(),
      .owner = segment.owner(),
      .owner_group = segment.owner_group()};
  const std::string text = control::text_of(options);
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  state.settings[journal::Uuid{}] = {bytes, bytes + text.size()};
  for (std::uint32_t i = 0; i < limits.max_groups; ++i) {
    const shm::Group& group = segment.group(i);
    const std::uint64_t word = sync::load_acquire(group.word);
    if (shm::group_state(word) != shm::GroupState::active) continue;
    const control::GroupSettings settings = settings_of(group, word);
    const journal::Uuid uuid =
        group_uuid(settings.options.name, settings.created_realtime_ns, settings.born_seq);
    state.settings[uuid] = bytes_of(settings);
    state.groups[uuid].incarnation = 1;
    state.groups[uuid].floor = settings.born_seq;
  }
  return state;
}

namespace {

using journal::EntryState;
using journal::GroupState;
using journal::MessageView;
using journal::Uuid;

constexpr std::uint64_t slots_max = 1ULL << 26;

std::string_view text_in(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Range {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
};

/// A directory that somebody else owns.
class Borrowed final : public journal::DirectorySource {
 public:
  explicit Borrowed(journal::DirectorySource& directory) : directory_(directory) {}
  [[nodiscard]] std::string path() const override { return directory_.path(); }
  Result<std::vector<std::string>> list() override { return directory_.list(); }
  Result<std::unique_ptr<journal::ByteSource>> open(const std::string& name) override {
    return directory_.open(name);
  }

 private:
  journal::DirectorySource& directory_;
};

/// A group on its way from the journal into the segment.
struct Group {
  control::GroupSettings settings;
  GroupState state;
  std::uint64_t floor = 0;        // in the segment
  std::uint64_t end_touched = 0;  // no seq from here on was handed out or settled, gaps aside

  [[nodiscard]] bool is_shared() const { return settings.options.mode == GroupMode::shared; }
};

/// Bump allocation over the whole arena, chunk by chunk. Records are laid out in private memory, a
/// piece at a time, and go into the arena by write_arena().
class Packer {
 public:
  explicit Packer(shm::Segment& segment) : segment_(segment) { piece_.reserve(piece_bytes); }

  /// Room for a record of this length, for the caller to fill until the next call; nullptr: the
  /// arena is full, or cannot be written (see finish()).
  std::byte* place(std::uint64_t bytes, std::uint64_t seq) {
    const std::uint64_t chunk_bytes = segment_.limits().chunk_bytes;
    const std::uint64_t rounded =
        (bytes + shm::record_alignment - 1) & ~(shm::record_alignment - 1);
    const std::uint64_t left = (chunk_bytes - at_ % chunk_bytes) % chunk_bytes;
    if (rounded > left && left != 0) at_ += left;
    if (at_ + rounded > segment_.limits().arena_bytes) return nullptr;
    if (at_ + rounded > begin_ + piece_bytes && !flush()) return nullptr;
    record_ = at_;
    // With the zeros behind the record before it, and behind this one.
    piece_.resize(at_ + rounded - begin_);
    const std::uint64_t first = at_ / chunk_bytes;
    at_ += rounded;
    // A run belongs to its one record: nothing else goes behind it.
    if (rounded > chunk_bytes) at_ = (at_ + chunk_bytes - 1) / chunk_bytes * chunk_bytes;
    for (std::uint64_t chunk = first; chunk <= (at_ - 1) / chunk_bytes; ++chunk) {
      sync::Word16& entry = segment_.chunk(static_cast<std::uint32_t>(chunk));
      sync::store_relaxed(entry.low, seq);
      sync::store_relaxed(entry.high, shm::chunk_word(shm::ChunkState::sealed, 0, 1));
    }
    return piece_.data() + (record_ - begin_);
  }
  /// Of the record that was placed last.
  [[nodiscard]] std::uint64_t ref() const noexcept { return record_ >> shm::ref_unit_shift; }

  /// Once all records are placed. What went wrong, if writing failed.
  Result<void> finish() {
    if (!base::mutant(121)) flush();
    if (error_) return tl::unexpected(*error_);
    return {};
  }

 private:
  static constexpr std::uint64_t piece_bytes = 1ULL << 20;  // stays in the cache

  bool flush() {
    if (!error_ && !piece_.empty()) {
      if (auto written = segment_.write_arena(begin_, piece_); !written) error_ = written.error();
    }
    piece_.clear();
    begin_ = at_;
    return !error_;
  }

  shm::Segment& segment_;
  std::vector<std::byte> piece_;
  std::uint64_t begin_ = 0;   // of the piece, in the arena
  std::uint64_t at_ = 0;      // behind the last record
  std::uint64_t record_ = 0;  // the last one
  std::optional<Error> error_;
};

/// Reads and checks batches on a thread of its own, a few ahead of who takes them: on a large queue
/// both have as much to do.
class ReadAhead {
 public:
  ReadAhead(journal::DirectorySource& directory, const journal::Plan& plan, std::uint64_t from)
      : thread_([this, &directory, &plan, from] {
          auto read = journal::read_batches(
              directory, plan, from, [this](journal::CheckedBatch& batch) { return put(batch); });
          const std::scoped_lock lock{mutex_};
          outcome_ = std::move(read);
          is_over_ = true;
          changed_.notify_all();
        }) {}
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;
  ~ReadAhead() { stop(); }

  /// False: there is no more.
  bool next(journal::CheckedBatch& batch) {
    std::unique_lock lock{mutex_};
    std::swap(spare_, batch);
    changed_.wait(lock, [this] { return is_over_ || !ready_.empty(); });
    if (ready_.empty()) return false;
    batch = std::move(ready_.front());
    ready_.pop_front();
    changed_.notify_all();
    return true;
  }
  /// How the reading ended, after the last batch.
  Result<void> finish() {
    stop();
    return std::move(outcome_);
  }

 private:
  static constexpr std::size_t ahead_max = 2;

  bool put(journal::CheckedBatch& batch) {
    std::unique_lock lock{mutex_};
    changed_.wait(lock, [this] { return is_stopped_ || ready_.size() < ahead_max; });
    if (is_stopped_) return false;
    ready_.push_back(std::move(batch));
    batch = std::exchange(spare_, {});
    changed_.notify_all();
    return true;
  }
  void stop() {
    {
      const std::scoped_lock lock{mutex_};
      is_stopped_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<journal::CheckedBatch> ready_;  // under mutex_, as all below
  journal::CheckedBatch spare_;              // memory to be used again
  bool is_stopped_ = false;
  bool is_over_ = false;
  Result<void> outcome_;
  std::thread thread_;  // last: it uses all of the above
};

class Restorer {
 public:
  Restorer(const RestoreTarget& target, journal::DirectorySource& directory,
           const journal::Start& start)
      : target_(target), directory_(directory), start_(start), next_(start.watermark) {}

  Result<std::shared_ptr<shm::Segment>> run(const journal::Plan& found) {
    // Recovery has copied the tail forward since `found` was made: what stands there now counts.
    auto plan =
        journal::analyse(directory_, {.queue_uuid = found.queue_uuid, .check_all_bodies = false});
    if (!plan) return tl::unexpected(plan.error());
    if (plan->is_refused || plan->end_seq != next_) {
      return corrupt("its journal has changed since it was recovered");
    }
    if (auto read = read_settings(); !read) return tl::unexpected(read.error());
    if (auto gaps = find_gaps(*plan); !gaps) return tl::unexpected(gaps.error());
    if (auto planned = plan_places(); !planned) return tl::unexpected(planned.error());
    for (int attempt = 0; attempt < 12; ++attempt) {
      auto made = make_segment();
      if (!made) return tl::unexpected(made.error());
      auto filled = fill(*plan);
      if (filled && *filled) return std::move(segment_);
      segment_.reset();
      static_cast<void>(shm::Segment::remove(
          target_.queue,
          {.name_space = target_.name_space, .trusted_owners = target_.trusted_owners},
          shm::Authority::daemon));
      if (!filled) return tl::unexpected(filled.error());
      if (spills()) {
        kept_ = attempt == 10 ? 0 : kept_ / 2;
        place_head();
      } else {
        options_.arena_bytes *= 2;  // packed in another order, they need more of it
      }
    }
    return failure(Errc::not_enough_memory, "its messages do not fit into a segment");
  }

 private:
  [[nodiscard]] tl::unexpected<Error> failure(Errc code, std::string why) const {
    return tl::unexpected(
        Error{make_error_code(code), "restore queue '" + target_.queue + "'", std::move(why), ""});
  }
  [[nodiscard]] tl::unexpected<Error> corrupt(std::string why) const {
    return failure(Errc::corrupt, std::move(why));
  }

  Result<void> read_settings() {
    const std::string what = "restore queue '" + target_.queue + "'";
    const auto own = start_.state.settings.find(Uuid{});
    if (own == start_.state.settings.end()) return corrupt("its journal has no settings");
    auto options = control::queue_options_from(text_in(own->second), what);
    if (!options) return tl::unexpected(options.error());
    options_ = std::move(*options);
    options_.name_space = target_.name_space;
    options_.trusted_owners = target_.trusted_owners;
    options_.durable = true;
    const shm::Limits limits = shm::limits_from(options_);
    options_.max_producers = limits.max_producers;
    options_.max_message_bytes = limits.max_message_bytes;
    options_.groups.clear();
    for (const auto& [uuid, state] : start_.state.groups) {
      if (was_sought(uuid)) continue;
      const auto text = start_.state.settings.find(uuid);
      if (text == start_.state.settings.end()) return corrupt("a group has no settings");
      auto settings = control::group_settings_from(text_in(text->second), what);
      if (!settings) return tl::unexpected(settings.error());
      options_.groups.push_back(settings->options);
      groups_.push_back({.settings = std::move(*settings), .state = state});
      Group& group = groups_.back();
      // Its birth may have been told when not all before it was on stable storage.
      group.state.raise_floor(std::min(group.settings.born_seq, next_));
      if (group.state.floor > next_) return corrupt("a group is ahead of the messages");
    }
    return {};
  }

  // A seek was cut short: its new incarnation is on disk, and the end of the old one is not.
  [[nodiscard]] bool was_sought(const Uuid& uuid) const {
    const auto read = [this](const Uuid& group) -> std::optional<control::GroupSettings> {
      const auto text = start_.state.settings.find(group);
      if (text == start_.state.settings.end()) return std::nullopt;
      auto settings = control::group_settings_from(text_in(text->second), "");
      return settings ? std::optional{std::move(*settings)} : std::nullopt;
    };
    const auto own = read(uuid);
    return own && std::any_of(start_.state.groups.begin(), start_.state.groups.end(),
                              [&](const auto& other) {
                                if (other.first == uuid) return false;
                                const auto settings = read(other.first);
                                return settings && settings->options.name == own->options.name &&
                                       settings->created_realtime_ns > own->created_realtime_ns;
                              });
  }

  // Seqs that no message ever had. They are settled for every group, and may lie far beyond what a
  // window holds; so they become void messages, and do not count as touched.
  Result<void> find_gaps(const journal::Plan& plan) {
    from_ = next_;
    bool any_settled = false;
    for (const Group& group : groups_) {
      from_ = std::min(from_, group.state.floor);
      any_settled |= !group.state.settled.empty();
    }
    if (!any_settled) return {};
    if (spills()) return find_gaps_nearby();
    auto gaps = journal::read_gaps(directory_, plan, from_);
    if (!gaps) return tl::unexpected(gaps.error());
    for (const journal::SettledRange& gap : *gaps) gaps_.push_back({gap.first_seq, gap.end_seq});
    return {};
  }

  // The backlog may be as large as the disk: only where something is settled beyond a floor, which
  // is within a window of it.
  Result<void> find_gaps_nearby() {
    for (const Group& group : groups_) {
      if (group.state.settled.empty()) continue;
      journal::Cursor cursor{std::make_unique<Borrowed>(directory_), start_.identity.queue_uuid};
      const std::uint64_t end = std::prev(group.state.settled.end())->second;
      journal::BatchBuffer batch;
      cursor.seek(group.state.settled.begin()->first);
      for (;;) {
        auto got = cursor.next(batch, std::min(end, next_));
        if (!got) return tl::unexpected(got.error());
        if (!*got) break;
        for (const journal::Record& record : batch.records) {
          if (record.type != journal::RecordType::gap) continue;
          const auto gap = journal::load<journal::GapRecord>(record.bytes);
          gaps_.push_back({gap.first_seq, gap.end_seq});
        }
      }
    }
    std::sort(gaps_.begin(), gaps_.end(),
              [](const Range& left, const Range& right) { return left.first < right.first; });
    return {};
  }

  [[nodiscard]] bool spills() const { return options_.overflow == Overflow::spill; }

  void place_head() {
    head_ = next_;
    for (const Group& group : groups_) head_ = std::min(head_, group.floor);
    if (spills()) head_ = std::max(head_, next_ > kept_ ? next_ - kept_ : 0);
  }

  [[nodiscard]] std::uint64_t end_touched_of(const GroupState& state) const {
    std::uint64_t touched = state.floor;
    for (auto [first, end] : state.settled) {
      // From the end of the range backwards over gaps.
      for (auto gap = gaps_.rbegin(); gap != gaps_.rend(); ++gap) {
        if (gap->first < end && end <= gap->end) end = std::max(first, gap->first);
      }
      if (end > first) touched = std::max(touched, end);
    }
    if (!state.entries.empty()) touched = std::max(touched, state.entries.rbegin()->first + 1);
    return touched;
  }

  // Messages below `floor` that are not settled. Stops counting at `enough`.
  [[nodiscard]] std::uint64_t unsettled_below(const GroupState& state, std::uint64_t floor,
                                              std::uint64_t enough) const {
    std::uint64_t count = 0;
    std::uint64_t seq = state.floor;
    auto range = state.settled.begin();
    while (seq < floor && count < enough) {
      if (range != state.settled.end() && range->first <= seq) {
        seq = std::max(seq, range->second);
        ++range;
        continue;
      }
      const std::uint64_t end =
          range == state.settled.end() ? floor : std::min(floor, range->first);
      count += end - seq;
      seq = end;
    }
    return count;
  }

  // Seqs from `floor` on that no message ever had.
  [[nodiscard]] std::uint64_t voids_from(std::uint64_t floor) const {
    if (base::mutant(140)) return 0;
    std::uint64_t count = 0;
    for (const Range& gap : gaps_) count += gap.end - std::min(gap.end, std::max(gap.first, floor));
    return count;
  }

  // The slots that hold all from `floor` on, and as much room for new messages as there would be
  // without the voids: until a consumer comes nobody passes these, and a gap may be as large as
  // the whole ring.
  [[nodiscard]] std::uint64_t slots_for(std::uint64_t floor) const {
    return std::max(next_ - floor, options_.slots + voids_from(floor));
  }

  // The lowest floor for which so many slots are enough.
  [[nodiscard]] std::uint64_t lowest_floor(std::uint64_t slots) const {
    std::uint64_t floor = next_ > slots ? next_ - slots : 0;
    std::uint64_t allowed = slots - options_.slots;
    for (auto gap = gaps_.rbegin(); gap != gaps_.rend() && !base::mutant(140); ++gap) {
      const std::uint64_t length = gap->end - gap->first;
      if (length > allowed) return std::max(floor, gap->end - allowed);
      allowed -= length;
    }
    return floor;
  }

  // Chooses floors, and the ring's and the tables' size.
  Result<void> plan_places() {
    const std::uint64_t window = options_.window_entries;
    std::uint64_t slots = options_.slots;
    for (Group& group : groups_) {
      group.end_touched = end_touched_of(group.state);
      if (!group.is_shared()) {
        group.floor = group.state.floor;
        if (group.end_touched - group.floor > window)
          return corrupt("a group's window is too small");
        while (!spills() && slots_for(group.floor) > slots) slots *= 2;
        continue;
      }
      const std::uint64_t in_window = group.end_touched > window ? group.end_touched - window : 0;
      for (;; slots *= 2) {
        const std::uint64_t in_ring = spills() ? 0 : lowest_floor(slots);
        group.floor = std::max({group.state.floor, in_window, in_ring});
        const std::uint64_t below = unsettled_below(group.state, group.floor, 65537);
        if (below <= options_.straggler_entries) break;
        const bool is_window = group.floor == in_window || in_ring <= group.state.floor;
        if (!is_window && slots < slots_max) continue;
        if (below > 65536) return failure(Errc::not_enough_memory, "too much of it is unsettled");
        options_.straggler_entries = std::bit_ceil(static_cast<std::uint32_t>(below));
        break;
      }
    }
    if (slots > slots_max) return failure(Errc::not_enough_memory, "too much of it is unsettled");
    options_.slots = slots;
    kept_ = slots;
    place_head();
    return {};
  }

  Result<void> make_segment() {
    auto made = shm::Segment::create(target_.queue, options_, shm::Authority::daemon,
                                     start_.identity.queue_uuid);
    if (!made) return tl::unexpected(made.error());
    segment_ = std::move(*made);
    // Without groups a queue is made with one; this one has none.
    if (groups_.empty()) sync::store_relaxed(segment_->group(0).word, std::uint64_t{0});
    return {};
  }

  // False: the arena is too small.
  Result<bool> fill(const journal::Plan& plan) {
    Packer packer{*segment_};
    begin_ring();
    for (std::uint32_t i = 0; i < groups_.size(); ++i) begin_group(i);
    bool fits = true;
    std::uint64_t missing = ~std::uint64_t{0};
    const std::uint64_t from = spills() ? head_ : from_;
    std::uint64_t reached = from;
    // Seqs up to `end` have no message on disk: they are void, or past for everybody.
    const auto fill_up_to = [&](std::uint64_t end) {
      for (; fits && reached < end; ++reached) {
        if (is_needed(reached)) missing = std::min(missing, reached);
        if (reached >= head_) fits = put_void(packer, reached);
      }
    };
    const auto take = [&](const journal::Record& record) {
      if (record.type != journal::RecordType::message) return;
      const MessageView message = journal::message_of(record);
      if (message.seq < from || message.seq >= next_) return;
      fill_up_to(message.seq);
      if (fits) fits = put(packer, message);
      reached = message.seq + 1;
    };
    ReadAhead reader{directory_, plan, from};
    journal::CheckedBatch batch;
    while (fits && reader.next(batch)) {
      for (auto record = batch.records.begin(); fits && record != batch.records.end(); ++record) {
        take(*record);
      }
    }
    if (auto read = reader.finish(); !read) return tl::unexpected(read.error());
    if (fits) fill_up_to(next_);
    if (auto written = packer.finish(); !written) return tl::unexpected(written.error());
    if (!fits) return false;
    set_aside_below_head();
    if (missing != ~std::uint64_t{0}) {
      return corrupt("seq " + std::to_string(missing) + " is not in its journal");
    }
    shm::Control& control = segment_->control();
    sync::store_relaxed(control.head.low, head_);
    sync::store_relaxed(control.tail_hint, next_);
    SHMQ_CRASH_POINT("restore.before_done");
    // [R1] release: whoever sees it finds everything above.
    sync::store_release(control.daemon_generation, std::uint64_t{1});
    return true;
  }

  void begin_ring() {
    const std::uint64_t slots = segment_->limits().slots;
    for (std::uint64_t seq = next_; seq != head_ + slots; ++seq) {
      sync::Word16& slot = segment_->slots()[seq & (slots - 1)];
      sync::store_relaxed(slot.low, seq - slots);
      sync::store_relaxed(slot.high, std::uint64_t{0});
    }
  }

  // All of the group that does not depend on where its messages lie.
  void begin_group(std::uint32_t index) {
    const Group& group = groups_[index];
    shm::Group& entry = segment_->group(index);
    const std::uint64_t window = segment_->limits().window_entries;
    entry.born_seq = group.settings.born_seq;
    entry.created_realtime_ns = group.settings.created_realtime_ns;
    sync::store_relaxed(entry.progress.low, group.floor);
    const std::uint64_t next = std::max(group.end_touched, group.floor);
    const std::uint64_t generation = shm::ownership_generation(entry.progress.high) & 0xffff;
    sync::store_relaxed(
        entry.next_hint,
        group.is_shared() ? next : (generation << 48) | (next & shm::next_hint_seq_mask));
    std::uint64_t returned = 0;
    for (std::uint64_t seq = group.floor; seq != group.floor + window; ++seq) {
      sync::Word16& word = segment_->window(index)[seq & (window - 1)];
      sync::store_relaxed(word.low, seq - window);
      sync::store_relaxed(word.high, std::uint64_t{0});
      if (seq >= next) continue;
      shm::Lease lease;
      if (!group.state.is_settled(seq)) {
        lease = lease_of(group, seq);
        returned += lease.state == shm::LeaseState::ready ? 1 : 0;
      }
      sync::store_relaxed(word.low, seq);
      if (base::mutant(77) && lease.state == shm::LeaseState::ready) {
        lease = {.state = shm::LeaseState::ready};
      }
      sync::store_relaxed(word.high, shm::pack(lease));
    }
    if (!group.is_shared()) sync::store_relaxed(entry.returned_count, returned);
  }

  // What is below end_touched and not settled has been handed out at least once, as far as anybody
  // can tell now.
  [[nodiscard]] static shm::Lease lease_of(const Group& group, std::uint64_t seq) {
    shm::Lease lease{.state = shm::LeaseState::ready, .hand_outs = 1};
    const auto found = group.state.entries.find(seq);
    if (found == group.state.entries.end()) return lease;
    const EntryState& entry = found->second;
    lease.hand_outs = std::min(entry.hand_outs, 0xffffU);
    lease.failures = std::min<std::uint32_t>(entry.failures, 63);
    lease.deaths = std::min<std::uint32_t>(entry.deaths, 15);
    const auto condition = static_cast<journal::EntryCondition>(entry.condition);
    if (condition == journal::EntryCondition::dead && group.is_shared()) {
      lease.state = shm::LeaseState::dead;
    }
    const std::uint64_t now_ns = base::clock->realtime_ns();
    if (condition == journal::EntryCondition::delayed && entry.due_realtime_ns > now_ns) {
      const std::uint64_t delay_ns =
          std::min(entry.due_realtime_ns - now_ns, queue::longest_delay_ns);
      lease.deadline = queue::deadline_at(base::coarse_tick_64() + base::ticks_of(delay_ns) + 1);
    }
    return lease;
  }

  [[nodiscard]] static bool needs(const Group& group, std::uint64_t seq) {
    return !group.state.is_settled(seq);
  }
  // A gap is settled for every group.
  [[nodiscard]] bool is_needed(std::uint64_t seq) const {
    return std::any_of(groups_.begin(), groups_.end(),
                       [seq](const Group& group) { return needs(group, seq); });
  }

  void stamp(const Packer& packer, std::uint64_t seq) {
    sync::Word16& slot = segment_->slots()[seq & (segment_->limits().slots - 1)];
    sync::store_relaxed(slot.low, seq);
    sync::store_relaxed(slot.high, packer.ref());
  }

  // Stragglers that stay in the journal.
  void set_aside_below_head() {
    if (!spills()) return;
    for (std::uint32_t i = 0; i < groups_.size(); ++i) {
      const Group& group = groups_[i];
      if (!group.is_shared()) continue;
      const std::uint64_t end = std::min(group.floor, head_);
      for (std::uint64_t seq = group.state.floor; seq < end; ++seq) {
        if (!needs(group, seq)) continue;
        const shm::Lease lease = lease_of(group, seq);
        if (!set_aside(i, seq, lease, shm::ref_in_journal)) return;  // plan_places() has made room
        if (lease.state == shm::LeaseState::dead) queue::SharedGroup{*segment_, i}.count_dead(0, 1);
      }
      // Above the floor the window says it.
      for (std::uint64_t seq = group.floor; seq < std::min(group.end_touched, head_); ++seq) {
        if (!needs(group, seq) || lease_of(group, seq).state != shm::LeaseState::dead) continue;
        queue::SharedGroup{*segment_, i}.count_dead(0, 1);
      }
    }
  }

  bool set_aside(std::uint32_t index, std::uint64_t seq, const shm::Lease& lease,
                 std::uint64_t ref) {
    queue::SharedGroup shared{*segment_, index};
    const auto reserved = shared.table().reserve(seq, lease, ref, 0);
    if (!reserved) return false;
    const std::uint64_t moved = shm::moved_word(reserved->index, reserved->generation);
    shared.table().commit(seq, moved);
    // Until the seq one window later is claimed, the window's entry is still this one's.
    sync::Word16& entry = shared.window(seq);
    if (sync::load_relaxed(entry.low) == seq) sync::store_relaxed(entry.high, moved);
    return true;
  }

  bool put_void(Packer& packer, std::uint64_t seq) {
    const std::uint64_t bytes = sizeof(shm::Record) + sizeof(std::uint64_t);
    std::byte* const place = packer.place(bytes, seq);
    if (place == nullptr) return false;
    const shm::Record record{
        .seq = seq, .payload_bytes = 0, .attribute_bytes = 0, .flags = shm::record_is_void};
    std::memcpy(place, &record, sizeof(record));
    stamp(packer, seq);
    return true;
  }

  bool put(Packer& packer, const MessageView& message) {
    const std::uint64_t seq = message.seq;
    if (!is_needed(seq)) return seq < head_ || put_void(packer, seq);
    const bool has_time = message.publish_realtime_ns != 0;
    const std::size_t attributes = (message.attributes.size() + 7) & ~std::size_t{7};
    const std::size_t head = sizeof(shm::Record) + (has_time ? 8 : 0) + attributes;
    const std::size_t bytes = head + message.payload.size();
    std::byte* const place = packer.place(bytes, seq);
    if (place == nullptr) return false;
    const shm::Record record{
        .seq = seq,
        .payload_bytes = static_cast<std::uint32_t>(message.payload.size()),
        .attribute_bytes = static_cast<std::uint16_t>(message.attributes.size()),
        .flags = has_time ? std::uint16_t{shm::record_has_publish_time} : std::uint16_t{0}};
    std::memcpy(place, &record, sizeof(record));
    std::byte* cursor = place + sizeof(record);
    if (has_time) {
      std::memcpy(cursor, &message.publish_realtime_ns, 8);
      cursor += 8;
    }
    if (!message.attributes.empty()) {
      std::memcpy(cursor, message.attributes.data(), message.attributes.size());
    }
    if (!message.payload.empty()) {
      std::memcpy(place + head, message.payload.data(), message.payload.size());
    }
    if (seq >= head_) stamp(packer, seq);
    for (std::uint32_t i = 0; i < groups_.size(); ++i) {
      const Group& group = groups_[i];
      if (!group.is_shared() || !needs(group, seq)) continue;
      queue::SharedGroup shared{*segment_, i};
      shm::Lease lease;
      if (seq < group.floor) {
        lease = lease_of(group, seq);
        // plan_places() has made room.
        if (!set_aside(i, seq, lease, packer.ref())) return false;
      } else if (seq < group.end_touched) {
        lease = lease_of(group, seq);
      }
      if (lease.state == shm::LeaseState::dead) shared.count_dead(shared.bytes_held_by(bytes), 1);
    }
    return true;
  }

  const RestoreTarget& target_;
  journal::DirectorySource& directory_;
  const journal::Start& start_;
  const std::uint64_t next_;  // the seq that the next message will get
  std::uint64_t from_ = 0;    // no group needs a seq below
  std::uint64_t head_ = 0;
  std::uint64_t kept_ = 0;  // spill: so many seqs at most stay in the ring
  QueueOptions options_;
  std::vector<Group> groups_;
  std::vector<Range> gaps_;
  std::shared_ptr<shm::Segment> segment_;
};

}  // namespace

Result<std::shared_ptr<shm::Segment>> restore(const RestoreTarget& target,
                                              journal::DirectorySource& directory,
                                              const journal::Plan& plan,
                                              const journal::Start& start) {
  return Restorer{target, directory, start}.run(plan);
}

}  // namespace shmq::feed
