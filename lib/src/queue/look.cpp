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
#include "queue/stragglers.hpp"
#include "sync/racy_copy.hpp"

namespace shmq::queue {

std::chrono::system_clock::time_point time_of(std::uint64_t realtime_ns) noexcept {
  return std::chrono::system_clock::time_point{
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::chrono::nanoseconds{realtime_ns})};
}

namespace {

enum class Copy : std::uint8_t { done, gone, is_void, end, corrupt };

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
    record.resize(view.end - view.offset);
    sync::racy_copy(record.data(), bytes, record.size());
  }
  // [V1] full fence, pairs with K0: the copy first, then the look at head.
  sync::full_fence();
  if (!base::mutant(12) && static_cast<std::int64_t>(read_head(segment) - seq) > 0) {
    return Copy::gone;
  }
  if (!plausible) return Copy::corrupt;
  if ((view.flags & shm::record_is_void) != 0) return Copy::is_void;
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

// The publish time of what seems to be the record of `seq` at `offset`; to be believed only if the
// record is still where it was afterwards.
std::optional<std::uint64_t> copy_publish_time(const shm::Segment& segment, std::uint64_t offset,
                                               std::uint64_t seq) {
  RecordView view;
  if (!view_record(segment.arena(), segment.limits().arena_bytes, offset, seq, view) ||
      (view.flags & shm::record_has_publish_time) == 0) {
    return std::nullopt;
  }
  std::uint64_t realtime_ns = 0;
  sync::racy_copy(reinterpret_cast<std::byte*>(&realtime_ns),
                  segment.arena() + view.offset + sizeof(shm::Record), sizeof(realtime_ns));
  return realtime_ns;
}

}  // namespace

std::optional<std::uint64_t> read_publish_time(const shm::Segment& segment, std::uint64_t seq) {
  std::uint64_t offset = 0;
  if (look_at_slot(segment.slots()[seq & (segment.limits().slots - 1)], seq, offset) !=
      SlotLook::there) {
    return std::nullopt;
  }
  const auto published = copy_publish_time(segment, offset, seq);
  // [V1] full fence, pairs with K0, as in copy_message.
  sync::full_fence();
  if (static_cast<std::int64_t>(read_head(segment) - seq) > 0) return std::nullopt;
  return published;
}

std::optional<std::uint64_t> read_straggler_publish_time(const shm::Segment& segment,
                                                         std::uint32_t group, std::uint32_t entry,
                                                         std::uint64_t seq) {
  const StragglerTable table{segment, group};
  const std::uint64_t place = table.place(entry);
  const auto published =
      copy_publish_time(segment, (place & shm::ref_mask) << shm::ref_unit_shift, seq);
  // [V2] full fence, pairs with K5: the copy first, then the look whether the entry, which keeps
  // the chunk from being used again, still is this message's and the record still lies there.
  sync::full_fence();
  if (table.read(entry).low != seq || table.place(entry) != place) return std::nullopt;
  return published;
}

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
      case Copy::is_void: ++seq; continue;
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
  info.visible = static_cast<Visible>(limits.visible);
  info.retention = {
      .age = std::chrono::nanoseconds{static_cast<std::int64_t>(limits.retain_age_ns)},
      .bytes = limits.retain_bytes,
      .messages = limits.retain_messages};
  info.max_disk_bytes = limits.max_disk_bytes;
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
    if (state == shm::ChunkState::open || state == shm::ChunkState::gathering) {
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

}  // namespace shmq::queue
