// SPDX-License-Identifier: Apache-2.0
//
// Settling in a shared group: ack, nack, release, reject, extend. The window first, then where it
// points, then, if the floor has passed the seq, the table: a lease moves in that direction only.
#include <algorithm>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "queue/shared.hpp"

namespace shmq::queue {

using shm::Lease;
using shm::LeaseState;

// `change` makes the new lease of the old one. False: it is not ours any more, nothing changed.
template <typename Change>
bool SharedConsumer::change_own(std::uint64_t seq, std::uint32_t token, Change change) noexcept {
  const auto is_ours = [&](std::uint64_t lease_word) {
    if (base::mutant(14)) return (lease_word >> 48) == (shm::holder_bits(self_, token) >> 16);
    return (lease_word >> 32) == shm::holder_bits(self_, token);
  };
  // Of a group that was removed, or sought elsewhere, nothing is ours any more.
  if (group_is_gone()) return false;
  StragglerTable& table = group_.table();
  for (int attempt = 0; attempt < 1024; ++attempt) {
    const sync::Word16 seen = sync::read_halves(group_.window(seq));
    if (seen.low == seq && static_cast<LeaseState>(seen.high >> 61) != LeaseState::moved) {
      if (!is_ours(seen.high)) {
        // Two loads are not one: the other half may be of the next message in this entry.
        if (sync::load_acquire(group_.window(seq).low) == seq) return false;
        continue;
      }
      // [L3], [L4] seq_cst: from exactly our lease.
      if (sync::compare_and_swap(group_.window(seq), seen,
                                 {seq, shm::pack(change(shm::unpack_lease(seen.high)))})) {
        return true;
      }
      continue;
    }
    std::optional<std::uint32_t> index;
    if (seen.low == seq) {
      table.commit(seq, seen.high);
      index = table.follow(seq, seen.high);
    } else if (static_cast<std::int64_t>(seen.low - seq) > 0) {
      index = table.find(seq);
    }
    if (!index) {
      // As above: the other half of a moved word may be of the next message, too.
      if (seen.low == seq && sync::load_acquire(group_.window(seq).low) != seq) continue;
      return false;
    }
    const sync::Word16 straggler = table.read(*index);
    if (straggler.low != seq || !is_ours(straggler.high)) return false;  // nobody else frees ours
    const Lease to = change(shm::unpack_lease(straggler.high));
    const std::uint64_t due = group_.due_tick(to);
    group_.announce_in_table(due);
    // [T5] seq_cst: the same, in the table.
    if (!table.change(*index, straggler, to)) continue;
    group_.announce_in_table(due);
    return true;
  }
  return false;
}

bool SharedConsumer::set_own(std::uint64_t seq, std::uint32_t token, const Lease& to) noexcept {
  return change_own(seq, token, [&](const Lease&) { return to; });
}

// A look that costs the others nothing: most deliveries that end unsettled here were settled by
// ack_through, or belong to another by now.
bool SharedConsumer::is_lost(std::uint64_t seq, std::uint32_t token) const noexcept {
  const sync::Word16 seen = sync::read_halves(group_.window(seq));
  return seen.low == seq && static_cast<LeaseState>(seen.high >> 61) != LeaseState::moved &&
         (seen.high >> 32) != shm::holder_bits(self_, token) &&
         sync::load_acquire(group_.window(seq).low) == seq;  // else the halves are of two messages
}

// Claimed, but it could not be handed out.
void SharedConsumer::put_back(std::uint64_t seq, std::uint32_t token) noexcept {
  group_.announce_due_now();
  (void)change_own(seq, token, [](Lease lease) {
    lease.state = LeaseState::ready;
    lease.owner = 0;
    lease.deadline = 0;
    return lease;
  });
  group_.announce_due_now();
}

bool SharedConsumer::ack_through(std::uint64_t seq) noexcept {
  bool all = true;
  held_.for_each([&](const HeldList::Held& held) {
    if (held.seq <= seq && !settle(held.seq, held.token)) all = false;
  });
  held_.remove_through(seq);
  return all;
}

// What is due again is announced before and after it becomes so: whoever raised the hint in between
// looked too early.
bool SharedConsumer::give_back(std::uint64_t seq, std::uint32_t token, std::uint64_t delay_ns,
                               bool failed, std::uint64_t record_bytes) noexcept {
  if (is_lost(seq, token)) {
    held_.remove(seq, token);
    return false;
  }
  // Rounded up by a tick, so that no delay is cut short.
  std::uint64_t due = base::coarse_tick_64();
  if (delay_ns != 0) due += base::ticks_of(std::min(delay_ns, longest_delay_ns)) + 1;
  const std::uint64_t bytes = group_.bytes_held_by(record_bytes);
  group_.announce_due(due);
  SHMQ_CRASH_POINT("give_back.announced");
  bool buried = false;
  const bool done = change_own(seq, token, [&](Lease lease) {
    if (failed) lease.failures = std::min(lease.failures + 1, 63U);
    buried = failed && is_exhausted(lease) && group_.dead_has_room(bytes);
    lease.state = buried ? LeaseState::dead : LeaseState::ready;
    lease.owner = 0;
    lease.deadline = buried || delay_ns == 0 ? 0 : deadline_at(due);
    return lease;
  });
  held_.remove(seq, token);
  if (!done) return false;
  SHMQ_CRASH_POINT("give_back.done");
  if (buried) {
    group_.count_dead(bytes, 1);
  } else {
    if (!base::mutant(31)) group_.announce_due(due);
    sync::fetch_add(failed ? entry_.redelivered_nack_total : entry_.redelivered_release_total, 1);
    // Who sleeps looks again soon enough for a long delay.
    if (delay_ns <
        static_cast<std::uint64_t>(std::chrono::nanoseconds{sync::sleep_limit}.count())) {
      sync::event_notify(control_.message_event);
    }
  }
  after_settlement();
  return true;
}

bool SharedConsumer::reject(std::uint64_t seq, std::uint32_t token,
                            std::uint64_t record_bytes) noexcept {
  const std::uint64_t bytes = group_.bytes_held_by(record_bytes);
  const bool room = group_.dead_has_room(bytes);
  const bool done = change_own(seq, token, [&](Lease lease) {
    if (!room) return Lease{};
    lease.state = LeaseState::dead;
    lease.owner = 0;
    lease.deadline = 0;
    return lease;
  });
  held_.remove(seq, token);
  if (!done) return false;
  if (room) {
    group_.count_dead(bytes, 1);
  } else {
    sync::fetch_add(entry_.dead_lettered_total, 1);
    sync::fetch_add(entry_.discarded_total, 1);
  }
  after_settlement();
  return true;
}

bool SharedConsumer::extend(std::uint64_t seq, std::uint32_t token,
                            std::uint64_t lease_ns) noexcept {
  read_clock();
  const std::uint32_t ticks =
      lease_ns == 0 ? lease_ticks_ : base::ticks_of(std::min(lease_ns, longest_lease_ns));
  const std::uint32_t deadline = lease_deadline(ticks);
  if (deadline != 0) group_.announce_due(now_ + ticks + 1);
  const bool done = change_own(seq, token, [&](Lease lease) {
    if (lease.deadline != 0) lease.deadline = deadline;
    return lease;
  });
  if (done && deadline != 0) group_.announce_due(now_ + ticks + 1);
  return done;
}

void SharedConsumer::resign() noexcept {
  held_.for_each([&](const HeldList::Held& held) {
    group_.announce_due_now();
    const bool done = change_own(held.seq, held.token, [](Lease lease) {
      lease.state = LeaseState::ready;
      lease.owner = 0;
      lease.deadline = 0;
      return lease;
    });
    if (!done) return;
    group_.announce_due_now();
    sync::fetch_add(entry_.redelivered_release_total, 1);
  });
  held_.clear();
  group_.advance_floor();
  sync::event_notify(control_.message_event);
}

}  // namespace shmq::queue
