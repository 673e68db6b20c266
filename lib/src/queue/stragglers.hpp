// SPDX-License-Identifier: Apache-2.0
//
// A shared group's straggler table: messages that are not settled but must not hold the floor up.
//
// An eviction: reserve an entry [T1], CAS the window entry to {moved, index, generation} [T2], make
// the table entry live [T3]. T2 is the moment. The table is small fixed buckets, searched by seq; a
// full one overflows into those behind it.
//
// Invariants:
//  1. A reserved entry is nobody's to claim. It becomes live if the window names it, with its
//     generation; else its evictor cancels it, or reclaim after the evictor's proven death.
//  2. Who moves the floor over a moved entry makes the table entry live before.
//  3. An entry that is not free, reserved ones included, holds its chunk back like a pin, unless
//  its
//     place says that the record is in the journal; the tables are read before the pins.
//  4. A seq is live in at most one place: the window, or one table entry.
// Progress: lock-free; a failed CAS means that somebody else settled, claimed or evicted.
#pragma once

#include <cstdint>
#include <optional>

#include "shm/segment.hpp"

namespace shmq::queue {

constexpr bool is_reserved(shm::LeaseState state) noexcept {
  return state >= shm::LeaseState::reserved_leased;
}

class StragglerTable {
 public:
  StragglerTable(const shm::Segment& segment, std::uint32_t group) noexcept
      : group_(segment.group(group)),
        entries_(segment.stragglers(group)),
        count_(segment.limits().straggler_entries) {}

  struct Reservation {
    std::uint32_t index;
    std::uint64_t generation;
    sync::Word16 reserved;  // what the entry's lease holds now
  };
  /// [T1] Takes a free entry for `seq`. nullopt: the table is full.
  std::optional<Reservation> reserve(std::uint64_t seq, const shm::Lease& lease, std::uint64_t ref,
                                     std::uint32_t evictor) noexcept;
  /// Before T2, by who reserved it: the record is to be read from the journal.
  void place_in_journal(const Reservation& reservation) noexcept;
  /// [T3] Makes the entry that a window entry names live, if it is not yet.
  void commit(std::uint64_t seq, std::uint64_t moved_word) noexcept;
  /// [T6] Gives a reservation back that the window does not name.
  void cancel(const Reservation& reservation) noexcept;

  /// The entry of a seq that the floor has passed; nullopt: it is settled.
  [[nodiscard]] std::optional<std::uint32_t> find(std::uint64_t seq) const noexcept;
  /// The index in a window entry of the state moved; nullopt: corrupt, or used for another by now.
  [[nodiscard]] std::optional<std::uint32_t> follow(std::uint64_t seq,
                                                    std::uint64_t moved_word) const noexcept;

  [[nodiscard]] sync::Word16 read(std::uint32_t index) const noexcept {
    return sync::read_halves(entries_[index].lease);
  }
  /// [T4], [T5] From exactly `seen` to `lease`; a settled one frees the entry.
  bool change(std::uint32_t index, sync::Word16 seen, const shm::Lease& lease) noexcept;
  /// The record's place in the arena, as in a slot.
  [[nodiscard]] std::uint64_t place(std::uint32_t index) const noexcept {
    // [T7] acquire: read again after the claim, since a producer may have moved the record.
    return sync::load_acquire(entries_[index].place);
  }
  /// A record was copied: from exactly `from` to `ref`. False: the entry is used for another now.
  bool move_place(std::uint32_t index, std::uint64_t from, std::uint64_t ref) noexcept;

  /// The seq that the entry holds, and its place, for who looks at the chunks; nullopt: free.
  struct Kept {
    std::uint64_t seq;
    std::uint64_t place;
  };
  [[nodiscard]] std::optional<Kept> kept(std::uint32_t index) const noexcept {
    // [K5] acquire, pairs with T2 through the floor and head: after head has passed a seq, its
    // entry and place are seen here as long as it lives.
    const std::uint64_t seq = sync::load_acquire(entries_[index].lease.low);
    if (seq == shm::straggler_free_seq) return std::nullopt;
    return Kept{seq, sync::load_acquire(entries_[index].place)};
  }
  [[nodiscard]] std::uint32_t size() const noexcept { return count_; }
  /// False: certainly none in use. It may say yes too often, after a kill.
  [[nodiscard]] bool any() const noexcept { return in_use() != 0; }
  /// Entries that are not free; may be too high after a kill.
  [[nodiscard]] std::uint64_t in_use() const noexcept {
    return sync::load_acquire(group_.stragglers);
  }

  /// Makes live what the window names, and cancels what participant `dead` (entry + 1, proven dead)
  /// reserved in vain.
  void settle_reservations(const sync::Word16* window, std::uint64_t window_entries,
                           std::uint32_t dead) noexcept;
  /// Empties the table of a group that is being formed.
  void reset() noexcept;

 private:
  bool free(std::uint32_t index, sync::Word16 seen) noexcept;
  bool cancel_for_the_dead(std::uint32_t index, sync::Word16 seen,
                           const shm::Lease& reserved) noexcept;
  [[nodiscard]] std::uint32_t bucket_of(std::uint64_t seq) const noexcept {
    // Mixed well: regular distances between the slow ones are what there is.
    std::uint64_t mixed = (seq ^ (seq >> 31)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
    return static_cast<std::uint32_t>(mixed >> 32) & (count_ - 1) &
           ~(shm::stragglers_per_bucket - 1);
  }
  /// How far from its bucket an entry may lie.
  [[nodiscard]] std::uint32_t reach() const noexcept {
    // acquire: raised before the entry is reserved, and so before the floor passes its seq.
    const std::uint64_t reach = sync::load_acquire(group_.straggler_reach);
    return reach < count_ ? static_cast<std::uint32_t>(reach) : count_;
  }
  void raise_reach(std::uint32_t reach) noexcept;

  shm::Group& group_;
  shm::Straggler* entries_;
  std::uint32_t count_;
};

}  // namespace shmq::queue
