// SPDX-License-Identifier: Apache-2.0
//
// Who is the active consumer of an exclusive group: take-over, renewal, resignation.
#include <algorithm>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "queue/exclusive.hpp"
#include "queue/head.hpp"
#include "queue/participants.hpp"
#include "sync/event.hpp"

namespace shmq::queue {
namespace {

// The hint holds 48 bits of the seq; the floor, which is near, says the others.
std::uint64_t widen_hint(std::uint64_t hint, std::uint64_t floor) noexcept {
  return floor + (((hint & shm::next_hint_seq_mask) - (floor & shm::next_hint_seq_mask)) &
                  shm::next_hint_seq_mask);
}

}  // namespace

using shm::Lease;
using shm::LeaseState;

bool ExclusiveConsumer::group_is_gone() const noexcept {
  return sync::load_acquire(group_.word) != group_word_;
}

bool ExclusiveConsumer::take_over() noexcept {
  if (group_is_gone()) return false;  // the entry is not reused while we, alive, name it
  sync::Word16 seen = sync::read_halves(group_.progress);
  const std::uint32_t owner = shm::owner_of(seen.high);
  bool predecessor_may_live = false;
  if (owner != shm::owner_none && owner != self_) {
    const bool expired = lease_ticks_ != 0 && base::tick_is_past(shm::deadline_of(seen.high),
                                                                 base::coarse_tick(), lease_ticks_);
    if (!expired) {
      // Proof of death, not a time-out: reclaim tries the owner's lock, and frees the group.
      if (owner > segment_.limits().max_participants || !reclaim_participant(segment_, owner - 1)) {
        return false;
      }
      seen = sync::read_halves(group_.progress);
      if (shm::owner_of(seen.high) != shm::owner_none) return false;
    } else {
      predecessor_may_live = true;
    }
  }
  const std::uint32_t generation =
      (shm::ownership_generation(seen.high) + 1) & shm::ownership_generation_mask;
  const std::uint32_t deadline = (base::coarse_tick() + lease_ticks_ + 1) & base::tick_mask;
  const std::uint64_t ownership = shm::ownership(self_, generation, deadline);
  // [O1] seq_cst: ours from here on; the former owner's acks fail.
  if (!sync::compare_and_swap(group_.progress, seen, {seen.low, ownership})) return false;
  SHMQ_CRASH_POINT("take_over.owned");
  active_ = true;
  generation_ = generation;
  ownership_ = ownership;
  floor_ = next_ = seen.low;
  dropped_below_ = 0;
  // The group may have been removed between: its remover fences first and we look second.
  if (group_is_gone()) {
    resign();
    return false;
  }
  const std::uint64_t hint = sync::load_acquire(group_.next_hint);
  const bool hint_is_of_predecessor =
      (hint >> 48) == (shm::ownership_generation(seen.high) & 0xffff);
  const std::uint64_t limit =
      floor_ + std::min<std::uint64_t>(window_entries_, find_tail(segment_) - floor_);
  std::uint64_t handed_out_end = widen_hint(hint, floor_);
  if (!hint_is_of_predecessor || handed_out_end > limit) handed_out_end = limit;
  adopt_window(predecessor_may_live, handed_out_end);
  return true;
}

// Makes the window say what is to be handed out again.
void ExclusiveConsumer::adopt_window(bool predecessor_may_live,
                                     std::uint64_t handed_out_end) noexcept {
  // A predecessor that lives may hold a message that it received just before the take-over and that
  // its hint does not cover: everything published before now is rewritten, so that its CAS fails.
  const std::uint64_t tail = find_tail(segment_);
  const std::uint64_t end = predecessor_may_live
                                ? floor_ + std::min<std::uint64_t>(window_entries_, tail - floor_)
                                : handed_out_end;
  std::uint64_t redelivered = 0;
  for (std::uint64_t seq = floor_; seq != end; ++seq) {
    sync::Word16& entry = entry_of(seq);
    for (int attempt = 0; attempt < 64; ++attempt) {
      const sync::Word16 seen = sync::read_halves(entry);
      Lease lease{};
      const bool marked = seen.low == seq;
      if (marked) lease = shm::unpack_lease(seen.high);
      if (marked && lease.state == LeaseState::settled) break;
      const bool was_ready = marked && lease.state == LeaseState::ready;
      if (!marked) lease.hand_outs = seq < handed_out_end ? 1 : 0;
      if (!was_ready) {
        lease.deadline = 0;
        if (!predecessor_may_live && lease.deaths < 15) ++lease.deaths;
      }
      lease.state = LeaseState::ready;
      lease.owner = self_;
      // [O2] seq_cst: any CAS that the predecessor prepared on this entry fails from here on.
      if (base::mutant(11) || sync::compare_and_swap(entry, seen, {seq, shm::pack(lease)})) {
        if (!was_ready && lease.hand_outs != 0) ++redelivered;
        break;
      }
    }
  }
  sync::fetch_add(
      predecessor_may_live ? group_.redelivered_lease_total : group_.redelivered_death_total,
      redelivered);
  next_ = end;
  if (base::mutant(11)) next_ = floor_;
  count_marks();
  publish_next();
}

// What the window says of [floor, next).
void ExclusiveConsumer::count_marks() noexcept {
  marks_ = 0;
  returned_ = 0;
  lowest_returned_ = next_;
  for (std::uint64_t seq = floor_; seq != next_; ++seq) {
    const sync::Word16 seen = sync::read_halves(entry_of(seq));
    if (seen.low != seq) continue;
    ++marks_;
    if (shm::unpack_lease(seen.high).state != LeaseState::ready) continue;
    if (returned_++ == 0) lowest_returned_ = seq;
  }
  sync::store_relaxed(group_.returned_count, returned_);
}

// After a CAS on the word failed: was it a drop, or are we no longer the owner?
void ExclusiveConsumer::resync() noexcept {
  const sync::Word16 seen = sync::read_halves(group_.progress);
  if (!active_ || !is_own(seen.high)) {
    active_ = false;
    returned_ = 0;
    marks_ = 0;
    return;
  }
  if (seen.low > floor_) {
    floor_ = seen.low;
    dropped_below_ = floor_;
    next_ = std::max(next_, floor_);
    count_marks();
    publish_next();
  }
}

void ExclusiveConsumer::renew(std::uint32_t now) noexcept {
  const std::uint32_t left = (shm::deadline_of(ownership_) - now) & base::tick_mask;
  // Renewed at half time, so that the word's line stays quiet.
  if (left > lease_ticks_ / 2 && left <= lease_ticks_ + 2) return;
  extend(std::uint64_t{lease_ticks_} << base::tick_shift);
}

bool ExclusiveConsumer::extend(std::uint64_t lease_ns) noexcept {
  if (!active_) return false;
  const std::uint32_t ticks =
      std::min(lease_ns == 0 ? lease_ticks_ : base::ticks_of(lease_ns), lease_ticks_);
  const std::uint32_t deadline = (base::coarse_tick() + ticks + 1) & base::tick_mask;
  const std::uint64_t renewed = shm::ownership(self_, generation_, deadline);
  for (int attempt = 0; attempt < 64; ++attempt) {
    const sync::Word16 seen = sync::read_halves(group_.progress);
    if (!is_own(seen.high)) {
      resync();
      return false;
    }
    // [O4] seq_cst: the floor stays what it is.
    if (sync::compare_and_swap(group_.progress, seen, {seen.low, renewed})) {
      ownership_ = renewed;
      resync();
      return true;
    }
  }
  return false;
}

void ExclusiveConsumer::resign() noexcept {
  if (!active_) return;
  resync();
  if (!active_) return;
  // In flight and not given back: released, so that the successor does not count a death.
  for (std::uint64_t seq = floor_; seq != next_; ++seq) {
    const sync::Word16 seen = sync::read_halves(entry_of(seq));
    if (seen.low == seq && shm::unpack_lease(seen.high).state != LeaseState::leased) continue;
    give_back(seq, generation_, 0, false);
  }
  for (int attempt = 0; attempt < 64; ++attempt) {
    const sync::Word16 seen = sync::read_halves(group_.progress);
    if (!is_own(seen.high)) break;
    // [O5] seq_cst: nobody's; the generation stays, our own acks are over.
    if (sync::compare_and_swap(group_.progress, seen,
                               {seen.low, shm::ownership(shm::owner_none, generation_, 0)})) {
      break;
    }
  }
  active_ = false;
  returned_ = 0;
  marks_ = 0;
  sync::event_notify(control_.ownership_event);
}

}  // namespace shmq::queue
