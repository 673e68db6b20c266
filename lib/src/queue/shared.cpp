// SPDX-License-Identifier: Apache-2.0
//
// Claiming. Settling stands in shared_settlement.cpp.
#include "queue/shared.hpp"

#include <algorithm>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "queue/head.hpp"

namespace shmq::queue {

using shm::Lease;
using shm::LeaseState;

namespace {

constexpr std::uint64_t long_look = 256;  // window entries

}  // namespace

SharedConsumer::SharedConsumer(const shm::Segment& segment, std::uint32_t group,
                               std::uint64_t group_word, std::uint32_t self,
                               std::uint64_t generation)
    : Reader(segment, self, generation),
      segment_(segment),
      control_(segment.control()),
      group_(segment, group),
      entry_(group_.entry()),
      group_word_(group_word),
      self_(self),
      window_entries_(segment.limits().window_entries),
      lease_ticks_(base::ticks_of(std::min(sync::load_relaxed(entry_.lease_ns), longest_lease_ns))),
      delivery_limit_(std::max(sync::load_relaxed(entry_.delivery_limit), 1U)),
      fresh_lease_base_(shm::pack({LeaseState::leased, self, 1, 0, 0, 0})),
      floor_seen_(group_.floor()),
      held_(2 *
            (std::size_t{segment.limits().window_entries} + segment.limits().straggler_entries)) {
  // Not at the hint: a damaged one would hide messages.
  next_ = floor_seen_;
}

// A hint for those who only look: may be behind, never ahead.
void SharedConsumer::publish_next() noexcept {
  // relaxed: what it skips was seen claimed; claims are checked by their CAS.
  if (sync::load_relaxed(entry_.next_hint) < next_) sync::store_relaxed(entry_.next_hint, next_);
}

// --- Handing out -------------------------------------------------------------------------------

// The claim has succeeded; so the bytes are whole, and stay so while the pin does.
SharedConsumer::Claim SharedConsumer::keep(const RecordView& record, std::uint64_t seq,
                                           bool keeps_pin, HandOut& out) noexcept {
  if (SHMQ_LIKELY(keeps_pin)) {
    pins_.add_deliveries(1);
    describe(record, seq, pins_.current(), out);
    return Claim::claimed;
  }
  const bool copied = copy_record(record, seq, out);
  pins_.clear_momentary();
  return copied ? Claim::claimed : Claim::no_memory;
}

// A message that was never handed out.
SharedConsumer::Claim SharedConsumer::claim_next(std::uint64_t seq, HandOut& out) noexcept {
  std::uint64_t offset = 0;
  if (look_at_slot(slot_of(seq), seq, offset) != SlotLook::there) return Claim::gone;
  sync::Word16& entry = group_.window(seq);
  const sync::Word16 seen = sync::read_halves(entry);
  if (seen.low != seq - window_entries_) return Claim::gone;
  RecordView record;
  if (!view_record(arena_, arena_bytes_, offset, seq, record)) {
    if (is_past(seq)) return Claim::past;
    // Wrong bytes are corruption only if the message is still there.
    return sync::load_acquire(entry.low) == seen.low && group_.floor() <= seq ? Claim::corrupt
                                                                              : Claim::gone;
  }
  SHMQ_CRASH_POINT("claim.before_pin");
  const bool was_pinned = SHMQ_LIKELY(pinned(record));
  const bool keeps_pin = was_pinned || pin(record) || base::mutant(20);
  SHMQ_CRASH_POINT("claim.pinned");
  if (!was_pinned && SHMQ_UNLIKELY(pinned_too_late(seq))) {
    undo_pin(keeps_pin);
    return Claim::past;
  }
  // [L1] seq_cst: ours, if nobody claimed or dropped it; a full barrier after the pin [C1], so that
  // who frees the chunk later sees the pin.
  if (!sync::compare_and_swap(entry, seen, {seq, fresh_lease()})) {
    if (!keeps_pin) pins_.clear_momentary();
    return Claim::gone;
  }
  SHMQ_CRASH_POINT("claim.claimed");
  const Claim kept = keep(record, seq, keeps_pin, out);
  if (kept != Claim::claimed) put_back(seq, 1);
  return kept;
}

// Reads it first, so that what cannot be read is not claimed. `out` then holds private bytes.
SharedConsumer::Claim SharedConsumer::take_to_claim(std::uint64_t seq, Past::Way way,
                                                    HandOut& out) noexcept {
  switch (take_past(seq, way, out)) {
    case PastLook::found: return Claim::claimed;
    case PastLook::no_memory: return Claim::no_memory;
    case PastLook::not_yet:
    case PastLook::failed: break;
  }
  return Claim::past_failed;
}

// As claim_next, of a message that head has passed.
SharedConsumer::Claim SharedConsumer::claim_past(std::uint64_t seq, HandOut& out) noexcept {
  sync::Word16& entry = group_.window(seq);
  const sync::Word16 seen = sync::read_halves(entry);
  if (seen.low != seq - window_entries_) return Claim::gone;
  if (const Claim taken = take_to_claim(seq, Past::Way::onward, out); taken != Claim::claimed) {
    // A file may have been removed because others have settled what was in it.
    return sync::load_acquire(entry.low) == seen.low && group_.floor() <= seq ? taken : Claim::gone;
  }
  SHMQ_CRASH_POINT("claim.past");
  // [L1] seq_cst, as in claim_next.
  if (sync::compare_and_swap(entry, seen, {seq, fresh_lease()})) return Claim::claimed;
  let_go(out);
  return Claim::gone;
}

Fetch SharedConsumer::fetch(HandOut* out, std::size_t capacity, std::size_t& count) noexcept {
  count = 0;
  if (group_is_gone()) return Fetch::removed;
  if (held_.room() < capacity) {
    held_.compact();
    capacity = std::min(capacity, held_.room());
    if (capacity == 0) return Fetch::in_flight_limit;
  }
  Fetch verdict = Fetch::nothing;
  if ((due_begin_ != due_end_ || wants_look(sync::load_acquire(entry_.next_due_tick), now_)) &&
      !fetch_due(out, capacity, count, verdict)) {
    capacity = count;
  }
  for (int stalls = 0; count < capacity && stalls < 4096;) {
    while (count < capacity && fetch_next(out[count])) ++count;
    if (count == capacity) break;
    const std::uint64_t seq = next_;
    if (SHMQ_UNLIKELY(seq - floor_seen_ >= window_entries_)) {
      floor_seen_ = group_.floor();
      next_ = std::max(next_, floor_seen_);
      if (next_ - floor_seen_ >= window_entries_ && !make_window_room()) {
        verdict = holds_everything() ? Fetch::in_flight_limit : Fetch::held_back;
        break;
      }
      continue;
    }
    std::uint64_t offset = 0;
    const SlotLook look = look_at_slot(slot_of(seq), seq, offset);
    if (look == SlotLook::not_yet || (look == SlotLook::there && !sees(seq))) break;
    const std::uint64_t claimed_as = sync::load_acquire(group_.window(seq).low);
    const bool is_spilled = look == SlotLook::lapped &&
                            static_cast<std::int64_t>(claimed_as - seq) <= 0 && is_past(seq);
    if ((look == SlotLook::lapped && !is_spilled) ||
        static_cast<std::int64_t>(claimed_as - seq) > 0) {
      // Passed by the floor.
      floor_seen_ = group_.floor();
      if (floor_seen_ <= seq) ++stalls;  // not yet, or the segment is damaged
      next_ = std::max(next_, floor_seen_);
      continue;
    }
    if (claimed_as == seq) {
      skip_claimed();
      continue;
    }
    Claim claim = is_spilled ? Claim::past : claim_next(seq, out[count]);
    if (SHMQ_UNLIKELY(claim == Claim::past)) claim = claim_past(seq, out[count]);
    switch (claim) {
      case Claim::claimed:
        held_.add(seq, 1);
        ++count;
        ++next_;
        continue;
      case Claim::gone: ++stalls; continue;  // somebody was faster: look at it again
      case Claim::no_memory: verdict = Fetch::in_flight_limit; break;
      case Claim::corrupt: verdict = Fetch::corrupt; break;
      case Claim::past:
      case Claim::past_failed: verdict = Fetch::past_failed; break;
    }
    break;
  }
  publish_next();
  if (count != 0 && SHMQ_UNLIKELY(group_is_gone()) && !base::mutant(38)) {
    while (count != 0) let_go(out[--count]);
    held_.clear();
    return Fetch::removed;
  }
  if (count != 0) return Fetch::some;
  if (verdict == Fetch::nothing) group_.advance_floor();  // idle: what was settled shows
  return verdict;
}

// Others claimed the next one, and maybe many more while we had no CPU: the floor saves the walk
// over those that are settled.
void SharedConsumer::skip_claimed() noexcept {
  floor_seen_ = group_.floor();
  std::uint64_t seq = std::max(next_ + 1, floor_seen_);
  while (seq - floor_seen_ < window_entries_ && sync::load_acquire(group_.window(seq).low) == seq) {
    ++seq;
  }
  next_ = seq;
}

// The window is full. False: it stays so, and so does the table, until something is settled.
bool SharedConsumer::make_window_room() noexcept {
  group_.clear_floor(self_, SharedGroup::Patience::none);
  floor_seen_ = group_.floor();
  next_ = std::max(next_, floor_seen_);  // the others may have gone on beyond it meanwhile
  return next_ - floor_seen_ < window_entries_;
}

// Is all that is in flight ours? Then nobody else can end the wait.
bool SharedConsumer::holds_everything() noexcept {
  const auto ends_by_others = [this](std::uint64_t lease_word) {
    const Lease lease = shm::unpack_lease(lease_word);
    return (lease.state == LeaseState::leased && lease.owner != self_) ||
           lease.state == LeaseState::ready;
  };
  const std::uint64_t floor = group_.floor();
  for (std::uint64_t seq = floor; seq != floor + window_entries_; ++seq) {
    if (ends_by_others(sync::read_halves(group_.window(seq)).high)) return false;
  }
  for (std::uint32_t index = 0; index < group_.table().size(); ++index) {
    if (ends_by_others(group_.table().read(index).high)) return false;
  }
  return true;
}

// --- Handing out again -------------------------------------------------------------------------

// Takes one message into account. What is due is made ready for good: a deadline that is past must
// not be there when 22 bits no longer tell it from one to come, and who held the lease has lost it.
void SharedConsumer::consider(sync::Word16 seen, std::uint32_t index, const TickTime& time,
                              std::uint64_t& earliest) noexcept {
  Lease lease = shm::unpack_lease(seen.high);
  const std::uint64_t ticks = due_in_ticks(lease, time);
  if (ticks != 0) {
    if (ticks != ~std::uint64_t{0}) earliest = std::min(earliest, time.now + ticks);
    return;
  }
  if (lease.deadline != 0) {
    const bool expired = lease.state == LeaseState::leased;
    if (expired) lease.failures = std::min(lease.failures + 1, 63U);
    lease.state = LeaseState::ready;
    lease.owner = 0;
    lease.deadline = 0;
    // [L5] seq_cst: from exactly what was judged.
    if (!replace(index, seen, lease)) {
      earliest = time.now;  // it moved on: look again soon
      return;
    }
    if (expired) sync::fetch_add(entry_.redelivered_lease_total, 1);
    seen.high = shm::pack(lease);
  }
  const auto later = [](const Candidate& a, const Candidate& b) { return a.seq < b.seq; };
  if (due_end_ == candidates_max) {
    if (due_[0].seq < seen.low) return;
    std::pop_heap(due_.begin(), due_.begin() + due_end_--, later);  // the greatest seq goes
  }
  due_[due_end_++] = {seen.low, seen.high, index};
  std::push_heap(due_.begin(), due_.begin() + due_end_, later);
}

bool SharedConsumer::replace(std::uint32_t index, sync::Word16 seen, const Lease& lease) noexcept {
  return index == in_window
             ? sync::compare_and_swap(group_.window(seen.low), seen, {seen.low, shm::pack(lease)})
             : group_.table().change(index, seen, lease);
}

// The table has a hint of its own, by the same rules: most looks are for what was just given back
// in the window, and a thousand delayed stragglers must not cost each of them a scan. Gives when
// something there is due.
std::uint64_t SharedConsumer::look_in_table(const TickTime& time) noexcept {
  const std::uint64_t hint = sync::load_acquire(entry_.table_due_tick);
  if (!wants_look(hint, time.now)) return hint;
  std::uint64_t earliest = time.now + look_interval_ticks;
  // [N3] seq_cst CAS, as N2.
  sync::compare_and_swap(entry_.table_due_tick, hint, earliest);
  const std::uint32_t found_before = due_end_;
  bool any_due = false;
  if (group_.table().any()) {
    for (std::uint32_t index = 0; index < group_.table().size(); ++index) {
      const sync::Word16 seen = group_.table().read(index);
      if (seen.low == shm::straggler_free_seq) continue;
      any_due = any_due || due_in_ticks(shm::unpack_lease(seen.high), time) == 0;
      consider(seen, index, time, earliest);
    }
  }
  // Every deadline that was past is made ready for good now. relaxed: only grows, but for a race of
  // two lookers that is within their distance.
  if (sync::load_relaxed(entry_.deadline_reference) < time.now) {
    sync::store_release(entry_.deadline_reference, time.now);
  }
  if (any_due || due_end_ != found_before) earliest = time.now;
  group_.announce_in_table(earliest);
  return earliest;
}

// Finds what is due, lowest first, and says when it is worth looking again if nothing is.
//
// The hint is raised first and lowered to what was found after: what becomes due behind our back is
// announced by who makes it so, in a hint that we no longer touch but downwards. Raised by a second
// at most, whatever is found: leases that are being given out now end no earlier, and neither a
// looker nor an announcer that is stopped in between is waited for any longer.
void SharedConsumer::look_for_due() noexcept {
  read_clock();  // the caller's may be from before a sleep or a stop
  due_begin_ = due_end_ = 0;
  const TickTime time = time_of_group(entry_, now_);
  std::uint64_t earliest = now_ + look_interval_ticks;
  if (lease_ticks_ != 0) earliest = std::min(earliest, now_ + lease_ticks_);
  const std::uint64_t hint = sync::load_acquire(entry_.next_due_tick);
  // [N2] seq_cst CAS: fails if somebody announces; then there is nothing to raise.
  sync::compare_and_swap(entry_.next_due_tick, hint, earliest);
  SHMQ_CRASH_POINT("look_for_due.raised");
  const std::uint64_t floor = group_.floor();
  std::uint64_t seq = floor;
  for (; seq != floor + window_entries_; ++seq) {
    const sync::Word16 seen = sync::read_halves(group_.window(seq));
    if (seen.low == seq - window_entries_) break;  // unclaimed, and so is all that follows
    if (seen.low != seq) continue;                 // passed by the floor meanwhile
    if (static_cast<LeaseState>(seen.high >> 61) == LeaseState::moved) {
      group_.table().commit(seq, seen.high);
    } else {
      consider(seen, in_window, time, earliest);
    }
  }
  // Delayed ones among many settled: out of the way, so that the next look is short.
  if (seq - floor > long_look) group_.clear_floor(self_, SharedGroup::Patience::some);
  const std::uint64_t table_due = look_in_table(time);
  earliest = std::min(earliest, table_due);
  std::sort_heap(due_.begin(), due_.begin() + due_end_,
                 [](const Candidate& a, const Candidate& b) { return a.seq < b.seq; });
  // While something is due the others look, too: nobody waits for what one has found and not taken.
  group_.announce_due(due_end_ != 0 ? now_ : earliest);
}

// False: nothing more may be handed out in this call.
bool SharedConsumer::fetch_due(HandOut* out, std::size_t capacity, std::size_t& count,
                               Fetch& verdict) noexcept {
  for (int looks = 0; looks < 2; ++looks) {
    if (due_begin_ == due_end_) {
      if (!wants_look(sync::load_acquire(entry_.next_due_tick), now_)) return true;
      look_for_due();
      if (due_begin_ == due_end_) return true;
    }
    while (count < capacity && due_begin_ != due_end_) {
      // What a consumer died with is handed out alone, so that a message that kills its consumers
      // does not take others to their delivery limit with it.
      const bool suspect = shm::unpack_lease(due_[due_begin_].lease_word).deaths != 0;
      if (suspect && count != 0) return false;
      switch (claim_again(due_[due_begin_++], out[count])) {
        case Claim::claimed: ++count; break;
        case Claim::gone: continue;
        case Claim::no_memory: verdict = Fetch::in_flight_limit; return false;
        case Claim::corrupt: verdict = Fetch::corrupt; return false;
        case Claim::past:
        case Claim::past_failed: verdict = Fetch::past_failed; return false;
      }
      if (suspect) return false;
    }
    if (count == capacity) return true;
  }
  return true;
}

SharedConsumer::Claim SharedConsumer::claim_again(const Candidate& candidate,
                                                  HandOut& out) noexcept {
  Lease lease = shm::unpack_lease(candidate.lease_word);
  if ((is_exhausted(lease) || lease.hand_outs == 0xffff) && bury(candidate, lease)) {
    return Claim::gone;
  }
  lease.state = LeaseState::leased;
  lease.owner = self_;
  if (!base::mutant(36)) lease.hand_outs = std::min(lease.hand_outs + 1, 0xffffU);
  lease.deadline = lease_deadline(lease_ticks_);
  Claim claim = candidate.index == in_window ? claim_again_in_window(candidate, lease, out)
                                             : claim_in_table(candidate, lease, out);
  if (SHMQ_UNLIKELY(claim == Claim::past)) claim = claim_again_past(candidate, lease, out);
  if (claim != Claim::claimed) return claim;
  out.hand_outs = static_cast<std::uint16_t>(lease.hand_outs);
  out.failures = static_cast<std::uint8_t>(lease.failures);
  held_.add(candidate.seq, lease.hand_outs);
  return claim;
}

// As it is in its window entry or its table entry: neither depends on where the bytes are.
SharedConsumer::Claim SharedConsumer::claim_again_past(const Candidate& candidate, Lease lease,
                                                       HandOut& out) noexcept {
  const sync::Word16 seen{candidate.seq, candidate.lease_word};
  if (const Claim taken = take_to_claim(candidate.seq, Past::Way::back, out);
      taken != Claim::claimed) {
    const sync::Word16 now = candidate.index == in_window
                                 ? sync::read_halves(group_.window(candidate.seq))
                                 : group_.table().read(candidate.index);
    return now == seen ? taken : Claim::gone;
  }
  SHMQ_CRASH_POINT("claim_again.past");
  // [L2], [T4] seq_cst: from exactly the lease that ended or was given back.
  if (replace(candidate.index, seen, lease)) return Claim::claimed;
  let_go(out);
  return Claim::gone;
}

SharedConsumer::Claim SharedConsumer::claim_again_in_window(const Candidate& candidate, Lease lease,
                                                            HandOut& out) noexcept {
  const std::uint64_t seq = candidate.seq;
  sync::Word16& entry = group_.window(seq);
  std::uint64_t offset = 0;
  if (look_at_slot(slot_of(seq), seq, offset) != SlotLook::there) {
    return is_past(seq) ? Claim::past : Claim::gone;
  }
  const sync::Word16 seen{seq, candidate.lease_word};
  RecordView record;
  if (!view_record(arena_, arena_bytes_, offset, seq, record)) {
    if (is_past(seq)) return Claim::past;
    return sync::read_halves(entry) == seen ? Claim::corrupt : Claim::gone;
  }
  const bool was_pinned = pinned(record);
  const bool keeps_pin = was_pinned || pin(record);
  SHMQ_CRASH_POINT("claim_again.pinned");
  if (!was_pinned && SHMQ_UNLIKELY(pinned_too_late(seq))) {
    undo_pin(keeps_pin);
    return Claim::past;
  }
  // [L2] seq_cst: as L1, from exactly the lease that ended or was given back.
  if (!sync::compare_and_swap(entry, seen, {seq, shm::pack(lease)})) {
    if (!keeps_pin) pins_.clear_momentary();
    return Claim::gone;
  }
  const Claim kept = keep(record, seq, keeps_pin, out);
  if (kept != Claim::claimed) put_back(seq, lease.hand_outs);
  return kept;
}

SharedConsumer::Claim SharedConsumer::claim_in_table(const Candidate& candidate, Lease lease,
                                                     HandOut& out) noexcept {
  const std::uint64_t seq = candidate.seq;
  StragglerTable& table = group_.table();
  const sync::Word16 seen{seq, candidate.lease_word};
  std::uint64_t place = table.place(candidate.index);
  // Never moved again: compaction moves what lies in the arena.
  if (past_ != nullptr && (place & shm::ref_mask) == shm::ref_in_journal) {
    return table.read(candidate.index) == seen ? Claim::past : Claim::gone;
  }
  bool claimed = false;
  for (int attempt = 0; attempt < 64; ++attempt) {
    RecordView record;
    const std::uint64_t offset = (place & shm::ref_mask) << shm::ref_unit_shift;
    const bool plausible = view_record(arena_, arena_bytes_, offset, seq, record);
    if (!plausible && !claimed) {
      return table.read(candidate.index) == seen && table.place(candidate.index) == place
                 ? Claim::corrupt
                 : Claim::gone;
    }
    const bool keeps_pin = plausible && (pinned(record) || pin(record));
    SHMQ_CRASH_POINT("claim_straggler.pinned");
    if (!claimed) {
      // [T4] seq_cst: ours from here on; a full barrier after the pin.
      if (!table.change(candidate.index, seen, lease)) {
        if (!keeps_pin) pins_.clear_momentary();
        return Claim::gone;
      }
      claimed = true;
    } else {
      sync::full_fence();
    }
    // [T7] Read again: a producer may have moved the record between our look and the claim, and its
    // old chunk was free from then on.
    const std::uint64_t now_at = table.place(candidate.index);
    if (attempt != 0 && !(table.read(candidate.index) == sync::Word16{seq, shm::pack(lease)})) {
      // Not proven by the claim: our lease ended while we looked for the record.
      if (!keeps_pin) pins_.clear_momentary();
      return Claim::gone;
    }
    if (plausible && (now_at == place || base::mutant(21))) {
      const Claim kept = keep(record, seq, keeps_pin, out);
      if (kept != Claim::claimed) put_back(seq, lease.hand_outs);
      return kept;
    }
    if (!keeps_pin) pins_.clear_momentary();
    if (now_at == place) {
      return table.read(candidate.index).low == seq ? Claim::corrupt : Claim::gone;
    }
    place = now_at;
    if (past_ != nullptr && (place & shm::ref_mask) == shm::ref_in_journal) {
      // Left to the journal meanwhile; it stays ours.
      const Claim taken = take_to_claim(seq, Past::Way::back, out);
      if (taken != Claim::claimed) put_back(seq, lease.hand_outs);
      return taken;
    }
  }
  put_back(seq, lease.hand_outs);
  return Claim::gone;
}

// Out of deliveries: to the dead state, unless that is full; then it is handed out on.
bool SharedConsumer::bury(const Candidate& candidate, Lease lease) noexcept {
  const std::uint64_t bytes =
      candidate.index == in_window
          ? group_.bytes_of_message(candidate.seq)
          : group_.bytes_at(group_.table().place(candidate.index), candidate.seq);
  if (!group_.dead_has_room(bytes) && lease.hand_outs != 0xffff) return false;
  lease.state = LeaseState::dead;
  lease.owner = 0;
  lease.deadline = 0;
  // [L6] seq_cst: from exactly what was found.
  if (replace(candidate.index, {candidate.seq, candidate.lease_word}, lease)) {
    group_.count_dead(bytes, 1);
  }
  return true;
}

// --- Figures -----------------------------------------------------------------------------------

std::uint64_t SharedConsumer::due_in_ns() const noexcept {
  const std::uint64_t hint = sync::load_acquire(entry_.next_due_tick);
  const std::uint64_t now = base::coarse_tick_64();
  return wants_look(hint, now) ? 0 : (hint - now) << base::tick_shift;
}

bool SharedConsumer::may_have_some() const noexcept {
  if (wants_look(sync::load_acquire(entry_.next_due_tick), base::coarse_tick_64())) return true;
  const std::uint64_t next = group_.first_unclaimed(sync::load_acquire(entry_.next_hint));
  // As much is in flight as may be: until something is settled.
  if (next - group_.floor() >= window_entries_ && group_.table_is_full()) return false;
  return is_past(next) || (sync::load_acquire(slot_of(next).low) == next && may_see(next));
}

}  // namespace shmq::queue
