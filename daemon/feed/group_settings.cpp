// SPDX-License-Identifier: Apache-2.0
#include "daemon/feed/group_settings.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

#include "queue/groups.hpp"

namespace shmq::feed {

journal::Uuid group_uuid(const std::string& name, std::uint64_t created_realtime_ns,
                         std::uint64_t born_seq) {
  std::string text = name;
  text.push_back('\0');  // in no name: the fields stay apart
  text.append(reinterpret_cast<const char*>(&created_realtime_ns), sizeof(created_realtime_ns));
  text.append(reinterpret_cast<const char*>(&born_seq), sizeof(born_seq));
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  journal::Uuid uuid;
  std::memcpy(uuid.data(), &hash.low64, 8);
  std::memcpy(uuid.data() + 8, &hash.high64, 8);
  if (uuid == journal::Uuid{}) uuid[0] = 1;  // all zeros are the queue's own
  return uuid;
}

control::GroupSettings settings_of(const shm::Group& group, std::uint64_t word) {
  control::GroupSettings settings;
  settings.options.name = queue::group_name(group);
  settings.options.mode = static_cast<GroupMode>(shm::group_mode(word));
  settings.options.lease =
      std::chrono::nanoseconds{static_cast<std::int64_t>(sync::load_relaxed(group.lease_ns))};
  settings.options.delivery_limit = sync::load_relaxed(group.delivery_limit);
  settings.options.expire_idle =
      std::chrono::nanoseconds{static_cast<std::int64_t>(sync::load_relaxed(group.expire_idle_ns))};
  settings.born_seq = sync::load_relaxed(group.born_seq);
  settings.created_realtime_ns = sync::load_relaxed(group.created_realtime_ns);
  return settings;
}

std::vector<std::byte> bytes_of(const control::GroupSettings& settings) {
  const std::string text = control::text_of(settings);
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  return {bytes, bytes + text.size()};
}

}  // namespace shmq::feed
