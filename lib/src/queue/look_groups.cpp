// SPDX-License-Identifier: Apache-2.0
//
// Figures of groups and participants: who has what, and how much of it.
#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "base/clock.hpp"
#include "queue/groups.hpp"
#include "queue/head.hpp"
#include "queue/look.hpp"
#include "queue/record_view.hpp"
#include "queue/shared_group.hpp"

namespace shmq::queue {

namespace {

constexpr std::uint32_t not_a_straggler = std::numeric_limits<std::uint32_t>::max();

// A message, and where its record is found: the slot ring, or an entry of the straggler table.
struct Sighting {
  std::uint64_t seq = 0;
  std::uint32_t straggler = not_a_straggler;
  shm::Lease lease{};
};

// The lowest seq of some state seen so far.
class Lowest {
 public:
  void see(const Sighting& sighting) noexcept {
    if (!lowest_ || sighting.seq < lowest_->seq) lowest_ = sighting;
  }
  [[nodiscard]] const std::optional<Sighting>& get() const noexcept { return lowest_; }

 private:
  std::optional<Sighting> lowest_;
};

// What a count of a group's messages finds beside their numbers.
struct Findings {
  Lowest ready, in_flight;
  std::vector<bool> holders;  // by participant entry + 1
};

// Since a message was handed out or its lease was last extended, to 16 ms.
std::chrono::nanoseconds held_for(const shm::Lease& lease, const TickTime& time,
                                  std::uint32_t lease_ticks) noexcept {
  const std::uint64_t began = time.moment_of(lease.deadline) - lease_ticks - 1;
  // Extended beyond the group's lease: seems to begin in the future.
  const std::uint64_t ticks = began < time.now ? time.now - began : 0;
  return std::chrono::nanoseconds{ticks << base::tick_shift};
}

// The time in the record, else what the lease says, else nothing: no clock is read for it when a
// message is published, handed out or settled.
OldestMessage age_of(const shm::Segment& segment, std::uint32_t index, const Sighting& sighting,
                     const TickTime& time) {
  OldestMessage oldest{.seq = {sighting.seq}};
  const auto published =
      sighting.straggler == not_a_straggler
          ? read_publish_time(segment, sighting.seq)
          : read_straggler_publish_time(segment, index, sighting.straggler, sighting.seq);
  const std::uint64_t now = base::clock->realtime_ns();
  if (published) {
    // The clock may have been set back since.
    oldest.age = std::chrono::nanoseconds{*published < now ? now - *published : 0};
    oldest.basis = AgeBasis::publish_time;
  } else if (sighting.lease.state == shm::LeaseState::leased && sighting.lease.deadline != 0) {
    const std::uint64_t lease_ns = sync::load_relaxed(segment.group(index).lease_ns);
    // A deadline is rounded up: a tick less is what is certain.
    constexpr std::chrono::nanoseconds tick{std::int64_t{1} << base::tick_shift};
    oldest.age = std::max(held_for(sighting.lease, time, base::ticks_of(lease_ns)), tick) - tick;
    oldest.basis = AgeBasis::hand_out;
  }
  return oldest;
}

// Seqs of [from, to) without a message: a durable queue that was rebuilt after a loss of power has
// some, and nobody waits for them.
std::uint64_t count_voids(const shm::Segment& segment, std::uint64_t from, std::uint64_t to) {
  const shm::Limits& limits = segment.limits();
  if (limits.durable == 0) return 0;
  std::uint64_t count = 0;
  to = std::min(to, from + limits.slots);
  for (std::uint64_t seq = from; seq < to; ++seq) {
    std::uint64_t offset = 0;
    const SlotLook look = look_at_slot(segment.slots()[seq & (limits.slots - 1)], seq, offset);
    if (look != SlotLook::there || offset > limits.arena_bytes - sizeof(shm::Record)) continue;
    // relaxed: a figure; a record that is reused meanwhile makes it a little wrong.
    const auto* record = reinterpret_cast<const shm::Record*>(segment.arena() + offset);
    if ((sync::load_relaxed(record->flags) & shm::record_is_void) != 0) ++count;
  }
  return count;
}

// ready + in_flight + delayed = what is published and not settled.
void count_exclusive(const shm::Segment& segment, std::uint32_t index, std::uint64_t next,
                     std::uint64_t tail, bool owned, GroupInfo& info, Findings& findings) {
  const std::uint64_t floor = info.floor.value;
  const std::uint64_t entries = segment.limits().window_entries;
  const TickTime time = time_of_group(segment.group(index), base::coarse_tick_64());
  std::uint64_t settled = 0;
  const std::uint64_t end = floor + std::min<std::uint64_t>(next - floor, entries);
  for (std::uint64_t seq = floor; seq != end; ++seq) {
    const sync::Word16 seen = sync::read_halves(segment.window(index)[seq & (entries - 1)]);
    const shm::Lease lease = shm::unpack_lease(seen.high);
    if (seen.low != seq || lease.state == shm::LeaseState::leased) {
      ++(owned ? info.in_flight : info.ready);
      // The lease is the owner's and says nothing about this message.
      (owned ? findings.in_flight : findings.ready).see({.seq = seq});
    } else if (lease.state == shm::LeaseState::settled) {
      ++settled;
    } else if (due_in_ticks(lease, time) == 0) {
      ++info.ready;
      findings.ready.see({.seq = seq});
    } else {
      ++info.delayed;
    }
  }
  if (tail > end) {
    info.ready += tail - end - count_voids(segment, end, tail);
    findings.ready.see({.seq = end});
  }
  info.consumers_busy = info.in_flight > 0 ? 1 : 0;
  const std::uint64_t passed = floor - info.born.value + settled;
  const std::uint64_t not_acked =
      info.dropped_total + sync::load_relaxed(segment.group(index).discarded_total);
  info.acked_total = passed > not_acked ? passed - not_acked : 0;
}

// One message of a shared group; false: settled.
bool count_lease(const Sighting& sighting, const TickTime& time, GroupInfo& info,
                 Findings& findings) {
  const shm::Lease& lease = sighting.lease;
  switch (lease.state) {
    case shm::LeaseState::leased:
      ++info.in_flight;
      findings.in_flight.see(sighting);
      if (lease.owner < findings.holders.size()) findings.holders[lease.owner] = true;
      return true;
    case shm::LeaseState::dead: ++info.dead; return true;
    case shm::LeaseState::ready:
      if (due_in_ticks(lease, time) == 0) {
        ++info.ready;
        findings.ready.see(sighting);
      } else {
        ++info.delayed;
      }
      return true;
    default: return false;
  }
}

// Calls act(Sighting) for every message of a shared group that was handed out once and is not
// settled: in the window, in the table. Gives how many window entries below the first unclaimed one
// are settled, and that seq.
template <typename Act>
std::pair<std::uint64_t, std::uint64_t> for_each_lease(const shm::Segment& segment,
                                                       std::uint32_t index, std::uint64_t floor,
                                                       Act act) {
  const std::uint64_t entries = segment.limits().window_entries;
  std::uint64_t settled = 0;
  std::uint64_t seq = floor;
  for (; seq != floor + entries; ++seq) {
    const sync::Word16 seen = sync::read_halves(segment.window(index)[seq & (entries - 1)]);
    if (seen.low == seq - entries) break;
    const shm::Lease lease = shm::unpack_lease(seen.high);
    if (seen.low != seq || lease.state == shm::LeaseState::settled) {
      ++settled;
    } else if (lease.state != shm::LeaseState::moved) {
      act(Sighting{.seq = seq, .lease = lease});
    }
  }
  const StragglerTable table{segment, index};
  if (table.any()) {
    for (std::uint32_t i = 0; i < table.size(); ++i) {
      const sync::Word16 seen = table.read(i);
      const shm::Lease lease = shm::unpack_lease(seen.high);
      if (seen.low != shm::straggler_free_seq && !is_reserved(lease.state)) {
        act(Sighting{.seq = seen.low, .straggler = i, .lease = lease});
      }
    }
  }
  return {settled, seq};
}

void count_shared(const shm::Segment& segment, std::uint32_t index, std::uint64_t tail,
                  GroupInfo& info, Findings& findings) {
  const std::uint64_t floor = info.floor.value;
  const TickTime time = time_of_group(segment.group(index), base::coarse_tick_64());
  std::uint64_t passed_and_live = 0;
  const auto [settled, next] = for_each_lease(segment, index, floor, [&](const Sighting& sighting) {
    if (count_lease(sighting, time, info, findings) && sighting.seq < floor) ++passed_and_live;
  });
  if (tail > next) {
    info.ready += tail - next - count_voids(segment, next, tail);
    findings.ready.see({.seq = next});
  }
  info.consumers_busy = static_cast<std::uint32_t>(
      std::count(findings.holders.begin(), findings.holders.end(), true));
  info.stragglers = passed_and_live;
  const StragglerTable table{segment, index};
  info.at_in_flight_limit =
      next - floor >= segment.limits().window_entries && table.in_use() >= table.size();
  const std::uint64_t passed = floor - info.born.value + settled;
  const std::uint64_t not_acked = passed_and_live + info.dropped_total +
                                  sync::load_relaxed(segment.group(index).discarded_total);
  info.acked_total = passed > not_acked ? passed - not_acked : 0;
}

}  // namespace

std::vector<GroupInfo> list_groups(const shm::Segment& segment) {
  std::vector<GroupInfo> groups;
  for (std::uint32_t i = 0; i < segment.limits().max_groups; ++i) {
    const shm::Group& group = segment.group(i);
    const std::uint64_t word = sync::load_acquire(group.word);
    if (shm::group_state(word) != shm::GroupState::active) continue;
    GroupInfo info;
    info.name = group_name(group);
    info.mode = static_cast<GroupMode>(shm::group_mode(word));
    info.incarnation = shm::group_incarnation(word);
    info.created = time_of(sync::load_relaxed(group.created_realtime_ns));
    info.lease = std::chrono::nanoseconds{sync::load_relaxed(group.lease_ns)};
    info.born = {sync::load_relaxed(group.born_seq)};
    const std::uint64_t hint = sync::load_acquire(group.next_hint);
    const sync::Word16 progress = sync::read_halves(group.progress);
    info.floor = {progress.low};
    info.dropped_total = sync::load_relaxed(group.dropped_total);
    info.redelivered_death_total = sync::load_relaxed(group.redelivered_death_total);
    info.redelivered_lease_total = sync::load_relaxed(group.redelivered_lease_total);
    info.redelivered_nack_total = sync::load_relaxed(group.redelivered_nack_total);
    info.redelivered_release_total = sync::load_relaxed(group.redelivered_release_total);
    info.dead_lettered_total = sync::load_relaxed(group.dead_lettered_total);
    info.delivery_limit = sync::load_relaxed(group.delivery_limit);
    info.expire_idle = std::chrono::nanoseconds{
        static_cast<std::int64_t>(sync::load_relaxed(group.expire_idle_ns))};
    info.active_participant = shm::owner_of(progress.high);
    info.ownership_generation = shm::ownership_generation(progress.high);
    const std::uint64_t tail = std::max(find_tail(segment), progress.low);
    Findings findings;
    findings.holders.resize(std::size_t{segment.limits().max_participants} + 1);
    if (info.mode == GroupMode::shared) {
      count_shared(segment, i, tail, info, findings);
    } else {
      constexpr std::uint64_t mask = shm::next_hint_seq_mask;
      std::uint64_t next = progress.low + (((hint & mask) - (progress.low & mask)) & mask);
      // A hint that lies behind the floor (it moves after it) widens to nearly 2^48: nothing in
      // flight.
      if (next > tail) next = progress.low;
      count_exclusive(segment, i, next, tail, info.active_participant != shm::owner_none, info,
                      findings);
    }
    const TickTime time = time_of_group(group, base::coarse_tick_64());
    if (const auto& lowest = findings.ready.get()) {
      info.oldest_ready = age_of(segment, i, *lowest, time);
    }
    if (const auto& lowest = findings.in_flight.get()) {
      info.oldest_in_flight = age_of(segment, i, *lowest, time);
    }
    for (std::uint32_t p = 0; p < segment.limits().max_participants; ++p) {
      const shm::Participant& entry = segment.participant(p);
      if (shm::participant_state(sync::load_acquire(entry.word)) == shm::ParticipantState::alive &&
          sync::load_relaxed(entry.group_word) == ((info.incarnation << 16) | (i + 1))) {
        ++info.consumers;
      }
    }
    if (sync::load_acquire(group.word) == word) groups.push_back(std::move(info));
  }
  return groups;
}

namespace {

// Who has what in flight, by participant entry.
using Holdings = std::vector<std::vector<HeldMessage>>;

void collect_holdings(const shm::Segment& segment, std::uint32_t index, Holdings& holdings) {
  const shm::Group& group = segment.group(index);
  if (!is_active_shared(sync::load_acquire(group.word))) return;
  const TickTime time = time_of_group(group, base::coarse_tick_64());
  const std::uint32_t lease_ticks = base::ticks_of(sync::load_relaxed(group.lease_ns));
  const std::uint64_t floor = sync::load_acquire(group.progress.low);
  for_each_lease(segment, index, floor, [&](const Sighting& sighting) {
    const shm::Lease& lease = sighting.lease;
    if (lease.state != shm::LeaseState::leased || lease.owner == 0 ||
        lease.owner > holdings.size()) {
      return;
    }
    HeldMessage held{.seq = {sighting.seq}, .hand_outs = lease.hand_outs};
    if (lease.deadline != 0) {
      held.expired = due_in_ticks(lease, time) == 0;
      held.held_for = held_for(lease, time, lease_ticks);
    }
    holdings[lease.owner - 1].push_back(held);
  });
}

}  // namespace

namespace {

// What its owner wrote at the attach; it stays until the entry is taken again.
ParticipantInfo identity_of(const shm::Participant& entry, std::uint32_t number,
                            std::uint64_t word) {
  ParticipantInfo info;
  info.entry = number;
  info.generation = shm::participant_generation(word);
  info.role = static_cast<Role>(shm::participant_role(word) & ~shm::participant_died);
  char name[shm::name_field_bytes];
  std::memcpy(name, entry.name, sizeof(name));
  name[sizeof(name) - 1] = '\0';
  info.name = name;
  info.pid = sync::load_relaxed(entry.pid);
  info.messages_total = sync::load_relaxed(entry.messages_total);
  info.bytes_total = sync::load_relaxed(entry.bytes_total);
  info.attached = time_of(sync::load_relaxed(entry.attached_realtime_ns));
  return info;
}

}  // namespace

std::vector<ParticipantInfo> list_former_participants(const shm::Segment& segment) {
  std::vector<ParticipantInfo> former;
  for (std::uint32_t i = 0; i < segment.limits().max_participants; ++i) {
    const shm::Participant& entry = segment.participant(i);
    const std::uint64_t word = sync::load_acquire(entry.word);
    if (shm::participant_state(word) != shm::ParticipantState::free || word == 0) continue;
    ParticipantInfo info = identity_of(entry, i, word);
    info.died = (shm::participant_role(word) & shm::participant_died) != 0;
    // Taken again meanwhile: what was read may be the successor's.
    if (sync::load_acquire(entry.word) == word) former.push_back(std::move(info));
  }
  return former;
}

std::vector<ParticipantInfo> list_participants(const shm::Segment& segment) {
  std::vector<std::uint32_t> owned_chunks(segment.limits().max_participants + 1);
  for (std::uint32_t i = 0; i < segment.limits().chunks; ++i) {
    const std::uint64_t word = sync::load_relaxed(segment.chunk(i).high);
    const std::uint32_t owner = shm::chunk_owner(word);
    const shm::ChunkState state = shm::chunk_state(word);
    if ((state == shm::ChunkState::open || state == shm::ChunkState::gathering) &&
        owner < owned_chunks.size()) {
      ++owned_chunks[owner];
    }
  }
  const std::vector<GroupInfo> groups = list_groups(segment);
  Holdings holdings(segment.limits().max_participants);
  for (std::uint32_t i = 0; i < segment.limits().max_groups; ++i) {
    collect_holdings(segment, i, holdings);
  }
  std::vector<ParticipantInfo> participants;
  for (std::uint32_t i = 0; i < segment.limits().max_participants; ++i) {
    const shm::Participant& entry = segment.participant(i);
    const std::uint64_t word = sync::load_acquire(entry.word);
    if (shm::participant_state(word) == shm::ParticipantState::free) continue;
    ParticipantInfo info = identity_of(entry, i, word);
    info.alive = shm::participant_state(word) == shm::ParticipantState::alive &&
                 segment.lock_is_held(shm::lock_byte_participant_0 + i);
    info.chunks_owned = owned_chunks[i + 1];
    if (const std::uint64_t since = sync::load_relaxed(entry.asleep_since_ms); since != 0) {
      const std::uint64_t now = base::clock->coarse_ns() / 1'000'000;
      info.asleep_for = std::chrono::milliseconds{since < now ? now - since : 0};
    }
    for (const std::uint64_t& pin : entry.pins) {
      const std::uint64_t value = sync::load_relaxed(pin);
      if ((value & shm::pin_chunk_mask) != 0 &&
          (value >> 44) == (info.generation & shm::pin_generation_mask)) {
        info.chunks_pinned += (value >> shm::pin_chunk_bits) & shm::pin_chunk_mask;
      }
    }
    const std::uint64_t group_word = sync::load_relaxed(entry.group_word);
    const std::uint64_t index = (group_word & 0xffff) - 1;
    if (info.role == Role::consumer && group_word != 0 && index < segment.limits().max_groups) {
      const shm::Group& group = segment.group(static_cast<std::uint32_t>(index));
      info.group = group_name(group);
      if (is_active_shared(sync::load_acquire(group.word))) {
        info.active = true;
        info.held = std::move(holdings[i]);
        std::sort(info.held.begin(), info.held.end(),
                  [](const HeldMessage& a, const HeldMessage& b) { return a.seq < b.seq; });
        info.in_flight = info.held.size();
        participants.push_back(std::move(info));
        continue;
      }
      info.active = shm::owner_of(sync::load_acquire(group.progress.high)) == i + 1;
      for (const GroupInfo& each : groups) {
        if (info.active && each.active_participant == i + 1 && each.name == info.group) {
          info.in_flight = each.in_flight;
        }
      }
    }
    participants.push_back(std::move(info));
  }
  return participants;
}

}  // namespace shmq::queue
