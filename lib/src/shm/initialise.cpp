// SPDX-License-Identifier: Apache-2.0
#include "shm/initialise.hpp"

#include <sys/random.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/clock.hpp"

namespace shmq::shm {

void read_boot_id(std::uint8_t (&id)[16]) noexcept {
  std::memset(id, 0, sizeof(id));
  std::FILE* file = std::fopen("/proc/sys/kernel/random/boot_id", "re");
  if (file == nullptr) return;
  for (auto& byte : id) {
    unsigned value = 0;
    int c = std::fgetc(file);
    if (c == '-') c = std::fgetc(file);
    std::ungetc(c, file);
    if (std::fscanf(file, "%2x", &value) != 1) break;
    byte = static_cast<std::uint8_t>(value);
  }
  std::fclose(file);
}

std::uint64_t header_checksum(const Header& header) noexcept {
  return XXH3_64bits(&header, offsetof(Header, checksum));
}

Header make_header(const std::string& name_space, const std::string& queue, const Limits& limits) {
  Header header;
  std::memset(&header, 0, sizeof(header));
  header.magic = segment_magic;
  header.abi_version = abi_version;
  header.header_bytes = sizeof(Header);
  header.layout_hash = layout_hash;
  header.byte_order = byte_order_mark;
  header.architecture = static_cast<std::uint32_t>(this_architecture);
  header.page_bytes = static_cast<std::uint32_t>(sysconf(_SC_PAGESIZE));
  if (getrandom(header.uuid, sizeof(header.uuid), 0) < 0) {
    std::memcpy(header.uuid, &header.layout_hash,
                sizeof(header.layout_hash));  // names, not secrets
  }
  read_boot_id(header.boot_id);
  header.created_realtime_ns = base::clock->realtime_ns();
  const Geometry geometry = compute_geometry(limits, header.page_bytes);
  header.segment_bytes = geometry.segment_bytes;
  std::copy_n(geometry.parts, part_count, header.parts);
  header.limits = limits;
  name_space.copy(header.name_space, name_field_bytes - 1);
  queue.copy(header.queue, name_field_bytes - 1);
  header.checksum = header_checksum(header);
  return header;
}

void fill_group(Group& group, const GroupOptions& options, std::uint64_t floor) noexcept {
  std::memset(group.name, 0, sizeof(group.name));
  options.name.copy(group.name, name_field_bytes - 1);
  group.lease_ns = static_cast<std::uint64_t>(options.lease.count());
  group.born_seq = floor;
  group.created_realtime_ns = base::clock->realtime_ns();
  group.delivery_limit = options.delivery_limit;
  group.dead_limit = 0;
  group.expire_idle_ns = static_cast<std::uint64_t>(options.expire_idle.count());
  // The generation goes on from what the entry had, so that a consumer of an earlier incarnation
  // can never match the word.
  const std::uint32_t generation =
      ownership_generation(sync::load_relaxed(group.progress.high)) + 1;
  sync::store_relaxed(group.progress.low, floor);
  sync::store_relaxed(group.progress.high, ownership(owner_none, generation, 0));
  sync::store_relaxed(group.next_hint, options.mode == GroupMode::shared
                                           ? floor
                                           : (std::uint64_t{generation & 0xffff} << 48) |
                                                 (floor & next_hint_seq_mask));
  sync::store_relaxed(group.returned_count, std::uint64_t{0});
  sync::store_relaxed(group.next_due_tick, base::coarse_tick_64());
  sync::store_relaxed(group.table_due_tick, base::coarse_tick_64());
  sync::store_relaxed(group.deadline_reference, base::coarse_tick_64());
  for (std::uint64_t* total :
       {&group.dropped_total, &group.redelivered_death_total, &group.redelivered_lease_total,
        &group.redelivered_nack_total, &group.redelivered_release_total, &group.dead_lettered_total,
        &group.stragglers, &group.dead_messages, &group.discarded_total, &group.dead_bytes,
        &group.straggler_reach}) {
    sync::store_relaxed(*total, std::uint64_t{0});
  }
}

void initialise(std::byte* base, const Header& header, const std::vector<GroupOptions>& groups) {
  const auto at = [&](PartIndex index) { return base + header.parts[index].offset; };
  const Limits& limits = header.limits;

  auto* control = reinterpret_cast<Control*>(at(part_control));
  control->queue_state = static_cast<std::uint32_t>(QueueState::active);

  // Slot i begins with the stamp that the message one lap earlier would have had.
  auto* slots = reinterpret_cast<Word16*>(at(part_slots));
  for (std::uint64_t i = 0; i < limits.slots; ++i) slots[i].low = i - limits.slots;

  // So do window entries: settled, one lap earlier.
  auto* windows = reinterpret_cast<Word16*>(at(part_windows));
  for (std::uint32_t g = 0; g < limits.max_groups; ++g) {
    for (std::uint32_t i = 0; i < limits.window_entries; ++i) {
      windows[std::size_t{g} * limits.window_entries + i].low =
          std::uint64_t{i} - limits.window_entries;
    }
  }
  auto* stragglers = reinterpret_cast<Straggler*>(at(part_stragglers));
  for (std::size_t i = 0; i < std::size_t{limits.straggler_entries} * limits.max_groups; ++i) {
    stragglers[i].lease.low = straggler_free_seq;
  }

  auto* entries = reinterpret_cast<Group*>(at(part_groups));
  for (std::size_t i = 0; i < groups.size(); ++i) {
    fill_group(entries[i], groups[i], 0);
    entries[i].word = group_word(1, static_cast<std::uint8_t>(groups[i].mode), GroupState::active);
  }
  std::memcpy(base, &header, sizeof(header));
}

}  // namespace shmq::shm
