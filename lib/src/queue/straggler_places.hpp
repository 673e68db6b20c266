// SPDX-License-Identifier: Apache-2.0
//
// Where the stragglers of all shared groups lie.
#pragma once

#include <bit>
#include <cstdint>

#include "queue/record_view.hpp"
#include "queue/shared_group.hpp"
#include "queue/stragglers.hpp"

namespace shmq::queue {

struct StragglerPlace {
  std::uint32_t group;
  std::uint32_t index;  // in the group's table
  std::uint64_t seq;
  std::uint64_t place;  // as in the table
  std::uint64_t offset;
  std::uint64_t bytes;  // of the record
  std::uint64_t first_chunk;
  std::uint64_t last_chunk;
};

/// Calls act(StragglerPlace) for every straggler, reserved ones included, whose record can be seen.
/// One that cannot is reserved only, so head has not passed it, or the segment is damaged.
template <typename Act>
void for_each_straggler(const shm::Segment& segment, Act act) noexcept {
  const shm::Limits& limits = segment.limits();
  const auto chunk_shift = static_cast<unsigned>(std::countr_zero(limits.chunk_bytes));
  for (std::uint32_t group = 0; group < limits.max_groups; ++group) {
    if (!is_active_shared(sync::load_acquire(segment.group(group).word))) continue;
    const StragglerTable table{segment, group};
    if (!table.any()) continue;
    for (std::uint32_t index = 0; index < table.size(); ++index) {
      const auto kept = table.kept(index);
      if (!kept) continue;
      const std::uint64_t offset = (kept->place & shm::ref_mask) << shm::ref_unit_shift;
      RecordView record;
      if (!view_record(segment.arena(), limits.arena_bytes, offset, kept->seq, record)) continue;
      act(StragglerPlace{.group = group,
                         .index = index,
                         .seq = kept->seq,
                         .place = kept->place,
                         .offset = offset,
                         .bytes = record.end - offset,
                         .first_chunk = offset >> chunk_shift,
                         .last_chunk = (record.end - 1) >> chunk_shift});
    }
  }
}

}  // namespace shmq::queue
