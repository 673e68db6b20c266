// SPDX-License-Identifier: Apache-2.0
#include "queue/head.hpp"

#include <algorithm>

#include "base/mutant.hpp"

namespace shmq::queue {

// What is not on stable storage yet stays in the ring, whoever settled it: the daemon copies it
// from there, also a second time, to a new file, after an error.
std::uint64_t bound_of_head(const shm::Segment& segment) noexcept {
  if (segment.limits().durable == 0 || base::mutant(70)) return ~std::uint64_t{0};
  // [H3] acquire, pairs with M1: who sees the watermark past a seq may overwrite it, and the
  // daemon's copy of it was made before. It only grows, so an old value is merely too low; and only
  // the daemon writes it, so no participant can let head run ahead. The daemon itself, before it
  // has mapped it, moves nothing.
  const shm::Mark* mark = segment.mark();
  return mark != nullptr ? sync::load_acquire(mark->watermark) : 0;
}

std::uint64_t refresh_head(const shm::Segment& segment) noexcept {
  shm::Control& control = segment.control();
  const std::uint32_t groups = segment.limits().max_groups;
  for (int attempt = 0; attempt < 8; ++attempt) {
    // [H1] acquire: the epoch before the floors. A birth after this read makes the CAS fail.
    const sync::Word16 seen = sync::read_halves(control.head);
    std::uint64_t smallest = ~std::uint64_t{0};
    bool any = false;
    for (std::uint32_t i = 0; i < groups; ++i) {
      const shm::Group& group = segment.group(i);
      if (!counts_for_head(sync::load_acquire(group.word))) continue;
      const std::uint64_t floor = sync::load_acquire(group.progress.low);
      if (!any || floor < smallest) smallest = floor;
      any = true;
      if (base::mutant(6)) break;  // only the first group holds head back
    }
    smallest = std::min(smallest, bound_of_head(segment));
    if (!any || smallest <= seen.low) return seen.low;
    SHMQ_CRASH_POINT("head.before_cas");
    // [H2] seq_cst CAS on {head, epoch}: fails if a group was born or removed since H1, or another
    // moved head.
    if (sync::compare_and_swap(control.head, seen, {smallest, seen.high})) return smallest;
  }
  return read_head(segment);
}

std::uint64_t find_tail(const shm::Segment& segment) noexcept {
  const std::uint64_t slots = segment.limits().slots;
  const sync::Word16* ring = segment.slots();
  std::uint64_t tail = sync::load_acquire(segment.control().tail_hint);
  bool from_head = false;
  for (std::uint64_t step = 0; step <= 2 * slots; ++step) {
    const std::uint64_t stamp = sync::load_acquire(ring[tail & (slots - 1)].low);
    // Signed distance: a stamp behind means unpublished; one ahead means that the hint was lapped.
    if (static_cast<std::int64_t>(stamp - tail) < 0) {
      if (stamp == tail - slots || from_head) return tail;
      tail = read_head(segment);  // the hint lies beyond the tail, which no honest one does
      from_head = true;
      continue;
    }
    tail = stamp + 1;
  }
  return tail;
}

}  // namespace shmq::queue
