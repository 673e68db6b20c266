// SPDX-License-Identifier: Apache-2.0
//
// What anybody may do to a shared group, consumer or not: move its floor, move a message out of the
// floor's way, drop messages, give back the leases of the dead.
//
// Invariants:
//  1. All seqs below the floor are settled, or live in the straggler table.
//  2. A seq's window entry says {seq - window entries, settled or moved} until it is claimed the
//     first time [L1]; it is claimed only below floor + window entries.
//  3. Who is not a consumer of the group visits it first (GroupVisit), so that its entry is not
//     used for another group meanwhile.
//  4. next_due_tick is never far behind the truth: lowered to the moment at which a message becomes
//     due before the CAS that makes it so and again after, and set at most a second ahead by who
//     looks (see SharedConsumer).
// Progress: lock-free; a failed CAS means that somebody else settled, claimed, evicted or dropped.
#pragma once

#include <cstdint>

#include "base/clock.hpp"
#include "queue/deadlines.hpp"
#include "queue/stragglers.hpp"
#include "shm/segment.hpp"

namespace shmq::queue {

class SharedGroup {
 public:
  SharedGroup(const shm::Segment& segment, std::uint32_t group) noexcept
      : segment_(segment),
        group_(segment.group(group)),
        window_(segment.window(group)),
        window_entries_(segment.limits().window_entries),
        table_(segment, group) {}

  [[nodiscard]] shm::Group& entry() const noexcept { return group_; }
  StragglerTable& table() noexcept { return table_; }
  [[nodiscard]] sync::Word16& window(std::uint64_t seq) const noexcept {
    return window_[seq & (window_entries_ - 1)];
  }
  [[nodiscard]] std::uint64_t floor() const noexcept {
    return sync::load_acquire(group_.progress.low);  // pairs with F1: what is below is settled
  }

  /// The lowest seq from `from` on that nobody was handed yet, within the window; only a look.
  [[nodiscard]] std::uint64_t first_unclaimed(std::uint64_t from) const noexcept;
  [[nodiscard]] bool table_is_full() const noexcept { return table_.in_use() >= table_.size(); }
  /// Where the floor can be moved to, by evictions if the table has room; only a look.
  [[nodiscard]] std::uint64_t reachable_floor() const noexcept;
  /// Moves the floor over what is settled or moved; gives it.
  std::uint64_t advance_floor() noexcept;

  enum class Eviction : std::uint8_t {
    evicted,
    changed,    // it was settled, dropped or evicted meanwhile
    unclaimed,  // never handed out: backlog, which nothing can be done about
    table_full,
  };
  /// Moves the message to the straggler table. `evictor`: participant entry + 1 of the caller.
  Eviction evict(std::uint64_t seq, std::uint32_t evictor) noexcept;

  enum class Patience : std::uint8_t {
    some,  // leases get a little time while nothing behind them is settled
    none,
  };
  /// Evicts what holds the floor up: delayed and dead messages, and leases as `patience` says.
  /// Gives the floor.
  std::uint64_t clear_floor(std::uint32_t evictor, Patience patience) noexcept;

  /// Settles what lies below `target` and is not leased; leases are evicted. Stops where that
  /// fails. `and_stragglers`: the ready and the dead ones in the table, too. Gives how many were
  /// dropped.
  std::uint64_t drop_below(std::uint64_t target, std::uint32_t evictor,
                           bool and_stragglers) noexcept;

  /// From now on something may be due at `tick`: before and after what makes it so.
  void announce_due(std::uint64_t tick) noexcept;
  /// The same for a straggler.
  void announce_in_table(std::uint64_t tick) noexcept;
  /// When a message with this lease may be handed out again; ~0: not by time.
  [[nodiscard]] std::uint64_t due_tick(const shm::Lease& lease) const noexcept;
  void announce_due_now() noexcept { announce_due(base::coarse_tick_64()); }

  /// May another message become dead that holds this many bytes of the arena? All groups' dead
  /// together hold at most a quarter of it, and this group's a quarter of its straggler table.
  [[nodiscard]] bool dead_has_room(std::uint64_t bytes) const noexcept;
  /// What the record at this place of the arena, or of this message, holds; 0 if it is gone.
  [[nodiscard]] std::uint64_t bytes_at(std::uint64_t place, std::uint64_t seq) const noexcept;
  [[nodiscard]] std::uint64_t bytes_of_message(std::uint64_t seq) const noexcept;
  /// Counts what became dead, or, with `sign` -1, what was dropped of it.
  void count_dead(std::uint64_t bytes, int sign) noexcept;
  /// What a record of this length keeps from being used: a large one cannot be moved out of its
  /// chunk.
  [[nodiscard]] std::uint64_t bytes_held_by(std::uint64_t record_bytes) const noexcept;

  /// Everything that participant `number`, whose entry says `dead_word`, held or reserved becomes
  /// ready or is undone. Idempotent.
  void reclaim(std::uint32_t number, std::uint64_t dead_word) noexcept;

 private:
  [[nodiscard]] bool is_dead(std::uint32_t number, std::uint64_t dead_word) const noexcept {
    return sync::load_acquire(segment_.participant(number).word) == dead_word;
  }
  static void lower(std::uint64_t& hint, std::uint64_t tick) noexcept;
  std::uint64_t drop_stragglers() noexcept;
  [[nodiscard]] bool something_is_settled_behind(std::uint64_t seq) const noexcept;

  const shm::Segment& segment_;
  shm::Group& group_;
  sync::Word16* const window_;
  const std::uint64_t window_entries_;
  StragglerTable table_;
};

/// Names the group in the visitor's participant entry, for a scope.
class GroupVisit {
 public:
  /// False when the group is gone.
  GroupVisit(const shm::Segment& segment, shm::Participant& visitor, std::uint32_t group) noexcept
      : visitor_(visitor) {
    const std::uint64_t word = sync::load_acquire(segment.group(group).word);
    // [G5] full fence between, pairs with G6 (who wants the entry looks at the participants after
    // it was retired): one of the two sees the other.
    sync::store_release(visitor_.visiting, (shm::group_incarnation(word) << 16) | (group + 1));
    sync::full_fence();
    here_ = shm::group_state(word) == shm::GroupState::active &&
            sync::load_acquire(segment.group(group).word) == word;
  }
  GroupVisit(const GroupVisit&) = delete;
  GroupVisit& operator=(const GroupVisit&) = delete;
  ~GroupVisit() { sync::store_release(visitor_.visiting, 0); }
  explicit operator bool() const noexcept { return here_; }

 private:
  shm::Participant& visitor_;
  bool here_ = false;
};

inline bool is_active_shared(std::uint64_t group_word) noexcept {
  return shm::group_state(group_word) == shm::GroupState::active &&
         shm::group_mode(group_word) == static_cast<std::uint8_t>(GroupMode::shared);
}

/// Moves the floors of the shared groups that hold head back, evicting what stands in the way.
/// `self`: participant entry of the caller.
void clear_floors(const shm::Segment& segment, std::uint32_t self,
                  SharedGroup::Patience patience) noexcept;
/// The same without evictions, so anybody may call it.
void advance_floors(const shm::Segment& segment, std::uint32_t self) noexcept;

}  // namespace shmq::queue
