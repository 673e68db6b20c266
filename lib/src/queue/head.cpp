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

namespace {

// Slots: an eighth of the ring, so that the cost is spread, and groups close behind stay in it.
std::uint64_t spill_target_for_slots(const shm::Segment& segment, std::uint64_t head) noexcept {
  return head + std::max<std::uint64_t>(1, segment.limits().slots / 8);
}

// Chunks: up to the last seq of each of the oldest ones that nobody holds, an eighth of the arena.
// The same value: none of them ends below `bound`.
std::uint64_t spill_target_for_arena(const shm::Segment& segment, std::uint64_t head,
                                     std::uint64_t bound) noexcept {
  const std::uint32_t chunks = segment.limits().chunks;
  const std::uint32_t wanted = std::max(1U, chunks / 8);
  std::uint64_t target = head;
  // In rounds, each of which takes the next oldest one: no memory is needed for it.
  for (std::uint32_t found = 0; found < wanted; ++found) {
    std::uint64_t oldest = ~std::uint64_t{0};
    for (std::uint32_t i = 0; i < chunks; ++i) {
      const sync::Word16 chunk = sync::read_halves(segment.chunk(i));
      if (shm::chunk_state(chunk.high) != shm::ChunkState::sealed || chunk.low < target) continue;
      oldest = std::min(oldest, chunk.low);
    }
    if (oldest >= bound) break;
    target = oldest + 1;
  }
  return target;
}

}  // namespace

bool spill(const shm::Segment& segment, bool for_arena) noexcept {
  shm::Control& control = segment.control();
  for (int attempt = 0; attempt < 8; ++attempt) {
    const sync::Word16 seen = sync::read_halves(control.head);
    // [H3] as above: what is copied for the disk may be overwritten.
    const std::uint64_t bound = bound_of_head(segment);
    const std::uint64_t target = for_arena
                                     ? spill_target_for_arena(segment, seen.low, bound)
                                     : std::min(spill_target_for_slots(segment, seen.low), bound);
    if (static_cast<std::int64_t>(target - seen.low) <= 0) return false;
    SHMQ_CRASH_POINT("spill.before_cas");
    // [H4] seq_cst, as H2: fails if a group was born or removed, or head was moved, meanwhile. A
    // birth that comes after begins at or above the head that this leaves. A full barrier: whoever
    // takes a slot or a chunk after it looks at pins and stragglers after it, and whoever pinned or
    // set aside without seeing it is seen there (see past.hpp).
    if (sync::compare_and_swap(control.head, seen, {target, seen.high})) return true;
  }
  return true;  // others move it: look again
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
