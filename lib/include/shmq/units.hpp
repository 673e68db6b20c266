// SPDX-License-Identifier: Apache-2.0
//
// Sizes and times as people write them, so that every tool and file reads them alike.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <shmq/error.hpp>
#include <string_view>

namespace shmq {

// Both give nothing when the text is not wholly one such value, or does not fit.

/// "4096", "64KiB", "64K", "1.5MiB", "10MB" (decimal).
SHMQ_API std::optional<std::uint64_t> parse_size(std::string_view text);
/// "30s", "5ms", "2min", "1.5h"; a bare number is seconds. At most 100 years.
SHMQ_API std::optional<std::chrono::nanoseconds> parse_time(std::string_view text);

}  // namespace shmq
