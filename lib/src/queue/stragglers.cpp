// SPDX-License-Identifier: Apache-2.0
#include "queue/stragglers.hpp"

#include "base/mutant.hpp"

namespace shmq::queue {

using shm::Lease;
using shm::LeaseState;

namespace {

constexpr std::uint64_t short_generation_mask = 0x1ff;
constexpr std::uint64_t place_ref_mask = shm::ref_mask;

constexpr LeaseState reserved_of(LeaseState state) noexcept {
  switch (state) {
    case LeaseState::leased: return LeaseState::reserved_leased;
    case LeaseState::dead: return LeaseState::reserved_dead;
    default: return LeaseState::reserved_ready;
  }
}
constexpr LeaseState live_of(LeaseState state) noexcept {
  switch (state) {
    case LeaseState::reserved_leased: return LeaseState::leased;
    case LeaseState::reserved_dead: return LeaseState::dead;
    default: return LeaseState::ready;
  }
}
constexpr std::uint32_t evictor_of(const Lease& reserved) noexcept {
  return reserved.deadline >> 9;
}
// The generation beside the reservation is written after it, and may be of an earlier use: the nine
// bits in the word itself have to agree.
constexpr bool is_of_generation(const Lease& reserved, std::uint64_t generation) noexcept {
  return (reserved.deadline & short_generation_mask) == (generation & short_generation_mask);
}

}  // namespace

std::optional<StragglerTable::Reservation> StragglerTable::reserve(std::uint64_t seq,
                                                                   const Lease& lease,
                                                                   std::uint64_t ref,
                                                                   std::uint32_t evictor) noexcept {
  // Counted before it is taken: dying in between leaves a count that is too high, which costs
  // looks.
  __atomic_fetch_add(&group_.stragglers, 1, __ATOMIC_SEQ_CST);
  const std::uint32_t first = bucket_of(seq);
  for (std::uint32_t probe = 0; probe < count_; ++probe) {
    const std::uint32_t index = (first + probe) & (count_ - 1);
    shm::Straggler& entry = entries_[index];
    const sync::Word16 seen = sync::read_halves(entry.lease);
    if (seen.low != shm::straggler_free_seq) continue;
    const std::uint64_t generation = (seen.high + 1) & shm::straggler_generation_mask;
    Lease reserved = lease;
    reserved.state = reserved_of(lease.state);
    reserved.deadline =
        (evictor << 9) | static_cast<std::uint32_t>(generation & short_generation_mask);
    const sync::Word16 taken{seq, shm::pack(reserved)};
    raise_reach(probe + 1);
    // [T1] seq_cst: ours, and nobody's to claim. The free word's generation makes a CAS that was
    // prepared long ago fail.
    if (!sync::compare_and_swap(entry.lease, seen, taken)) continue;
    SHMQ_CRASH_POINT("evict.reserved");
    // relaxed, all three: ours alone until T2 releases them.
    sync::store_relaxed(entry.generation, generation);
    sync::store_relaxed(entry.place, (generation << 40) | (ref & place_ref_mask));
    sync::store_relaxed(entry.deadline, std::uint64_t{lease.deadline});
    return Reservation{index, generation, taken};
  }
  __atomic_fetch_sub(&group_.stragglers, 1, __ATOMIC_SEQ_CST);
  return std::nullopt;
}

void StragglerTable::place_in_journal(const Reservation& reservation) noexcept {
  // relaxed: ours alone until T2 releases it.
  sync::store_relaxed(entries_[reservation.index].place,
                      (reservation.generation << 40) | shm::ref_in_journal);
}

void StragglerTable::raise_reach(std::uint32_t reach) noexcept {
  for (std::uint64_t seen = sync::load_relaxed(group_.straggler_reach);
       seen < reach && !sync::compare_and_swap(group_.straggler_reach, seen, reach);
       seen = sync::load_relaxed(group_.straggler_reach)) {
  }
}

void StragglerTable::commit(std::uint64_t seq, std::uint64_t moved_word) noexcept {
  const std::uint32_t index = shm::moved_index(moved_word);
  if (index >= count_) return;  // corrupt
  shm::Straggler& entry = entries_[index];
  const sync::Word16 seen = sync::read_halves(entry.lease);
  Lease lease = shm::unpack_lease(seen.high);
  if (seen.low != seq || !is_reserved(lease.state)) return;  // live already, or settled
  const std::uint64_t generation = shm::moved_generation(moved_word);
  if ((sync::load_acquire(entry.generation) != generation ||
       !is_of_generation(lease, generation)) &&
      !base::mutant(17)) {
    return;  // a stale reservation of another evictor
  }
  lease.state = live_of(lease.state);
  if (!base::mutant(61)) {
    lease.deadline = static_cast<std::uint32_t>(sync::load_relaxed(entry.deadline)) & 0x3fffff;
  }
  // [T3] seq_cst: live, from exactly the reservation that the window names (its low bits of the
  // generation stand in the word). Anybody may do it.
  sync::compare_and_swap(entry.lease, seen, {seq, shm::pack(lease)});
}

void StragglerTable::cancel(const Reservation& reservation) noexcept {
  // [T6] seq_cst: from exactly our reservation.
  if (sync::compare_and_swap(entries_[reservation.index].lease, reservation.reserved,
                             {shm::straggler_free_seq, reservation.generation})) {
    __atomic_fetch_sub(&group_.stragglers, 1, __ATOMIC_SEQ_CST);
  }
}

bool StragglerTable::free(std::uint32_t index, sync::Word16 seen) noexcept {
  const std::uint64_t generation =
      sync::load_acquire(entries_[index].generation) & shm::straggler_generation_mask;
  if (!sync::compare_and_swap(entries_[index].lease, seen, {shm::straggler_free_seq, generation})) {
    return false;
  }
  __atomic_fetch_sub(&group_.stragglers, 1, __ATOMIC_SEQ_CST);
  return true;
}

bool StragglerTable::change(std::uint32_t index, sync::Word16 seen, const Lease& lease) noexcept {
  if (lease.state == LeaseState::settled) return free(index, seen);
  return sync::compare_and_swap(entries_[index].lease, seen, {seen.low, shm::pack(lease)});
}

std::optional<std::uint32_t> StragglerTable::find(std::uint64_t seq) const noexcept {
  const std::uint32_t first = bucket_of(seq);
  for (std::uint32_t probe = 0; probe < reach(); ++probe) {
    const std::uint32_t index = (first + probe) & (count_ - 1);
    const sync::Word16 seen = sync::read_halves(entries_[index].lease);
    // A reserved one is some evictor's that came too late: the floor passes live ones only.
    if (seen.low == seq && !is_reserved(shm::unpack_lease(seen.high).state)) return index;
  }
  return std::nullopt;
}

std::optional<std::uint32_t> StragglerTable::follow(std::uint64_t seq,
                                                    std::uint64_t moved_word) const noexcept {
  const std::uint32_t index = shm::moved_index(moved_word);
  if (index >= count_) return std::nullopt;
  return sync::load_acquire(entries_[index].lease.low) == seq ? std::optional{index} : std::nullopt;
}

bool StragglerTable::move_place(std::uint32_t index, std::uint64_t from,
                                std::uint64_t ref) noexcept {
  // [T8] seq_cst: the copy is whole; fails if the entry was freed and used again, by the
  // generation.
  return sync::compare_and_swap(entries_[index].place, from,
                                (from & ~place_ref_mask) | (ref & place_ref_mask));
}

void StragglerTable::settle_reservations(const sync::Word16* window, std::uint64_t window_entries,
                                         std::uint32_t dead) noexcept {
  for (std::uint32_t index = 0; index < count_; ++index) {
    for (int attempt = 0; attempt < 64; ++attempt) {
      const sync::Word16 seen = read(index);
      const Lease lease = shm::unpack_lease(seen.high);
      if (seen.low == shm::straggler_free_seq || !is_reserved(lease.state)) break;
      const sync::Word16 named = sync::read_halves(window[seen.low & (window_entries - 1)]);
      const std::uint64_t generation = sync::load_acquire(entries_[index].generation);
      if (named.low == seen.low && is_of_generation(lease, generation) &&
          named.high == shm::moved_word(index, generation & shm::straggler_generation_mask)) {
        commit(seen.low, named.high);
        continue;
      }
      // Unchanged after the look at the window? Else it was made live meanwhile: look again.
      if (!(read(index) == seen)) continue;
      if ((evictor_of(lease) != dead && !base::mutant(32)) ||
          cancel_for_the_dead(index, seen, lease)) {
        break;
      }
    }
  }
}

bool StragglerTable::cancel_for_the_dead(std::uint32_t index, sync::Word16 seen,
                                         const Lease& reserved) noexcept {
  // The free word must name the reservation's own generation. The lease names nine bits of it; the
  // entry's may not have been written when its evictor died, and is then the one before.
  const std::uint64_t written = sync::load_acquire(entries_[index].generation);
  std::uint64_t generation =
      (written & ~short_generation_mask) | (reserved.deadline & short_generation_mask);
  if (generation < written) generation += short_generation_mask + 1;
  // [T6] seq_cst, as in cancel.
  if (!sync::compare_and_swap(
          entries_[index].lease, seen,
          {shm::straggler_free_seq, generation & shm::straggler_generation_mask})) {
    return false;
  }
  __atomic_fetch_sub(&group_.stragglers, 1, __ATOMIC_SEQ_CST);
  return true;
}

void StragglerTable::reset() noexcept {
  for (std::uint32_t index = 0; index < count_; ++index) {
    shm::Straggler& entry = entries_[index];
    if (sync::load_relaxed(entry.lease.low) == shm::straggler_free_seq) continue;
    // relaxed: nobody may touch the entry of a group that is being formed.
    sync::store_relaxed(entry.lease.high, (sync::load_relaxed(entry.generation) + 1) &
                                              shm::straggler_generation_mask);
    sync::store_relaxed(entry.lease.low, shm::straggler_free_seq);
  }
}

}  // namespace shmq::queue
