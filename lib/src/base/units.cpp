// SPDX-License-Identifier: Apache-2.0
//
// Numbers are read in the C locale, wholly or not at all.
#include <array>
#include <charconv>
#include <cmath>
#include <shmq/units.hpp>

namespace shmq {
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

}  // namespace

std::optional<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t exact = 0;  // all 64 bits, not a double's 53
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), exact);
  if (error == std::errc{} && rest == text.data() + text.size()) return exact;
  const auto value = parse_with_unit(text, size_units);
  if (!value || *value >= 9.2e18) return std::nullopt;
  return static_cast<std::uint64_t>(std::llround(*value));
}

std::optional<std::chrono::nanoseconds> parse_time(std::string_view text) {
  const auto value = parse_with_unit(text, time_units);
  if (!value || *value > 100.0 * 366 * 86400e9) return std::nullopt;
  return std::chrono::nanoseconds{std::llround(*value)};
}

}  // namespace shmq
