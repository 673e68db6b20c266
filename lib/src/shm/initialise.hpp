// SPDX-License-Identifier: Apache-2.0
//
// Writes the first state of a segment that has no name yet.
#pragma once

#include <shmq/error.hpp>
#include <shmq/options.hpp>
#include <string>

#include "shm/geometry.hpp"

namespace shmq::shm {

/// The header of a new queue, checksum included; random uuid, this boot's id.
Header make_header(const std::string& name_space, const std::string& queue, const Limits& limits);

/// XXH3-64 of everything before the checksum field.
std::uint64_t header_checksum(const Header& header) noexcept;

/// This boot's id; all zero where /proc does not tell.
void read_boot_id(std::uint8_t (&id)[16]) noexcept;

/// `base` is a writable mapping of all but the arena, zeroed. Groups must be valid and distinct.
void initialise(std::byte* base, const Header& header, const std::vector<GroupOptions>& groups);

/// Fills a group's fields but for its word.
void fill_group(Group& group, const GroupOptions& options, std::uint64_t floor) noexcept;

}  // namespace shmq::shm
