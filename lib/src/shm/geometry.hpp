// SPDX-License-Identifier: Apache-2.0
//
// From options to limits, and from limits to the places of the parts. The same check serves the
// creator's options and the bytes that an opener found.
#pragma once

#include <shmq/error.hpp>
#include <shmq/options.hpp>
#include <string>

#include "shm/layout.hpp"

namespace shmq::shm {

inline constexpr std::uint64_t retain_age_ns_max = 100ULL * 366 * 86'400 * 1'000'000'000;
inline constexpr std::uint64_t max_disk_bytes_min = 8ULL << 20;

struct Geometry {
  Part parts[part_count];
  std::uint64_t segment_bytes;
};

/// Fills in the defaults (max_producers, max_message_bytes). Says nothing of validity.
Limits limits_from(const QueueOptions& options) noexcept;

/// Empty when valid, else what is wrong and what the range is.
std::string check_limits(const Limits& limits);

/// Limits must have passed check_limits; page_bytes is a power of two from 4 KiB to 64 KiB.
Geometry compute_geometry(const Limits& limits, std::uint32_t page_bytes) noexcept;

}  // namespace shmq::shm
