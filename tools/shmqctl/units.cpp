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

std::string printed(double value, const char* unit) {
  std::array<char, 64> text{};
  // At most one decimal: tables are for people, -o json has the exact figure.
  const bool whole = std::abs(value - std::round(value)) < 0.05;
  std::snprintf(text.data(), text.size(), whole ? "%.0f%s" : "%.1f%s", value, unit);
  return text.data();
}

}  // namespace

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

// "2026-11-25T10:00:00Z", "2026-11-25 10:00:00.5+01:00"; wholly or not at all.
std::optional<std::chrono::system_clock::time_point> parse_moment(std::string_view text) {
  const auto number = [&text](std::size_t digits, int least, int most) -> std::optional<int> {
    int value = 0;
    if (text.size() < digits) return std::nullopt;
    const char* const end = text.data() + digits;
    const auto [rest, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc{} || rest != end || text[0] == '-' || value < least || value > most) {
      return std::nullopt;
    }
    text.remove_prefix(digits);
    return value;
  };
  const auto mark = [&text](std::string_view one_of) {
    if (text.empty() || one_of.find(text.front()) == std::string_view::npos) return false;
    text.remove_prefix(1);
    return true;
  };
  std::tm parts{};
  const auto year = number(4, 1970, 2200);
  if (!year || !mark("-")) return std::nullopt;
  const auto month = number(2, 1, 12);
  if (!month || !mark("-")) return std::nullopt;
  const auto day = number(2, 1, 31);
  if (!day || !mark("Tt ")) return std::nullopt;
  const auto hour = number(2, 0, 23);
  if (!hour || !mark(":")) return std::nullopt;
  const auto minute = number(2, 0, 59);
  if (!minute || !mark(":")) return std::nullopt;
  const auto second = number(2, 0, 60);
  if (!second) return std::nullopt;
  std::int64_t ns = 0;
  if (mark(".")) {
    std::int64_t unit = 100'000'000;
    if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
    for (; !text.empty() && text.front() >= '0' && text.front() <= '9'; unit /= 10) {
      ns += (text.front() - '0') * unit;
      text.remove_prefix(1);
    }
  }
  std::int64_t offset_s = 0;
  if (!mark("Zz")) {
    const std::int64_t sign = mark("+") ? 1 : mark("-") ? -1 : 0;
    const auto hours = number(2, 0, 23);
    if (sign == 0 || !hours || !mark(":")) return std::nullopt;
    const auto minutes = number(2, 0, 59);
    if (!minutes) return std::nullopt;
    offset_s = sign * (*hours * 3600 + *minutes * 60);
  }
  if (!text.empty()) return std::nullopt;
  parts.tm_year = *year - 1900;
  parts.tm_mon = *month - 1;
  parts.tm_mday = *day;
  parts.tm_hour = *hour;
  parts.tm_min = *minute;
  parts.tm_sec = *second;
  const std::time_t whole = ::timegm(&parts);
  if (parts.tm_mday != *day) return std::nullopt;  // the 31st of a shorter month
  return std::chrono::system_clock::time_point{
      std::chrono::seconds{static_cast<std::int64_t>(whole) - offset_s} +
      std::chrono::nanoseconds{ns}};
}

std::optional<shmq::StartAt> parse_start(std::string_view text) {
  if (text == "earliest") return shmq::StartAt::earliest();
  if (text == "latest") return shmq::StartAt::latest();
  if (const auto seq = parse_count(text)) return shmq::StartAt::at({*seq});
  if (text.starts_with('-')) {
    const auto ago = parse_time(text.substr(1));
    if (!ago) return std::nullopt;
    return shmq::StartAt::since(std::chrono::system_clock::now() - *ago);
  }
  const auto moment = parse_moment(text);
  return moment ? std::optional{shmq::StartAt::since(*moment)} : std::nullopt;
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
