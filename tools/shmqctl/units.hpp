// SPDX-License-Identifier: Apache-2.0
//
// Sizes, times and the like: read from the command line, and written for people and for programs.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <shmq/options.hpp>
#include <shmq/units.hpp>
#include <string>
#include <string_view>

namespace shmqctl {

// Each parse_* gives nothing when the text is not wholly one such value, or does not fit.

using shmq::parse_size;
using shmq::parse_time;
/// Octal permission bits: "0660", "660".
std::optional<mode_t> parse_mode(std::string_view text);
std::optional<std::uint64_t> parse_count(std::string_view text);
/// "earliest", "latest" or a seq.
std::optional<shmq::StartAt> parse_start(std::string_view text);
/// A user's or group's name, or its number.
std::optional<uid_t> parse_user(const std::string& text);
std::optional<gid_t> parse_group(const std::string& text);

/// "64 MiB", "1.5 KiB", "17 B".
std::string human_size(std::uint64_t bytes);
/// "30s", "5ms", "1.5s"; "-" for zero.
std::string human_time(std::chrono::nanoseconds time);
std::string user_name(uid_t uid);
std::string group_name(gid_t gid);
/// "2026-01-31T12:00:00.123456789Z"
std::string rfc3339(std::chrono::system_clock::time_point time);
double seconds(std::chrono::nanoseconds time);
std::string_view text_of(shmq::Overflow overflow);
std::string_view text_of(shmq::GroupMode mode);

}  // namespace shmqctl
