// SPDX-License-Identifier: Apache-2.0
//
// How names in /dev/shm come and go: linking a new segment, removing one, the companion lock
// object.
#pragma once

#include <shmq/error.hpp>
#include <shmq/options.hpp>
#include <string>

namespace shmq::shm {

/// Gives the nameless segment its name; already_exists if there is one.
Result<void> link_new_segment(int descriptor, const std::string& name_space,
                              const std::string& queue, const std::string& what);

/// Unlinks a segment that is marked as removed, and its companions. Quietly does nothing when it
/// is not marked, somebody else is at it, or permission is missing.
void finish_removal(const std::string& name_space, const std::string& queue) noexcept;

/// Is it marked as removed, with its name still there?
bool is_half_removed(const std::string& name_space, const std::string& queue) noexcept;

/// Gives the name to an object that is marked as removed, so that whoever wants the name clears
/// away all that belongs to it. already_exists if the name is taken.
Result<void> link_tombstone(const std::string& name_space, const std::string& queue);

/// Names, mode and lease of a group.
Result<void> check_group_options(const GroupOptions& group, bool is_durable,
                                 const std::string& what);

}  // namespace shmq::shm
