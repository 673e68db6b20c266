// SPDX-License-Identifier: Apache-2.0
#include "base/clock.hpp"

#include <cstdio>
#include <ctime>

namespace shmq::base {
namespace {

std::uint64_t read_clock(clockid_t id) noexcept {
  timespec now{};
  clock_gettime(id, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000ULL +
         static_cast<std::uint64_t>(now.tv_nsec);
}

// The offset of this time namespace's monotonic clock against the initial one; 0 where there is no
// such thing. Read once: a process cannot change its own time namespace while it has threads.
std::int64_t read_monotonic_offset_ns() noexcept {
  std::FILE* file = std::fopen("/proc/self/timens_offsets", "re");
  if (file == nullptr) return 0;
  char name[32];
  long long seconds = 0;
  long long nanoseconds = 0;
  std::int64_t offset = 0;
  while (std::fscanf(file, "%31s %lld %lld", name, &seconds, &nanoseconds) == 3) {
    if (name[0] == 'm' || name[0] == '1') offset = seconds * 1'000'000'000LL + nanoseconds;
  }
  std::fclose(file);
  return offset;
}

std::uint64_t coarse_ns() noexcept {
  static const std::int64_t offset = read_monotonic_offset_ns();
  return read_clock(CLOCK_MONOTONIC_COARSE) - static_cast<std::uint64_t>(offset);
}
std::uint64_t monotonic_ns() noexcept { return read_clock(CLOCK_MONOTONIC); }
std::uint64_t realtime_ns() noexcept { return read_clock(CLOCK_REALTIME); }

}  // namespace

const Clock system_clock{coarse_ns, monotonic_ns, realtime_ns};
const Clock* clock = &system_clock;

}  // namespace shmq::base
