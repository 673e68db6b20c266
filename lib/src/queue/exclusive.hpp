// SPDX-License-Identifier: Apache-2.0
//
// One consumer of an exclusive group: ownership, take-over, hand-out, settling.
//
// The group's word {floor, owner, generation, deadline} decides: an ack in order is a CAS on it,
// and so is a take-over, so a former owner is fenced. What does not fit into a floor (an ack out of
// order, a nack, hand-out counts of redeliveries) stands in the group's window, entry s % W.
//
// Invariants:
//  1. Only the owner named in the word hands out, and looks at the word after it has read the
//  slots.
//  2. A seq at or above next was handed out by nobody; [floor, next) is in flight but for what the
//     window says: settled, or ready (returned, to be handed out again before anything new).
//  3. A successor rewrites every window entry that its predecessor could still hold a CAS on,
//  before
//     it hands out anything; so a late ack of the predecessor changes nothing.
//  4. A delivery's chunk is pinned as long as the delivery lives.
#pragma once

#include <cstdint>
#include <optional>

#include "queue/reader.hpp"
#include "shm/segment.hpp"
#include "sync/event.hpp"

namespace shmq::queue {

class ExclusiveConsumer : public Reader {
 public:
  /// `self`: participant entry + 1. `group_word`: the word under which the group was found.
  ExclusiveConsumer(const shm::Segment& segment, std::uint32_t group, std::uint64_t group_word,
                    std::uint32_t self, std::uint64_t generation);

  /// Appends up to `capacity` hand-outs to `out`, taking over if the group is free. Waits for
  /// nobody.
  Fetch fetch(HandOut* out, std::size_t capacity, std::size_t& count) noexcept;
  /// The common case of fetch for a single message, in line: plain, next in order, in the chunk
  /// that is pinned. False: nothing happened, and fetch finds out why.
  [[gnu::always_inline]] bool fetch_next(HandOut& out) noexcept {
    const std::uint64_t seq = next_;
    if (SHMQ_UNLIKELY(!active_ || returned_ != 0 || pins_.current() == Pins::none ||
                      seq - floor_ >= window_entries_ || !sees(seq))) {
      return false;
    }
    std::uint64_t offset = 0;
    if (look_at_slot(slots_[seq & (slot_count_ - 1)], seq, offset) != SlotLook::there) return false;
    if (SHMQ_UNLIKELY(!view_plain_record(offset, seq, out))) return false;
    // [C4] as in fetch; with the words that we wrote ourselves, which is all but a drop and a loss.
    if (SHMQ_UNLIKELY(sync::load_acquire(group_.progress.low) != floor_ ||
                      sync::load_acquire(group_.progress.high) != ownership_)) {
      return false;
    }
    pins_.add_deliveries(1);
    next_ = seq + 1;
    publish_next();
    return true;
  }
  /// Reads the clock and renews the lease if it is due; once per receive call and before sleeps.
  void keep_lease() noexcept;

  /// Has the next message been published? One load; for spinning.
  [[nodiscard]] bool next_is_there() const noexcept {
    const sync::Word16& slot = slots_[next_ & (slot_count_ - 1)];
    // [C5] relaxed: only a hint; fetch looks again with acquire.
    if (sync::load_relaxed(slot.low) != next_ || !may_see(next_)) return false;
    // The record is the second line that the message costs: on its way before anything else is
    // done.
    __builtin_prefetch(arena_ +
                       ((sync::load_relaxed(slot.high) & shm::ref_mask) << shm::ref_unit_shift));
    return true;
  }

  // All of these: true if done, false if the lease is lost (nothing changed).
  bool ack(std::uint64_t seq, std::uint32_t token) noexcept {
    // In order, with nothing settled or returned out of order: [F1] of move_floor.
    if (SHMQ_LIKELY(
            active_ && token == generation_ && seq == floor_ && marks_ == 0 &&
            sync::compare_and_swap(group_.progress, {seq, ownership_}, {seq + 1, ownership_}))) {
      floor_ = seq + 1;
      sync::event_notify(control_.room_event);
      return true;
    }
    return ack_any(seq, token);
  }
  bool ack_through(std::uint64_t seq) noexcept;
  bool give_back(std::uint64_t seq, std::uint32_t token, std::uint64_t delay_ns,
                 bool failed) noexcept;
  /// Settled, and counted: an exclusive group keeps no dead messages.
  bool reject(std::uint64_t seq, std::uint32_t token) noexcept {
    if (!ack(seq, token)) return false;
    sync::fetch_add(group_.dead_lettered_total, 1);
    sync::fetch_add(group_.discarded_total, 1);
    return true;
  }
  bool extend(std::uint64_t lease_ns) noexcept;

  /// Was this hand-out settled by ack_through?
  [[nodiscard]] bool is_below_floor(std::uint64_t seq) const noexcept { return seq < floor_; }
  [[nodiscard]] bool active() const noexcept { return active_; }
  /// Names the ownership that a hand-out belongs to; never repeats within a group (mod 2^29).
  [[nodiscard]] std::uint32_t token() const noexcept { return generation_; }
  /// Nanoseconds until the next returned message is due; nullopt: none waits.
  [[nodiscard]] std::optional<std::uint64_t> due_in_ns() const noexcept;
  /// Cheap look from any thread: could fetch give something? May err towards yes.
  [[nodiscard]] bool may_have_some() const noexcept;
  [[nodiscard]] bool next_awaits_sync() const noexcept { return awaits_sync(next_); }

  /// Gives up ownership; what is in flight is released.
  void resign() noexcept;

 private:
  [[nodiscard]] bool is_own(std::uint64_t ownership_word) const noexcept {
    return shm::owner_of(ownership_word) == self_ &&
           shm::ownership_generation(ownership_word) == generation_;
  }
  bool ack_any(std::uint64_t seq, std::uint32_t token) noexcept;
  bool group_is_gone() const noexcept;
  bool take_over() noexcept;
  void adopt_window(bool predecessor_may_live, std::uint64_t handed_out_end) noexcept;
  void resync() noexcept;
  void count_marks() noexcept;
  void renew(std::uint32_t now) noexcept;
  void publish_next() noexcept {
    // [O3] release, before the hand-out: what may have been handed out by a consumer that is killed
    // from here on.
    sync::store_release(group_.next_hint, (static_cast<std::uint64_t>(generation_ & 0xffff) << 48) |
                                              (next_ & shm::next_hint_seq_mask));
  }
  std::size_t hand_out_usual(std::uint64_t seq, HandOut* out, std::size_t limit) noexcept;
  bool hand_out(std::uint64_t seq, Past::Way way, HandOut& out, Fetch& verdict) noexcept;
  bool hand_out_past(std::uint64_t seq, Past::Way way, HandOut& out, Fetch& verdict) noexcept;
  bool is_still_ours(std::uint64_t seq) const noexcept;
  bool fetch_returned(HandOut* out, std::size_t capacity, std::size_t& count,
                      Fetch& verdict) noexcept;
  bool move_floor(std::uint64_t to) noexcept;
  bool mark(std::uint64_t seq, shm::LeaseState state, std::uint32_t due, bool failed,
            bool& was_marked) noexcept;
  [[nodiscard]] sync::Word16& entry_of(std::uint64_t seq) const noexcept {
    return window_[seq & (window_entries_ - 1)];
  }
  [[nodiscard]] std::uint64_t absorb(std::uint64_t floor) noexcept;

  const shm::Segment& segment_;
  shm::Control& control_;
  shm::Group& group_;
  const std::uint64_t group_word_;
  const std::uint32_t group_index_;
  const std::uint32_t self_;
  sync::Word16* const window_;
  const std::uint64_t window_entries_;
  const std::uint32_t lease_ticks_;

  bool active_ = false;
  std::uint32_t generation_ = 0;
  std::uint64_t ownership_ = 0;  // the high half of the word while active
  std::uint64_t floor_ = 0;
  std::uint64_t next_ = 0;
  std::uint64_t dropped_below_ = 0;    // seqs below were taken by a drop, not by our acks
  std::uint64_t returned_ = 0;         // ready entries in [floor, next)
  std::uint64_t marks_ = 0;            // entries in [floor, next) that carry their seq
  std::uint64_t lowest_returned_ = 0;  // no ready entry below
};

}  // namespace shmq::queue
