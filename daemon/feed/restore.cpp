// SPDX-License-Identifier: Apache-2.0
#include "daemon/feed/restore.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/assert.hpp"
#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "control/settings.hpp"
#include "daemon/feed/group_settings.hpp"
#include "queue/deadlines.hpp"
#include "queue/shared_group.hpp"
#include "shm/geometry.hpp"

namespace shmq::feed {

journal::CheckpointState initial_state(const shm::Segment& segment) {
  journal::CheckpointState state;
  const shm::Limits& limits = segment.limits();
  QueueOptions options{.slots = limits.slots,
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

using journal::GroupState;
using shm::Lease;
using shm::LeaseState;

// A place that no record has: what is settled everywhere, and what never was a message.
constexpr std::uint64_t no_ref = shm::ref_mask;
constexpr std::uint64_t window_entries_max = 65536;  // check_limits
constexpr std::uint64_t straggler_entries_max = 65536;

// Calls act(first, end) for the stretches of [from, to) that are not settled.
template <typename Act>
void for_unsettled(const GroupState& state, std::uint64_t from, std::uint64_t to, Act act) {
  from = std::max(from, state.floor);
  for (const auto& [first, end] : state.settled) {
    if (end <= from) continue;
    if (from >= to || first >= to) break;
    if (first > from) act(from, first);
    from = end;
  }
  if (from < to) act(from, to);
}

std::uint64_t count_unsettled(const GroupState& state, std::uint64_t from, std::uint64_t to) {
  std::uint64_t count = 0;
  for_unsettled(state, from, to,
                [&](std::uint64_t first, std::uint64_t end) { count += end - first; });
  return count;
}

struct RestoredGroup {
  control::GroupSettings settings;
  GroupState state;
  std::uint64_t known_end = 0;  // nothing is known of a seq from here on
  std::uint64_t floor = 0;      // in the segment: what is unsettled below goes into the table
};

Lease lease_of(const GroupState& state, std::uint64_t seq) {
  Lease lease{.state = LeaseState::ready};
  const auto found = state.entries.find(seq);
  if (found == state.entries.end()) return lease;
  const journal::EntryState& entry = found->second;
  lease.hand_outs = std::min<std::uint32_t>(entry.hand_outs, 0xffff);
  lease.failures = std::min<std::uint32_t>(entry.failures, 63);
  lease.deaths = std::min<std::uint32_t>(entry.deaths, 15);
  const auto condition = static_cast<journal::EntryCondition>(entry.condition);
  if (condition == journal::EntryCondition::dead) lease.state = LeaseState::dead;
  const std::uint64_t now = base::clock->realtime_ns();
  if (condition == journal::EntryCondition::delayed && entry.due_realtime_ns > now) {
    // A clock that was set back makes no delay longer than any can be.
    const std::uint64_t ahead = std::min(entry.due_realtime_ns - now, queue::longest_delay_ns);
    lease.deadline = queue::deadline_at(base::coarse_tick_64() + base::ticks_of(ahead) + 1);
  }
  return lease;
}

class Restorer {
 public:
  Restorer(const RestoreTarget& target, journal::DirectorySource& directory,
           const journal::Plan& plan, const journal::Start& start)
      : target_(target),
        directory_(directory),
        plan_(plan),
        start_(start),
        what_("restore queue '" + target.queue + "'") {}

  Result<std::shared_ptr<shm::Segment>> run() {
    if (auto done = read_settings(); !done) return tl::unexpected{done.error()};
    if (auto done = choose_sizes(); !done) return tl::unexpected{done.error()};
    auto made = shm::Segment::create(target_.queue, options_, shm::Authority::daemon,
                                     start_.identity.queue_uuid);
    if (!made) return made;
    segment_ = std::move(*made);
    if (auto done = fill(); !done) {
      segment_.reset();
      OpenOptions open{.name_space = target_.name_space, .trusted_owners = trusted()};
      if (auto gone = shm::Segment::remove(target_.queue, open, shm::Authority::daemon); !gone) {
        return tl::unexpected{gone.error()};
      }
      return tl::unexpected{done.error()};
    }
    SHMQ_CRASH_POINT("restore.before_generation");
    // [D4] release: all of it is there. A segment that says 0 is thrown away.
    sync::store_release(segment_->control().daemon_generation, 1);
    return segment_;
  }

 private:
  tl::unexpected<Error> corrupt(std::string why) const {
    return tl::unexpected(Error{make_error_code(Errc::corrupt), what_, std::move(why),
                                "see: shmqctl verify " + target_.queue});
  }
  [[nodiscard]] std::vector<uid_t> trusted() const {
    std::vector<uid_t> owners = target_.trusted_owners;
    if (options_.owner) owners.push_back(*options_.owner);
    return owners;
  }

  Result<void> read_settings() {
    const auto text_of = [](const std::vector<std::byte>& value) {
      return std::string_view{reinterpret_cast<const char*>(value.data()), value.size()};
    };
    const auto own = start_.state.settings.find(journal::Uuid{});
    if (own == start_.state.settings.end()) return corrupt("the journal has no settings");
    auto options = control::queue_options_from(text_of(own->second), what_);
    if (!options) return tl::unexpected{options.error()};
    options_ = std::move(*options);
    options_.durable = true;
    options_.name_space = target_.name_space;
    options_.trusted_owners = trusted();
    options_.groups.clear();
    const std::uint64_t tail = start_.watermark;
    for (const auto& [uuid, state] : start_.state.groups) {
      const auto value = start_.state.settings.find(uuid);
      if (value == start_.state.settings.end()) return corrupt("a group has no settings");
      auto settings = control::group_settings_from(text_of(value->second), what_);
      if (!settings) return tl::unexpected{settings.error()};
      RestoredGroup group{.settings = std::move(*settings), .state = state};
      // Its birth may have been told when not all before it was on stable storage.
      group.state.raise_floor(std::min(group.settings.born_seq, tail));
      if (group.state.floor > tail) return corrupt("a group is ahead of the messages");
      group.known_end = group.state.floor;
      if (!group.state.settled.empty()) group.known_end = group.state.settled.rbegin()->second;
      if (!group.state.entries.empty()) {
        group.known_end = std::max(group.known_end, group.state.entries.rbegin()->first + 1);
      }
      if (group.known_end > tail) return corrupt("a group knows of messages that there are not");
      options_.groups.push_back(group.settings.options);
      groups_.push_back(std::move(group));
    }
    return {};
  }

  // Windows hold all that is known, tables what stays behind; then the ring, then the arena.
  Result<void> choose_sizes() {
    const std::uint64_t tail = start_.watermark;
    std::uint64_t window = options_.window_entries;
    std::uint64_t table = options_.straggler_entries;
    const auto fits = [&](RestoredGroup& group) {
      const std::uint64_t distance = group.known_end - group.state.floor;
      group.floor = distance > window ? group.known_end - window : group.state.floor;
      if (group.floor == group.state.floor) return true;
      return group.settings.options.mode == GroupMode::shared &&
             count_unsettled(group.state, group.state.floor, group.floor) <= table;
    };
    for (RestoredGroup& group : groups_) {
      while (!fits(group) && window < window_entries_max) window *= 2;
    }
    head_ = tail;
    for (RestoredGroup& group : groups_) {
      while (!fits(group) && table < straggler_entries_max) table *= 2;
      if (!fits(group))
        return too_much("what is unsettled in group '" + group.settings.options.name + "'");
      // Up to the first that is not settled.
      std::uint64_t first = group.known_end;
      bool found = false;
      for_unsettled(group.state, group.floor, group.known_end,
                    [&](std::uint64_t from, std::uint64_t) {
                      if (!found) first = from;
                      found = true;
                    });
      group.floor = first;
      head_ = std::min(head_, group.floor);
    }
    options_.window_entries = static_cast<std::uint32_t>(window);
    options_.straggler_entries = static_cast<std::uint32_t>(table);
    options_.slots = std::max(options_.slots, std::bit_ceil(tail - head_));
    if (options_.slots > (1ULL << 26)) return too_much("the distance to the slowest group");
    return measure_arena();
  }

  tl::unexpected<Error> too_much(const std::string& of) const {
    return tl::unexpected(Error{make_error_code(Errc::not_enough_memory), what_,
                                of + " is more than a segment can hold", ""});
  }

  [[nodiscard]] bool is_needed(std::uint64_t seq) const {
    return std::any_of(groups_.begin(), groups_.end(),
                       [seq](const RestoredGroup& group) { return !group.state.is_settled(seq); });
  }

  template <typename Take>
  Result<void> for_needed(Take take) {
    std::uint64_t least = start_.watermark;
    for (const RestoredGroup& group : groups_) least = std::min(least, group.state.floor);
    return journal::read_messages(directory_, plan_, least, [&](const journal::Record& record) {
      if (record.type != journal::RecordType::message) return;
      const journal::MessageView view = journal::message_of(record);
      if (is_needed(view.seq)) take(view);
    });
  }

  static std::uint64_t record_bytes(const journal::MessageView& view) {
    const std::uint64_t head = sizeof(shm::Record) + (has_time(view) ? 8 : 0) +
                               journal::round_up(view.attributes.size(), 8);
    return journal::round_up(head + view.payload.size(), shm::record_alignment);
  }
  static bool has_time(const journal::MessageView& view) {
    return (view.flags & shm::record_has_publish_time) != 0;
  }

  // Where the next record goes: in order, a large one in chunks of its own.
  struct Packer {
    std::uint64_t chunk_bytes;
    std::uint64_t end = 0;   // of what is used
    std::uint64_t edge = 0;  // of the chunks taken
    std::uint64_t place(std::uint64_t bytes) {
      if (end + bytes > edge) {
        end = edge;
        edge = end + journal::round_up(bytes, chunk_bytes);
      }
      const std::uint64_t offset = end;
      end += bytes;
      if (bytes > chunk_bytes) end = edge;  // a run is of one record
      return offset;
    }
  };

  Result<void> measure_arena() {
    Packer packer{options_.chunk_bytes};
    auto read =
        for_needed([&](const journal::MessageView& view) { packer.place(record_bytes(view)); });
    if (!read) return read;
    const shm::Limits limits = shm::limits_from(options_);
    // Beside it each producer can go on as in an empty one.
    const std::uint64_t spare = 2ULL * limits.max_producers * limits.chunk_bytes;
    options_.max_producers = limits.max_producers;
    options_.max_message_bytes = limits.max_message_bytes;
    options_.arena_bytes = std::max(options_.arena_bytes, packer.edge + spare);
    return {};
  }

  Result<void> fill() {
    auto arena = segment_->writable_arena();
    if (!arena) return tl::unexpected{arena.error()};
    const std::uint64_t tail = start_.watermark;
    const std::uint64_t slots = segment_->limits().slots;
    for (std::uint64_t seq = head_; seq != head_ + slots; ++seq) {
      sync::Word16& slot = segment_->slots()[seq & (slots - 1)];
      slot = seq < tail ? sync::Word16{seq, no_ref} : sync::Word16{seq - slots, 0};
    }
    if (auto done = fill_arena(*arena); !done) return done;
    // Each that a group still needs must be there.
    for (const RestoredGroup& group : groups_) {
      std::optional<std::uint64_t> missing;
      for_unsettled(group.state, group.state.floor, tail,
                    [&](std::uint64_t first, std::uint64_t end) {
                      for (; first != end && !missing; ++first) {
                        if (!ref_of(first)) missing = first;
                      }
                    });
      if (missing) return corrupt("seq " + std::to_string(*missing) + " is not in the journal");
    }
    for (std::uint32_t i = 0; i < groups_.size(); ++i) fill_group(i, groups_[i]);
    if (groups_.empty()) {  // create() made one, since a queue is seldom meant to have none
      segment_->group(0).word = shm::group_word(1, 0, shm::GroupState::free);
    }
    segment_->control().head = {head_, 0};
    segment_->control().tail_hint = tail;
    return {};
  }

  [[nodiscard]] std::optional<std::uint64_t> ref_of(std::uint64_t seq) const {
    if (seq < head_) {
      const auto found = behind_.find(seq);
      return found == behind_.end() ? std::nullopt : std::optional{found->second};
    }
    const std::uint64_t ref = segment_->slots()[seq & (segment_->limits().slots - 1)].high;
    return ref == no_ref ? std::nullopt : std::optional{ref};
  }

  Result<void> fill_arena(std::byte* arena) {
    Packer packer{options_.chunk_bytes};
    const shm::Limits& limits = segment_->limits();
    bool fits = true;
    auto read = for_needed([&](const journal::MessageView& view) {
      const std::uint64_t bytes = record_bytes(view);
      const std::uint64_t offset = packer.place(bytes);
      fits = fits && offset + bytes <= limits.arena_bytes;
      if (!fits) return;
      write_record(arena + offset, view);
      for (std::uint64_t chunk = offset / limits.chunk_bytes;
           chunk <= (offset + bytes - 1) / limits.chunk_bytes; ++chunk) {
        segment_->chunk(static_cast<std::uint32_t>(chunk)) = {
            view.seq, shm::chunk_word(shm::ChunkState::sealed, 0, 0)};
      }
      const std::uint64_t ref = offset >> shm::ref_unit_shift;
      if (view.seq < head_) {
        behind_[view.seq] = ref;
      } else {
        segment_->slots()[view.seq & (limits.slots - 1)].high = ref;
      }
    });
    if (read && !fits) return corrupt("the journal changed while it was read");
    return read;
  }

  static void write_record(std::byte* place, const journal::MessageView& view) {
    shm::Record record{};
    record.seq = view.seq;
    record.payload_bytes = static_cast<std::uint32_t>(view.payload.size());
    record.attribute_bytes = static_cast<std::uint16_t>(view.attributes.size());
    record.flags = has_time(view) ? shm::record_has_publish_time : 0;
    std::memcpy(place, &record, sizeof(record));
    place += sizeof(record);
    if (has_time(view)) {
      std::memcpy(place, &view.publish_realtime_ns, 8);
      place += 8;
    }
    std::copy(view.attributes.begin(), view.attributes.end(), place);
    std::copy(view.payload.begin(), view.payload.end(),
              place + journal::round_up(view.attributes.size(), 8));
  }

  // Nobody else uses the segment yet: until the daemon has made the watermark object, no client
  // opens it.
  void fill_group(std::uint32_t index, const RestoredGroup& restored) {
    shm::Group& group = segment_->group(index);
    group.born_seq = restored.settings.born_seq;
    group.created_realtime_ns = restored.settings.created_realtime_ns;
    group.progress.low = restored.floor;
    const bool shared = restored.settings.options.mode == GroupMode::shared;
    group.next_hint = shared ? restored.known_end
                             : (group.next_hint & ~shm::next_hint_seq_mask) |
                                   (restored.known_end & shm::next_hint_seq_mask);
    const std::uint64_t entries = segment_->limits().window_entries;
    queue::SharedGroup access{*segment_, index};
    const GroupState& state = restored.state;
    const auto count_if_dead = [&](const Lease& lease, std::uint64_t ref, std::uint64_t seq) {
      if (lease.state == LeaseState::dead) access.count_dead(access.bytes_at(ref, seq), 1);
    };
    for (std::uint64_t seq = restored.floor; seq != restored.floor + entries; ++seq) {
      sync::Word16& entry = access.window(seq);
      entry = {seq - entries, 0};
      if (seq >= restored.known_end) continue;
      entry = {seq, 0};
      if (state.is_settled(seq)) continue;
      const Lease lease = lease_of(state, seq);
      entry.high = shm::pack(base::mutant(77) ? Lease{.state = LeaseState::ready} : lease);
      count_if_dead(lease, *ref_of(seq), seq);
    }
    for_unsettled(state, state.floor, restored.floor, [&](std::uint64_t first, std::uint64_t end) {
      for (; first != end; ++first) {
        const Lease lease = lease_of(state, first);
        const auto kept = access.table().reserve(first, lease, *ref_of(first), 0);
        SHMQ_ASSERT(kept);  // counted before
        access.table().commit(first, shm::moved_word(kept->index, kept->generation));
        count_if_dead(lease, *ref_of(first), first);
      }
    });
  }

  const RestoreTarget& target_;
  journal::DirectorySource& directory_;
  const journal::Plan& plan_;
  const journal::Start& start_;
  const std::string what_;
  QueueOptions options_;
  std::vector<RestoredGroup> groups_;
  std::uint64_t head_ = 0;
  std::map<std::uint64_t, std::uint64_t> behind_;  // refs of stragglers below head
  std::shared_ptr<shm::Segment> segment_;
};

}  // namespace

Result<std::shared_ptr<shm::Segment>> restore(const RestoreTarget& target,
                                              journal::DirectorySource& directory,
                                              const journal::Plan& plan,
                                              const journal::Start& start) {
  return Restorer{target, directory, plan, start}.run();
}

}  // namespace shmq::feed
