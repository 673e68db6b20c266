// SPDX-License-Identifier: Apache-2.0
#include "queue/shared_group.hpp"

#include <algorithm>

#include "base/mutant.hpp"
#include "queue/head.hpp"
#include "queue/record_view.hpp"
#include "sync/event.hpp"

namespace shmq::queue {

using shm::Lease;
using shm::LeaseState;

namespace {

constexpr int attempts_max = 64;  // of a CAS that others' progress makes fail

// Never below 0: what was killed while counting is missing.
void add_clamped(std::uint64_t& figure, std::uint64_t amount, int sign) noexcept {
  for (int attempt = 0; attempt < attempts_max; ++attempt) {
    const std::uint64_t seen = sync::load_relaxed(figure);
    const std::uint64_t left = seen > amount ? seen - amount : 0;
    if (sync::compare_and_swap(figure, seen, sign > 0 ? seen + amount : left)) return;
  }
}

}  // namespace

bool SharedGroup::dead_has_room(std::uint64_t bytes) const noexcept {
  if (sync::load_relaxed(group_.dead_messages) >= table_.size() / 4) return false;
  std::uint64_t sum = bytes;
  for (std::uint32_t i = 0; i < segment_.limits().max_groups; ++i) {
    const shm::Group& each = segment_.group(i);
    if (is_active_shared(sync::load_acquire(each.word))) sum += sync::load_relaxed(each.dead_bytes);
  }
  return sum <= segment_.limits().arena_bytes / 4;
}

void SharedGroup::count_dead(std::uint64_t bytes, int sign) noexcept {
  add_clamped(group_.dead_messages, 1, sign);
  add_clamped(group_.dead_bytes, bytes, sign);
  if (sign > 0) sync::fetch_add(group_.dead_lettered_total, 1);
}

std::uint64_t SharedGroup::bytes_held_by(std::uint64_t record_bytes) const noexcept {
  const std::uint64_t chunk_bytes = segment_.limits().chunk_bytes;
  if (record_bytes <= chunk_bytes / 4) return record_bytes;
  return (record_bytes + chunk_bytes - 1) / chunk_bytes * chunk_bytes;
}

std::uint64_t SharedGroup::first_unclaimed(std::uint64_t from) const noexcept {
  const std::uint64_t floor = this->floor();
  std::uint64_t seq = from - floor <= window_entries_ ? from : floor;  // else damaged, or behind
  while (seq != floor + window_entries_ && sync::load_acquire(window(seq).low) == seq) ++seq;
  return seq;
}

std::uint64_t SharedGroup::reachable_floor() const noexcept {
  const std::uint64_t floor = this->floor();
  if (!table_is_full()) return first_unclaimed(floor);
  std::uint64_t seq = floor;
  for (; seq != floor + window_entries_; ++seq) {
    const sync::Word16 seen = sync::read_halves(window(seq));
    const auto state = static_cast<LeaseState>(seen.high >> 61);
    if (seen.low != seq || (state != LeaseState::settled && state != LeaseState::moved)) break;
  }
  return seq;
}

std::uint64_t SharedGroup::advance_floor() noexcept {
  const sync::Word16 progress = sync::read_halves(group_.progress);
  std::uint64_t floor = progress.low;
  for (const std::uint64_t end = floor + window_entries_; floor != end; ++floor) {
    const sync::Word16 seen = sync::read_halves(window(floor));
    if (seen.low != floor) break;
    const auto state = static_cast<LeaseState>(seen.high >> 61);
    if (state == LeaseState::moved) {
      // Live in the table before the floor passes it: who looks there after that finds it.
      if (!base::mutant(18)) table_.commit(floor, seen.high);
    } else if (state != LeaseState::settled) {
      break;
    }
  }
  if (floor == progress.low) return floor;
  SHMQ_CRASH_POINT("floor.before_cas");
  // [F1] seq_cst: all below are settled or live in the table. A full barrier for the look at those
  // who wait for room.
  if (sync::compare_and_swap(group_.progress, progress, {floor, progress.high})) {
    sync::event_notify(segment_.control().room_event);
    return floor;
  }
  return this->floor();
}

SharedGroup::Eviction SharedGroup::evict(std::uint64_t seq, std::uint32_t evictor) noexcept {
  sync::Word16& entry = window(seq);
  const sync::Word16 seen = sync::read_halves(entry);
  if (seen.low != seq) {
    return seen.low == seq - window_entries_ ? Eviction::unclaimed : Eviction::changed;
  }
  const Lease lease = shm::unpack_lease(seen.high);
  if (lease.state == LeaseState::settled || lease.state == LeaseState::moved) {
    return Eviction::changed;
  }
  std::uint64_t offset = 0;
  const std::uint64_t slots = segment_.limits().slots;
  const bool may_be_past = segment_.limits().durable != 0;
  const auto is_past = [&] { return static_cast<std::int64_t>(read_head(segment_) - seq) > 0; };
  bool in_ring = look_at_slot(segment_.slots()[seq & (slots - 1)], seq, offset) == SlotLook::there;
  if (!in_ring && !(may_be_past && is_past())) return Eviction::changed;
  const std::uint64_t due = due_tick(lease);
  announce_in_table(due);
  SHMQ_CRASH_POINT("evict.looked");
  const auto reservation = table_.reserve(
      seq, lease, in_ring ? offset >> shm::ref_unit_shift : shm::ref_in_journal, evictor);
  if (!reservation) return Eviction::table_full;
  if (may_be_past && in_ring) {
    // [T9] full fence, pairs with K0, as for a pin: the reservation and its place first, then the
    // look at head. Who judged the chunk to be free before could not see them.
    sync::full_fence();
    if (is_past() && !base::mutant(104)) table_.place_in_journal(*reservation);
  }
  const std::uint64_t moved = shm::moved_word(reservation->index, reservation->generation);
  // [T2] seq_cst: the moment. From exactly the word that was reserved with: an ack, a redelivery or
  // a reclaim since then makes it fail.
  const sync::Word16 from = base::mutant(35) ? sync::read_halves(entry) : seen;
  if (!sync::compare_and_swap(entry, from, {seq, moved})) {
    table_.cancel(*reservation);
    return Eviction::changed;
  }
  SHMQ_CRASH_POINT("evict.moved");
  table_.commit(seq, moved);
  announce_in_table(due);
  return Eviction::evicted;
}

bool SharedGroup::something_is_settled_behind(std::uint64_t seq) const noexcept {
  for (std::uint64_t each = seq + 1; each != seq + window_entries_; ++each) {
    const sync::Word16 seen = sync::read_halves(window(each));
    if (seen.low != each) return false;  // not claimed, and so is all that follows
    const auto state = static_cast<LeaseState>(seen.high >> 61);
    if (state == LeaseState::settled || state == LeaseState::moved) return true;
  }
  return false;
}

std::uint64_t SharedGroup::clear_floor(std::uint32_t evictor, Patience patience) noexcept {
  const TickTime time = time_of_group(group_, base::coarse_tick_64());
  std::uint64_t floor = advance_floor();
  bool looked_behind = patience == Patience::none;
  int futile = 0;
  for (std::uint64_t step = 0; step < window_entries_; ++step) {
    const sync::Word16 seen = sync::read_halves(window(floor));
    if (seen.low == floor) {
      const Lease lease = shm::unpack_lease(seen.high);
      const bool slow = lease.state == LeaseState::dead ||
                        (lease.state == LeaseState::ready && due_in_ticks(lease, time) > 0);
      if (!slow && patience == Patience::some) {
        // One lease a call, and only if that makes room.
        if (looked_behind || !something_is_settled_behind(floor)) return floor;
        looked_behind = true;
      }
    }
    switch (evict(floor, evictor)) {
      case Eviction::evicted: break;
      case Eviction::changed:
        if (++futile == attempts_max) return floor;
        break;
      case Eviction::unclaimed:
      case Eviction::table_full: return floor;
    }
    floor = advance_floor();
  }
  return floor;
}

std::uint64_t SharedGroup::drop_below(std::uint64_t target, std::uint32_t evictor,
                                      bool and_stragglers) noexcept {
  std::uint64_t dropped = 0;
  std::uint64_t floor = advance_floor();
  while (static_cast<std::int64_t>(target - floor) > 0) {
    const std::uint64_t end = floor + std::min(target - floor, window_entries_);
    bool stuck = false;
    for (std::uint64_t seq = floor; seq != end && !stuck; ++seq) {
      for (int attempt = 0; attempt < attempts_max; ++attempt) {
        const sync::Word16 seen = sync::read_halves(window(seq));
        const bool claimed = seen.low == seq;
        if (!claimed && seen.low != seq - window_entries_) break;  // passed meanwhile
        const auto state = static_cast<LeaseState>(seen.high >> 61);
        if (claimed && (state == LeaseState::settled || state == LeaseState::moved)) break;
        const bool keep = claimed && (state == LeaseState::leased ||
                                      (state == LeaseState::dead && !and_stragglers));
        if (keep && !base::mutant(19)) {
          const Eviction eviction = evict(seq, evictor);
          stuck = eviction == Eviction::table_full;
          if (eviction != Eviction::changed) break;
          continue;
        }
        // [D2] seq_cst: settled before the floor moves over it, so that nobody claims it after.
        if (sync::compare_and_swap(window(seq), seen, {seq, 0})) {
          ++dropped;
          if (claimed && state == LeaseState::dead) count_dead(bytes_of_message(seq), -1);
          break;
        }
      }
    }
    const std::uint64_t moved_to = advance_floor();
    if (moved_to == floor || stuck) break;
    floor = moved_to;
  }
  if (and_stragglers) dropped += drop_stragglers();  // now that the floor has passed what was moved
  sync::fetch_add(group_.dropped_total, dropped);
  return dropped;
}

// For the figures; the record may be gone already.
std::uint64_t SharedGroup::bytes_at(std::uint64_t place, std::uint64_t seq) const noexcept {
  RecordView record;
  const std::uint64_t offset = (place & shm::ref_mask) << shm::ref_unit_shift;
  return view_record(segment_.arena(), segment_.limits().arena_bytes, offset, seq, record)
             ? bytes_held_by(record.end - record.offset)
             : 0;
}
std::uint64_t SharedGroup::bytes_of_message(std::uint64_t seq) const noexcept {
  const std::uint64_t slots = segment_.limits().slots;
  return bytes_at(sync::load_acquire(segment_.slots()[seq & (slots - 1)].high), seq);
}

std::uint64_t SharedGroup::drop_stragglers() noexcept {
  if (!table_.any()) return 0;
  std::uint64_t dropped = 0;
  const std::uint64_t floor = this->floor();
  for (std::uint32_t index = 0; index < table_.size(); ++index) {
    const sync::Word16 seen = table_.read(index);
    const auto state = static_cast<LeaseState>(seen.high >> 61);
    // At or above the floor the window still points here: a free entry would be a lost message.
    if (seen.low >= floor || (state != LeaseState::ready && state != LeaseState::dead)) continue;
    const std::uint64_t bytes = bytes_at(table_.place(index), seen.low);
    if (!table_.change(index, seen, Lease{})) continue;
    ++dropped;
    if (state == LeaseState::dead) count_dead(bytes, -1);
  }
  return dropped;
}

void SharedGroup::announce_due(std::uint64_t tick) noexcept { lower(group_.next_due_tick, tick); }

void SharedGroup::announce_in_table(std::uint64_t tick) noexcept {
  lower(group_.table_due_tick, tick);
  lower(group_.next_due_tick, tick);
}

std::uint64_t SharedGroup::due_tick(const Lease& lease) const noexcept {
  const TickTime time = time_of_group(group_, base::coarse_tick_64());
  const std::uint64_t ticks = due_in_ticks(lease, time);
  return ticks == ~std::uint64_t{0} ? ticks : time.now + ticks;
}

void SharedGroup::lower(std::uint64_t& hint, std::uint64_t tick) noexcept {
  for (int attempt = 0; attempt < attempts_max; ++attempt) {
    // acquire is enough: callers have a full barrier between what they made due and the look after
    // it.
    const std::uint64_t seen = sync::load_acquire(hint);
    // [N1] seq_cst CAS-min: fails if somebody looked, or lowered it, meanwhile.
    if (seen <= tick || sync::compare_and_swap(hint, seen, tick)) return;
  }
}

void SharedGroup::reclaim(std::uint32_t number, std::uint64_t dead_word) noexcept {
  const std::uint32_t owner = number + 1;
  const auto given_back = [](Lease lease) {
    lease.state = LeaseState::ready;
    lease.owner = 0;
    lease.deadline = 0;
    // Four bits of deaths; those beyond count as failures, so that the limit is reached in any
    // case.
    if (base::mutant(37)) return lease;
    if (lease.deaths < 15) {
      ++lease.deaths;
    } else {
      lease.failures = std::min(lease.failures + 1, 63U);
    }
    return lease;
  };
  std::uint64_t redelivered = 0;
  announce_due_now();
  const auto reclaim_table = [&] {
    if (!table_.any()) return;
    announce_in_table(base::coarse_tick_64());
    table_.settle_reservations(window_, window_entries_, owner);
    for (std::uint32_t index = 0; index < table_.size(); ++index) {
      for (int attempt = 0; attempt < attempts_max; ++attempt) {
        const sync::Word16 seen = table_.read(index);
        const Lease lease = shm::unpack_lease(seen.high);
        if (lease.state != LeaseState::leased || lease.owner != owner) break;
        if (!is_dead(number, dead_word)) return;
        // [T5] seq_cst: the same, in the table.
        if (!table_.change(index, seen, given_back(lease))) continue;
        ++redelivered;
        break;
      }
    }
    announce_in_table(base::coarse_tick_64());
  };
  if (base::mutant(39)) reclaim_table();
  SHMQ_CRASH_POINT("reclaim.before_window");
  // The window first, then the table: a lease moves in that direction only.
  for (std::uint64_t i = 0; i < window_entries_; ++i) {
    for (int attempt = 0; attempt < attempts_max; ++attempt) {
      const sync::Word16 seen = sync::read_halves(window_[i]);
      const Lease lease = shm::unpack_lease(seen.high);
      if (lease.state != LeaseState::leased || lease.owner != owner) break;
      // The lease first, then the entry: a participant that came since would have another word.
      if (!is_dead(number, dead_word)) return;
      // [L5] seq_cst: from exactly the dead's lease.
      if (!sync::compare_and_swap(window_[i], seen, {seen.low, shm::pack(given_back(lease))})) {
        continue;
      }
      ++redelivered;
      break;
    }
    SHMQ_CRASH_POINT("reclaim.lease");
  }
  if (!base::mutant(39)) reclaim_table();
  sync::fetch_add(group_.redelivered_death_total, redelivered);
  announce_due_now();
}

namespace {

template <typename Act>
void for_groups_at_head(const shm::Segment& segment, std::uint32_t self, Act act) noexcept {
  const std::uint64_t head = read_head(segment);
  // Those that are at head now; and those just above it, since head may follow at once.
  for (std::uint32_t i = 0; i < segment.limits().max_groups; ++i) {
    if (!is_active_shared(sync::load_acquire(segment.group(i).word))) continue;
    if (sync::load_acquire(segment.group(i).progress.low) - head > segment.limits().slots / 8) {
      continue;
    }
    const GroupVisit visit{segment, segment.participant(self), i};
    if (!visit) continue;
    SharedGroup group{segment, i};
    act(group);
  }
}

}  // namespace

void clear_floors(const shm::Segment& segment, std::uint32_t self,
                  SharedGroup::Patience patience) noexcept {
  for_groups_at_head(segment, self,
                     [&](SharedGroup& group) { group.clear_floor(self + 1, patience); });
}

void advance_floors(const shm::Segment& segment, std::uint32_t self) noexcept {
  for_groups_at_head(segment, self, [](SharedGroup& group) { group.advance_floor(); });
}

}  // namespace shmq::queue
