// SPDX-License-Identifier: Apache-2.0
#include "base/names.hpp"

#include <algorithm>
#include <cstdlib>

namespace shmq::base {

bool is_valid_name(std::string_view name) noexcept {
  const auto first = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  const auto rest = [&](char c) { return first(c) || c == '.' || c == '_' || c == '-'; };
  return !name.empty() && name.size() <= name_bytes_max && first(name.front()) &&
         std::all_of(name.begin(), name.end(), rest);
}

bool is_valid_queue_name(std::string_view name) noexcept {
  return is_valid_name(name) && !name.ends_with(".lock") && !name.ends_with(".mark");
}

std::string resolve_namespace(std::string_view name_space) {
  if (!name_space.empty()) return std::string{name_space};
  const char* from_environment = std::getenv("SHMQ_NAMESPACE");
  if (from_environment != nullptr && *from_environment != '\0') return from_environment;
  return "default";
}

// A namespace may contain dots, so "a.b" + "c" and "a" + "b.c" would meet in one object; the
// header's own names decide, and an opener that asks for the other is refused.
std::string segment_object_name(std::string_view name_space, std::string_view queue) {
  return "shmq." + std::string{name_space} + "." + std::string{queue};
}

std::string lock_object_name(std::string_view name_space, std::string_view queue) {
  return segment_object_name(name_space, queue) + ".lock";
}

std::string mark_object_name(std::string_view name_space, std::string_view queue) {
  return segment_object_name(name_space, queue) + ".mark";
}

}  // namespace shmq::base
