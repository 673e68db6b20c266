// SPDX-License-Identifier: Apache-2.0
#include "queue/publisher.hpp"

#include <algorithm>
#include <cstring>

#include "base/mutant.hpp"
#include "queue/groups.hpp"
#include "queue/head.hpp"
#include "queue/shared_group.hpp"

namespace shmq::queue {

Publisher::Publisher(std::shared_ptr<shm::Segment> segment, std::byte* arena, std::uint32_t owner,
                     std::uint64_t generation)
    : segment_(std::move(segment)),
      control_(segment_->control()),
      slots_(segment_->slots()),
      slot_count_(segment_->limits().slots),
      arena_(arena),
      self_(owner - 1),
      guess_(sync::load_acquire(control_.tail_hint)),
      chunks_(*segment_, arena, owner, generation) {
  see_head(read_head(*segment_));
}

// A seq at or above the ceiling might be given out again after a power loss. In a ring that was
// made larger when the queue was rebuilt, that is nearer than the ring's end.
void Publisher::see_head(std::uint64_t head) noexcept {
  seen_head_ = head;
  room_ = slot_count_;
  if (segment_->limits().durable == 0 || base::mutant(76)) return;
  const shm::Mark* mark = segment_->mark();
  // acquire: what is below is on stable storage. It only grows: an old value is merely too low.
  const std::uint64_t ceiling = mark != nullptr ? sync::load_acquire(mark->seq_ceiling) : 0;
  room_ = ceiling > head ? std::min(slot_count_, ceiling - head) : 0;
}

bool Publisher::find_room(std::uint64_t& guess) noexcept {
  // Cheap first: somebody may have moved head already.
  see_head(read_head(*segment_));
  // Unsigned distance: a guess below head was lapped and is guessed again, not waited on.
  if (static_cast<std::int64_t>(guess - seen_head_) < 0) {
    guess = std::max(seen_head_, sync::load_acquire(control_.tail_hint));
  }
  if (guess - seen_head_ < room_) return true;
  advance_floors(*segment_, self_);
  see_head(refresh_head(*segment_));
  return guess - seen_head_ < room_;
}

bool Publisher::has_slot() noexcept {
  guess_ = std::max(guess_, find_tail(*segment_));
  return find_room(guess_);
}

Attempt Publisher::try_publish(std::byte* place, std::uint32_t chunk, std::uint64_t& seq) noexcept {
  auto* record = reinterpret_cast<shm::Record*>(place);
  const std::uint64_t ref = static_cast<std::uint64_t>(place - arena_) >> shm::ref_unit_shift;
  std::uint64_t guess = guess_;
  bool asked = false;
  // Each turn that does not publish walks over a message of somebody else; more turns than a
  // thousand laps is a ring whose stamps contradict each other.
  for (std::uint64_t turn = 0; turn < slot_count_ * 1024; ++turn) {
    if (SHMQ_UNLIKELY(guess - seen_head_ >= room_) && !find_room(guess)) {
      guess_ = guess;
      return Attempt::no_room;
    }
    sync::Word16& slot = slots_[guess & (slot_count_ - 1)];
    // [P1] acquire: the ref that belongs to this stamp; a torn pair fails the CAS.
    const sync::Word16 seen = sync::read_halves(slot);
    const auto ahead = static_cast<std::int64_t>(seen.low - guess);
    if (ahead >= 0) {  // taken, or lapped: go on behind it
      guess = seen.low + 1;
      // Others were busy, maybe for a time slice: the hint saves the walk over all of it. Only if
      // the message before it is there, since a damaged one may lie anywhere.
      if (!asked) {
        const std::uint64_t hint = sync::load_acquire(control_.tail_hint);
        const bool honest =
            sync::load_acquire(slots_[(hint - 1) & (slot_count_ - 1)].low) == hint - 1;
        if (honest && static_cast<std::int64_t>(hint - guess) > 0) guess = hint;
      }
      asked = true;
      continue;
    }
    if (SHMQ_UNLIKELY(seen.low != guess - slot_count_)) {
      // The guess lies beyond the tail, which no honest hint does: walk on from head.
      if (guess == seen_head_) return Attempt::corrupt;
      guess = seen_head_;
      continue;
    }
    // [P2] relaxed: nobody can see the record yet; P3 releases it.
    sync::store_relaxed(record->seq, guess);
    SHMQ_CRASH_POINT("publish.before_stamp");
    // [P3] seq_cst CAS, pairs with C0 (poll): payload, header and seq are whole once the stamp is
    // there; and a full barrier for the look at the sleepers [W1].
    // Dies before: nothing was published. Dies after: published, tail hint stale.
    if (sync::compare_and_swap(slot, seen, {guess, ref})) {
      SHMQ_CRASH_POINT("publish.after_stamp");
      seq = guess;
      guess_ = guess + 1;
      chunks_.note_published(chunk, guess);
      // Every 64th: the others walk at most that far. Not at all would be correct, too.
      if (SHMQ_UNLIKELY((guess & 63) == 63)) move_hint();
      return Attempt::published;
    }
  }
  return Attempt::corrupt;
}

void Publisher::move_hint() noexcept {
  const std::uint64_t hint = sync::load_relaxed(control_.tail_hint);
  // [P4] seq_cst CAS-max, one try: dying before it, or losing it, is harmless.
  if (static_cast<std::int64_t>(guess_ - hint) > 0) {
    sync::compare_and_swap(control_.tail_hint, hint, guess_);
  }
}

// --- Records -----------------------------------------------------------------------------------

bool shape_record(std::size_t payload_bytes, std::span<const Attribute> attributes,
                  bool publish_time, RecordShape& shape) noexcept {
  std::size_t attribute_bytes = 0;
  for (const Attribute& attribute : attributes) {
    if (attribute.key.size() > UINT8_MAX || attribute.value.size() > UINT16_MAX) return false;
    attribute_bytes += 3 + attribute.key.size() + attribute.value.size();
  }
  if (attribute_bytes > UINT16_MAX || payload_bytes > UINT32_MAX / 2) return false;
  std::size_t offset = sizeof(shm::Record) + (publish_time ? sizeof(std::uint64_t) : 0);
  offset += (attribute_bytes + 7) & ~std::size_t{7};
  shape.payload_bytes = static_cast<std::uint32_t>(payload_bytes);
  shape.attribute_bytes = static_cast<std::uint16_t>(attribute_bytes);
  shape.flags = publish_time ? shm::record_has_publish_time : 0;
  shape.payload_offset = static_cast<std::uint32_t>(offset);
  return true;
}

void write_record_head(std::byte* place, const RecordShape& shape,
                       std::span<const Attribute> attributes,
                       std::uint64_t publish_time_ns) noexcept {
  auto* record = reinterpret_cast<shm::Record*>(place);
  record->payload_bytes = shape.payload_bytes;
  record->attribute_bytes = shape.attribute_bytes;
  record->flags = shape.flags;
  std::byte* cursor = place + sizeof(shm::Record);
  if ((shape.flags & shm::record_has_publish_time) != 0) {
    std::memcpy(cursor, &publish_time_ns, sizeof(publish_time_ns));
    cursor += sizeof(publish_time_ns);
  }
  for (const Attribute& attribute : attributes) {
    const auto key_bytes = static_cast<std::uint8_t>(attribute.key.size());
    const auto value_bytes = static_cast<std::uint16_t>(attribute.value.size());
    std::memcpy(cursor, &key_bytes, 1);
    std::memcpy(cursor + 1, &value_bytes, 2);
    if (key_bytes != 0) std::memcpy(cursor + 3, attribute.key.data(), key_bytes);
    if (value_bytes != 0) std::memcpy(cursor + 3 + key_bytes, attribute.value.data(), value_bytes);
    cursor += std::size_t{3} + key_bytes + value_bytes;
  }
}

// --- Dropping ----------------------------------------------------------------------------------

bool drop_oldest(const shm::Segment& segment, std::uint32_t self, bool for_arena) {
  advance_floors(segment, self);
  const std::uint64_t head = refresh_head(segment);
  std::uint64_t floor = 0;
  if (for_arena) {
    // Up to the last seq of the oldest chunk that nobody holds: then it is free.
    std::vector<std::uint64_t> pinned((segment.limits().chunks + 63) / 64);
    sync::full_fence();
    mark_pinned_chunks(segment, pinned);
    bool found = false;
    std::uint64_t oldest = ~std::uint64_t{0};
    for (std::uint32_t i = 0; i < segment.limits().chunks; ++i) {
      const sync::Word16 chunk = sync::read_halves(segment.chunk(i));
      if (shm::chunk_state(chunk.high) != shm::ChunkState::sealed) continue;
      if (((pinned[i / 64] >> (i % 64)) & 1) != 0) continue;
      if (chunk.low < head) return true;  // free already: another made room
      if (chunk.low < oldest) oldest = chunk.low;
      found = true;
    }
    if (!found) return false;
    floor = oldest + 1;
  } else {
    // Slots are what is missing, not memory: an eighth of the ring, so that the cost of a drop is
    // spread; a whole chunk may hold as many small messages as the ring has slots.
    floor = head + std::max<std::uint64_t>(1, segment.limits().slots / 8);
  }
  const std::uint64_t tail = find_tail(segment);
  if (static_cast<std::int64_t>(floor - tail) > 0) floor = tail;
  // Dropping what is not durable yet frees nothing: full. A chunk is free as a whole or not at all.
  const std::uint64_t bound = bound_of_head(segment);
  if (floor > bound && for_arena) return false;
  floor = std::min(floor, bound);
  if (static_cast<std::int64_t>(floor - head) <= 0) return false;
  drop_below(segment, self, floor, Drop::oldest);
  return read_head(segment) != head;
}

}  // namespace shmq::queue
