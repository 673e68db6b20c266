// SPDX-License-Identifier: Apache-2.0
#include "shm/geometry.hpp"

#include <algorithm>
#include <bit>

namespace shmq::shm {
namespace {

bool power_of_two_between(std::uint64_t value, std::uint64_t low, std::uint64_t high) noexcept {
  return std::has_single_bit(value) && value >= low && value <= high;
}

}  // namespace

Limits limits_from(const QueueOptions& options) noexcept {
  Limits limits{};
  limits.slots = options.slots;
  limits.arena_bytes = options.arena_bytes;
  limits.chunk_bytes = options.chunk_bytes;
  if (options.chunk_bytes != 0) {
    limits.chunks = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(options.arena_bytes / options.chunk_bytes, UINT32_MAX));
  }
  limits.max_message_bytes = options.max_message_bytes != 0
                                 ? options.max_message_bytes
                                 : std::min<std::uint64_t>(options.arena_bytes / 8, UINT32_MAX / 2);
  limits.max_groups = options.max_groups;
  limits.max_participants = options.max_participants;
  limits.max_producers = options.max_producers != 0
                             ? options.max_producers
                             : std::min(options.max_participants, std::max(limits.chunks / 2, 1U));
  limits.window_entries = options.window_entries;
  limits.straggler_entries = options.straggler_entries;
  limits.pins = pins_per_participant;
  limits.overflow = static_cast<std::uint32_t>(options.overflow);
  limits.durable = options.durable ? 1 : 0;
  limits.visible = static_cast<std::uint32_t>(options.visible);
  // A negative age is a huge one here, and refused below.
  limits.retain_age_ns = static_cast<std::uint64_t>(options.retention.age.count());
  limits.retain_bytes = options.retention.bytes;
  limits.retain_messages = options.retention.messages;
  limits.max_disk_bytes = options.max_disk_bytes;
  return limits;
}

std::string check_limits(const Limits& limits) {
  if (!power_of_two_between(limits.slots, 2, 1ULL << 26)) {
    return "slots must be a power of two from 2 to 67108864";
  }
  if (!power_of_two_between(limits.chunk_bytes, 4096, 1U << 20)) {
    return "the chunk size must be a power of two from 4 KiB to 1 MiB";
  }
  if (limits.arena_bytes == 0 || limits.arena_bytes % limits.chunk_bytes != 0) {
    return "the arena must be a multiple of the chunk size";
  }
  const std::uint64_t chunks = limits.arena_bytes / limits.chunk_bytes;
  if (chunks < 2 || chunks > pin_chunk_mask - 1) {
    return "the arena must have from 2 to 4194302 chunks";
  }
  if (chunks != limits.chunks) return "arena, chunk size and number of chunks disagree";
  if (limits.max_participants < 1 || limits.max_participants > 4096) {
    return "max_participants must be from 1 to 4096";
  }
  if (limits.max_groups < 1 || limits.max_groups > 1024) return "max_groups must be from 1 to 1024";
  if (limits.max_producers < 1 || limits.max_producers > limits.max_participants) {
    return "max_producers must be from 1 to max_participants";
  }
  if (limits.arena_bytes < 2ULL * limits.max_producers * limits.chunk_bytes) {
    return "the arena must hold 2 chunks for each producer";
  }
  if (!power_of_two_between(limits.window_entries, 16, 65536)) {
    return "window_entries must be a power of two from 16 to 65536";
  }
  if (!power_of_two_between(limits.straggler_entries, 16, 65536)) {
    return "straggler_entries must be a power of two from 16 to 65536";
  }
  if (limits.max_message_bytes == 0 || limits.max_message_bytes > limits.arena_bytes / 8 ||
      limits.max_message_bytes > UINT32_MAX / 2) {
    return "max_message_bytes must be at most an eighth of the arena (and at most 2 GiB)";
  }
  if (limits.pins != pins_per_participant) return "unknown number of pins";
  if (limits.overflow < 1 || limits.overflow > 4) return "unknown overflow policy";
  if (limits.durable > 1 || limits.visible > 1) return "unknown durability";
  if (limits.overflow == static_cast<std::uint32_t>(Overflow::spill) && limits.durable == 0) {
    return "overflow = spill needs a durable queue";
  }
  if (limits.visible == 1 && limits.durable == 0) {
    return "visible = synced needs a durable queue";
  }
  const bool retains =
      limits.retain_age_ns != 0 || limits.retain_bytes != 0 || limits.retain_messages != 0;
  if (limits.durable == 0 && (retains || limits.max_disk_bytes != 0)) {
    return "retention and a limit for the disk need a durable queue";
  }
  if (limits.retain_age_ns > retain_age_ns_max) return "the retention is at most 100 years";
  if (limits.max_disk_bytes != 0 && (limits.max_disk_bytes < max_disk_bytes_min ||
                                     limits.max_disk_bytes / 4 < limits.max_message_bytes)) {
    return "max_disk_bytes must be at least 8 MiB, and four times max_message_bytes";
  }
  return {};
}

Geometry compute_geometry(const Limits& limits, std::uint32_t page_bytes) noexcept {
  const std::uint64_t bytes[part_count] = {
      sizeof(Control),
      sizeof(Participant) * limits.max_participants,
      sizeof(Group) * limits.max_groups,
      sizeof(Word16) * limits.window_entries * limits.max_groups,
      sizeof(Straggler) * limits.straggler_entries * limits.max_groups,
      sizeof(Word16) * limits.slots,
      sizeof(Word16) * limits.chunks,
      limits.arena_bytes,
  };
  const std::uint64_t mask = page_bytes - 1;
  Geometry geometry{};
  std::uint64_t offset = page_bytes;  // the header
  for (std::uint32_t i = 0; i < part_count; ++i) {
    geometry.parts[i] = {offset, bytes[i]};
    offset += (bytes[i] + mask) & ~mask;
  }
  geometry.segment_bytes = offset;
  return geometry;
}

}  // namespace shmq::shm
