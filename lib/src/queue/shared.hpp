// SPDX-License-Identifier: Apache-2.0
//
// One consumer of a shared group: claims, settles, and finds what is to be handed out again.
//
// A message's state is one word, {state, owner, hand-outs, failures, deaths, deadline}, in the
// group's window, or in its straggler table once it was evicted. Every step is one CAS on it from
// exactly what was read, so (seq, hand-out number) is the fencing token.
//
// Invariants:
//  1. Before the CAS that claims [L1, L2, T4], the record's chunk is pinned. The CAS proves that
//  the
//     message was not settled then, so head had not passed it and whoever wants the chunk sees the
//     pin. The record's place is read before the CAS from the slot, which stays while the message
//     is not settled; in the table it is read again after it, since a producer may have moved the
//     record. On a durable queue head may have passed an unsettled message: there a pin is looked
//     at again before the CAS (past.hpp, the pin rule), and what is past is read before it.
//  2. After the claim the group is looked at again: a removed group holds nothing back.
//  3. next is a private guess: no seq below it is unclaimed. Seqs are claimed in order, so whoever
//  finds
//     one unclaimed finds the following ones unclaimed, too.
//  4. Redeliveries come first, lowest seq first among those that a look found.
// Progress: lock-free.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/mutant.hpp"
#include "queue/held_list.hpp"
#include "queue/reader.hpp"
#include "queue/shared_group.hpp"
#include "shm/segment.hpp"
#include "sync/event.hpp"

namespace shmq::queue {

class SharedConsumer : public Reader {
 public:
  /// `self`: participant entry + 1. `group_word`: the word under which the group was found.
  SharedConsumer(const shm::Segment& segment, std::uint32_t group, std::uint64_t group_word,
                 std::uint32_t self, std::uint64_t generation);

  /// Reads the clock, which leases and due times are counted from. Once per receive call and before
  /// each sleep.
  void read_clock() noexcept {
    now_ = base::coarse_tick_64();
    last_tick_ = static_cast<std::uint32_t>(now_) & base::tick_mask;
  }

  /// Appends up to `capacity` hand-outs to `out`. Waits for nobody.
  Fetch fetch(HandOut* out, std::size_t capacity, std::size_t& count) noexcept;

  /// The common case for a single message, in line: plain, never handed out, in the chunk that is
  /// pinned, and nothing due again. False: nothing happened, and fetch finds out why.
  [[gnu::always_inline]] bool fetch_next(HandOut& out) noexcept {
    const std::uint64_t seq = next_;
    if (SHMQ_UNLIKELY(due_begin_ != due_end_ ||
                      wants_look(sync::load_relaxed(entry_.next_due_tick), now_) ||
                      pins_.current() == Pins::none || seq - floor_seen_ >= window_entries_ ||
                      held_.room() == 0 || !sees(seq))) {
      return false;
    }
    std::uint64_t offset = 0;
    if (look_at_slot(slot_of(seq), seq, offset) != SlotLook::there) return false;
    sync::Word16& entry = group_.window(seq);
    const sync::Word16 seen = sync::read_halves(entry);
    if (SHMQ_UNLIKELY(seen.low != seq - window_entries_)) return false;
    if (SHMQ_UNLIKELY(!view_plain_record(offset, seq, out))) return false;
    // [L1] as in claim_next.
    if (SHMQ_UNLIKELY(!sync::compare_and_swap(entry, seen, {seq, fresh_lease()}))) return false;
    next_ = seq + 1;
    if (SHMQ_UNLIKELY(group_is_gone())) return false;
    pins_.add_deliveries(1);
    held_.add(seq, 1);
    if (SHMQ_UNLIKELY((seq & 63) == 63)) publish_next();
    return true;
  }

  /// Has the next message been published? One load; for spinning.
  [[nodiscard]] bool next_is_there() const noexcept {
    const sync::Word16& slot = slot_of(next_);
    // [C5] relaxed: only a hint; fetch looks again with acquire.
    if (sync::load_relaxed(slot.low) != next_ || !may_see(next_)) return false;
    __builtin_prefetch(arena_ +
                       ((sync::load_relaxed(slot.high) & shm::ref_mask) << shm::ref_unit_shift));
    return true;
  }

  // All of these: true if done, false if the lease is lost (nothing changed).
  bool ack(std::uint64_t seq, std::uint32_t token) noexcept {
    const bool settled = settle(seq, token);
    held_.remove(seq, token);
    return settled;
  }
  /// Settles every own lease up to and including `seq`; false if one of them was lost.
  bool ack_through(std::uint64_t seq) noexcept;
  /// `record_bytes`: how long the record is, in case that it becomes dead.
  bool give_back(std::uint64_t seq, std::uint32_t token, std::uint64_t delay_ns, bool failed,
                 std::uint64_t record_bytes) noexcept;
  /// To the dead state; while that is full, settled and counted.
  bool reject(std::uint64_t seq, std::uint32_t token, std::uint64_t record_bytes) noexcept;
  /// `lease_ns` from now, at most an hour; 0: the group's.
  bool extend(std::uint64_t seq, std::uint32_t token, std::uint64_t lease_ns) noexcept;

  /// Does another hold it by now, or is it settled? Costs the others nothing; may err towards no.
  [[nodiscard]] bool is_lost(std::uint64_t seq, std::uint32_t token) const noexcept;
  /// The delivery of a lost lease goes.
  void forget(std::uint64_t seq, std::uint32_t token) noexcept { held_.remove(seq, token); }
  /// Nothing that was handed out is left to settle, as far as this consumer knows.
  [[nodiscard]] bool holds_nothing() const noexcept { return held_.empty(); }
  /// Gives back whatever is held.
  void resign() noexcept;

  /// Nanoseconds until it is worth looking for what is due again; at most a few seconds.
  [[nodiscard]] std::uint64_t due_in_ns() const noexcept;
  /// Cheap look from any thread: could fetch give something? May err towards yes.
  [[nodiscard]] bool may_have_some() const noexcept;
  [[nodiscard]] bool next_awaits_sync() const noexcept { return awaits_sync(next_); }

 private:
  // A message that may be handed out again, as the last look found it.
  struct Candidate {
    std::uint64_t seq;
    std::uint64_t lease_word;
    std::uint32_t index;  // in the table; in_window: not there
  };
  static constexpr std::uint32_t in_window = ~0U;
  static constexpr std::uint32_t candidates_max = 256;
  // past: head has passed it, so that it is to be read from the journal.
  enum class Claim : std::uint8_t { claimed, gone, no_memory, corrupt, past, past_failed };

  [[nodiscard]] bool group_is_gone() const noexcept {
    // [L0] acquire, after the claim's full barrier: while the group is there, what was claimed
    // holds head or the table back.
    return sync::load_acquire(entry_.word) != group_word_;
  }
  [[nodiscard]] std::uint32_t lease_deadline(std::uint32_t ticks) const noexcept {
    return ticks == 0 ? 0 : deadline_at(now_ + ticks + (base::mutant(34) ? 0 : 1));
  }
  [[nodiscard]] std::uint64_t fresh_lease() const noexcept {
    return fresh_lease_base_ | lease_deadline(lease_ticks_);
  }
  [[gnu::always_inline]] bool settle(std::uint64_t seq, std::uint32_t token) noexcept {
    sync::Word16& entry = group_.window(seq);
    const sync::Word16 seen = sync::read_halves(entry);
    // [L3] seq_cst: from exactly our lease. A full barrier for the look at those who wait for room.
    const bool usual =
        SHMQ_LIKELY(seen.low == seq && (seen.high >> 32) == shm::holder_bits(self_, token)) &&
        sync::compare_and_swap(entry, seen, {seq, 0});
    if (SHMQ_UNLIKELY(!usual) && !set_own(seq, token, shm::Lease{})) return false;
    // [L5] acquire, after that barrier: what was settled in a group that was removed before, or
    // that went on elsewhere (seek), is settled for nobody.
    if (SHMQ_UNLIKELY(group_is_gone()) && !base::mutant(119)) return false;
    after_settlement();
    return true;
  }
  void publish_next() noexcept;
  [[gnu::always_inline]] void after_settlement() noexcept {
    if (SHMQ_UNLIKELY((++settlements_ & 63) == 0)) group_.advance_floor();
    // relaxed, after the settlement's full barrier, as in event_notify.
    if (SHMQ_UNLIKELY((sync::load_relaxed(control_.room_event) & sync::event_sleeper_bit) != 0)) {
      group_.advance_floor();
      sync::event_notify(control_.room_event);
    }
  }

  Claim claim_next(std::uint64_t seq, HandOut& out) noexcept;
  Claim claim_past(std::uint64_t seq, HandOut& out) noexcept;
  Claim take_to_claim(std::uint64_t seq, Past::Way way, HandOut& out) noexcept;
  Claim claim_again_in_window(const Candidate& candidate, shm::Lease lease, HandOut& out) noexcept;
  Claim claim_again_past(const Candidate& candidate, shm::Lease lease, HandOut& out) noexcept;
  Claim claim_again(const Candidate& candidate, HandOut& out) noexcept;
  Claim claim_in_table(const Candidate& candidate, shm::Lease lease, HandOut& out) noexcept;
  bool bury(const Candidate& candidate, shm::Lease lease) noexcept;
  Claim keep(const RecordView& record, std::uint64_t seq, bool keeps_pin, HandOut& out) noexcept;
  bool fetch_due(HandOut* out, std::size_t capacity, std::size_t& count, Fetch& verdict) noexcept;
  void look_for_due() noexcept;
  std::uint64_t look_in_table(const TickTime& time) noexcept;
  [[nodiscard]] bool holds_everything() noexcept;
  void consider(sync::Word16 seen, std::uint32_t index, const TickTime& time,
                std::uint64_t& earliest) noexcept;
  bool replace(std::uint32_t index, sync::Word16 seen, const shm::Lease& lease) noexcept;
  bool set_own(std::uint64_t seq, std::uint32_t token, const shm::Lease& to) noexcept;
  template <typename Change>
  bool change_own(std::uint64_t seq, std::uint32_t token, Change change) noexcept;
  void put_back(std::uint64_t seq, std::uint32_t token) noexcept;
  bool make_window_room() noexcept;
  void skip_claimed() noexcept;
  [[nodiscard]] bool is_exhausted(const shm::Lease& lease) const noexcept {
    return lease.failures + lease.deaths >= delivery_limit_;
  }

  const shm::Segment& segment_;
  shm::Control& control_;
  SharedGroup group_;
  shm::Group& entry_;
  const std::uint64_t group_word_;
  const std::uint32_t self_;
  const std::uint64_t window_entries_;
  const std::uint32_t lease_ticks_;
  const std::uint32_t delivery_limit_;
  const std::uint64_t fresh_lease_base_;

  std::uint64_t now_ = 0;         // ticks
  std::uint64_t next_ = 0;        // see invariant 3
  std::uint64_t floor_seen_ = 0;  // at most the floor
  std::uint64_t settlements_ = 0;
  HeldList held_;
  std::uint32_t due_begin_ = 0;
  std::uint32_t due_end_ = 0;
  std::array<Candidate, candidates_max> due_;
};

}  // namespace shmq::queue
