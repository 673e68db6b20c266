// SPDX-License-Identifier: Apache-2.0
#include "control/settings.hpp"

#include <nlohmann/json.hpp>

namespace shmq::control {
namespace {

using nlohmann::json;

// get<>() throws where the type is another; caught in parse().
template <typename T>
void take(const json& object, const char* key, T& value) {
  if (const auto found = object.find(key); found != object.end()) value = found->get<T>();
}

json object_of(const GroupOptions& group) {
  return {{"name", group.name},
          {"mode", static_cast<int>(group.mode)},
          {"lease_ns", group.lease.count()},
          {"delivery_limit", group.delivery_limit},
          {"expire_idle_ns", group.expire_idle.count()}};
}

GroupOptions group_from(const json& object) {
  GroupOptions group;
  take(object, "name", group.name);
  auto mode = static_cast<int>(group.mode);
  take(object, "mode", mode);
  group.mode = static_cast<GroupMode>(mode);
  std::int64_t lease_ns = group.lease.count();
  take(object, "lease_ns", lease_ns);
  group.lease = std::chrono::nanoseconds{lease_ns};
  take(object, "delivery_limit", group.delivery_limit);
  std::int64_t expire_ns = 0;
  take(object, "expire_idle_ns", expire_ns);
  group.expire_idle = std::chrono::nanoseconds{expire_ns};
  return group;
}

template <typename T, typename Read>
Result<T> parse(std::string_view text, const std::string& what, Read read) {
  try {
    const json object = json::parse(text);
    if (object.is_object()) return read(object);
  } catch (const json::exception&) {
    // said below
  }
  return tl::unexpected(
      Error{make_error_code(Errc::corrupt), what, "its settings cannot be read", ""});
}

}  // namespace

std::string text_of(const QueueOptions& options) {
  json object{{"slots", options.slots},
              {"arena_bytes", options.arena_bytes},
              {"chunk_bytes", options.chunk_bytes},
              {"max_groups", options.max_groups},
              {"max_participants", options.max_participants},
              {"max_producers", options.max_producers},
              {"window_entries", options.window_entries},
              {"straggler_entries", options.straggler_entries},
              {"max_message_bytes", options.max_message_bytes},
              {"overflow", static_cast<std::uint32_t>(options.overflow)},
              {"durable", options.durable},
              {"visible", static_cast<int>(options.visible)},
              {"retain_age_ns", options.retention.age.count()},
              {"retain_bytes", options.retention.bytes},
              {"retain_messages", options.retention.messages},
              {"max_disk_bytes", options.max_disk_bytes},
              {"mode", options.mode}};
  if (options.owner) object["owner"] = *options.owner;
  if (options.owner_group) object["owner_group"] = *options.owner_group;
  json groups = json::array();
  for (const GroupOptions& group : options.groups) groups.push_back(object_of(group));
  object["groups"] = std::move(groups);
  return object.dump();
}

Result<QueueOptions> queue_options_from(std::string_view text, const std::string& what) {
  return parse<QueueOptions>(text, what, [](const json& object) {
    QueueOptions options;
    take(object, "slots", options.slots);
    take(object, "arena_bytes", options.arena_bytes);
    take(object, "chunk_bytes", options.chunk_bytes);
    take(object, "max_groups", options.max_groups);
    take(object, "max_participants", options.max_participants);
    take(object, "max_producers", options.max_producers);
    take(object, "window_entries", options.window_entries);
    take(object, "straggler_entries", options.straggler_entries);
    take(object, "max_message_bytes", options.max_message_bytes);
    auto overflow = static_cast<std::uint32_t>(options.overflow);
    take(object, "overflow", overflow);
    options.overflow = static_cast<Overflow>(overflow);
    take(object, "durable", options.durable);
    auto visible = static_cast<int>(options.visible);
    take(object, "visible", visible);
    // What is neither must stay so, and not become one of the two by being cut.
    options.visible = static_cast<Visible>(visible < 0 || visible > 1 ? 0xff : visible);
    std::int64_t age_ns = 0;
    take(object, "retain_age_ns", age_ns);
    options.retention.age = std::chrono::nanoseconds{age_ns};
    take(object, "retain_bytes", options.retention.bytes);
    take(object, "retain_messages", options.retention.messages);
    take(object, "max_disk_bytes", options.max_disk_bytes);
    take(object, "mode", options.mode);
    if (object.contains("owner")) options.owner = object.at("owner").get<uid_t>();
    if (object.contains("owner_group")) {
      options.owner_group = object.at("owner_group").get<gid_t>();
    }
    if (const auto groups = object.find("groups"); groups != object.end()) {
      for (const json& group : *groups) options.groups.push_back(group_from(group));
    }
    return options;
  });
}

std::string text_of(const GroupSettings& settings) {
  json object = object_of(settings.options);
  object["born_seq"] = settings.born_seq;
  object["created_realtime_ns"] = settings.created_realtime_ns;
  return object.dump();
}

Result<GroupSettings> group_settings_from(std::string_view text, const std::string& what) {
  return parse<GroupSettings>(text, what, [](const json& object) {
    GroupSettings settings{.options = group_from(object)};
    take(object, "born_seq", settings.born_seq);
    take(object, "created_realtime_ns", settings.created_realtime_ns);
    return settings;
  });
}

}  // namespace shmq::control
