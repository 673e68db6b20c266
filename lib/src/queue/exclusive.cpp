// SPDX-License-Identifier: Apache-2.0
//
// Handing out and settling. Ownership and take-over stand in exclusive_ownership.cpp.
#include "queue/exclusive.hpp"

#include <algorithm>
#include <bit>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "queue/deadlines.hpp"
#include "queue/head.hpp"
#include "sync/event.hpp"

namespace shmq::queue {

using shm::Lease;
using shm::LeaseState;

ExclusiveConsumer::ExclusiveConsumer(const shm::Segment& segment, std::uint32_t group,
                                     std::uint64_t group_word, std::uint32_t self,
                                     std::uint64_t generation)
    : Reader(segment, self, generation),
      segment_(segment),
      control_(segment.control()),
      group_(segment.group(group)),
      group_word_(group_word),
      group_index_(group),
      self_(self),
      window_(segment.window(group)),
      window_entries_(segment.limits().window_entries),
      lease_ticks_(base::ticks_of(
          std::min<std::uint64_t>(sync::load_relaxed(group_.lease_ns), 3'600'000'000'000ULL))) {}

// --- Handing out -------------------------------------------------------------------------------

// [C2] acquire, after the pin and a full fence, pairs with K0: no claim protects here, so the
// message must still be unsettled, ours, and not passed by head; else its chunk may be in use for
// something else already.
bool ExclusiveConsumer::is_still_ours(std::uint64_t seq) const noexcept {
  const std::uint64_t ownership = sync::load_acquire(group_.progress.high);
  const std::uint64_t floor = sync::load_acquire(group_.progress.low);
  const std::uint64_t head = read_head(segment_);
  return is_own(ownership) && floor <= seq && head <= seq;
}

// Head has passed it, or it is no longer ours. The bytes are private, so nothing can overtake them;
// whether it was ours to hand out is looked at after, as for all.
bool ExclusiveConsumer::hand_out_past(std::uint64_t seq, Past::Way way, HandOut& out,
                                      Fetch& verdict) noexcept {
  verdict = Fetch::some;
  if (!is_past(seq) || sync::load_acquire(group_.progress.low) > seq) return false;
  switch (take_past(seq, way, out)) {
    case PastLook::found: return true;
    case PastLook::not_yet: verdict = Fetch::nothing; return false;
    case PastLook::no_memory: verdict = Fetch::in_flight_limit; return false;
    case PastLook::failed: break;
  }
  // A file may have been removed because somebody else has settled what was in it.
  if (sync::load_acquire(group_.progress.low) <= seq &&
      is_own(sync::load_acquire(group_.progress.high))) {
    verdict = Fetch::past_failed;
  }
  return false;
}

// False: not handed out, and `verdict` says why if it is not simply "look again".
bool ExclusiveConsumer::hand_out(std::uint64_t seq, Past::Way way, HandOut& out,
                                 Fetch& verdict) noexcept {
  if (!sees(seq)) {
    verdict = Fetch::nothing;
    return false;
  }
  std::uint64_t offset = 0;
  switch (look_at_slot(slots_[seq & (slot_count_ - 1)], seq, offset)) {
    case SlotLook::not_yet: verdict = Fetch::nothing; return false;
    // Dropped, no longer ours, or spilled.
    case SlotLook::lapped: return hand_out_past(seq, way, out, verdict);
    case SlotLook::there: break;
  }
  RecordView record;
  const bool plausible = view_record(arena_, arena_bytes_, offset, seq, record);
  if (SHMQ_UNLIKELY(!plausible)) {
    if (is_past(seq)) return hand_out_past(seq, way, out, verdict);
    // Wrong bytes are corruption only if the message must still be there.
    verdict = is_still_ours(seq) ? Fetch::corrupt : Fetch::some;
    return false;
  }
  if (SHMQ_UNLIKELY(!pinned(record))) {
    SHMQ_CRASH_POINT("receive.before_pin");
    const bool keeps = pin(record);
    sync::full_fence();
    const bool valid = is_still_ours(seq) || base::mutant(8);
    if (!keeps) {
      const bool copied = valid && copy_record(record, seq, out);
      pins_.clear_momentary();
      if (valid && !copied) verdict = Fetch::in_flight_limit;  // no memory for a copy
      return copied || (!valid && hand_out_past(seq, way, out, verdict));
    }
    if (!valid) {
      pins_.clear_idle();  // it protects nothing, and must not seem to
      return hand_out_past(seq, way, out, verdict);
    }
  }
  pins_.add_deliveries(1);
  describe(record, seq, pins_.current(), out);
  return true;
}

// The common case of hand_out, for a row of messages: published, plain, in the chunk that is pinned
// already. Stops at the first that is anything else.
std::size_t ExclusiveConsumer::hand_out_usual(std::uint64_t seq, HandOut* out,
                                              std::size_t limit) noexcept {
  if (pins_.current() == Pins::none) return 0;
  std::size_t count = 0;
  for (; count != limit && sees(seq); ++count, ++seq) {
    std::uint64_t offset = 0;
    if (look_at_slot(slots_[seq & (slot_count_ - 1)], seq, offset) != SlotLook::there) break;
    if (!view_plain_record(offset, seq, out[count])) break;
  }
  pins_.add_deliveries(static_cast<std::uint32_t>(count));
  return count;
}

void ExclusiveConsumer::keep_lease() noexcept {
  if (lease_ticks_ == 0) return;
  last_tick_ = base::coarse_tick();
  if (active_) renew(last_tick_);
}

Fetch ExclusiveConsumer::fetch(HandOut* out, std::size_t capacity, std::size_t& count) noexcept {
  count = 0;
  for (int turn = 0; turn < 64; ++turn) {
    if (!active_ && !take_over()) return group_is_gone() ? Fetch::removed : Fetch::standing_by;
    Fetch verdict = Fetch::some;
    if (SHMQ_UNLIKELY(returned_ != 0) && !fetch_returned(out, capacity, count, verdict)) {
      if (count != 0) return Fetch::some;
      if (verdict != Fetch::some) return verdict;
      resync();
      continue;
    }
    const std::size_t returned_count = count;
    const std::uint64_t room = window_entries_ - (next_ - floor_);
    const std::uint64_t limit = std::min<std::uint64_t>(capacity - count, room);
    if (limit == 0) return count != 0 ? Fetch::some : Fetch::in_flight_limit;
    std::uint64_t seq = next_;
    while (seq - next_ < limit) {
      const std::size_t usual = hand_out_usual(seq, out + count, limit - (seq - next_));
      seq += usual;
      count += usual;
      if (seq - next_ == limit || !hand_out(seq, Past::Way::onward, out[count], verdict)) break;
      ++seq;
      ++count;
    }
    const std::uint64_t first = next_;
    if (count != returned_count) {
      next_ = seq;
      publish_next();
      // [C4] acquire, after the slots were read: we were the owner when these messages existed, so
      // a successor's look at the tail, after its take-over, includes them.
      const std::uint64_t ownership = sync::load_acquire(group_.progress.high);
      const std::uint64_t floor = sync::load_acquire(group_.progress.low);
      if (SHMQ_LIKELY((is_own(ownership) && floor <= first) || base::mutant(8))) return Fetch::some;
      while (count != returned_count) let_go(out[--count]);
      next_ = first;
    }
    if (count != 0) return Fetch::some;
    if (verdict != Fetch::some) {
      if (verdict == Fetch::nothing && !is_own(sync::load_acquire(group_.progress.high))) {
        resync();
        continue;
      }
      return verdict;
    }
    resync();
  }
  return Fetch::nothing;
}

// Hands out what was returned, lowest first, as far as it is due. False: nothing new may follow.
bool ExclusiveConsumer::fetch_returned(HandOut* out, std::size_t capacity, std::size_t& count,
                                       Fetch& verdict) noexcept {
  const TickTime time = time_of_group(group_, base::coarse_tick_64());
  for (std::uint64_t seq = std::max(lowest_returned_, floor_); seq != next_ && returned_ != 0;
       ++seq) {
    lowest_returned_ = seq;
    sync::Word16& entry = entry_of(seq);
    const sync::Word16 seen = sync::read_halves(entry);
    Lease lease = shm::unpack_lease(seen.high);
    if (seen.low != seq || lease.state != LeaseState::ready) continue;
    if (due_in_ticks(lease, time) != 0) {
      verdict = Fetch::held_back;
      return false;
    }
    if (count == capacity) return false;
    if (!sees(seq)) {  // taken over with what the predecessor might have handed out, but did not
      verdict = Fetch::nothing;
      return false;
    }
    if (!hand_out(seq, Past::Way::back, out[count], verdict)) {
      if (verdict == Fetch::nothing && !is_past(seq)) {
        verdict = Fetch::corrupt;  // it was handed out once
      }
      return false;
    }
    lease.state = LeaseState::leased;
    lease.owner = self_;
    lease.hand_outs = std::min(lease.hand_outs + 1, 0xffffU);
    // [W3] seq_cst: a successor that rewrote the entry makes this fail.
    if (!is_own(sync::load_acquire(group_.progress.high)) ||
        !sync::compare_and_swap(entry, seen, {seq, shm::pack(lease)})) {
      let_go(out[count]);
      return false;
    }
    out[count].hand_outs = lease.hand_outs;
    out[count].failures = lease.failures;
    ++count;
    --returned_;
    sync::store_relaxed(group_.returned_count, returned_);
  }
  return true;
}

std::optional<std::uint64_t> ExclusiveConsumer::due_in_ns() const noexcept {
  if (!active_ || returned_ == 0) return std::nullopt;
  const TickTime time = time_of_group(group_, base::coarse_tick_64());
  for (std::uint64_t seq = std::max(lowest_returned_, floor_); seq != next_; ++seq) {
    const sync::Word16 seen = sync::read_halves(entry_of(seq));
    const Lease lease = shm::unpack_lease(seen.high);
    if (seen.low != seq || lease.state != LeaseState::ready) continue;
    return due_in_ticks(lease, time) << base::tick_shift;
  }
  return std::nullopt;
}

bool ExclusiveConsumer::may_have_some() const noexcept {
  const std::uint64_t owner = shm::owner_of(sync::load_acquire(group_.progress.high));
  if (owner != self_) return owner == shm::owner_none;
  const std::uint64_t next = (sync::load_acquire(group_.next_hint) & ((1ULL << 48) - 1));
  const std::uint64_t stamp = sync::load_acquire(slots_[next & (slot_count_ - 1)].low);
  const std::uint64_t floor = sync::load_acquire(group_.progress.low);
  return ((stamp & ((1ULL << 48) - 1)) == next && may_see(stamp)) ||
         is_past(floor + ((next - floor) & ((1ULL << 48) - 1))) ||
         sync::load_relaxed(group_.returned_count) != 0;
}

// --- Settling ----------------------------------------------------------------------------------

// Skips what was settled out of order; the entries it skips no longer count as marks.
std::uint64_t ExclusiveConsumer::absorb(std::uint64_t floor) noexcept {
  while (floor != next_) {
    const sync::Word16 seen = sync::read_halves(entry_of(floor));
    if (seen.low != floor || shm::unpack_lease(seen.high).state != LeaseState::settled) break;
    ++floor;
  }
  return floor;
}

bool ExclusiveConsumer::move_floor(std::uint64_t to) noexcept {
  const std::uint64_t target = marks_ == 0 ? to : absorb(to);
  // [F1] seq_cst: the ack. Fails if a successor took over, a drop moved the floor, or the group was
  // removed; a full barrier for the look at those who wait for room.
  if (SHMQ_UNLIKELY(
          !sync::compare_and_swap(group_.progress, {floor_, ownership_}, {target, ownership_}))) {
    return false;
  }
  if (SHMQ_UNLIKELY(marks_ != 0)) {
    floor_ = target;
    count_marks();
  }
  floor_ = target;
  sync::event_notify(control_.room_event);
  return true;
}

bool ExclusiveConsumer::ack_any(std::uint64_t seq, std::uint32_t token) noexcept {
  for (int turn = 0; turn < 64; ++turn) {
    if (!active_ || token != generation_ || seq < floor_) return false;
    if (SHMQ_LIKELY(seq == floor_)) {
      if (SHMQ_LIKELY(marks_ == 0)) {
        if (SHMQ_LIKELY(move_floor(seq + 1))) return true;
      } else {
        const sync::Word16 seen = sync::read_halves(entry_of(seq));
        const bool leased =
            seen.low != seq || shm::unpack_lease(seen.high).state == LeaseState::leased;
        if (!leased) return false;
        if (move_floor(seq + 1)) return true;
      }
      resync();
      continue;
    }
    if (!is_own(sync::load_acquire(group_.progress.high))) {
      resync();
      return false;
    }
    bool was_marked = false;
    if (!mark(seq, LeaseState::settled, 0, false, was_marked)) return false;
    if (!was_marked) ++marks_;
    return true;
  }
  return false;
}

bool ExclusiveConsumer::ack_through(std::uint64_t seq) noexcept {
  for (int turn = 0; turn < 64; ++turn) {
    if (!active_) return false;
    const std::uint64_t target = std::min(seq + 1, next_);
    if (target <= floor_) return seq >= dropped_below_;
    if (SHMQ_LIKELY(returned_ == 0)) {
      if (SHMQ_LIKELY(move_floor(target))) return true;
      resync();
      continue;
    }
    // Some were given back: those stay, the others are settled one by one.
    for (std::uint64_t each = floor_; each < target; ++each) {
      const sync::Word16 seen = sync::read_halves(entry_of(each));
      if (seen.low == each && shm::unpack_lease(seen.high).state != LeaseState::leased) continue;
      if (!ack(each, generation_)) return false;
    }
    return true;
  }
  return false;
}

// Moves the window entry of a seq in flight to `state`. False: it is not in flight with us.
bool ExclusiveConsumer::mark(std::uint64_t seq, LeaseState state, std::uint32_t due, bool failed,
                             bool& was_marked) noexcept {
  sync::Word16& entry = entry_of(seq);
  const sync::Word16 seen = sync::read_halves(entry);
  Lease lease{};
  was_marked = seen.low == seq;
  if (was_marked) {
    lease = shm::unpack_lease(seen.high);
    if (lease.state != LeaseState::leased || lease.owner != self_) return false;
  } else {
    if (static_cast<std::int64_t>(seen.low - seq) > 0) return false;
    lease.hand_outs = 1;
  }
  lease.state = state;
  lease.owner = self_;
  lease.deadline = due;
  if (failed) lease.failures = std::min(lease.failures + 1, 63U);
  // [W4] seq_cst: one word, so the count, the due time and the state are one.
  return sync::compare_and_swap(entry, seen, {seq, shm::pack(lease)});
}

bool ExclusiveConsumer::give_back(std::uint64_t seq, std::uint32_t token, std::uint64_t delay_ns,
                                  bool failed) noexcept {
  if (!active_ || token != generation_ || seq < floor_ || seq >= next_) return false;
  const sync::Word16 progress = sync::read_halves(group_.progress);
  if (!is_own(progress.high) || progress.low > seq) {
    resync();
    return false;
  }
  std::uint32_t due = 0;
  if (delay_ns != 0) {
    const std::uint64_t now = base::coarse_tick_64();
    // Rounded up by a tick, so that no delay is cut short.
    due = deadline_at(now + base::ticks_of(std::min(delay_ns, longest_delay_ns)) + 1);
    sync::store_release(group_.deadline_reference, now);
  }
  bool was_marked = false;
  if (!mark(seq, LeaseState::ready, due, failed, was_marked)) return false;
  if (!was_marked) ++marks_;
  lowest_returned_ = returned_ == 0 ? seq : std::min(lowest_returned_, seq);
  ++returned_;
  sync::store_relaxed(group_.returned_count, returned_);
  sync::fetch_add(failed ? group_.redelivered_nack_total : group_.redelivered_release_total, 1);
  return true;
}

}  // namespace shmq::queue
