// SPDX-License-Identifier: Apache-2.0
//
// What consumers of either mode share: from a seq to a record that will stay as it is.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>

#include "base/mutant.hpp"
#include "queue/past.hpp"
#include "queue/pins.hpp"
#include "queue/record_view.hpp"
#include "shm/segment.hpp"

namespace shmq::queue {

/// A message to be handed out.
struct HandOut {
  std::uint64_t seq;
  std::uint64_t payload_offset;  // from the begin of the arena, even to a private copy
  std::uint32_t payload_bytes;
  std::uint32_t head_bytes;  // from the record to the payload
  std::uint32_t pin;
  std::uint16_t hand_outs;
  std::uint8_t failures;
};

enum class Fetch : std::uint8_t {
  some,             // at least one
  nothing,          // nothing there now
  standing_by,      // another consumer is the active one
  held_back,        // a returned message is not due yet
  in_flight_limit,  // the caller, or the group, holds too much
  removed,          // the group is gone
  corrupt,
  past_failed,  // what is needed is in the journal, and cannot be read: Reader::take_past_error
};

/// Frees bytes that are the process's own, as `pin` says.
void free_private(std::uint32_t pin, const std::byte* record) noexcept;

class Reader {
 public:
  Pins& pins() noexcept { return pins_; }
  /// Is `seq` published, but not yet to be seen? For who found nothing.
  [[nodiscard]] bool awaits_sync(std::uint64_t seq) const noexcept {
    return !may_see(seq) && sync::load_acquire(slot_of(seq).low) == seq;
  }
  /// The tick that was read last; 0 if none was.
  [[nodiscard]] std::uint32_t last_tick() const noexcept { return last_tick_; }
  /// Why the journal could not be read, once.
  std::optional<Error> take_past_error() {
    return past_ != nullptr ? past_->take_error() : std::nullopt;
  }
  /// The bytes of a hand-out are no longer needed.
  void release_bytes(std::uint32_t pin, const std::byte* payload,
                     std::uint32_t head_bytes) noexcept {
    if (SHMQ_UNLIKELY(Pins::is_private(pin))) {
      free_private(pin, payload - head_bytes);
    } else {
      pins_.drop_delivery(pin);
    }
  }

 protected:
  Reader(const shm::Segment& segment, std::uint32_t self, std::uint64_t generation) noexcept
      : slots_(segment.slots()),
        slot_count_(segment.limits().slots),
        arena_(segment.arena()),
        arena_bytes_(segment.limits().arena_bytes),
        chunk_shift_(static_cast<unsigned>(std::countr_zero(segment.limits().chunk_bytes))),
        chunks_(segment.limits().chunks),
        pinned_chunks_hint_(segment.control().pinned_chunks_hint),
        watermark_(segment.limits().visible != 0 && segment.mark() != nullptr
                       ? &segment.mark()->watermark
                       : nullptr),
        visible_end_(watermark_ != nullptr ? 0 : ~std::uint64_t{0}),
        head_(segment.control().head.low),
        past_(segment.limits().durable != 0 ? std::make_unique<Past>(segment) : nullptr),
        pins_(segment, self - 1, generation) {}

  [[nodiscard]] const sync::Word16& slot_of(std::uint64_t seq) const noexcept {
    return slots_[seq & (slot_count_ - 1)];
  }
  /// With visible = synced, what is not on stable storage is not there yet. Else a compare that is
  /// always true.
  [[gnu::always_inline]] bool sees(std::uint64_t seq) noexcept {
    return SHMQ_LIKELY(seq < visible_end_) || sees_further(seq);
  }
  /// The same, from any thread.
  [[nodiscard]] bool may_see(std::uint64_t seq) const noexcept {
    return watermark_ == nullptr || base::mutant(84) || seq < sync::load_acquire(*watermark_);
  }
  bool sees_further(std::uint64_t seq) noexcept;
  [[nodiscard]] bool pinned(const RecordView& record) const noexcept {
    return pins_.covers(record.offset >> chunk_shift_, (record.end - 1) >> chunk_shift_);
  }
  /// Pins the record's chunks; false: only for a moment, since no pin is left or more than half of
  /// the arena is pinned already, and the caller must take a copy and end that moment.
  bool pin(const RecordView& record) noexcept {
    const std::uint64_t first = record.offset >> chunk_shift_;
    const std::uint64_t last = (record.end - 1) >> chunk_shift_;
    // relaxed: a figure that producers count now and then.
    const bool scarce = 2 * sync::load_relaxed(pinned_chunks_hint_) > chunks_;
    if (SHMQ_LIKELY(!scarce) && pins_.set(first, last)) return true;
    pins_.set_momentary(first, last);
    return false;
  }
  static void describe(const RecordView& record, std::uint64_t seq, std::uint32_t pin,
                       HandOut& out) noexcept {
    out = {seq,
           record.payload_offset,
           record.payload_bytes,
           static_cast<std::uint32_t>(record.payload_offset - record.offset),
           pin,
           1,
           0};
  }
  // A record without attributes and flags, within the pinned chunks; else false.
  [[gnu::always_inline]] bool view_plain_record(std::uint64_t offset, std::uint64_t seq,
                                                HandOut& out) const noexcept {
    const std::uint64_t begin = pins_.current_first() << chunk_shift_;
    const std::uint64_t end = (pins_.current_last() + 1) << chunk_shift_;
    if (SHMQ_UNLIKELY(offset < begin || offset + sizeof(shm::Record) > end)) return false;
    const auto* record = reinterpret_cast<const shm::Record*>(arena_ + offset);
    // {payload bytes, attribute bytes, flags} at once: the upper half is 0 in a plain one.
    const std::uint64_t shape = sync::load_relaxed(*reinterpret_cast<const std::uint64_t*>(
        reinterpret_cast<const std::byte*>(record) + offsetof(shm::Record, payload_bytes)));
    const std::uint64_t payload = offset + sizeof(shm::Record);
    if (SHMQ_UNLIKELY(sync::load_relaxed(record->seq) != seq || (shape >> 32) != 0 ||
                      payload + shape > end)) {
      return false;
    }
    out = {seq, payload, static_cast<std::uint32_t>(shape), sizeof(shm::Record), pins_.current(),
           1,   0};
    return true;
  }
  void let_go(const HandOut& hand_out) noexcept {
    release_bytes(hand_out.pin, arena_ + hand_out.payload_offset, hand_out.head_bytes);
  }
  /// The record's bytes in memory of the process, for when no pin is to be had. The caller has to
  /// make sure that they were not in use for something else while they were copied. False: no
  /// memory.
  bool copy_record(const RecordView& record, std::uint64_t seq, HandOut& out) const noexcept;

  /// Has head passed it, so that it is to be read from the journal? Only durable queues have groups
  /// behind head.
  [[nodiscard]] bool is_past(std::uint64_t seq) const noexcept {
    // [H0] acquire, as in read_head.
    return past_ != nullptr && static_cast<std::int64_t>(sync::load_acquire(head_) - seq) > 0;
  }
  /// After the record's chunk was pinned: was that too late? (past.hpp, the pin rule.) Where head
  /// cannot pass an unsettled message the claim proves that it was not.
  [[nodiscard]] bool pinned_too_late(std::uint64_t seq) const noexcept {
    if (SHMQ_LIKELY(past_ == nullptr)) return false;
    // [C6] full fence, pairs with K0: the pin first, then the look at head.
    sync::full_fence();
    return is_past(seq) && !base::mutant(101);
  }
  /// A pin that was set too late protects nothing, and must not seem to.
  void undo_pin(bool keeps_pin) noexcept {
    if (keeps_pin) {
      pins_.clear_idle();
    } else {
      pins_.clear_momentary();
    }
  }
  /// The message from the journal.
  PastLook take_past(std::uint64_t seq, Past::Way way, HandOut& out) noexcept;

  const sync::Word16* const slots_;
  const std::uint64_t slot_count_;
  const std::byte* const arena_;
  const std::uint64_t arena_bytes_;
  const unsigned chunk_shift_;
  const std::uint32_t chunks_;
  const std::uint64_t& pinned_chunks_hint_;
  const std::uint64_t* const watermark_;  // null: everything published is seen
  std::uint64_t visible_end_;             // at most the watermark
  std::uint32_t last_tick_ = 0;
  const std::uint64_t& head_;
  std::unique_ptr<Past> past_;  // null: a transient queue
  Pins pins_;
};

}  // namespace shmq::queue
