// SPDX-License-Identifier: Apache-2.0
//
// Publish: payload first, then one CAS.
//
// Invariants:
//  1. A message exists from the CAS [P3] on; before it nothing of it can be seen, after it all.
//  2. Whoever dies or stops here delays nobody: there is no claimed-but-unwritten state.
//  3. A seq's slot is taken only when head has passed the seq one lap earlier; on a durable queue,
//     below the ceiling that is on stable storage alone.
// Progress: lock-free; a failed CAS means that another producer's message was published.
#pragma once

#include <cstring>
#include <shmq/producer.hpp>
#include <span>

#include "queue/chunks.hpp"
#include "queue/participants.hpp"
#include "sync/event.hpp"

namespace shmq::queue {

/// What one try to publish a finished record came to.
enum class Attempt : std::uint8_t { published, no_room, corrupt };

class Publisher {
 public:
  Publisher(std::shared_ptr<shm::Segment> segment, std::byte* arena, std::uint32_t owner,
            std::uint64_t generation);

  /// One CAS on the slot of the first free seq. On `published`, `seq` is set; wakes nobody.
  /// `chunk`: the index of the chunk that the record lies in.
  Attempt try_publish(std::byte* place, std::uint32_t chunk, std::uint64_t& seq) noexcept;

  /// The common case of try_publish, in line, for a record in the current chunk: the guess is right
  /// and there is room. False: nothing happened.
  bool publish_at_guess(std::byte* place) noexcept {
    const std::uint64_t guess = guess_;
    const std::uint64_t slot_count = slot_count_;
    if (SHMQ_UNLIKELY(guess - seen_head_ >= room_)) return false;
    sync::Word16& slot = slots_[guess & (slot_count - 1)];
    // [P1], [P2], [P3], [P4]: as in try_publish.
    const sync::Word16 seen = sync::read_halves(slot);
    if (SHMQ_UNLIKELY(seen.low != guess - slot_count)) return false;
    sync::store_relaxed(reinterpret_cast<shm::Record*>(place)->seq, guess);
    const std::uint64_t ref = static_cast<std::uint64_t>(place - arena_) >> shm::ref_unit_shift;
    if (SHMQ_UNLIKELY(!sync::compare_and_swap(slot, seen, {guess, ref}))) return false;
    guess_ = guess + 1;
    chunks_.note_published_here(guess);
    return true;
  }
  /// After publish_at_guess: every 64th message, so that the others walk at most that far. Not at
  /// all would be correct, too.
  [[nodiscard]] bool hint_is_due() const noexcept { return (guess_ & 63) == 0; }
  /// What publish_at_guess published last.
  [[nodiscard]] std::uint64_t last_published() const noexcept { return guess_ - 1; }

  /// Wakes those who sleep for messages. After try_publish, whose CAS is the barrier that this
  /// needs.
  void notify() noexcept { sync::event_notify(control_.message_event); }
  [[nodiscard]] bool somebody_sleeps() const noexcept {
    return sync::event_has_sleeper(control_.message_event);
  }

  /// Moves the tail hint up to what this producer published last.
  void move_hint() noexcept;

  ProducerChunks& chunks() noexcept { return chunks_; }
  [[nodiscard]] const shm::Segment& segment() const noexcept { return *segment_; }
  [[nodiscard]] bool removed() const noexcept {
    // acquire: nothing hangs on it but the answer; on a line that is read anyway.
    return sync::load_acquire(control_.queue_state) !=
           static_cast<std::uint32_t>(shm::QueueState::active);
  }
  /// Is there room for one more message in the ring? Recomputes head.
  bool has_slot() noexcept;

 private:
  bool find_room(std::uint64_t& guess) noexcept;
  void see_head(std::uint64_t head) noexcept;

  std::shared_ptr<shm::Segment> segment_;
  shm::Control& control_;
  sync::Word16* slots_;
  std::uint64_t slot_count_;
  std::byte* arena_;
  std::uint32_t self_;           // participant entry
  std::uint64_t guess_ = 0;      // of the tail
  std::uint64_t seen_head_ = 0;  // never beyond head
  std::uint64_t room_ = 0;       // seqs from there on that may be given out: at most the ring's
  ProducerChunks chunks_;
};

/// Bytes of the record of such a message, up to and including the payload; and where it starts.
struct RecordShape {
  std::uint32_t payload_bytes;
  std::uint16_t attribute_bytes;
  std::uint16_t flags;
  std::uint32_t payload_offset;
  [[nodiscard]] std::uint64_t total_bytes() const noexcept {
    return std::uint64_t{payload_offset} + payload_bytes;
  }
};

/// False when an attribute or their sum is too long for its field.
bool shape_record(std::size_t payload_bytes, std::span<const Attribute> attributes,
                  bool publish_time, RecordShape& shape) noexcept;
/// Writes all but seq and payload; for a record with neither attributes nor flags.
inline void write_plain_head(std::byte* place, std::uint32_t payload_bytes) noexcept {
  // One store: what the CAS that publishes has to wait for is kept short.
  const std::uint64_t rest = payload_bytes;
  static_assert(offsetof(shm::Record, payload_bytes) + 8 == sizeof(shm::Record));
  std::memcpy(place + offsetof(shm::Record, payload_bytes), &rest, sizeof(rest));
}
/// Writes all but seq and payload.
void write_record_head(std::byte* place, const RecordShape& shape,
                       std::span<const Attribute> attributes,
                       std::uint64_t publish_time_ns) noexcept;

/// Frees room by dropping the oldest messages for every group; false when nothing can be freed.
/// `for_arena`: chunks are what is missing, else slots. `self`: participant entry of the caller.
bool drop_oldest(const shm::Segment& segment, std::uint32_t self, bool for_arena);

}  // namespace shmq::queue
