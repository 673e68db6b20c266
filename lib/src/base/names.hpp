// SPDX-License-Identifier: Apache-2.0
//
// Names of queues, groups and namespaces, and of the objects in /dev/shm that they map to.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace shmq::base {

inline constexpr std::size_t name_bytes_max = 64;

/// [a-z0-9][a-z0-9._-]{0,63}. A queue must not end in ".lock" or ".mark": so end its companions.
bool is_valid_name(std::string_view name) noexcept;
bool is_valid_queue_name(std::string_view name) noexcept;

/// The given namespace, else SHMQ_NAMESPACE, else "default".
std::string resolve_namespace(std::string_view name_space);

/// "shmq.<namespace>.<queue>"; without the directory.
std::string segment_object_name(std::string_view name_space, std::string_view queue);
/// The companion that carries the participants' locks.
std::string lock_object_name(std::string_view name_space, std::string_view queue);
/// The watermark object of a durable queue.
std::string mark_object_name(std::string_view name_space, std::string_view queue);

}  // namespace shmq::base
