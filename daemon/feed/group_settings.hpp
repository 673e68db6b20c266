// SPDX-License-Identifier: Apache-2.0
//
// A group's choices, between its entry in the segment and its settings record in the journal.
#pragma once

#include <vector>

#include "control/settings.hpp"
#include "daemon/feed/restore.hpp"

namespace shmq::feed {

/// From private copies of the entry's fields; `word` is the group's.
control::GroupSettings settings_of(const shm::Group& group, std::uint64_t word);
std::vector<std::byte> bytes_of(const control::GroupSettings& settings);

}  // namespace shmq::feed
