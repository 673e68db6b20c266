// SPDX-License-Identifier: Apache-2.0
//
// Finding a message: from its slot to checked bounds in private memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <shmq/options.hpp>
#include <vector>

#include "base/assert.hpp"
#include "shm/segment.hpp"

namespace shmq::queue {

/// Where a record lies and what it holds; every offset lies within the arena.
struct RecordView {
  std::uint64_t offset = 0;          // of the record in the arena
  std::uint64_t end = 0;             // just behind it
  std::uint64_t payload_offset = 0;  // in the arena
  std::uint32_t payload_bytes = 0;
  std::uint16_t attribute_bytes = 0;
  std::uint16_t flags = 0;
};

enum class SlotLook : std::uint8_t { there, not_yet, lapped };

/// Reads the slot of `seq`: stamp, ref, stamp, because two loads are not one and {old stamp, new
/// ref} does happen.
inline SlotLook look_at_slot(const sync::Word16& slot, std::uint64_t seq,
                             std::uint64_t& offset) noexcept {
  // [C0] acquire, pairs with P3: the record is whole once stamp == seq.
  const std::uint64_t stamp = sync::load_acquire(slot.low);
  if (stamp != seq) {
    return static_cast<std::int64_t>(stamp - seq) < 0 ? SlotLook::not_yet : SlotLook::lapped;
  }
  const std::uint64_t ref = sync::load_acquire(slot.high);
  if (sync::load_relaxed(slot.low) != seq) return SlotLook::lapped;  // ordered by the acquire above
  offset = (ref & shm::ref_mask) << shm::ref_unit_shift;
  return SlotLook::there;
}

/// Reads each field of the header once and checks it. False: the bytes contradict each other.
inline bool view_record(const std::byte* arena, std::uint64_t arena_bytes, std::uint64_t offset,
                        std::uint64_t seq, RecordView& view) noexcept {
  if (offset > arena_bytes - sizeof(shm::Record)) return false;
  const auto* record = reinterpret_cast<const shm::Record*>(arena + offset);
  if (sync::load_relaxed(record->seq) != seq) return false;
  const std::uint32_t payload_bytes = sync::load_relaxed(record->payload_bytes);
  const std::uint16_t attribute_bytes = sync::load_relaxed(record->attribute_bytes);
  const std::uint16_t flags = sync::load_relaxed(record->flags);
  if ((flags & ~shm::record_known_flags) != 0) return false;
  std::uint64_t payload = offset + sizeof(shm::Record);
  if (SHMQ_UNLIKELY(flags != 0)) payload += 8ULL * static_cast<unsigned>(__builtin_popcount(flags));
  if (SHMQ_UNLIKELY(attribute_bytes != 0)) payload += (attribute_bytes + 7U) & ~7ULL;
  const std::uint64_t end = payload + payload_bytes;
  if (end > arena_bytes) return false;
  view = {offset, end, payload, payload_bytes, attribute_bytes, flags};
  return true;
}

/// The attributes of a record whose payload begins `head_bytes` behind it; what does not fit into
/// that room is left out.
std::vector<Attribute> parse_attributes(const std::byte* record, std::uint32_t head_bytes);

}  // namespace shmq::queue
