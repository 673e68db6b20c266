// SPDX-License-Identifier: Apache-2.0
#include "daemon/feed/group_scan.hpp"

#include <algorithm>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "queue/head.hpp"
#include "queue/shared_group.hpp"
#include "queue/stragglers.hpp"

namespace shmq::feed {

using shm::Lease;
using shm::LeaseState;

namespace {

// A pair that was there at once: the low half only grows in a window, and what the high half could
// be mixed with in a table is a free entry, which says the same as a settled one.
sync::Word16 read_pair(const sync::Word16& place) noexcept {
  for (int attempt = 0; attempt < 64; ++attempt) {
    const sync::Word16 seen = sync::read_halves(place);
    if (sync::load_acquire(place.low) == seen.low) return seen;
  }
  return {~std::uint64_t{0}, pack(Lease{LeaseState::leased})};  // moves on all the time: no verdict
}

Lease live_lease(Lease lease, std::uint64_t deadline) noexcept {
  switch (lease.state) {
    case LeaseState::reserved_leased: lease.state = LeaseState::leased; break;
    case LeaseState::reserved_dead: lease.state = LeaseState::dead; break;
    default: lease.state = LeaseState::ready; break;
  }
  lease.deadline = static_cast<std::uint32_t>(deadline) & base::tick_mask;
  return lease;
}

journal::EntryState entry_of(std::uint64_t seq, const Lease& lease,
                             const queue::TickTime& time) noexcept {
  journal::EntryState entry{};
  entry.seq = seq;
  entry.hand_outs = lease.hand_outs;
  entry.failures = static_cast<std::uint16_t>(lease.failures);
  entry.deaths = static_cast<std::uint8_t>(lease.deaths);
  auto condition = journal::EntryCondition::ready;
  if (lease.state == LeaseState::dead) {
    condition = journal::EntryCondition::dead;
  } else if (lease.state == LeaseState::ready && lease.deadline != 0) {
    condition = journal::EntryCondition::delayed;
    const auto ahead = static_cast<std::int64_t>(time.moment_of(lease.deadline) - time.now);
    const auto realtime = static_cast<std::int64_t>(base::clock->realtime_ns());
    entry.due_realtime_ns =
        static_cast<std::uint64_t>(std::max<std::int64_t>(realtime + ahead * (1LL << 24), 1));
    static_assert(base::tick_shift == 24);
  }
  entry.condition = static_cast<std::uint8_t>(condition);
  return entry;
}

}  // namespace

bool GroupScan::scan(std::uint32_t index, std::uint64_t word, const LeaseAge& age,
                     GroupPicture& picture) {
  unsettled_.clear();
  moved_.clear();
  const shm::Group& group = segment_.group(index);
  const bool shared = shm::group_mode(word) == static_cast<std::uint8_t>(GroupMode::shared);
  const std::uint64_t end = shared ? scan_shared(index) : scan_exclusive(index);
  const queue::TickTime time = queue::time_of_group(group, base::coarse_tick_64());
  // [D2] acquire, after all that was read: the entry was this group's until now.
  if (sync::load_acquire(group.word) != word) return false;
  draw(end, time, age, picture);
  return true;
}

std::uint64_t GroupScan::scan_exclusive(std::uint32_t index) {
  const shm::Group& group = segment_.group(index);
  const std::uint64_t entries = segment_.limits().window_entries;
  // [D1] acquire, before the window: what is below is settled.
  const std::uint64_t floor = sync::load_acquire(group.progress.low);
  const std::uint64_t hint = sync::load_acquire(group.next_hint);
  constexpr std::uint64_t mask = shm::next_hint_seq_mask;
  std::uint64_t end = floor + (((hint & mask) - (floor & mask)) & mask);
  // A hint behind the floor (a drop, a purge) widens to nearly 2^48.
  end = std::min({end, floor + entries, std::max(queue::find_tail(segment_), floor)});
  for (std::uint64_t seq = floor; seq != end; ++seq) {
    const sync::Word16 seen = read_pair(segment_.window(index)[seq & (entries - 1)]);
    if (seen.low != seq) {
      unsettled_.push_back({seq, Lease{.state = LeaseState::leased, .hand_outs = 1}});
      continue;
    }
    const Lease lease = shm::unpack_lease(seen.high);
    if (lease.state != LeaseState::settled) unsettled_.push_back({seq, lease});
  }
  return end;
}

std::uint64_t GroupScan::scan_shared(std::uint32_t index) {
  const shm::Group& group = segment_.group(index);
  const std::uint64_t entries = segment_.limits().window_entries;
  // [D1] acquire, pairs with F1, before the window: what is below is settled, or live in the table.
  const std::uint64_t floor = sync::load_acquire(group.progress.low);
  std::uint64_t seq = floor;
  for (; seq != floor + entries; ++seq) {
    const sync::Word16 seen = read_pair(segment_.window(index)[seq & (entries - 1)]);
    if (static_cast<std::int64_t>(seen.low - seq) < 0) break;  // unclaimed, and all that follow
    if (seen.low != seq) {
      // The floor has passed it: settled, unless the table has it.
      if (seen.low == ~std::uint64_t{0}) unsettled_.push_back({seq, Lease{}});
      continue;
    }
    const Lease lease = shm::unpack_lease(seen.high);
    if (lease.state == LeaseState::settled) continue;
    if (lease.state == LeaseState::moved) {
      moved_.push_back({seq, seen.high});
    } else {
      unsettled_.push_back({seq, lease});
    }
  }
  scan_table(index, seq);
  return seq;
}

void GroupScan::scan_table(std::uint32_t index, std::uint64_t end) {
  const queue::StragglerTable table{segment_, index};
  if (!table.any()) return;
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    const shm::Straggler& place = segment_.stragglers(index)[i];
    const sync::Word16 seen = read_pair(place.lease);
    if (seen.low == shm::straggler_free_seq || seen.low >= end) continue;
    Lease lease = shm::unpack_lease(seen.high);
    if (lease.state == LeaseState::settled || lease.state == LeaseState::moved) continue;
    if (queue::is_reserved(lease.state)) {
      // The eviction's moment is the window's CAS: only what the window names, in the generation
      // that it names, is the message. Any other reservation is one in vain; the message was
      // settled, or stands where the window says.
      const auto named =
          std::lower_bound(moved_.begin(), moved_.end(), seen.low,
                           [](const Moved& each, std::uint64_t seq) { return each.seq < seq; });
      const std::uint64_t generation = sync::load_acquire(place.generation);
      const bool is_named = named != moved_.end() && named->seq == seen.low &&
                            named->word == shm::moved_word(i, generation) &&
                            (lease.deadline & 0x1ff) == (generation & 0x1ff);
      if (!is_named && !base::mutant(73)) continue;
      lease = live_lease(lease, sync::load_relaxed(place.deadline));
    }
    unsettled_.push_back({seen.low, lease});
  }
  // The table's word is the later one of two.
  std::stable_sort(unsettled_.begin(), unsettled_.end(),
                   [](const Unsettled& a, const Unsettled& b) { return a.seq < b.seq; });
}

void GroupScan::draw(std::uint64_t end, const queue::TickTime& time, const LeaseAge& age,
                     GroupPicture& picture) {
  picture.settled.clear();
  picture.entries.clear();
  picture.handed_out_end = end;
  picture.floor = unsettled_.empty() ? end : std::min(unsettled_.front().seq, end);
  std::uint64_t next = picture.floor;
  for (std::size_t i = 0; i < unsettled_.size(); ++i) {
    const auto& [seq, lease] = unsettled_[i];
    if (i + 1 < unsettled_.size() && unsettled_[i + 1].seq == seq) continue;
    if (seq >= end) break;
    if (seq > next) picture.settled.push_back({next, seq});
    next = seq + 1;
    const bool was_given_back = lease.hand_outs > 1 || lease.failures != 0 || lease.deaths != 0 ||
                                lease.state == LeaseState::dead ||
                                (lease.state == LeaseState::ready && lease.deadline != 0);
    if (was_given_back || (lease.hand_outs == 1 && seq < age.old_end)) {
      picture.entries.push_back(entry_of(seq, lease, time));
    }
  }
  if (end > next) picture.settled.push_back({next, end});
}

}  // namespace shmq::feed
