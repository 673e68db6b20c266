// SPDX-License-Identifier: Apache-2.0
#include "queue/look.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "queue/chunks.hpp"
#include "queue/groups.hpp"
#include "queue/head.hpp"
#include "queue/record_view.hpp"

namespace shmq::queue {
namespace {

std::chrono::system_clock::time_point time_of(std::uint64_t realtime_ns) {
  return std::chrono::system_clock::time_point{
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::chrono::nanoseconds{realtime_ns})};
}

enum class Copy : std::uint8_t { done, gone, end, corrupt };

// A copy without lease or pin: copy, fence, then see that head has not passed the message and that
// the record still says so.
Copy copy_message(const shm::Segment& segment, std::uint64_t seq, PeekedMessage& message) {
  const shm::Limits& limits = segment.limits();
  std::uint64_t offset = 0;
  switch (look_at_slot(segment.slots()[seq & (limits.slots - 1)], seq, offset)) {
    case SlotLook::not_yet: return Copy::end;
    case SlotLook::lapped: return Copy::gone;
    case SlotLook::there: break;
  }
  RecordView view;
  const bool plausible = view_record(segment.arena(), limits.arena_bytes, offset, seq, view);
  std::vector<std::byte> record;
  SHMQ_CRASH_POINT("peek.before_copy");
  if (plausible) {
    const std::byte* bytes = segment.arena() + view.offset;
    record.assign(bytes, bytes + (view.end - view.offset));
  }
  // [V1] full fence, pairs with K0: the copy first, then the look at head.
  sync::full_fence();
  if (!base::mutant(12) && static_cast<std::int64_t>(read_head(segment) - seq) > 0) {
    return Copy::gone;
  }
  if (!plausible) return Copy::corrupt;
  const auto head_bytes = static_cast<std::uint32_t>(view.payload_offset - view.offset);
  message.seq = {seq};
  message.payload.assign(record.begin() + head_bytes, record.end());
  message.publish_time.reset();
  if ((view.flags & shm::record_has_publish_time) != 0) {
    std::uint64_t ns = 0;
    std::memcpy(&ns, record.data() + sizeof(shm::Record), sizeof(ns));
    message.publish_time = time_of(ns);
  }
  message.attributes.clear();
  for (const Attribute& attribute : parse_attributes(record.data(), head_bytes)) {
    message.attributes.emplace_back(attribute.key, attribute.value);
  }
  return Copy::done;
}

}  // namespace

std::vector<Attribute> parse_attributes(const std::byte* record, std::uint32_t head_bytes) {
  const auto* header = reinterpret_cast<const shm::Record*>(record);
  const std::uint32_t begin =
      static_cast<std::uint32_t>(sizeof(shm::Record)) +
      8U * static_cast<std::uint32_t>(std::popcount(sync::load_relaxed(header->flags)));
  const std::uint32_t end =
      std::min<std::uint32_t>(begin + sync::load_relaxed(header->attribute_bytes), head_bytes);
  std::vector<Attribute> attributes;
  for (std::uint32_t at = begin; at + 3 <= end;) {
    std::uint8_t key_bytes = 0;
    std::uint16_t value_bytes = 0;
    std::memcpy(&key_bytes, record + at, 1);
    std::memcpy(&value_bytes, record + at + 1, 2);
    if (at + 3U + key_bytes + value_bytes > end) break;
    const char* text = reinterpret_cast<const char*>(record + at + 3);
    attributes.push_back({{text, key_bytes}, {text + key_bytes, value_bytes}});
    at += 3U + key_bytes + value_bytes;
  }
  return attributes;
}

Result<std::vector<PeekedMessage>> peek(const shm::Segment& segment, std::uint64_t from,
                                        std::size_t max_messages) {
  std::vector<PeekedMessage> messages;
  std::uint64_t seq = std::max(from, read_head(segment));
  std::uint64_t skipped = 0;
  while (messages.size() < max_messages) {
    PeekedMessage message;
    switch (copy_message(segment, seq, message)) {
      case Copy::done:
        messages.push_back(std::move(message));
        ++seq;
        continue;
      case Copy::gone:
        // Settled while we looked. What follows a gap would not be "from seq on".
        if (!messages.empty() || ++skipped > 1'000'000) return messages;
        seq = std::max(seq + 1, read_head(segment));
        continue;
      case Copy::end: return messages;
      case Copy::corrupt:
        return tl::unexpected(Error{make_error_code(Errc::corrupt), segment.describe("peek into"),
                                    "message " + std::to_string(seq) + " is damaged", ""});
    }
  }
  return messages;
}

QueueInfo describe_queue(const shm::Segment& segment) {
  const shm::Header& header = segment.header();
  const shm::Limits& limits = header.limits;
  QueueInfo info;
  info.name = segment.queue();
  info.name_space = segment.name_space();
  std::copy_n(header.uuid, 16, info.uuid.begin());
  info.abi_version = header.abi_version;
  info.owner = segment.owner();
  info.owner_group = segment.owner_group();
  info.mode = segment.mode();
  info.segment_bytes = header.segment_bytes;
  info.slots = limits.slots;
  info.arena_bytes = limits.arena_bytes;
  info.max_message_bytes = limits.max_message_bytes;
  info.chunk_bytes = limits.chunk_bytes;
  info.max_groups = limits.max_groups;
  info.max_participants = limits.max_participants;
  info.max_producers = limits.max_producers;
  info.window_entries = limits.window_entries;
  info.straggler_entries = limits.straggler_entries;
  info.overflow = static_cast<Overflow>(limits.overflow);
  info.durable = limits.durable != 0;
  info.created = time_of(header.created_realtime_ns);
  return info;
}

QueueStats read_stats(const shm::Segment& segment) {
  QueueStats stats;
  // Floors move before head, and head moves only when room is needed: what no group wants any more
  // is not held, whatever head says.
  std::uint64_t head = read_head(segment);
  stats.head = {head};
  stats.tail = {std::max(find_tail(segment), head)};
  stats.messages_held = stats.tail.value - head;
  stats.dropped_total = sync::load_relaxed(segment.control().dropped_total);
  std::vector<std::uint64_t> pinned((segment.limits().chunks + 63) / 64);
  mark_pinned_chunks(segment, pinned);
  for (const std::uint64_t bits : pinned) {
    stats.chunks_pinned += static_cast<std::uint64_t>(std::popcount(bits));
  }
  stats.chunks_total = segment.limits().chunks;
  for (std::uint32_t i = 0; i < segment.limits().chunks; ++i) {
    const sync::Word16 chunk = sync::read_halves(segment.chunk(i));
    const shm::ChunkState state = shm::chunk_state(chunk.high);
    const bool pinned_now = ((pinned[i / 64] >> (i % 64)) & 1) != 0;
    if (state == shm::ChunkState::open) {
      ++stats.chunks_open;
    } else if (state == shm::ChunkState::sealed && (chunk.low >= head || pinned_now)) {
      ++stats.chunks_sealed;
    } else {
      ++stats
            .chunks_free;  // sealed, but passed and pinned by nobody: the next producer may take it
    }
  }
  for (std::uint32_t i = 0; i < segment.limits().max_participants; ++i) {
    const std::uint64_t word = sync::load_acquire(segment.participant(i).word);
    if (shm::participant_state(word) != shm::ParticipantState::alive) continue;
    const auto role = static_cast<Role>(shm::participant_role(word));
    stats.producers += role == Role::producer ? 1 : 0;
    stats.consumers += role == Role::consumer ? 1 : 0;
  }
  for (std::uint32_t i = 0; i < segment.limits().max_groups; ++i) {
    const std::uint64_t word = sync::load_acquire(segment.group(i).word);
    stats.groups += shm::group_state(word) == shm::GroupState::active ? 1 : 0;
  }
  return stats;
}

namespace {

// ready + in_flight + delayed = what is published and not settled.
void count_states(const shm::Segment& segment, std::uint32_t index, std::uint64_t next,
                  std::uint64_t tail, bool owned, GroupInfo& info) {
  const std::uint64_t floor = info.floor.value;
  const std::uint64_t entries = segment.limits().window_entries;
  const std::uint32_t now = base::coarse_tick();
  std::uint64_t settled = 0;
  const std::uint64_t end = floor + std::min<std::uint64_t>(next - floor, entries);
  for (std::uint64_t seq = floor; seq != end; ++seq) {
    const sync::Word16 seen = sync::read_halves(segment.window(index)[seq & (entries - 1)]);
    const shm::Lease lease = shm::unpack_lease(seen.high);
    if (seen.low != seq || lease.state == shm::LeaseState::leased) {
      ++(owned ? info.in_flight : info.ready);
    } else if (lease.state == shm::LeaseState::settled) {
      ++settled;
    } else if (base::tick_is_past(lease.deadline, now, base::tick_mask / 2)) {
      ++info.ready;
    } else {
      ++info.delayed;
    }
  }
  info.ready += tail > end ? tail - end : 0;
  const std::uint64_t passed = floor - info.born.value + settled;
  info.acked_total = passed > info.dropped_total ? passed - info.dropped_total : 0;
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
    info.dead = sync::load_relaxed(group.dead_messages);
    info.active_participant = shm::owner_of(progress.high);
    info.ownership_generation = shm::ownership_generation(progress.high);
    const std::uint64_t tail = std::max(find_tail(segment), progress.low);
    constexpr std::uint64_t mask = (1ULL << 48) - 1;
    std::uint64_t next = progress.low + (((hint & mask) - (progress.low & mask)) & mask);
    // A hint that lies behind the floor (it moves after it) widens to nearly 2^48: nothing in
    // flight.
    if (next > tail) next = progress.low;
    count_states(segment, i, next, tail, info.active_participant != shm::owner_none, info);
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

std::vector<ParticipantInfo> list_participants(const shm::Segment& segment) {
  std::vector<std::uint32_t> owned_chunks(segment.limits().max_participants + 1);
  for (std::uint32_t i = 0; i < segment.limits().chunks; ++i) {
    const std::uint64_t word = sync::load_relaxed(segment.chunk(i).high);
    const std::uint32_t owner = shm::chunk_owner(word);
    if (shm::chunk_state(word) == shm::ChunkState::open && owner < owned_chunks.size()) {
      ++owned_chunks[owner];
    }
  }
  const std::vector<GroupInfo> groups = list_groups(segment);
  std::vector<ParticipantInfo> participants;
  for (std::uint32_t i = 0; i < segment.limits().max_participants; ++i) {
    const shm::Participant& entry = segment.participant(i);
    const std::uint64_t word = sync::load_acquire(entry.word);
    if (shm::participant_state(word) == shm::ParticipantState::free) continue;
    ParticipantInfo info;
    info.entry = i;
    info.generation = shm::participant_generation(word);
    info.role = static_cast<Role>(shm::participant_role(word));
    char name[shm::name_field_bytes];
    std::memcpy(name, entry.name, sizeof(name));
    name[sizeof(name) - 1] = '\0';
    info.name = name;
    info.pid = sync::load_relaxed(entry.pid);
    info.alive = shm::participant_state(word) == shm::ParticipantState::alive &&
                 segment.lock_is_held(shm::lock_byte_participant_0 + i);
    info.messages_total = sync::load_relaxed(entry.messages_total);
    info.bytes_total = sync::load_relaxed(entry.bytes_total);
    info.attached = time_of(sync::load_relaxed(entry.attached_realtime_ns));
    info.chunks_owned = owned_chunks[i + 1];
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
