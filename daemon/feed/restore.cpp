// SPDX-License-Identifier: Apache-2.0
#include "daemon/feed/restore.hpp"

#include "control/settings.hpp"
#include "daemon/feed/group_settings.hpp"

namespace shmq::feed {

journal::CheckpointState initial_state(const shm::Segment& segment) {
  journal::CheckpointState state;
  const shm::Limits& limits = segment.limits();
  QueueOptions options{.slots = limits.slots,
                       .arena_bytes = limits.arena_bytes,
                       .chunk_bytes = limits.chunk_bytes,
                       .max_groups = limits.max_groups,
                       .max_participants = limits.max_participants,
                       .max_producers = limits.max_producers,
                       .window_entries = limits.window_entries,
                       .straggler_entries = limits.straggler_entries,
                       .max_message_bytes = limits.max_message_bytes,
                       .overflow = static_cast<Overflow>(limits.overflow),
                       .durable = true,
                       .mode = segment.mode(),
                       .owner = segment.owner(),
                       .owner_group = segment.owner_group()};
  const std::string text = control::text_of(options);
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  state.settings[journal::Uuid{}] = {bytes, bytes + text.size()};
  for (std::uint32_t i = 0; i < limits.max_groups; ++i) {
    const shm::Group& group = segment.group(i);
    const std::uint64_t word = sync::load_acquire(group.word);
    if (shm::group_state(word) != shm::GroupState::active) continue;
    const control::GroupSettings settings = settings_of(group, word);
    const journal::Uuid uuid =
        group_uuid(settings.options.name, settings.created_realtime_ns, settings.born_seq);
    state.settings[uuid] = bytes_of(settings);
    state.groups[uuid].incarnation = 1;
    state.groups[uuid].floor = settings.born_seq;
  }
  return state;
}

}  // namespace shmq::feed
