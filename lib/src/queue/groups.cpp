// SPDX-License-Identifier: Apache-2.0
#include "queue/groups.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <shmq/info.hpp>
#include <thread>

#include "base/mutant.hpp"
#include "queue/head.hpp"
#include "queue/shared_group.hpp"
#include "shm/initialise.hpp"
#include "shm/naming.hpp"
#include "sync/event.hpp"

namespace shmq::queue {
namespace {

using shm::GroupState;

tl::unexpected<Error> failure(Errc code, std::string what, std::string why, std::string remedy) {
  return tl::unexpected(
      Error{make_error_code(code), std::move(what), std::move(why), std::move(remedy)});
}

// The lock of administration, for the length of one operation.
Result<sync::LockFile> lock_administration(const shm::Segment& segment, const std::string& what,
                                           Patience patience = Patience::some) {
  auto file = segment.open_lock_file();
  if (!file) return file;
  for (int attempt = 0; attempt < 5000; ++attempt) {
    if (file->try_lock(shm::lock_byte_administration)) return file;
    if (patience == Patience::none) break;
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
  }
  return failure(Errc::busy, what, "another process has been administering the queue for 5 s",
                 "look for a stopped shmqctl");
}

bool set_state(shm::Group& group, GroupState state) noexcept {
  const std::uint64_t seen = sync::load_acquire(group.word);
  return sync::compare_and_swap(
      group.word, seen,
      shm::group_word(shm::group_incarnation(seen), shm::group_mode(seen), state));
}

// No consumer of the group is active from here on, and none that was can settle anything.
void fence_consumers(shm::Group& group) noexcept {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const sync::Word16 seen = sync::read_halves(group.progress);
    if (shm::owner_of(seen.high) == shm::owner_none) return;
    if (sync::compare_and_swap(
            group.progress, seen,
            {seen.low,
             shm::ownership(shm::owner_none, shm::ownership_generation(seen.high) + 1, 0)})) {
      return;
    }
  }
}

void retire(const shm::Segment& segment, std::uint32_t index) noexcept {
  shm::Group& group = segment.group(index);
  // [G4] seq_cst: the group is gone; its floor no longer counts.
  set_state(group, GroupState::retired);
  SHMQ_CRASH_POINT("group.retired");
  fence_consumers(group);
  sync::Word16& head = segment.control().head;
  for (int attempt = 0; attempt < 100000; ++attempt) {
    const sync::Word16 seen = sync::read_halves(head);
    if (sync::compare_and_swap(head, seen, {seen.low, seen.high + 1})) break;
  }
  refresh_head(segment);
  shm::Control& control = segment.control();
  for (std::uint32_t* event :
       {&control.room_event, &control.message_event, &control.ownership_event}) {
    sync::event_notify(*event);
  }
}

// Two groups of one name: a seek was killed between the birth of the one and the end of the other.
// The younger one stays.
void finish_seeks(const shm::Segment& segment) noexcept {
  const std::uint32_t groups = segment.limits().max_groups;
  for (std::uint32_t i = 0; i < groups; ++i) {
    for (std::uint32_t j = i + 1; j < groups; ++j) {
      const shm::Group& a = segment.group(i);
      const shm::Group& b = segment.group(j);
      if (shm::group_state(sync::load_acquire(a.word)) != GroupState::active ||
          shm::group_state(sync::load_acquire(b.word)) != GroupState::active ||
          std::memcmp(a.name, b.name, sizeof(a.name)) != 0) {
        continue;
      }
      retire(segment, a.created_realtime_ns <= b.created_realtime_ns ? i : j);
    }
  }
}

void heal_locked(const shm::Segment& segment) noexcept {
  for (std::uint32_t i = 0; i < segment.limits().max_groups; ++i) {
    shm::Group& group = segment.group(i);
    const GroupState state = shm::group_state(sync::load_acquire(group.word));
    if (state == GroupState::forming || state == GroupState::joining) {
      set_state(group, GroupState::free);
      sync::event_notify(segment.control().room_event);
    } else if (state == GroupState::retired) {
      fence_consumers(group);
    }
  }
  finish_seeks(segment);
}

bool is_named_by_a_participant(const shm::Segment& segment, std::uint32_t index,
                               std::uint64_t incarnation) noexcept {
  const std::uint64_t wanted = (incarnation << 16) | (index + 1);
  for (std::uint32_t i = 0; i < segment.limits().max_participants; ++i) {
    const shm::Participant& entry = segment.participant(i);
    // [G6] acquire, after the group was retired and a full barrier, pairs with G5.
    if (shm::participant_state(sync::load_acquire(entry.word)) != shm::ParticipantState::free &&
        (sync::load_acquire(entry.group_word) == wanted ||
         sync::load_acquire(entry.visiting) == wanted)) {
      return true;
    }
  }
  return false;
}

// A free entry, or a retired one that nobody names any more.
std::optional<std::uint32_t> find_free_entry(const shm::Segment& segment) noexcept {
  for (const GroupState wanted : {GroupState::free, GroupState::retired}) {
    for (std::uint32_t i = 0; i < segment.limits().max_groups; ++i) {
      const std::uint64_t word = sync::load_acquire(segment.group(i).word);
      if (shm::group_state(word) != wanted) continue;
      if (wanted == GroupState::retired &&
          is_named_by_a_participant(segment, i, shm::group_incarnation(word))) {
        continue;
      }
      return i;
    }
  }
  return std::nullopt;
}

// Entries of an earlier incarnation say nothing about this one.
void reset_window(const shm::Segment& segment, std::uint32_t index, std::uint64_t floor) noexcept {
  sync::Word16* window = segment.window(index);
  const std::uint64_t entries = segment.limits().window_entries;
  for (std::uint64_t seq = floor; seq != floor + entries; ++seq) {
    sync::store_relaxed(window[seq & (entries - 1)].high, 0);
    sync::store_relaxed(window[seq & (entries - 1)].low, seq - entries);
  }
  StragglerTable{segment, index}.reset();
}

// Before this the journal of a durable queue has nothing.
std::uint64_t first_retained(const shm::Segment& segment) noexcept {
  const shm::Mark* mark = segment.limits().durable != 0 ? segment.mark() : nullptr;
  return mark != nullptr ? sync::load_acquire(mark->first_retained) : 0;
}

Result<std::uint64_t> starting_floor(const shm::Segment& segment, const StartAt& from,
                                     std::uint64_t head, const std::string& what) {
  switch (from.kind) {
    case StartAt::Kind::earliest: return head;
    case StartAt::Kind::latest: return std::max(find_tail(segment), head);
    case StartAt::Kind::seq: break;
    case StartAt::Kind::time:
      return failure(Errc::invalid_argument, what, "a time is none of its seqs", "");
  }
  const std::uint64_t tail = find_tail(segment);
  if (from.seq.value < head) {
    return failure(Errc::not_retained, what,
                   "seq " + std::to_string(from.seq.value) + " is no longer held, the oldest is " +
                       std::to_string(head),
                   "begin at earliest");
  }
  if (from.seq.value > tail) {
    return failure(
        Errc::invalid_argument, what,
        "seq " + std::to_string(from.seq.value) + " lies beyond the tail, " + std::to_string(tail),
        "begin at latest");
  }
  return from.seq.value;
}

// Publishes the floor and then raises the epoch on the very word that the floor was computed from.
Result<void> join(const shm::Segment& segment, std::uint32_t index, const GroupOptions& options,
                  const std::string& what) {
  shm::Group& group = segment.group(index);
  sync::Word16& head = segment.control().head;
  for (int attempt = 0; attempt < 100000; ++attempt) {
    const sync::Word16 seen = sync::read_halves(head);
    const std::uint64_t oldest = std::max(seen.low, first_retained(segment));
    auto floor = starting_floor(segment, options.from, oldest, what);
    if (!floor) {
      set_state(group, GroupState::free);
      return tl::unexpected(floor.error());
    }
    reset_window(segment, index, *floor);
    shm::fill_group(group, options, *floor);
    // [G1] seq_cst: from here on the floor counts.
    set_state(group, GroupState::joining);
    SHMQ_CRASH_POINT("group.joining");
    // [G2] seq_cst, pairs with H2: head did not move since `seen`, and no earlier computation can
    // move it past the floor any more.
    if (base::mutant(7) || sync::compare_and_swap(head, seen, {seen.low, seen.high + 1})) {
      // [G7] Behind the full barriers of G1 and G2, pairs with M3: a daemon that lets the journal
      // begin later than here has seen this floor, or is seen now. Head may lag behind both.
      if (*floor >= first_retained(segment)) {
        // [G3] seq_cst: the group exists.
        set_state(group, GroupState::active);
        return {};
      }
    }
    set_state(group, GroupState::forming);
  }
  set_state(group, GroupState::free);
  return failure(Errc::busy, what, "the queue's head never stood still", "try again");
}

}  // namespace

std::string group_name(const shm::Group& group) {
  char copy[shm::name_field_bytes];
  std::memcpy(copy, group.name, sizeof(copy));
  copy[sizeof(copy) - 1] = '\0';
  return copy;
}

std::optional<FoundGroup> find_group(const shm::Segment& segment, std::string_view name) noexcept {
  for (std::uint32_t i = 0; i < segment.limits().max_groups; ++i) {
    const shm::Group& group = segment.group(i);
    const std::uint64_t word = sync::load_acquire(group.word);
    if (shm::group_state(word) != GroupState::active) continue;
    if (name.size() < sizeof(group.name) &&
        std::memcmp(group.name, name.data(), name.size()) == 0 && group.name[name.size()] == '\0' &&
        sync::load_acquire(group.word) == word) {
      return FoundGroup{i, word};
    }
  }
  return std::nullopt;
}

Result<void> begin_group(const shm::Segment& segment, const GroupOptions& options,
                         const std::string& what) {
  const auto index = find_free_entry(segment);
  if (!index) {
    return failure(Errc::too_many_groups, what,
                   "all " + std::to_string(segment.limits().max_groups) + " entries are in use",
                   "remove a group, or create the queue with a greater max_groups");
  }
  shm::Group& group = segment.group(*index);
  const std::uint64_t seen = sync::load_acquire(group.word);
  if (!sync::compare_and_swap(
          group.word, seen,
          shm::group_word(shm::group_incarnation(seen) + 1, static_cast<std::uint8_t>(options.mode),
                          GroupState::forming))) {
    return failure(Errc::corrupt, what, "its entry changed under the lock", "");
  }
  return join(segment, *index, options, what);
}

GroupOptions options_of(const shm::Group& group, std::uint64_t word, const StartAt& from) {
  const auto time = [](const std::uint64_t& ns) {
    return std::chrono::nanoseconds{static_cast<std::int64_t>(sync::load_relaxed(ns))};
  };
  return {.name = group_name(group),
          .mode = static_cast<GroupMode>(shm::group_mode(word)),
          .lease = time(group.lease_ns),
          .delivery_limit = sync::load_relaxed(group.delivery_limit),
          .expire_idle = time(group.expire_idle_ns),
          .from = from};
}

Result<void> create_group(const shm::Segment& segment, const GroupOptions& options) {
  const std::string what = "create group '" + options.name + "' of queue '" + segment.queue() + "'";
  if (auto valid = shm::check_group_options(options, segment.limits().durable != 0, what); !valid)
    return valid;
  auto lock = lock_administration(segment, what);
  if (!lock) return tl::unexpected(lock.error());
  heal_locked(segment);
  if (find_group(segment, options.name)) {
    return failure(Errc::already_exists, what, "a group of this name exists", "");
  }
  return begin_group(segment, options, what);
}

// The new one first: killed between the two, the group is there, and the seek is finished by
// whoever comes next (finish_seeks).
Result<std::uint64_t> seek_group(const shm::Segment& segment, std::string_view name,
                                 const StartAt& from) {
  const std::string what =
      "seek in group '" + std::string{name} + "' of queue '" + segment.queue() + "'";
  auto lock = lock_administration(segment, what);
  if (!lock) return tl::unexpected(lock.error());
  heal_locked(segment);
  const auto found = find_group(segment, name);
  if (!found) {
    return failure(Errc::no_such_group, what, "no such group",
                   "see which there are: shmqctl group ls " + segment.queue());
  }
  const auto options = options_of(segment.group(found->index), found->word, from);
  if (auto begun = begin_group(segment, options, what); !begun) {
    return tl::unexpected(begun.error());
  }
  SHMQ_CRASH_POINT("group.sought");
  if (!base::mutant(118)) retire(segment, found->index);
  const auto now = find_group(segment, name);
  if (!now) return failure(Errc::removed, what, "the group was removed meanwhile", "");
  return segment.group(now->index).born_seq;
}

Result<std::uint64_t> find_start(const shm::Segment& segment, const StartAt& from) {
  const std::uint64_t oldest = std::max(read_head(segment), first_retained(segment));
  return starting_floor(segment, from, oldest, segment.describe("find a message in"));
}

bool has_consumers(const shm::Segment& segment, std::uint32_t index, std::uint64_t word) noexcept {
  const std::uint64_t wanted = (shm::group_incarnation(word) << 16) | (index + 1);
  for (std::uint32_t i = 0; i < segment.limits().max_participants; ++i) {
    const shm::Participant& entry = segment.participant(i);
    const std::uint64_t state = sync::load_acquire(entry.word);
    if (shm::participant_state(state) != shm::ParticipantState::free &&
        shm::participant_role(state) == static_cast<std::uint8_t>(Role::consumer) &&
        sync::load_acquire(entry.group_word) == wanted) {
      return true;
    }
  }
  return false;
}

Result<void> remove_group(const shm::Segment& segment, std::string_view name, Patience patience) {
  const std::string what =
      "remove group '" + std::string{name} + "' of queue '" + segment.queue() + "'";
  auto lock = lock_administration(segment, what, patience);
  if (!lock) return tl::unexpected(lock.error());
  heal_locked(segment);
  const auto found = find_group(segment, name);
  if (!found) {
    return failure(Errc::no_such_group, what, "no such group",
                   "see which there are: shmqctl group ls " + segment.queue());
  }
  retire(segment, found->index);
  return {};
}

void heal_administration(const shm::Segment& segment) noexcept {
  bool needed = false;
  for (std::uint32_t i = 0; i < segment.limits().max_groups && !needed; ++i) {
    const GroupState state = shm::group_state(sync::load_acquire(segment.group(i).word));
    needed = state == GroupState::forming || state == GroupState::joining;
  }
  if (!needed) return;
  auto lock = segment.open_lock_file();
  if (lock && lock->try_lock(shm::lock_byte_administration)) heal_locked(segment);
}

namespace {

std::uint64_t drop_below_exclusive(const shm::Segment& segment, std::uint32_t index,
                                   std::uint64_t floor) noexcept {
  shm::Group& group = segment.group(index);
  const std::uint64_t entries = segment.limits().window_entries;
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const sync::Word16 seen = sync::read_halves(group.progress);
    if (static_cast<std::int64_t>(floor - seen.low) <= 0) break;
    // What was acked out of order is not lost by this.
    std::uint64_t lost = floor - seen.low;
    const std::uint64_t end = seen.low + std::min(lost, entries);
    for (std::uint64_t seq = seen.low; seq != end; ++seq) {
      const sync::Word16 entry = sync::read_halves(segment.window(index)[seq & (entries - 1)]);
      if (entry.low == seq && shm::unpack_lease(entry.high).state == shm::LeaseState::settled) {
        --lost;
      }
    }
    // [D1] seq_cst, pairs with the ack's CAS: the owner stays, and finds out by its next CAS.
    if (!sync::compare_and_swap(group.progress, seen, {floor, seen.high})) continue;
    sync::fetch_add(group.dropped_total, lost);
    return lost;
  }
  return 0;
}

}  // namespace

std::uint64_t drop_below(const shm::Segment& segment, std::uint32_t self, std::uint64_t floor,
                         Drop what) noexcept {
  std::uint64_t dropped = 0;
  for (std::uint32_t i = 0; i < segment.limits().max_groups; ++i) {
    const std::uint64_t word = sync::load_acquire(segment.group(i).word);
    if (!counts_for_head(word)) continue;
    std::uint64_t lost = 0;
    if (shm::group_mode(word) != static_cast<std::uint8_t>(GroupMode::shared)) {
      lost = drop_below_exclusive(segment, i, floor);
    } else if (const GroupVisit visit{segment, segment.participant(self), i}; visit) {
      lost = SharedGroup{segment, i}.drop_below(floor, self + 1, what == Drop::all);
    }
    dropped = std::max(dropped, lost);  // each message once, however many groups lost it
  }
  refresh_head(segment);
  sync::fetch_add(segment.control().dropped_total, dropped);
  sync::event_notify(segment.control().room_event);
  return dropped;
}

}  // namespace shmq::queue
