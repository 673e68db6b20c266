// SPDX-License-Identifier: Apache-2.0
//
// Units in and out. Numbers are read in the C locale, wholly or not at all.
#include "units.hpp"

#include <grp.h>
#include <pwd.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <ctime>

namespace shmqctl {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};

constexpr std::array<Unit, 17> size_units{{{"", 1},
                                           {"B", 1},
                                           {"K", 1024},
                                           {"k", 1024},
                                           {"KiB", 1024},
                                           {"kB", 1e3},
                                           {"KB", 1e3},
                                           {"M", 1048576},
                                           {"MiB", 1048576},
                                           {"MB", 1e6},
                                           {"G", 1073741824},
                                           {"GiB", 1073741824},
                                           {"GB", 1e9},
                                           {"T", 1099511627776},
                                           {"TiB", 1099511627776},
                                           {"TB", 1e12},
                                           {"b", 1}}};

constexpr std::array<Unit, 9> time_units{{{"", 1e9},
                                          {"ns", 1},
                                          {"us", 1e3},
                                          {"ms", 1e6},
                                          {"s", 1e9},
                                          {"m", 60e9},
                                          {"min", 60e9},
                                          {"h", 3600e9},
                                          {"d", 86400e9}}};

/// A number with a unit, in the base unit.
template <std::size_t n>
std::optional<double> parse_with_unit(std::string_view text, const std::array<Unit, n>& units) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  if (error != std::errc{} || !(number >= 0)) return std::nullopt;
  std::string_view unit{rest, static_cast<std::size_t>(end - rest)};
  if (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  for (const Unit& known : units) {
    if (unit == known.name) return number * known.factor;
  }
  return std::nullopt;
}

std::string printed(double value, const char* unit) {
  std::array<char, 64> text{};
  // At most one decimal: tables are for people, -o json has the exact figure.
  const bool whole = std::abs(value - std::round(value)) < 0.05;
  std::snprintf(text.data(), text.size(), whole ? "%.0f%s" : "%.1f%s", value, unit);
  return text.data();
}

}  // namespace

std::optional<std::uint64_t> parse_size(std::string_view text) {
  if (const auto exact = parse_count(text)) return exact;  // all 64 bits, not a double's 53
  const auto value = parse_with_unit(text, size_units);
  if (!value || *value >= 9.2e18) return std::nullopt;
  return static_cast<std::uint64_t>(std::llround(*value));
}

std::optional<std::chrono::nanoseconds> parse_time(std::string_view text) {
  const auto value = parse_with_unit(text, time_units);
  if (!value || *value > 100.0 * 366 * 86400e9) return std::nullopt;
  return std::chrono::nanoseconds{std::llround(*value)};
}

std::optional<mode_t> parse_mode(std::string_view text) {
  unsigned value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value, 8);
  if (error != std::errc{} || rest != end || value > 0777) return std::nullopt;
  return static_cast<mode_t>(value);
}

std::optional<std::uint64_t> parse_count(std::string_view text) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || rest != end) return std::nullopt;
  return value;
}

std::optional<shmq::StartAt> parse_start(std::string_view text) {
  if (text == "earliest") return shmq::StartAt::earliest();
  if (text == "latest") return shmq::StartAt::latest();
  if (const auto seq = parse_count(text)) return shmq::StartAt::at({*seq});
  return std::nullopt;
}

std::optional<uid_t> parse_user(const std::string& text) {
  if (const passwd* entry = ::getpwnam(text.c_str())) return entry->pw_uid;
  const auto number = parse_count(text);
  if (!number || *number >= 0xffffffffU) return std::nullopt;
  return static_cast<uid_t>(*number);
}

std::optional<gid_t> parse_group(const std::string& text) {
  if (const group* entry = ::getgrnam(text.c_str())) return entry->gr_gid;
  const auto number = parse_count(text);
  if (!number || *number >= 0xffffffffU) return std::nullopt;
  return static_cast<gid_t>(*number);
}

std::string human_size(std::uint64_t bytes) {
  constexpr std::array<const char*, 5> units{" B", " KiB", " MiB", " GiB", " TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  return printed(value, units.at(unit));
}

std::string human_time(std::chrono::nanoseconds time) {
  const auto ns = static_cast<double>(time.count());
  if (ns == 0) return "-";
  if (ns < 1e3) return printed(ns, "ns");
  if (ns < 1e6) return printed(ns / 1e3, "us");
  if (ns < 1e9) return printed(ns / 1e6, "ms");
  if (ns < 120e9) return printed(ns / 1e9, "s");
  if (ns < 7200e9) return printed(ns / 60e9, "min");
  return printed(ns / 3600e9, "h");
}

std::string user_name(uid_t uid) {
  const passwd* entry = ::getpwuid(uid);
  return entry != nullptr ? entry->pw_name : std::to_string(uid);
}

std::string group_name(gid_t gid) {
  const group* entry = ::getgrgid(gid);
  return entry != nullptr ? entry->gr_name : std::to_string(gid);
}

std::string rfc3339(std::chrono::system_clock::time_point time) {
  const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch());
  const auto whole = std::chrono::floor<std::chrono::seconds>(since);
  const std::time_t clock = static_cast<std::time_t>(whole.count());
  std::tm parts{};
  ::gmtime_r(&clock, &parts);
  std::array<char, 64> date{};
  std::strftime(date.data(), date.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  std::array<char, 96> text{};
  std::snprintf(text.data(), text.size(), "%s.%09lldZ", date.data(),
                static_cast<long long>((since - whole).count()));
  return text.data();
}

double seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

std::string_view text_of(shmq::Overflow overflow) {
  switch (overflow) {
    case shmq::Overflow::block: return "block";
    case shmq::Overflow::fail: return "fail";
    case shmq::Overflow::drop_oldest: return "drop_oldest";
    case shmq::Overflow::spill: return "spill";
  }
  return "unknown";
}

std::string_view text_of(shmq::GroupMode mode) {
  switch (mode) {
    case shmq::GroupMode::exclusive: return "exclusive";
    case shmq::GroupMode::shared: return "shared";
  }
  return "unknown";
}

}  // namespace shmqctl
